"""Settings of `info`, `hooks` and readers. Read by the command line; needs no torch."""

from dataclasses import dataclass
from typing import Literal

from trm_interp.runtime.limits import at_most
from trm_interp.runtime.settings import argument, positive, setting
from trm_interp.subjects.settings import CKPT_HELP, MOST_RECORDED, SHIPPED

Centre = Literal["rows", "puzzle"]  # see `site_reader.View`
CELLS_HELP = "cells of a puzzle, for a checkpoint that does not say"


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """What a path holds."""

    path: str = argument("a store, a checkpoint, a file of puzzles or the folder of an SAE")
    full: bool = setting(
        False,
        "everything that the store or the checkpoint says of itself",
        flags="--all",
        old="--full",
    )
    validate: bool = setting(False, "read all of a store, with every checksum")
    cells: int | None = setting(None, CELLS_HELP, otherwise="as the checkpoint says")

    def __post_init__(self) -> None:
        positive(self, "cells")


@dataclass(frozen=True, kw_only=True)
class HooksConfig:
    """Names of the hook points of a run."""

    ckpt: str = setting("", CKPT_HELP, otherwise=SHIPPED)
    steps: int = setting(16, "supervision steps of the run")
    cells: int | None = setting(None, CELLS_HELP, otherwise="as the checkpoint says")

    def __post_init__(self) -> None:
        positive(self, "steps", "cells")
        at_most("steps", self.steps, MOST_RECORDED)
