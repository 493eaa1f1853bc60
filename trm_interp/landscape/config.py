"""What the parts of the landscape can be told. Read by the command line; needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trm_interp.core.config import argument, positive, required, setting
from trm_interp.settings import BATCH_HELP, CKPT_HELP, PUZZLES_HELP, Device

OUT_HELP = "folder of tables and figures"
SEED_HELP = "of every random choice"


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
class SettlingConfig(OnCheckpoint):
    """Do runs come to rest, cycle or wander, and do failures escape later?"""

    steps: int = setting(16, "supervision steps of every puzzle; late drift is over the last 4")
    long: int = setting(1024, "steps of the long rollouts; looked at from 64 on; 0: none")
    long_limit: int = setting(24, "puzzles that run long, half failed where there are that many")
    tolerance: float = setting(
        1e-3, "RMS distance (states have RMS 1) within which a run has come back to a state"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "long_limit")
        if self.steps < 5:
            raise ValueError(f"steps must be at least 5 to see the last 4 drift, got {self.steps}")
        if self.long and self.long < self.steps:
            raise ValueError(f"long must be at least steps, {self.steps}, or 0, got {self.long}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")


@dataclass(frozen=True, kw_only=True)
class StabilityConfig(OnCheckpoint):
    """Lyapunov exponents along runs, fixed points where they end."""

    steps: int = setting(16, "supervision steps; late drift is over the last 4")
    k: int = setting(8, "leading exponents")
    sample: int = setting(48, "puzzles with exponents, half failed where there are that many")
    fixed: int = setting(8, "of them, end points from which fixed points are sought; 0: none")
    eigenvalues: int = setting(6, "leading eigenvalues at every fixed point")
    dtype: Literal["float32", "float64"] = setting("float32", "of the exponents")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "k", "sample", "eigenvalues")
        if self.steps < 5:
            raise ValueError(f"steps must be at least 5 to see the last 4 drift, got {self.steps}")
        if self.fixed < 0:
            raise ValueError(f"fixed must be at least 0, got {self.fixed}")
