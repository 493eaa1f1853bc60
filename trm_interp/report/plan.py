"""What it takes to make every figure and table of the seed paper for one checkpoint."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.estimates import with_span
from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.figures.index import INDEX, Entry, index_page, of_table
from trm_interp.figures.latex import latex_table
from trm_interp.figures.search import NAMES, shares_figure
from trm_interp.figures.style import write_html
from trm_interp.report.claims import claims_table, effects_table
from trm_interp.report.evidence import Evidence
from trm_interp.report.recipes import Recipes, Request, shown_by
from trm_interp.report.sweep.engine import run_jobs
from trm_interp.report.sweep.jobs import Job, with_bases
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of, write_text
from trm_interp.runtime.limits import counted
from trm_interp.runtime.runs import Run
from trm_interp.sae.results import FeaturesSummary, SAEMeasures
from trm_interp.search.output import read_sidecar
from trm_interp.search.results import SearchSummary
from trm_interp.studies.settings import CONFIGS as STUDIES
from trm_interp.subjects.opening import open_both

LANDSCAPE = (
    *("table1", "fig2", "fig3", "fig4", "fig5"),
    *("fig2-answer", "settling", "stability", "origins", "lens", "probes"),
)
FIGURES = (
    *("table1", "table2", "fig1", "fig2", "fig3", "fig4", "fig5"),
    *("settling", "stability", "origins", "sae"),
)
ROLE = "-answer"  # of a job's name, whose folder has the name of the state instead
MOST = 256  # puzzles that are opened to check that they fit
OWN = (
    *("claims.csv", "claims.tex"),
    *("effects.csv", "effects.tex"),
    "plan.json",
    INDEX,
    "*-asked.json",
    "*-log.txt",
)  # next to the jobs' folders

CLAIMS_HEAD = {"id": "", "claim": "claim", "published": "published", "ours": "ours"}
CLAIMS_HEAD |= {"interval": "95 % interval", "n": "n", "verdict": "verdict"}
CLAIMS_WIDE = {"claim": 0.26, "published": 0.16, "ours": 0.14, "interval": 0.14}
EFFECTS_HEAD = {"claim": "", "name": "effect", "estimate": "estimate", "low": "low"}
EFFECTS_HEAD |= {"high": "high", "n": "n", "null": "null"}
EFFECTS_WIDE = {"name": 0.4}


class Plan:
    """The requested jobs with those that they need, and their results."""

    def __init__(self, request: Request, only: Sequence[str]) -> None:
        self.request = request
        cpu, quiet = torch.device("cpu"), lambda line: None
        opened = open_both(request.ckpt, request.puzzles, cpu, MOST, request.skip_bad, quiet)
        self.checkpoint: Checkpoint = opened[0]
        self.puzzles = Path(opened[1].source)
        self.n_puzzles, self.task = len(opened[1]), opened[1].task
        self.skipped = opened[1].skipped
        recipes = Recipes(
            request, self.checkpoint.model, self.checkpoint.path, self.puzzles, self.n_puzzles
        )
        self.all = with_bases(recipes.all())
        jobs = {job.name: job for job in self.all}
        only = [name.replace(ROLE, f"-{self.checkpoint.model.answer}") for name in only]
        if unknown := [name for name in only if name not in jobs]:
            raise UserError(f"no job {unknown[0]!r}; there are {', '.join(jobs)}")
        wanted = list(only)
        for name in wanted:  # grows while it is read
            wanted += [need for need in jobs[name].after if need not in wanted]
        self.jobs = [job for name, job in jobs.items() if name in wanted]

    @property
    def identity(self) -> str:
        """What the jobs' results depend on besides their words."""
        file = self.puzzles
        data = sha256_of(file) if file.is_file() else str(file)
        return f"checkpoint {self.checkpoint.sha256}, puzzles {data}"

    def lines(self) -> list[str]:
        """The plan for people: a line a job, and the sum."""
        each = [
            f"{job.name:10} about {job.minutes:5.1f} min on one CPU core, {job.megabytes:6.0f} MB"
            + self._state(job)
            for job in self.jobs
        ]
        todo = [job for job in self.jobs if not job.is_done(self.identity)]
        minutes, size = sum(j.minutes for j in todo), sum(j.megabytes for j in todo)
        return [*each, f"to do: {minutes:.1f} core minutes, {size / 1000:.2f} GB"]

    def _state(self, job: Job) -> str:
        if job.is_done(self.identity):
            return ", done"
        return ", failed before" if job.failed_before(self.identity) else ""

    def run(
        self,
        tell: Callable[[str], None],
        progress: Callable[[int, int], None],
        workers: int,
        extra: Mapping[str, Any] | None = None,
        retry_failed: bool = True,
    ) -> dict[str, str]:
        """Runs what is not done, writes claims.csv and effects.csv; why each job that failed did.

        `extra`: results of other runs, by their names in `Evidence`, in place of this plan's.
        `retry_failed`: False leaves alone what failed before on the same question.

        UserError where another process does, or where the folder holds anything else.
        """
        out = self.request.out
        with Run(
            out,
            "figures",
            OWN,
            resume=True,
            resumable=False,  # it always resumes
            tell=tell,
            progress=progress,
            unmarked=_has_notes,
        ) as run:
            failed = run_jobs(
                self.jobs, self.identity, tell, run.advance, workers, retry_failed=retry_failed
            )
            results = self.results()
            if "table2" in results:
                self._draw_table2(results["table2"])
            evidence = self.evidence(results | dict(extra or {}))
            claims, effects = claims_table(evidence), effects_table(evidence)
            run.write_text("claims.csv", claims.to_csv(index=False))
            run.write_text("claims.tex", latex_table(claims, CLAIMS_HEAD, CLAIMS_WIDE))
            run.write_text("effects.csv", effects.to_csv(index=False))
            run.write_text("effects.tex", latex_table(effects, EFFECTS_HEAD, EFFECTS_WIDE))
            run.write_text(INDEX, self._index({"claims.csv": claims, "effects.csv": effects}))
            run.write_json("plan.json", {"identity": self.identity, "failed": failed})
        return failed

    def evidence(self, results: Mapping[str, Any]) -> Evidence:
        """What claims are judged by, of results by the names of their jobs."""
        return Evidence.of(results)

    def _index(self, tables: Mapping[str, pd.DataFrame]) -> str:
        """The page of the folder: tables, and of every finished job its folder, what is in it and
        its command."""
        rows = [of_table(name, table) for name, table in tables.items()]
        folders = {
            job.out: f"{shown_by(job.words[0])} {shlex.join(['trm-interp', *job.words])}"
            for job in self.all
            if not job.is_guest and job.is_done(self.identity)
        }
        out = self.request.out
        shown = [
            Entry(f"{folder.relative_to(out)}/{INDEX if (folder / INDEX).exists() else ''}", words)
            for folder, words in folders.items()
            if folder.is_relative_to(out)
        ]
        title = f"The seed paper's figures and tables for {self.checkpoint.path.name}"
        return index_page(title, self.request.made_by, [], shown, rows)

    def _draw_table2(self, search: SearchSummary) -> None:
        """The search's shares as a table and a figure."""
        settings = search.config
        what = f"K {settings.k}, sigma {settings.sigma:g} on {settings.target}"
        curves = {name: curve for name, curve in search.curves.items() if name in NAMES}
        shares = {
            f"{name}{end}": getattr(curve, field)
            for name, curve in curves.items()
            for end, field in (("", "share"), ("_low", "low"), ("_high", "high"))
        }
        steps = np.arange(settings.steps)
        shares |= {
            f"gain{end}": [getattr(one, bound) for one in search.gain]
            for end, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
        table = pd.DataFrame({"search": what, "step": steps, "n": search.n, **shares})
        folder = self.request.out / "table2"
        write_text(folder / "shares.csv", table.to_csv(index=False))
        write_text(folder / "shares.tex", search_table(table))
        title = f"{self.checkpoint.path.name}: search on {counted(search.n, 'puzzle')}"
        write_html(shares_figure(table, title), folder / "shares.html", self.request.look)

    def results(self) -> dict[str, Any]:
        """Typed results of the jobs that are done, wanted now or before, by name. UserError for a
        file that is damaged, with the next step."""
        results: dict[str, Any] = {}
        done = {job.name for job in self.all if job.is_done(self.identity)}
        for job in self.all:
            if job.name in done and set(job.after) <= done and (result := read_result(job)):
                results[job.name] = result
        return results


def search_table(table: pd.DataFrame) -> str:
    """Shares (%) of puzzles solved by step, a column a way to choose the answer, and the gain of
    best Q over the plain run in points, in LaTeX."""
    shown = pd.DataFrame({"step (from 1)": (table["step"] + 1).astype(str)})
    for name, label in NAMES.items():
        if name in table:
            low, high = table[f"{name}_low"], table[f"{name}_high"]
            cells = zip(100 * table[name], 100 * low, 100 * high, strict=True)
            shown[label] = [f"{value:.1f} [{low:.1f}, {high:.1f}]" for value, low, high in cells]
    if "gain" in table:
        points = 100 * table[["gain", "gain_low", "gain_high"]].astype(float)
        rows = points.itertuples(index=False)  # NaN where there is no interval
        shown["gain"] = [with_span(value, low, high, "+.1f") for value, low, high in rows]
    n = int(table["n"].iloc[0])
    note = f"Percent of {n} puzzles solved after a step, with 95 % intervals over puzzles."
    return latex_table(shown, note=note)


def _has_notes(folder: Path) -> bool:
    """Whether it is of an earlier version, which left no marker."""
    return any(folder.glob("*-asked.json"))


def read_result(job: Job) -> Any:
    """The typed result of a job that is done; None for a job without one, such as a store."""
    file = job.out / job.done
    advice = f"delete {job.out} and run the same command again"
    command = job.words[0]
    if command == "search":
        sidecar = read_sidecar(job.out / f"{job.name}.csv")
        return sidecar and sidecar.summary
    if command == "sae-eval":
        return SAEMeasures.read(file, advice)
    if command == "features":
        return FeaturesSummary.read(file, advice)
    if command in STUDIES:
        return import_module(f"trm_interp.studies.{command}").Result.read(file, advice)
    return None
