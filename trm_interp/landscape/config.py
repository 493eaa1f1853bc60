"""What the parts of the landscape can be told. Read by the command line; needs no torch."""

from dataclasses import dataclass
from pathlib import Path

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
