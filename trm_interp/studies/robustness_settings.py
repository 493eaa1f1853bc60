"""Settings of `robustness`. Needs no torch."""

from dataclasses import dataclass

from trm_interp.core.clock import MOST_STEPS
from trm_interp.runtime.settings import positive, setting
from trm_interp.studies.common_settings import OnCheckpoint, above_0

FROM_ELSEWHERE = {"starts": True}


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(OnCheckpoint):
    """How large a push do the ends of runs survive?"""

    steps: int = setting(16, "supervision steps before the end", most=MOST_STEPS)
    then: int = setting(16, "supervision steps after the noise", most=MOST_STEPS)
    sample: int = setting(32, "ends, one a puzzle, half of them failed if there are so many")
    epsilons: str = setting(
        "0.01,0.1,0.3,0.6,1,1.5,2,3,5,10",
        "RMS of the noise over all states; those that a network writes have RMS 1",
    )
    draws: int = setting(8, "random directions an end; each is tried at every epsilon")
    leading: int = setting(
        1,
        "leading eigenvectors of the Jacobian of a supervision step, pushed both ways; 0: none",
    )
    iterations: int = setting(
        20, "power iterations for them", most=100_000, needs={"leading": True}
    )
    starts: int = setting(
        15, "random starts a puzzle, for the share that ends there; 0: none", most=100_000
    )
    sigma: float = setting(1.0, "standard deviation of their noise", most=1e6, needs=FROM_ELSEWHERE)
    tolerance: float = setting(0.1, "RMS distance up to which two states are one", most=1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "steps", "then", "sample", "draws", "iterations")
        for name in ("starts", "leading"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("tolerance", "sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        _ = self.sizes

    @property
    def sizes(self) -> list[float]:
        """The epsilons as numbers, ascending.

        >>> from pathlib import Path
        >>> RobustnessConfig(out=Path("out"), epsilons="1, 0.2,1").sizes
        [0.2, 1.0]
        """
        return sorted(set(above_0("epsilons", self.epsilons, "0.1,0.5,1")))
