"""`trm-interp figures`: every figure and table of the seed paper for one checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import typer

from trm_interp.cli.options import command, say
from trm_interp.core.config import positive, required, setting
from trm_interp.subjects.settings import (
    DEFAULT_CKPT_HELP,
    DEFAULT_PUZZLES_HELP,
    STATIC_HELP,
    Device,
)


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """All figures and tables of one checkpoint."""

    ckpt: str = setting("", DEFAULT_CKPT_HELP)
    out: Path = required("folder; what is done there is not done again")
    puzzles: Path | None = setting(None, DEFAULT_PUZZLES_HELP)
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    only: str | None = setting(
        None,
        "comma-separated parts, such as fig3,table2; default: those of the paper; lens, probes and "
        "fig2-z_H are there as well",
    )
    scale: float = setting(
        1.0, "of the numbers of puzzles and starts; below 1 for a trial", most=1000
    )
    workers: int = setting(2, "parts at a time", most=1024)
    seed: int = setting(0, "of every random choice")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    static: bool = setting(True, STATIC_HELP)
    plan: bool = setting(False, "only print what would be done, with times and sizes")

    def __post_init__(self) -> None:
        positive(self, "workers")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale must be above 0 and finite, got {self.scale}")


def register(app: typer.Typer) -> None:
    """Add figures."""

    @command(
        app,
        "figures",
        FiguresConfig,
        examples="""
        trm-interp figures --out runs/figures --plan
        trm-interp figures --ckpt artifacts/trm-sudoku9 --out runs/figures9
        trm-interp figures --out runs/figures --only fig3,table2 --scale 0.1
        """,
    )
    def figures(config: FiguresConfig) -> None:
        """Tables 1 and 2, figures 1 to 5 and the claims table: HTML and numbers, PNG, PDF.

        Every part is a command of its own, run in a folder of its own; the same command again goes
        on with what is missing.
        """
        from trm_interp.report.plan import FIGURES, Plan, Request
        from trm_interp.runtime.errors import UserError
        from trm_interp.runtime.progress import progress

        request = Request(
            config.ckpt,
            config.puzzles,
            config.out,
            config.seed,
            config.device,
            config.static,
            config.scale,
            config.skip_bad,
        )
        plan = Plan(request, config.only.split(",") if config.only else FIGURES)
        if not (config.ckpt and config.puzzles):
            say(f"taking {plan.checkpoint.path} and {plan.puzzles}")
        for line in plan.skipped:
            say(f"skipped {line}")
        for line in plan.lines():
            print(line)
        if config.plan:
            return
        with progress("expected work", "s") as update:
            failed = plan.run(say, update, config.workers)
        print(f"wrote {config.out / 'claims.csv'} and the folders of {len(plan.jobs)} parts")
        if failed:
            raise UserError(f"{', '.join(failed)} failed; the same command tries them again")
