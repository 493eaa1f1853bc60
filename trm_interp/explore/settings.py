"""Settings of the command `explore`. Read by the command line; needs neither torch nor Dash."""

from dataclasses import dataclass
from pathlib import Path

from trm_interp.runtime.settings import positive, setting
from trm_interp.subjects.settings import CKPT_HELP, PUZZLES_HELP, SHIPPED, SHIPPED_PUZZLES, Device

LAST_PORT = 65_535
MOST_STEPS = 256  # supervision steps whose boards a browser holds


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """The live explorer."""

    ckpt: str = setting("", CKPT_HELP, otherwise=SHIPPED)
    puzzles: Path | None = setting(None, PUZZLES_HELP, otherwise=SHIPPED_PUZZLES)
    sae: Path | None = setting(
        None, "folder of an SAE of this checkpoint, as train-sae writes it", otherwise="none"
    )
    features: Path | None = setting(
        None,
        "folder that `features` wrote for that SAE, for the pages of features",
        otherwise="none",
    )
    probes: Path | None = setting(
        None, "folder that `probes` wrote for this checkpoint", otherwise="none"
    )
    store: Path | None = setting(
        None,
        "store of runs of this checkpoint, along whose principal axes paths are drawn",
        otherwise="none",
    )
    steps: int = setting(16, "supervision steps", most=MOST_STEPS)
    limit: int | None = setting(None, "only the first so many puzzles", otherwise="all")
    port: int = setting(
        8050, "port of the page; the next free one where it is busy", most=LAST_PORT
    )
    host: str = setting(
        "127.0.0.1", "address that is bound; another one shows the page to other machines"
    )
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")
    skip_bad: bool = setting(False, "leave out puzzles that are not valid, and say which")

    def __post_init__(self) -> None:
        positive(self, "steps", "limit", "port")
        if not self.host.strip():
            raise ValueError("host must be an address of this machine, such as 127.0.0.1")
