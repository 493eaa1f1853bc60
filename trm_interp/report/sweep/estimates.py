"""What jobs are expected to take: by a plan of their own, or as others of their row have taken."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from trm_interp.report.sweep.jobs import Job
from trm_interp.report.sweep.table import Line, Table
from trm_interp.runtime.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """None for what nobody knows. `source`: where it is from, in words."""

    seconds: float | None = None
    bytes: float | None = None
    source: str = ""

    def __str__(self) -> str:
        time = "time unknown" if self.seconds is None else f"about {duration(self.seconds)}"
        size = "size unknown" if self.bytes is None else f"{self.bytes / 1e6:.1f} MB"
        return f"{time}, {size}" + (f" ({self.source})" if self.source else "")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(8), duration(600), duration(9000)
    ('8.0 s', '10.0 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def estimates(table: Table) -> dict[str, Estimate]:
    """What every job is expected to take."""
    history: dict[str, list[tuple[float, int]]] = {}
    for job in table.jobs:
        record = job.record
        if record and record.answered and record.seconds is not None:
            taken = (record.seconds, record.bytes or 0)
            history.setdefault(_kind(table, job), []).append(taken)
    return {job.name: _estimate(job, table, history) for job in table.jobs}


def _kind(table: Table, job: Job) -> str:
    """Jobs of a row take about the same; what joins shards is no shard."""
    return f"{table.row_of[job.name]} {job.words[0]}"


def _estimate(job: Job, table: Table, history: Mapping[str, list[tuple[float, int]]]) -> Estimate:
    if taken := history.get(_kind(table, job)):
        seconds, sizes = zip(*taken, strict=True)
        source = f"as {len(taken)} of {table.row_of[job.name]} took"
        return Estimate(median(seconds), median(sizes), source)
    line = table.lines[job.name]
    plan = PLANS.get(line.command)
    if plan is None or "--shard" in job.words:
        return Estimate()
    try:
        return plan(line)
    except (UserError, OSError, ValueError):  # such as a checkpoint that a job before it makes
        return Estimate()


def _of_figures(line: Line) -> Estimate:
    from trm_interp.report.paper import plan_of

    return _of_jobs(plan_of(line.settings).jobs)


def _of_compare(line: Line) -> Estimate:
    from trm_interp.report.compare import chosen_claims
    from trm_interp.report.compare_subjects import open_subjects

    needs = list(dict.fromkeys(need for one in chosen_claims(line.settings) for need in one.needs))
    subjects = open_subjects(line.settings, needs, lambda line: None)
    return _of_jobs([job for one in subjects for job in one.plan.jobs])


def _of_jobs(jobs: list[Job]) -> Estimate:
    seconds, size = sum(60 * job.minutes for job in jobs), sum(1e6 * job.megabytes for job in jobs)
    return Estimate(seconds, size, "its plan, on one CPU core")


def _of_collect(line: Line) -> Estimate:
    import torch

    from trm_interp.recording.collect import sites_of
    from trm_interp.recording.positions import kept_positions
    from trm_interp.recording.store import estimate_bytes
    from trm_interp.subjects.opening import open_both

    config, cpu = line.settings, torch.device("cpu")
    puzzles = Path(config.puzzles) if config.puzzles else None
    limit, quiet = config.limit, lambda line: None
    checkpoint, found = open_both(config.ckpt, puzzles, cpu, limit, config.skip_bad, quiet)
    model, steps = checkpoint.model.config, config.kept_steps
    positions = kept_positions(config.positions, found, model.prefix)
    sites = sites_of(model, config.sites, steps[-1] + 1)
    arrays = [site.select(steps, positions) for site in sites]
    return Estimate(None, estimate_bytes(arrays, len(found)), "its plan")


PLANS: dict[str, Callable[[Line], Estimate]] = {
    "figures": _of_figures,
    "compare": _of_compare,
    "collect": _of_collect,
}
