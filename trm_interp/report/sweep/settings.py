"""Settings of `sweep`. Read by the command line; needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trm_interp.report.settings import RETRY_HELP
from trm_interp.runtime.settings import argument, positive, setting

RUNS = {"dry_run": (False,)}


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A table of jobs, each a command line."""

    table: Path = argument("YAML file of jobs: seeds x settings x presets, and what needs what")
    out: Path | None = setting(
        None,
        "folder of the jobs' folders; jobs done there are skipped",
        otherwise="as in the table",
    )
    only: str | None = setting(
        None, "comma-separated jobs or rows of the table, with what they need", otherwise="all"
    )
    executor: Literal["local", "slurm"] | None = setting(
        None, "this machine, or a Slurm cluster", otherwise="as in the table, or local"
    )
    workers: int | None = setting(
        None,
        "jobs at a time on this machine",
        otherwise="as in the table, or 2",
        most=1024,
        needs=RUNS,
    )
    retry_failed: bool = setting(False, RETRY_HELP, needs=RUNS)
    dry_run: bool = setting(
        False, "only print what would be run, with the time and size that are expected"
    )

    def __post_init__(self) -> None:
        positive(self, "workers")
