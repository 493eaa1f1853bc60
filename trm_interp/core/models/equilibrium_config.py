"""The shape of an equilibrium model. Needs no torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.runtime.settings import setting

IMPLICIT = {"gradient": ("implicit",)}
UNROLLED = {"gradient": ("unrolled",)}
ANDERSON = {"solver": ("anderson",)}


@dataclass(frozen=True)
class EquilibriumConfig(TRMConfig):
    """Shape of a TRM whose z_L is solved for in every H-cycle, and how it is solved.

    `l_cycles` is the cap of a solve: each takes so many evaluations, and a puzzle that converges
    earlier rests for what is left of them.

    >>> EquilibriumConfig(h_cycles=1, l_cycles=2).schedule.cycle
    ('z_L', 'z_L', 'z_H')
    """

    architecture: ClassVar[str] = "equilibrium"
    one_step_gradient: ClassVar[bool] = False  # type: ignore[misc]

    l_cycles: int = setting(12, "evaluations of a solve for z_L, at most", most=256)
    solver: Literal["anderson", "iterate"] = setting(
        "anderson", "how z_L = f(z_L, z_H + x) is solved"
    )
    memory: int = setting(5, "earlier evaluations that Anderson mixes", most=64, needs=ANDERSON)
    tolerance: float = setting(
        1e-3, "relative residual |f(z) - z| / |f(z)| at which a puzzle has converged", most=1.0
    )
    damping: float = setting(1.0, "lambda of z <- (1 - lambda) z + lambda f(z); 1: none", most=1.0)
    noise: float = setting(
        0.0, "sigma of normal noise on every point of a solve, in training only", most=1e3
    )
    random_starts: bool = setting(
        False, "training starts every puzzle from normal random states of its own"
    )
    gradient: Literal["implicit", "phantom", "unrolled"] = setting(
        "implicit",
        "of a fixed point: implicit (u = v + J^T u), phantom (u = v + J^T v), or through the last "
        "evaluations, which are plain ones",
    )
    backward_cycles: int = setting(
        12, "products with J^T of the implicit gradient, at most", most=256, needs=IMPLICIT
    )
    reapplied: int = setting(
        3, "last evaluations of a solve, through which the gradient goes", most=256, needs=UNROLLED
    )
    jacobian_weight: float = setting(
        0.0, "weight of |J|^2 / n, the squared Frobenius norm of df/dz_L a number", most=1e3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in {
            "solver": ("anderson", "iterate"),
            "gradient": ("implicit", "phantom", "unrolled"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("memory", "backward_cycles", "reapplied"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("tolerance", "damping"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("noise", "jacobian_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    @property
    def with_gradient(self) -> int:
        """Evaluations at the end of a solve that carry gradient."""
        return self.reapplied if self.gradient == "unrolled" else 1

    def writes_left(self, schedule: Schedule, tick: Tick) -> int:
        """How many evaluations of the tick's H-cycle write its state from there on, it included.

        >>> config = EquilibriumConfig()
        >>> config.writes_left(config.schedule, config.schedule.tick(0, 0, 10))
        2
        """
        return schedule.writes_per_cycle(tick.writes) - schedule.write_index(tick)
