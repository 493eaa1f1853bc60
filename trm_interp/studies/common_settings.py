"""What settings of studies have in common, by what they look at. Needs no torch."""

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
from trm_interp.runtime.settings import argument, in_range, positive, required, setting
from trm_interp.subjects.settings import (
    BATCH_HELP,
    CKPT_HELP,
    COMPILE_HELP,
    COMPILE_SWITCHES,
    PUZZLES_HELP,
    SHIPPED,
    SHIPPED_PUZZLES,
    STATIC_HELP,
    Compile,
    Device,
)

OUT_HELP = "folder of tables and figures"
SEED_HELP = "seed of every random choice"
OVERWRITE_HELP = "replace the results of an earlier run"


@dataclass(frozen=True, kw_only=True)
class OnPuzzles:
    """A study that runs networks on puzzles."""

    puzzles: Path | None = setting(None, PUZZLES_HELP, otherwise=SHIPPED_PUZZLES)
    out: Path = required(OUT_HELP)
    limit: int = setting(256, "only the first so many puzzles")
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")
    batch_size: int = setting(64, BATCH_HELP)
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    seed: int = setting(0, SEED_HELP)
    static: bool = setting(False, STATIC_HELP)
    style: Style = setting("screen", STYLE_HELP)
    width: Width = setting("single", WIDTH_HELP, needs=ON_PAPER)
    self_contained: bool = setting(False, SELF_CONTAINED_HELP)
    overwrite: bool = setting(False, OVERWRITE_HELP)

    def __post_init__(self) -> None:
        in_range(type(self), vars(self))
        positive(self, "limit", "batch_size")


@dataclass(frozen=True, kw_only=True)
class _Checkpoint:
    ckpt: str = setting("", CKPT_HELP, otherwise=SHIPPED)


@dataclass(frozen=True, kw_only=True)
class OnCheckpoint(OnPuzzles, _Checkpoint):  # the checkpoint's field comes first
    """A study that runs one network."""


@dataclass(frozen=True, kw_only=True)
class OnRuns(OnCheckpoint):
    """A study that mostly runs the plain network, which may be compiled."""

    compile: Compile = setting("auto", COMPILE_HELP, switches=COMPILE_SWITCHES)


@dataclass(frozen=True, kw_only=True)
class OnStore:
    """A study that reads recorded states."""

    store: Path = argument("store that `trm-interp collect` wrote")
    out: Path = required(OUT_HELP)
    seed: int = setting(0, SEED_HELP)
    static: bool = setting(False, STATIC_HELP)
    style: Style = setting("screen", STYLE_HELP)
    width: Width = setting("single", WIDTH_HELP, needs=ON_PAPER)
    self_contained: bool = setting(False, SELF_CONTAINED_HELP)
    overwrite: bool = setting(False, OVERWRITE_HELP)

    def __post_init__(self) -> None:
        in_range(type(self), vars(self))


def above_0(name: str, text: str, example: str) -> list[float]:
    """The numbers of a comma-separated setting, in its order. ValueError unless all are finite and
    above 0.

    >>> above_0("radii", "0.5, 2", "1,2")
    [0.5, 2.0]
    """
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{name}: {text!r} are not numbers; try {example}") from None
    if not all(0 < number < float("inf") for number in numbers):
        raise ValueError(f"{name} must be above 0 and finite, got {text}")
    return numbers
