"""`trm-interp figures`: every figure and table of the seed paper for one checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.figures.look import Look
from trm_interp.report.plan import FIGURES, Plan
from trm_interp.report.recipes import Request
from trm_interp.report.settings import FiguresConfig
from trm_interp.report.sweep.engine import AGAIN
from trm_interp.runtime.progress import Update
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.runtime.settings import command_line


@dataclass(frozen=True)
class Made:
    """`plan`: lines of what was to be done, for a run that does no more; `failed`: jobs by name."""

    out: Path
    plan: list[str]
    n_jobs: int
    failed: list[str]


def run(config: FiguresConfig, tell: Tell = print, progress: Update = quiet) -> Made:
    """Run all jobs that are not done yet, or with `config.plan` only say which they are."""
    plan = plan_of(config)
    if not (config.ckpt and config.puzzles):
        tell(f"taking {plan.checkpoint.path} and {plan.puzzles}")
    for line in plan.skipped:
        tell(f"skipped {line}")
    lines = list(plan.lines())
    if config.plan:
        return Made(config.out, lines, len(plan.jobs), [])
    for line in lines:
        tell(line)
    failed = plan.run(tell, progress, config.workers, retry_failed=config.retry_failed)
    return Made(config.out, [], len(plan.jobs), list(failed))


def plan_of(config: FiguresConfig) -> Plan:
    """The jobs that are asked for."""
    request = Request(
        config.ckpt,
        config.puzzles,
        config.out,
        config.seed,
        config.device,
        Look.of(config),
        config.scale,
        config.skip_bad,
        command_line("figures", config),
    )
    return Plan(request, config.only.split(",") if config.only else FIGURES)


def lines(made: Made) -> list[str]:
    """The plan, or where the results are."""
    if made.plan:
        return made.plan
    return [f"wrote {made.out / 'claims.csv'} and the folders of {made.n_jobs} jobs"]


def fault(made: Made) -> str | None:
    """Which jobs failed."""
    if not made.failed:
        return None
    return f"{', '.join(made.failed)} failed; {AGAIN}"
