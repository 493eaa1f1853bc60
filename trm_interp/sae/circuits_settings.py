"""Settings of `circuits`. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.runtime.limits import parse_indices
from trm_interp.runtime.settings import positive, required, setting
from trm_interp.sae.settings import CKPT_HELP, RECORDED, OnSAE

CHECKED = {"checked": True}


@dataclass(frozen=True, kw_only=True)
class CircuitsConfig(OnSAE):
    """Which features drive which ones an H-cycle later?"""

    out: Path = required("folder of the page, the tables and the graphs")
    ckpt: str | None = setting(None, CKPT_HELP, otherwise=RECORDED)
    features: str | None = setting(
        None, "features to look at, such as 3,17", otherwise="the most active ones, --top of them"
    )
    top: int = setting(12, "most active features", needs={"features": None})
    ticks: str | None = setting(
        None,
        "ticks of the run from which edges go, such as 5,12,19",
        otherwise="the last write of the state in every H-cycle",
    )
    edges: int = setting(60, "strongest edges that are drawn and go into the graphs")
    to_itself: bool = setting(
        False,
        "edges from a feature to itself among the strongest, or those between two features alone",
        flags="--to-itself/--between",
    )
    checked: int = setting(
        8, "of these, edges that are checked by ablation, one of two features; 0: none"
    )
    controls: int = setting(
        10, "matched random features that are ablated beside each", needs=CHECKED
    )
    tolerance: float = setting(
        1e-3,
        "RMS change over the last supervision step up to which a run has settled",
        most=1e6,
    )
    batch_size: int = setting(32, "puzzles at once")
    overwrite: bool = setting(False, "replace what an earlier `circuits` wrote")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "top", "edges", "controls", "batch_size")
        if self.checked < 0:
            raise ValueError(f"checked must be at least 0, got {self.checked}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")
        for name in ("ticks", "features"):
            parse_indices(getattr(self, name), name)
