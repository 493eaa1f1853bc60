"""`trm-interp sweep`: the jobs of a table, on this machine or a cluster."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from trm_interp.figures.index import INDEX, Entry, index_page, of_table
from trm_interp.report.sweep.engine import AGAIN, HIDDEN, run_jobs
from trm_interp.report.sweep.estimates import Estimate, duration, estimates
from trm_interp.report.sweep.jobs import Job
from trm_interp.report.sweep.machines import LocalMachine, Machine, SlurmMachine
from trm_interp.report.sweep.settings import SweepConfig
from trm_interp.report.sweep.table import Grammar, Table, read_table
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Run, Tell, quiet

TABLE = "jobs.csv"
OWN = (TABLE, INDEX, "*-asked.json", "*-log.txt", f"{HIDDEN}/")
WORKERS = 2


@dataclass(frozen=True)
class Swept:
    """`plan`: lines of what was to be done, for a run that does no more; `failed`: why each job
    that failed did."""

    out: Path
    n_jobs: int
    plan: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run(
    config: SweepConfig, grammar: Grammar, tell: Tell = print, progress: Update = quiet
) -> Swept:
    """Run the jobs that are not done yet, or with `config.dry_run` only say which they are.

    UserError for a table that cannot be run, before anything is.
    """
    whole = read_table(config.table, grammar, config.out)
    table = replace(whole, jobs=_chosen(whole, config.only))
    if config.dry_run:
        return Swept(table.out, len(table.jobs), _plan(table, estimates(whole)))
    with Run(
        table.out,
        "sweep",
        OWN,
        resume=True,
        resumable=False,  # it always resumes
        tell=tell,
        progress=progress,
    ) as work:
        failed = run_jobs(
            table.jobs,
            "",
            tell,
            lambda done, of: work.advance(done // 60, of // 60),  # a minute a job
            machine=_machine(table, config),
            retry_failed=config.retry_failed,
        )
        ran = {job.name for job in table.jobs}
        jobs = _jobs_table(whole, ran, failed)
        work.write_text(TABLE, jobs.to_csv(index=False))
        work.write_text(INDEX, _index(whole, config, jobs))
    return Swept(table.out, len(table.jobs), failed=failed)


def _chosen(table: Table, only: str | None) -> list[Job]:
    """The jobs and rows that are named, with those that they need."""
    if only is None:
        return table.jobs
    jobs, wanted = {job.name: job for job in table.jobs}, list[str]()
    for name in (part.strip() for part in only.split(",")):
        of_row = [job for job, row in table.row_of.items() if row == name]
        if name not in jobs and not of_row:
            raise UserError(f"no job {name!r}; there are {', '.join(jobs)}")
        wanted += [name] if name in jobs else of_row
    for name in wanted:  # grows while it is read
        wanted += [need for need in jobs[name].after if need not in wanted]
    return [job for job in table.jobs if job.name in wanted]


def _machine(table: Table, config: SweepConfig) -> Callable[[Path], Machine]:
    if (config.executor or table.executor) == "slurm":
        return lambda hidden: SlurmMachine(hidden, table.slurm)
    workers = config.workers or table.workers or WORKERS
    return lambda hidden: LocalMachine(hidden, workers, table.gpus)


def _plan(table: Table, expected: Mapping[str, Estimate]) -> list[str]:
    """What would be run, a line a job, and the sum of what is known."""
    lines = list[str]()
    done = {job.name for job in table.jobs if job.is_done("")}
    for job in table.jobs:
        if not set(job.after) <= done:
            done.discard(job.name)
        failed = job.failed_before("")
        state = "done" if job.name in done else "failed before" if failed else "to do"
        told = state if state == "done" else f"{state}, {expected[job.name]}"
        needs = f", needs {', '.join(job.after)}" if job.after else ""
        lines.append(f"{job.name}: {told}{needs}")
        lines.append(f"    {shlex.join(['trm-interp', *job.words])}")
    left = [expected[job.name] for job in table.jobs if job.name not in done]
    times = [one.seconds for one in left if one.seconds is not None]
    sizes = [one.bytes for one in left if one.bytes is not None]
    lines.append(
        f"to do: {counted(len(left), 'job')} of {len(table.jobs)}; "
        f"{_sum(times, len(left), duration)} and {_sum(sizes, len(left), _megabytes)}"
    )
    return lines


def _sum(values: Sequence[float], n: int, shown: Callable[[float], str]) -> str:
    """What is known together, and of how many."""
    if not values:
        return "time unknown" if shown is duration else "size unknown"
    unknown = f", {n - len(values)} unknown" if len(values) < n else ""
    return f"{shown(sum(values))} ({len(values)} known{unknown})" if unknown else shown(sum(values))


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _jobs_table(table: Table, ran: set[str], failed: dict[str, str]) -> pd.DataFrame:
    """A row a job: what it was, how it ended, what it took. Jobs that were not asked for are as
    they were."""
    rows = []
    for job in table.jobs:
        record = job.record
        problem = failed.get(job.name) if job.name in ran else job.failed_before("")
        done = problem is None and (job.name in ran or job.is_done(""))
        rows.append(
            {
                "job": job.name,
                "row": table.row_of[job.name],
                "needs": " ".join(job.after),
                "state": "done" if done else "failed" if problem else "to do",
                "seconds": record.seconds if record and done else None,
                "bytes": record.bytes if record and done else None,
                "problem": problem or "",
                "command": shlex.join(["trm-interp", *job.words]),
            }
        )
    return pd.DataFrame(rows)


def _index(table: Table, config: SweepConfig, jobs: pd.DataFrame) -> str:
    """The page of the folder: of every job its page, its folder, or else its log."""

    def place(job: Job) -> str | None:
        if job.out.is_dir():
            return f"{job.name}/{INDEX if (job.out / INDEX).exists() else ''}"
        return job.log.name if job.log.exists() else None

    places = [(place(job), shlex.join(job.words)) for job in table.jobs]
    shown = [Entry(at, words) for at, words in places if at is not None]
    failed = list(jobs["state"]).count("failed")
    title = f"The jobs of {config.table.name}"
    lines = [f"{counted(len(jobs), 'job')}, {failed} failed."]
    command = shlex.join(["trm-interp", "sweep", str(config.table), "--out", str(table.out)])
    return index_page(title, command, lines, shown, [of_table(TABLE, jobs)], "Jobs")


def lines(swept: Swept) -> list[str]:
    """The plan, or where the results are."""
    if swept.plan:
        return swept.plan
    return [f"wrote {swept.out / TABLE} and the folders of {counted(swept.n_jobs, 'job')}"]


def fault(swept: Swept) -> str | None:
    """Which jobs failed."""
    if not swept.failed:
        return None
    return f"{', '.join(swept.failed)} failed; {AGAIN}"
