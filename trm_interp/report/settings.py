"""Settings of `figures`, `compare`, `cost` and `push`. Read by the command line; needs no torch."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from trm_interp.figures.look import (
    ON_PAPER,
    SELF_CONTAINED_HELP,
    STYLE_HELP,
    WIDTH_HELP,
    Style,
    Width,
)
from trm_interp.runtime.hub import repository
from trm_interp.runtime.settings import argument, positive, required, setting
from trm_interp.subjects.settings import (
    CKPT_HELP,
    PUZZLES_HELP,
    SHIPPED,
    SHIPPED_PUZZLES,
    STATIC_HELP,
    Device,
)

RETRY_HELP = "also run jobs that failed before"


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """All figures and tables of one checkpoint."""

    ckpt: str = setting("", CKPT_HELP, otherwise=SHIPPED)
    out: Path = required("folder; jobs that are done there are skipped")
    puzzles: Path | None = setting(None, PUZZLES_HELP, otherwise=SHIPPED_PUZZLES)
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    only: str | None = setting(
        None,
        "comma-separated jobs, such as fig3,table2; also lens, probes and fig2-answer",
        otherwise="those of the paper",
    )
    scale: float = setting(
        1.0, "factor on the numbers of puzzles and starts; below 1 for a trial", most=1000
    )
    workers: int = setting(2, "jobs at a time", most=1024, needs={"plan": (False,)})
    seed: int = setting(0, "seed of every random choice")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    static: bool = setting(True, STATIC_HELP)
    style: Style = setting("screen", STYLE_HELP)
    width: Width = setting("single", WIDTH_HELP, needs=ON_PAPER)
    self_contained: bool = setting(False, SELF_CONTAINED_HELP)
    retry_failed: bool = setting(False, RETRY_HELP, needs={"plan": (False,)})
    plan: bool = setting(False, "only print what would be done, with times and sizes")

    def __post_init__(self) -> None:
        positive(self, "workers")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale must be above 0 and finite, got {self.scale}")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The claims of the seed paper, judged on several subjects and over them."""

    subjects: list[str] = argument(
        "checkpoints, each with the test puzzles that ship for it, or CHECKPOINT@PUZZLES; "
        "NAME=CHECKPOINT... gives it a name of your own"
    )
    out: Path = required("folder of tables, and of a folder a subject; what is done is skipped")
    only: str | None = setting(
        None,
        "comma-separated claims, of T1, T2, T2b (tables); F1, F1b, S1, S1b (features); F2 to F5, "
        "F5b (landscape); C1 (starts); W1, W2 (failures wander)",
        otherwise="those that need neither SAE nor search",
    )
    sae: bool = setting(
        False, "also the claims about features (F1, F1b, S1, S1b)", needs={"only": None}
    )
    search: bool = setting(
        False, "also the claims about search at test time (T2, T2b)", needs={"only": None}
    )
    scale: float = setting(
        1.0, "factor on the numbers of puzzles and starts; 0.1 for a trial", most=1000
    )
    scales: str | None = setting(
        None,
        "comma-separated NAME=FACTOR for subjects with a factor of their own, such as hard=0.25",
        otherwise="that of --scale",
    )
    workers: int = setting(2, "studies at a time", most=1024, needs={"plan": (False,)})
    seed: int = setting(0, "seed of every random choice")
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    static: bool = setting(False, STATIC_HELP)
    style: Style = setting("screen", STYLE_HELP)
    width: Width = setting("single", WIDTH_HELP, needs=ON_PAPER)
    self_contained: bool = setting(False, SELF_CONTAINED_HELP)
    retry_failed: bool = setting(False, RETRY_HELP, needs={"plan": (False,)})
    plan: bool = setting(False, "only print what would be done, with times and sizes")

    def __post_init__(self) -> None:
        positive(self, "workers")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale must be above 0 and finite, got {self.scale}")
        if not self.subjects:
            raise ValueError("subjects: name at least one checkpoint")


LICENCE = re.compile(r"^[a-z0-9][a-z0-9.+-]*$")
LICENCE_HELP = "licence that you give it, as the hub names it: mit, apache-2.0, cc-by-4.0, other"
PUSH_HELP = "repository, hf://owner/name (made private where it is new), or file:///folder"


def check_push(url: str, licence: str) -> None:
    """ValueError where one of them cannot be used; before any work is done for it."""
    if not licence:
        raise ValueError("licence must be given for a push: mit, apache-2.0, cc-by-4.0, other")
    if not LICENCE.match(licence):
        raise ValueError(f"licence must be a name such as apache-2.0, got {licence[:40]!r}")
    repository(url, "model")


@dataclass(frozen=True, kw_only=True)
class PushAtEnd:
    """Sharing what a command writes when it is finished."""

    push: str = setting("", f"share it at the end: {PUSH_HELP}", otherwise="no")
    licence: str = setting("", LICENCE_HELP, otherwise="none", needs={"push": True})

    def __post_init__(self) -> None:
        if self.push:
            check_push(self.push, self.licence)


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """A command line whose work is counted, not done."""

    line: str = argument('a command line in quotes, such as "basins --starts 100000"')
    tflops: float | None = setting(
        None,
        "1e12 floating-point operations a second of the machine that it is for",
        otherwise="timed here on one batch",
    )

    def __post_init__(self) -> None:
        if self.tflops is not None and not (math.isfinite(self.tflops) and self.tflops > 0):
            raise ValueError(f"tflops must be finite and above 0, got {self.tflops}")


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """A store, an SAE or a checkpoint that goes to a repository."""

    folder: Path = argument("a store, an SAE or a checkpoint of ours")
    to: str = argument(PUSH_HELP)
    licence: str = setting("", LICENCE_HELP, otherwise="none: must be given")

    def __post_init__(self) -> None:
        check_push(self.to, self.licence)
