"""Settings of studies that change runs and read what follows. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trm_interp.core.clock import MOST_STEPS
from trm_interp.runtime.limits import parse_indices
from trm_interp.runtime.settings import positive, setting
from trm_interp.studies.common_settings import OnRuns

BATCH_HELP = "runs at a time; the last digits depend on it"


@dataclass(frozen=True, kw_only=True)
class TraceConfig(OnRuns):
    """What, when and where in a run makes it succeed?"""

    limit: int = setting(128, "only the first so many puzzles, among which pairs are looked for")
    starts: int = setting(8, "starts of every puzzle, the model's own among them")
    pairs: int = setting(16, "pairs of a solved and a failed start, one a puzzle, at most")
    steps: int = setting(16, "supervision steps of every run", most=MOST_STEPS)
    then: int = setting(4, "supervision steps at the end in which nothing is patched")
    later: int = setting(
        8, "further steps by which the fate of a run is read; 0: it is not", most=MOST_STEPS
    )
    tolerance: float = setting(
        1e-3, "RMS distance within which a run has come back to a state", most=1e6
    )
    every: Literal["step", "h_cycle"] = setting("step", "how often a moment of patching comes")
    window: int = setting(1, "moments at which a cell is patched, one after another")
    sites: str = setting(
        "states", "comma-separated: states, resid, or names as of `trm-interp hooks`"
    )
    exact: int = setting(
        96, "cells that are measured, those with the largest estimate; the rest are estimated alone"
    )
    target: str = setting(
        "all", "state whose start is varied, by name, such as z_L, or answer, latent or all"
    )
    sigma: float = setting(1.0, "standard deviation of what is added to a start", most=1e6)
    shared: bool = setting(
        False, "one random vector for all positions, or one each", flags="--shared/--per-position"
    )
    batch_size: int = setting(256, BATCH_HELP)
    resume: bool = setting(False, "continue where a run was stopped or killed")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "pairs", "steps", "window")
        if self.starts < 2:
            raise ValueError(f"starts must be at least 2 to compare some, got {self.starts}")
        if not 0 <= self.then < self.steps:
            raise ValueError(f"then must be from 0 to steps - 1, got {self.then} of {self.steps}")
        if self.later and self.later < 5:
            raise ValueError(f"later must be 0 or at least 5, got {self.later}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")
        if self.exact < 0:
            raise ValueError(f"exact must be at least 0, got {self.exact}")
        if not self.sigma > 0:
            raise ValueError(f"sigma must be above 0, got {self.sigma}")


@dataclass(frozen=True, kw_only=True)
class UsedConfig(OnRuns):
    """Is what probes read from a state used by the run?"""

    limit: int = setting(128, "only the first so many puzzles")
    held_out: float = setting(0.5, "share of the puzzles on which is tested what others trained")
    steps: int = setting(16, "supervision steps of every run", most=MOST_STEPS)
    moments: str | None = setting(
        None, "steps after which directions are taken out, such as 1,4", otherwise="1, 2, 4, ..."
    )
    lasting: bool = setting(
        True, "at the end of every further step too, or once alone", flags="--lasting/--once"
    )
    to: Literal["mean", "zero"] = setting(
        "mean", "what is left along a direction: the mean over training puzzles, or nothing"
    )
    singles: bool = setting(False, "also every probe by itself, not whole kinds alone")
    random: int = setting(2, "draws of every random control", most=1000)
    strength: float = setting(0.1, "inverse of the L2 penalty of the logistic regressions")
    sae: Path | None = setting(
        None, "folder of an SAE of a state, whose features are taken out too", otherwise="none"
    )
    features: int = setting(
        8, "features that are taken out together, the best", needs={"sae": True}, most=65_536
    )
    batch_size: int = setting(256, BATCH_HELP)
    resume: bool = setting(False, "continue where a run was stopped or killed")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "random", "features")
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, got {self.held_out}")
        if not self.strength > 0:
            raise ValueError(f"strength must be above 0, got {self.strength}")
        if not 1 <= self.steps_done[0] <= self.steps_done[-1] < self.steps:
            raise ValueError(
                f"moments must be from 1 to steps - 1 = {self.steps - 1}, got {self.moments}"
            )

    @property
    def steps_done(self) -> list[int]:
        """The moments, in supervision steps that are done.

        >>> UsedConfig(out=Path("out"), steps=10).steps_done
        [1, 2, 4, 8]
        """
        given = parse_indices(self.moments, "moments")
        doubled = [2**i for i in range(self.steps.bit_length()) if 2**i < self.steps]
        return doubled if given is None else given


@dataclass(frozen=True, kw_only=True)
class SpreadConfig(OnRuns):
    """How far does a change of one cell reach?"""

    limit: int = setting(64, "only the first so many puzzles")
    steps: int = setting(4, "supervision steps that a change is followed", most=MOST_STEPS)
    n_cells: int = setting(4, "cells of every puzzle that are changed, one at a time", most=65_536)
    kind: Literal["given", "state"] = setting(
        "given", "what is changed: a given, which is taken away, or all states of a cell"
    )
    after: int = setting(
        0, "supervision steps before the states are changed", needs={"kind": ("state",)}
    )
    sigma: float = setting(
        1.0, "standard deviation of what is added", most=1e6, needs={"kind": ("state",)}
    )
    batch_size: int = setting(256, BATCH_HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps", "n_cells")
        if not 0 <= self.after <= MOST_STEPS:
            raise ValueError(f"after must be from 0 to {MOST_STEPS}, got {self.after}")
        if not self.sigma > 0:
            raise ValueError(f"sigma must be above 0, got {self.sigma}")
