"""Settings of the studies. Read by the command line; needs no torch."""

from dataclasses import dataclass
from typing import Literal

from trm_interp.core.clock import MOST_STEPS
from trm_interp.runtime.limits import at_most, parse_indices
from trm_interp.runtime.settings import argument, positive, setting
from trm_interp.studies.causal_settings import SpreadConfig as SpreadConfig
from trm_interp.studies.causal_settings import TraceConfig as TraceConfig
from trm_interp.studies.causal_settings import UsedConfig as UsedConfig
from trm_interp.studies.common_settings import OUT_HELP as OUT_HELP
from trm_interp.studies.common_settings import OVERWRITE_HELP as OVERWRITE_HELP
from trm_interp.studies.common_settings import SEED_HELP as SEED_HELP
from trm_interp.studies.common_settings import OnCheckpoint as OnCheckpoint
from trm_interp.studies.common_settings import OnPuzzles as OnPuzzles
from trm_interp.studies.common_settings import OnRuns as OnRuns
from trm_interp.studies.common_settings import OnStore as OnStore
from trm_interp.studies.common_settings import above_0
from trm_interp.studies.robustness_settings import RobustnessConfig as RobustnessConfig
from trm_interp.subjects.settings import Device

RECORDED_HELP, RECORDED = "checkpoint of the store", "where the store says that it is"
MOST_CAP = 4096  # writes of the latent state in an H-cycle; the published models have 6
Ends = Literal["auto", "states", "coordinates"]
CONTROL = {"starts": True}  # of divergence
SITE_HELP = (
    "state or site of the store, by name, such as z_L or blocks.0.hook_mlp_out, or answer, latent "
    "or resid (hook_resid_post of the last block)"
)


@dataclass(frozen=True, kw_only=True)
class OutcomesConfig(OnRuns):
    """Which puzzles are solved when."""

    limit: int = setting(1000, "only the first so many puzzles")
    steps: int = setting(16, "supervision steps", most=MOST_STEPS)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps")


@dataclass(frozen=True, kw_only=True)
class LossesConfig(OnRuns):
    """The loss after every H-cycle."""

    limit: int = setting(512, "only the first so many puzzles")
    steps: int = setting(16, "supervision steps", most=MOST_STEPS)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps")


@dataclass(frozen=True, kw_only=True)
class TrajectoriesConfig(OnStore):
    """Paths in one pooled PCA."""

    site: str = setting("latent", SITE_HELP)
    relative: bool = setting(True, "from each puzzle's first state", flags="--relative/--pooled")
    shown: int = setting(40, "puzzles drawn, half of them failed if there are so many")
    umap: bool = setting(False, "also a UMAP embedding of the steps' states")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "shown")


@dataclass(frozen=True, kw_only=True)
class DivergenceConfig(OnStore):
    """Distance to the success centroid, over puzzles and over starts of one puzzle."""

    site: str = setting("latent", SITE_HELP)
    ckpt: str = setting("", RECORDED_HELP, otherwise=RECORDED, needs=CONTROL)
    starts: int = setting(48, "random starts of each puzzle of the control; 0: no control")
    control_puzzles: int = setting(4, "puzzles of the control", needs=CONTROL)
    tries: int = setting(12, "puzzles that are tried at most, to find those", needs=CONTROL)
    device: Device = setting(
        "auto", "where the control runs; auto takes a GPU where there is one", needs=CONTROL
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "control_puzzles", "tries")
        if self.starts < 0:
            raise ValueError(f"starts must be at least 0, got {self.starts}")


@dataclass(frozen=True, kw_only=True)
class BasinsConfig(OnRuns):
    """Where runs of one puzzle end that start elsewhere."""

    index: str | None = setting(
        None,
        "puzzles by their place in the file from 0, such as 3,17",
        otherwise="the first few that the model's own start solves, and as many that it fails",
    )
    n_puzzles: int = setting(4, "puzzles", needs={"index": None})
    limit: int = setting(
        64, "only the first so many puzzles of the file are chosen from", needs={"index": None}
    )
    starts: int = setting(1000, "random starts per puzzle")
    target: str = setting(
        "answer", "state whose start is varied, by name, such as z_L, or answer, latent or all"
    )
    shared: bool = setting(
        True, "one random vector for all positions, or one each", flags="--shared/--per-position"
    )
    radii: str = setting(
        "0.5,1,2,4",
        "RMS distances from the model's own start, whose RMS is about 1; starts take them in turn",
    )
    shown: int = setting(100, "starts, the first ones, whose paths are drawn; 0: none")
    ends: Ends = setting(
        "auto",
        "what is kept of last states: all, or 64 random coordinates, in which distances are about "
        "the same; auto: all, up to 1 GB a puzzle",
    )
    slice: int = setting(21, "side of a plane's image, in starts; 0: no plane")
    steps: int = setting(16, "supervision steps of a run", most=MOST_STEPS)
    batch_size: int = setting(125, "starts at once; bounds the memory")
    neighbours: int = setting(10, "nearest starts that a start is compared with")
    tolerance: float = setting(0.1, "RMS distance up to which two final states are one", most=1e6)
    shuffles: int = setting(999, "shuffles of a permutation test")
    resume: bool = setting(False, "continue where a run was stopped or killed")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "n_puzzles", "starts", "steps", "neighbours", "shuffles")
        if self.shown < 0:
            raise ValueError(f"shown must be at least 0, got {self.shown}")
        if self.slice < 0 or self.slice == 1:
            raise ValueError(f"slice must be 0 or at least 2, got {self.slice}")
        if self.neighbours >= self.starts:
            raise ValueError(
                f"neighbours {self.neighbours} must be fewer than the {self.starts} starts"
            )
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")
        parse_indices(self.index, "index")
        _ = self.radius

    @property
    def radius(self) -> list[float]:
        """The radii as numbers.

        >>> from pathlib import Path
        >>> BasinsConfig(out=Path("out"), radii="0.5, 2").radius
        [0.5, 2.0]
        """
        return above_0("radii", self.radii, "0.5,1,2")

    @property
    def indices(self) -> list[int] | None:
        """The puzzles that were asked for."""
        return parse_indices(self.index, "index")


@dataclass(frozen=True, kw_only=True)
class OriginsConfig(OnCheckpoint):
    """Do failures come from the puzzle, from how it is written or from the start?"""

    limit: int = setting(60, "only the first so many puzzles")
    copies: int = setting(8, "symmetric copies of every puzzle, the plain one among them")
    starts: int = setting(8, "starts of every copy, the model's own among them")
    steps: int = setting(5, "supervision steps of every run", most=MOST_STEPS)
    target: str = setting(
        "all", "state whose start is varied, by name, such as z_L, or answer, latent or all"
    )
    sigma: float = setting(1.0, "standard deviation of what is added to a start", most=1e6)
    shared: bool = setting(
        False, "one random vector for all positions, or one each", flags="--shared/--per-position"
    )
    resume: bool = setting(False, "continue where a run was stopped or killed")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "copies", "steps")
        if self.starts < 2:
            raise ValueError(f"starts must be at least 2 to compare some, got {self.starts}")
        if not self.sigma > 0:
            raise ValueError(f"sigma must be above 0, got {self.sigma}")
        if self.starts * self.steps > MOST_STEPS:
            raise ValueError(
                f"starts x steps must be at most {MOST_STEPS}, the steps of one deep run, got "
                f"{self.starts * self.steps}"
            )


@dataclass(frozen=True, kw_only=True)
class _Pair:
    source: str = argument("A: checkpoint whose answer state is handed over")
    to: str = argument("B: checkpoint of the same task that goes on from it")


@dataclass(frozen=True, kw_only=True)
class StitchConfig(OnPuzzles, _Pair):
    """How much of one model's answer state does another one understand?"""

    fit: int = setting(2000, "further puzzles of the file, on which the links are trained")
    steps: int = setting(4, "supervision steps of A before", most=MOST_STEPS)
    then: int = setting(1, "supervision steps of B afterwards", most=MOST_STEPS)
    link_steps: int = setting(300, "optimizer steps of a link", most=10**6)
    hidden: int | None = setting(None, "hidden width of the links", otherwise="d_model of B")
    lr: float = setting(1e-3, "learning rate of the links", most=1000)
    resume: bool = setting(False, "continue where a run was stopped or killed")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "fit", "steps", "then", "link_steps", "hidden")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class LensConfig(OnStore):
    """The output head on every recorded state."""

    ckpt: str = setting("", RECORDED_HELP, otherwise=RECORDED)
    device: Device = setting("auto", "where to compute; auto takes a GPU where there is one")


@dataclass(frozen=True, kw_only=True)
class ProbesConfig(LensConfig):
    """Linear probes of recorded states."""

    cycles: str | None = setting(
        None, "H-cycles of the run to probe at the ends of, such as 0-5,47", otherwise="a dozen"
    )
    held_out: float = setting(0.4, "share of the puzzles that probes are tested on")
    strength: float = setting(0.1, "inverse of the L2 penalty of the logistic regressions")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_indices(self.cycles, "cycles")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, got {self.held_out}")
        if not self.strength > 0:
            raise ValueError(f"strength must be above 0, got {self.strength}")


@dataclass(frozen=True, kw_only=True)
class SettlingConfig(OnRuns):
    """Do runs come to rest, cycle or wander, and do failures escape later?"""

    steps: int = setting(
        16, "supervision steps of every puzzle; late drift is over the last 4", most=MOST_STEPS
    )
    long: int = setting(
        1024, "steps of the long rollouts, looked at from 64 on; 0: none", most=MOST_STEPS
    )
    long_limit: int = setting(
        24,
        "puzzles of long rollouts, half of them failed if there are so many",
        needs={"long": True},
    )
    tolerance: float = setting(
        1e-3,
        "RMS distance (states have RMS 1) within which a run has come back to a state",
        most=1e6,
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

    steps: int = setting(16, "supervision steps; late drift is over the last 4", most=MOST_STEPS)
    k: int = setting(8, "leading exponents", flags="--exponents", old="--k")
    sample: int = setting(48, "puzzles with exponents, half of them failed if there are so many")
    fixed: int = setting(8, "of these, puzzles from whose ends fixed points are sought; 0: none")
    eigenvalues: int = setting(6, "leading eigenvalues at every fixed point", needs={"fixed": True})
    dtype: Literal["float32", "float64"] = setting("float32", "precision of the exponents")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "k", "sample", "eigenvalues")
        if self.steps < 5:
            raise ValueError(f"steps must be at least 5 to see the last 4 drift, got {self.steps}")
        if self.fixed < 0:
            raise ValueError(f"fixed must be at least 0, got {self.fixed}")


@dataclass(frozen=True, kw_only=True)
class InternalisationConfig(OnCheckpoint):
    """What a model keeps when its inner loop is cut short."""

    steps: int = setting(8, "supervision steps", most=MOST_STEPS)
    caps: str = setting(
        "0-6,8,12", "writes of the latent state an H-cycle; the model's own number is always added"
    )
    deep: int = setting(64, "evaluations of a solve for the fixed point, at most", most=4096)
    tolerance: float = setting(
        1e-4, "relative residual at which that solve has reached it", most=1.0
    )
    kept: bool = setting(
        False, "the checkpoints that training kept along the way, in place of the best one"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps", "deep")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")
        at_most("the largest of caps", self.counts[-1], MOST_CAP)

    @property
    def counts(self) -> list[int]:
        """The caps as numbers, ascending.

        >>> from pathlib import Path
        >>> InternalisationConfig(out=Path("out"), caps="0-2,8").counts
        [0, 1, 2, 8]
        """
        return sorted(parse_indices(self.caps, "caps") or [0])


CONFIGS: dict[str, type] = {
    "outcomes": OutcomesConfig,
    "trajectories": TrajectoriesConfig,
    "divergence": DivergenceConfig,
    "losses": LossesConfig,
    "basins": BasinsConfig,
    "origins": OriginsConfig,
    "trace": TraceConfig,
    "used": UsedConfig,
    "spread": SpreadConfig,
    "stitch": StitchConfig,
    "lens": LensConfig,
    "probes": ProbesConfig,
    "settling": SettlingConfig,
    "stability": StabilityConfig,
    "robustness": RobustnessConfig,
    "internalisation": InternalisationConfig,
}
