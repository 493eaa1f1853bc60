"""What the parts of the landscape can be told. Read by the command line; needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trm_interp.core.config import argument, positive, required, setting
from trm_interp.settings import BATCH_HELP, CKPT_HELP, PUZZLES_HELP, Device

OUT_HELP = "folder of tables and figures"
SEED_HELP = "of every random choice"
Site = Literal["z_L", "z_H"]


@dataclass(frozen=True, kw_only=True)
class OnCheckpoint:
    """A part that runs the network itself."""

    ckpt: str = setting("", f"{CKPT_HELP}; default the one that ships")
    puzzles: Path | None = setting(
        None, f"{PUZZLES_HELP}; default the test puzzles of the checkpoint's size that ship"
    )
    out: Path = required(OUT_HELP)
    limit: int = setting(256, "only the first so many puzzles")
    batch_size: int = setting(64, BATCH_HELP)
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    seed: int = setting(0, SEED_HELP)
    static: bool = setting(False, "also PNG and PDF, where kaleido and a browser are installed")

    def __post_init__(self) -> None:
        positive(self, "limit", "batch_size")


@dataclass(frozen=True, kw_only=True)
class OnStore:
    """A part that reads recorded states."""

    store: Path = argument("store that `trm-interp collect` wrote")
    out: Path = required(OUT_HELP)
    seed: int = setting(0, SEED_HELP)
    static: bool = setting(False, "also PNG and PDF, where kaleido and a browser are installed")


@dataclass(frozen=True, kw_only=True)
class OutcomesConfig(OnCheckpoint):
    """Which puzzles are solved when."""

    limit: int = setting(1000, "only the first so many puzzles")
    steps: int = setting(16, "supervision steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps")


@dataclass(frozen=True, kw_only=True)
class LossesConfig(OnCheckpoint):
    """The loss after every H-cycle."""

    limit: int = setting(512, "only the first so many puzzles")
    steps: int = setting(16, "supervision steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps")


@dataclass(frozen=True, kw_only=True)
class TrajectoriesConfig(OnStore):
    """Paths in one pooled PCA."""

    site: Site = setting("z_L", "z_L or z_H")
    relative: bool = setting(False, "from each puzzle's first state")
    shown: int = setting(40, "puzzles drawn, half of them failed if there are so many")
    umap: bool = setting(False, "also a UMAP embedding of the steps' states")

    def __post_init__(self) -> None:
        positive(self, "shown")


@dataclass(frozen=True, kw_only=True)
class DivergenceConfig(OnStore):
    """Distance to the success centroid, over puzzles and over starts of one puzzle."""

    site: Site = setting("z_L", "z_L or z_H")
    ckpt: str = setting("", "checkpoint; default where the store says that it was recorded from")
    starts: int = setting(64, "random starts of each puzzle of the control; 0 leaves it out")
    control_puzzles: int = setting(4, "puzzles of the control")
    tries: int = setting(24, "puzzles that may be tried to find them")
    device: Device = setting("auto", "where the control runs; auto takes a GPU where there is one")

    def __post_init__(self) -> None:
        positive(self, "control_puzzles", "tries")
        if self.starts < 0:
            raise ValueError(f"starts must be at least 0, got {self.starts}")
