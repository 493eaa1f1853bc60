"""What it takes to make every figure and table of the seed paper for one checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.flops import step_flops
from trm_interp.core.models.config import TRMConfig
from trm_interp.figures.search import NAMES, shares_figure
from trm_interp.figures.style import write_html
from trm_interp.recording.collect import sites_of
from trm_interp.recording.store import estimate_bytes
from trm_interp.report.claims import claims_table
from trm_interp.report.evidence import Evidence
from trm_interp.report.jobs import Job, resting, run_jobs
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of, write_json, write_text
from trm_interp.runtime.outputs import writing
from trm_interp.sae.config import EvalSAEConfig, FeaturesConfig, TrainSAEConfig
from trm_interp.sae.results import FeaturesSummary, SAEMeasures
from trm_interp.search.config import SearchRun
from trm_interp.search.output import read_sidecar
from trm_interp.search.results import SearchSummary
from trm_interp.studies import config as studies
from trm_interp.subjects.opening import open_both
from trm_interp.subjects.settings import CollectConfig

LANDSCAPE = (
    *("table1", "fig2", "fig3", "fig4", "fig5"),
    *("fig2-z_H", "settling", "stability", "lens", "probes"),
)
FIGURES = (
    *("table1", "table2", "fig1", "fig2", "fig3", "fig4", "fig5"),
    *("settling", "stability", "sae", "wide", "deep"),
)
STORED, SAE_STORED = 256, 96  # puzzles in the store of states, and in the SAE's
MOST = 256  # puzzles that a plan looks at before it is told
WIDE = 16  # trajectories and supervision steps, against one trajectory of WIDE**2 steps
FLAGS = ("resume", "overwrite")
CONFIGS: dict[str, type] = studies.CONFIGS | {
    **{"collect": CollectConfig, "search": SearchRun, "train-sae": TrainSAEConfig},
    **{"sae-eval": EvalSAEConfig, "features": FeaturesConfig},
}
OWN = ("claims.csv", "plan.json", "*-asked.json", "*-log.txt")  # beside the jobs' folders
UNIT = TRMConfig(cells=36, vocab=8, d_model=96, multiple=32, prefix=0)  # minutes are for this one


@dataclass(frozen=True)
class Request:
    """What all jobs of a plan share."""

    ckpt: str = ""  # default the one that ships
    puzzles: Path | None = None
    out: Path = Path("runs/landscape")
    seed: int = 0
    device: str = "auto"
    static: bool = True
    scale: float = 1.0  # of the numbers of puzzles and starts; below 1 for a trial
    skip_bad: bool = False


class Plan:
    """The jobs that were asked for with those that they need, and what comes of them."""

    def __init__(self, request: Request, only: Sequence[str]) -> None:
        self.request = request
        cpu, quiet = torch.device("cpu"), lambda line: None
        opened = open_both(request.ckpt, request.puzzles, cpu, MOST, request.skip_bad, quiet)
        self.checkpoint: Checkpoint = opened[0]
        self.puzzles = Path(opened[1].source)
        self.n_puzzles = len(opened[1])
        self.skipped = opened[1].skipped
        self.all = resting(self._jobs())
        jobs = {job.name: job for job in self.all}
        if unknown := [name for name in only if name not in jobs]:
            raise UserError(f"no part {unknown[0]!r}; there are {', '.join(jobs)}")
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
        said = [
            f"{job.name:10} about {job.minutes:5.1f} min on one CPU core, {job.megabytes:6.0f} MB"
            + (", done" if job.is_done(self.identity) else "")
            for job in self.jobs
        ]
        todo = [job for job in self.jobs if not job.is_done(self.identity)]
        minutes, size = sum(j.minutes for j in todo), sum(j.megabytes for j in todo)
        return [*said, f"to do: {minutes:.0f} core minutes, {size / 1000:.1f} GB"]

    def run(
        self,
        tell: Callable[[str], None],
        progress: Callable[[int, int], None],
        workers: int,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """Runs what is not done, writes claims.csv; why each job that failed did.

        `extra`: results of other runs, by their names in `Evidence`, in place of this plan's.

        UserError where another process does, or where the folder holds anything else.
        """
        out = self.request.out
        with writing(out, "figures", OWN, resume=True, unmarked=_has_notes):
            failed = run_jobs(self.jobs, self.identity, tell, progress, workers)
            results = self.results()
            if "table2" in results:
                self._draw_table2(results["table2"])
            claims = claims_table(self.evidence(results | dict(extra or {})))
            write_text(out / "claims.csv", claims.to_csv(index=False))
            write_json(out / "plan.json", {"identity": self.identity, "failed": failed})
        return failed

    def evidence(self, results: Mapping[str, Any]) -> Evidence:
        """What claims are judged by, of results by the names of their jobs."""
        return Evidence.of(results, self.checkpoint.model.config.schedule.evaluations)

    def _draw_table2(self, search: SearchSummary) -> None:
        """The search's shares as a table and a figure."""
        settings = search.config
        what = f"K {settings.k}, sigma {settings.sigma:g} on {settings.target}"
        curves = {name: curve for name, curve in search.curves.items() if name in NAMES}
        shares = {
            f"{name}{end}": getattr(curve, part)
            for name, curve in curves.items()
            for end, part in (("", "share"), ("_low", "low"), ("_high", "high"))
        }
        steps = np.arange(settings.steps)
        table = pd.DataFrame({"search": what, "step": steps, "n": search.n, **shares})
        folder = self.request.out / "table2"
        write_text(folder / "shares.csv", table.to_csv(index=False))
        title = f"{self.checkpoint.path.name}: search on {search.n} puzzles"
        write_html(shares_figure(table, title), folder / "shares.html", self.request.static)

    def results(self) -> dict[str, Any]:
        """Typed results of the jobs that are done, wanted now or before, by name. UserError for a
        file that is damaged, with the next step."""
        results: dict[str, Any] = {}
        done = {job.name for job in self.all if job.is_done(self.identity)}
        for job in self.all:
            if job.name in done and set(job.after) <= done and (result := read_result(job)):
                results[job.name] = result
        return results

    def _jobs(self) -> list[Job]:
        out, seed = self.request.out, ("--seed", str(self.request.seed))
        device = ("--device", self.request.device)
        static = ("--static",) if self.request.static else ()
        ckpt = str(self.checkpoint.path)
        skip_bad = ("--skip-bad",) if self.request.skip_bad else ()
        on = ("--ckpt", ckpt, "--puzzles", str(self.puzzles), *device, *skip_bad)
        cost = _cost(self.checkpoint.model.config) * self.request.scale
        begin = 0.3  # minutes: imports, compilers, pictures
        last = self.checkpoint.model.config.n_layers - 1
        sae_site = f"blocks.{last}.hook_resid_post"  # the state itself, at every evaluation

        def n(full: int, least: int = 8) -> int:
            return max(least, round(full * self.request.scale))

        def job(name: str, words: Sequence[str], minutes: float, size: float, **more: Any) -> Job:
            folder = out / name
            words = (*words, "--out", str(folder))
            minutes = begin + minutes * cost
            known = {"minutes": minutes, "megabytes": size, "flags": _flags(words)}
            return Job(name, words, folder, **known, **more)

        def part(name: str, minutes: float, *words: str, **more: Any) -> Job:
            return job(name, (*words, *on, *seed, *static), minutes, 10, **more)

        def of_store(name: str, minutes: float, *words: str) -> Job:
            command, *rest = words
            words = (command, str(out / "store"), *rest, *seed, *static)
            return job(name, words, minutes, 10, after=("store",))

        def searching(name: str, minutes: float, *words: str) -> Job:
            words = ("search", "--preset", "paper", *words, *on, *seed, "--limit", str(n(200, 4)))
            words, done = (*words, "--out", str(out / name / f"{name}.csv")), f"{name}.json"
            minutes = begin + minutes * cost
            return Job(name, words, out / name, done, minutes=minutes, flags=_flags(words))

        limit = n(STORED, 16)
        store = ("collect", *on, "--limit", str(limit))
        sae_limit = n(SAE_STORED, 16)
        sae_store = ("collect", *on, "--limit", str(sae_limit), "--sites", sae_site)
        sae = out / "fig1-sae"
        measuring = ("sae-eval", str(sae), str(out / "fig1-store"), "--ckpt", ckpt, *device)
        return [
            job("store", store, 1, self._size("z_L,z_H", limit), done="store.h5"),
            part("table1", 2, "outcomes", "--limit", str(n(1000, 16))),
            of_store("fig2", 1, "trajectories"),
            of_store("fig2-z_H", 1, "trajectories", "--site", "z_H"),
            part("fig3", 15, "basins", "--starts", str(n(1000, 30))),
            part("fig4", 2, "losses", "--limit", str(n(512, 16))),
            of_store("fig5", 4, "divergence", *device),
            part("settling", 5, "settling", "--limit", str(n(256, 16))),
            part("stability", 5, "stability", "--limit", str(n(256, 16))),
            of_store("lens", 2, "lens", *device),
            of_store("probes", 3, "probes", *device),
            job(
                "fig1-store",
                sae_store,
                1,
                self._size(sae_site, sae_limit),
                done="store.h5",
            ),
            job(
                "fig1-sae",
                (
                    *("train-sae", str(out / "fig1-store"), "--site", sae_site, "--balance"),
                    *("--train-steps", str(n(700, 20)), *seed, *device),
                ),
                6,
                20,
                done="card.json",
                after=("fig1-store",),
            ),
            Job(
                "sae",
                measuring,
                sae,
                done="measures.json",
                after=("fig1-store", "fig1-sae"),
                minutes=begin + 2 * cost,
                flags=_flags(measuring),
                is_guest=True,
            ),
            job(
                "fig1",
                ("features", str(sae), str(out / "fig1-store"), *seed, *device, *static),
                3,
                10,
                after=("fig1-store", "fig1-sae"),
            ),
            searching("table2", 12),
            searching("wide", 12, "--k", str(WIDE), "--steps", str(WIDE)),
            searching("deep", 12, "--k", "1", "--steps", str(WIDE**2)),
        ]

    def _size(self, sites: str, n_puzzles: int) -> float:
        found = sites_of(self.checkpoint.model.config, sites, 16)
        return estimate_bytes(found, min(n_puzzles, self.n_puzzles)) / 1e6


def _flags(words: Sequence[str]) -> tuple[str, ...]:
    """Which of --resume and --overwrite a command has."""
    known = CONFIGS[words[0]].__dataclass_fields__
    return tuple(f"--{name}" for name in FLAGS if name in known)


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
    if command in studies.CONFIGS:
        return import_module(f"trm_interp.studies.{command}").Result.read(file, advice)
    return None


def _cost(config: TRMConfig) -> float:
    """Arithmetic of a supervision step over that of the model that minutes are given for.

    >>> _cost(UNIT)
    1.0
    """
    return step_flops(config) / step_flops(UNIT)
