"""`trm-interp compare`: the claims of the seed paper on several subjects, and over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.table import Table

from trm_interp.figures.index import INDEX, Entry, index_page, of_table
from trm_interp.report.claims import CLAIMS, Claim, judge_all
from trm_interp.report.compare_page import page
from trm_interp.report.compare_subjects import Subject, open_subjects
from trm_interp.report.compare_tables import (
    effects_table,
    latex,
    over_subjects,
    over_table,
    verdicts_table,
)
from trm_interp.report.effects import NOT_MEASURED
from trm_interp.report.settings import CompareConfig
from trm_interp.report.sweep.engine import AGAIN
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Run, Tell, quiet
from trm_interp.runtime.settings import command_line

SAE, SEARCH = {"fig1", "sae"}, {"table2"}  # results that take long
OWN = ("effects.csv", "over.csv", "verdicts.csv", "verdicts.html", "verdicts.tex")
OWN = (*OWN, "compare.json", INDEX)


@dataclass(frozen=True)
class Compared:
    """`verdicts`: the matrix; `plan`: lines of what was to be done, for a run that does no more;
    `failed`: studies that failed, by subject; `unmeasured`: claims that were not measured on a
    subject, and why."""

    out: Path
    verdicts: pd.DataFrame
    plan: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)


def run(config: CompareConfig, tell: Tell = print, progress: Update = quiet) -> Compared:
    """Run the studies that are not done yet, judge every subject and all of them together, or with
    `config.plan` only say what would be done.

    UserError for subjects and claims that do not exist, and where the folder holds anything else.
    """
    claims = chosen_claims(config)
    jobs = list(dict.fromkeys(job for claim in claims for job in claim.needs))
    subjects = open_subjects(config, jobs, tell)
    left_out = what_is_left_out(config, claims)
    plan = [f"{one.name}: {line}" for one in subjects for line in one.plan.lines()]
    plan.append(_work_left(subjects))
    if config.plan:
        return Compared(config.out, pd.DataFrame(), [*plan, *filter(None, [left_out])])
    for line in (*plan, *filter(None, [left_out])):
        tell(line)
    with Run(
        config.out,
        "compare",
        OWN,
        resume=True,
        resumable=False,  # it always resumes
        tell=tell,
        progress=progress,
    ) as work:
        _run_studies(subjects, config, work)
        for one in subjects:
            _judge(one, claims)
        verdicts = _write(subjects, left_out, command_line("compare", config), work)
    failed = [f"{one.name}: {job}" for one in subjects for job in one.failed]
    return Compared(config.out, verdicts, failed=failed, unmeasured=_unmeasured(subjects))


def chosen_claims(config: CompareConfig) -> list[Claim]:
    """Those of `only`, or those whose results do not take long, and with `sae` and `search` more.
    UserError for one that does not exist."""
    by_id = {claim.id: claim for claim in CLAIMS}
    if config.only is not None:
        only = [name.strip() for name in config.only.split(",")]
        if unknown := [name for name in only if name not in by_id]:
            raise UserError(f"no claim {unknown[0]!r}; there are {', '.join(by_id)}")
        return [claim for claim in CLAIMS if claim.id in only]
    left = (set() if config.sae else SAE) | (set() if config.search else SEARCH)
    return [claim for claim in CLAIMS if not left & set(claim.needs)]


def what_is_left_out(config: CompareConfig, claims: Sequence[Claim]) -> str:
    """A line on the claims that are measured with options only; empty where there are none."""
    if config.only is not None:
        return ""
    parts = []
    for option, results in (("--sae", SAE), ("--search", SEARCH)):
        left = [claim.id for claim in CLAIMS if claim not in claims and results & set(claim.needs)]
        if left:
            parts.append(f"{', '.join(left)} ({option})")
    return f"left out unless measured before: {'; '.join(parts)}" if parts else ""


def _run_studies(subjects: Sequence[Subject], config: CompareConfig, work: Run) -> None:
    """All jobs, subject by subject, with one progress over all of them in expected seconds."""
    seconds = [round(60 * sum(job.minutes for job in one.plan.jobs)) for one in subjects]
    done = [_seconds_done(one) for one in subjects]
    total = sum(seconds)
    work.advance(sum(done), total)
    for i, one in enumerate(subjects):
        others = sum(done) - done[i]

        def advance(spent: int, of: int, others: int = others) -> None:
            work.advance(others + spent, total)

        def told(line: str, name: str = one.name) -> None:
            work.tell(f"{name}: {line}")

        work.note(one.name)
        one.failed = one.plan.run(told, advance, config.workers, retry_failed=config.retry_failed)
        done[i] = seconds[i]


def _seconds_done(subject: Subject) -> int:
    """Of the jobs that are done before, as `run_jobs` counts them."""
    identity = subject.plan.identity
    return round(60 * sum(job.minutes for job in subject.plan.jobs if job.is_done(identity)))


def _work_left(subjects: Sequence[Subject]) -> str:
    """What is to be done of all subjects, in words."""
    seconds = sum(60 * job.minutes for one in subjects for job in one.plan.jobs)
    left = seconds - sum(map(_seconds_done, subjects))
    return f"all {counted(len(subjects), 'subject')}: {left / 60:.1f} core minutes to do"


def _judge(subject: Subject, claims: Sequence[Claim]) -> None:
    """The chosen claims, and those whose results are there from before."""
    ids = {claim.id for claim in claims}
    evidence = subject.plan.evidence(subject.plan.results())
    subject.judged = [
        (claim, judged)
        for claim, judged in judge_all(evidence)
        if claim.id in ids or judged.effects
    ]


def _unmeasured(subjects: Sequence[Subject]) -> list[str]:
    """A line a claim and subject without a verdict."""
    return [
        f"{claim.id} was not measured on {one.name}: {judged.row['why']}"
        for one in subjects
        for claim, judged in one.judged
        if judged.row["verdict"] == NOT_MEASURED
    ]


def _write(subjects: Sequence[Subject], left_out: str, made_by: str, work: Run) -> pd.DataFrame:
    """All tables; the matrix of verdicts is returned."""
    claims = over_subjects(subjects)
    verdicts = verdicts_table(subjects, claims)
    work.write_text("effects.csv", effects_table(subjects).to_csv(index=False))
    work.write_text("over.csv", over_table(claims).to_csv(index=False))
    work.write_text("verdicts.csv", verdicts.to_csv(index=False))
    work.write_text("verdicts.tex", latex(subjects, claims))
    work.write_text("verdicts.html", page(subjects, claims, left_out))
    work.write_text(INDEX, _index(subjects, verdicts, made_by))
    work.finish(
        {
            "subjects": [
                one.facts | {"checkpoint_sha256": one.checkpoint.sha256, "failed": one.failed}
                for one in subjects
            ],
            "left_out": left_out,
        },
        "compare.json",
    )
    return verdicts


def _index(subjects: Sequence[Subject], verdicts: pd.DataFrame, made_by: str) -> str:
    """The page of the folder."""
    sentence = "Every claim on every subject and over all, with numbers, commands and meanings."
    tables = [
        of_table("verdicts.csv", verdicts),
        Entry("effects.csv", "Every effect of every claim and subject, with its 95 % interval."),
        Entry("over.csv", "Every effect over checkpoints, and on which side they lie."),
    ]
    shown = [Entry("verdicts.html", sentence)]
    shown += [Entry(f"{one.name}/{INDEX}", f"The studies of {one.name}.") for one in subjects]
    return index_page("The claims over checkpoints", made_by, [], shown, tables)


def lines(compared: Compared) -> list[str | Table]:
    """The plan, or the matrix."""
    if compared.plan:
        return [*compared.plan]
    shown = compared.verdicts.drop(columns=["claim", "published"], errors="ignore")
    table = Table(*map(str, shown.columns))
    for row in shown.itertuples(index=False):
        table.add_row(*map(str, row))
    return [
        table,
        *compared.unmeasured,
        f"wrote {compared.out / 'verdicts.html'}, .csv and .tex, effects.csv, over.csv",
    ]


def fault(compared: Compared) -> str | None:
    """Which studies failed."""
    if not compared.failed:
        return None
    return f"{', '.join(compared.failed)} failed; {AGAIN}"
