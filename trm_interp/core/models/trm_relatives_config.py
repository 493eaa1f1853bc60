"""The shapes of TRM's relatives. Needs no torch."""

from dataclasses import dataclass
from typing import ClassVar

from trm_interp.core.clock import Schedule
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.runtime.settings import setting

SCALES = tuple(f"z_L{i}" for i in range(1, 7))  # names of the six z_L of the multi-scale TRM


@dataclass(frozen=True)
class SingleZConfig(TRMConfig):
    """Shape of a TRM with one state.

    >>> SingleZConfig(l_cycles=2, h_cycles=1).schedule.cycle
    ('z', 'z', 'z')
    """

    architecture: ClassVar[str] = "trm-single-z"
    separate_networks: ClassVar[bool] = False  # type: ignore[misc]

    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        h_cycles, l_cycles = depth
        return Schedule(h_cycles, ("z",) * (l_cycles + 1))


@dataclass(frozen=True)
class MultiScaleConfig(TRMConfig):
    """Shape of a TRM with six z_L, each of which an H-cycle writes once.

    >>> MultiScaleConfig(h_cycles=1).schedule.cycle
    ('z_L1', 'z_L2', 'z_L3', 'z_L4', 'z_L5', 'z_L6', 'z_H')
    """

    architecture: ClassVar[str] = "trm-multi-z"
    l_cycles: ClassVar[int] = len(SCALES)  # type: ignore[misc]

    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        h_cycles, l_cycles = depth
        return Schedule(h_cycles, (*SCALES[:l_cycles], "z_H"))


@dataclass(frozen=True)
class ContinueConfig(TRMConfig):
    """Shape of a TRM that halts as HRM does."""

    architecture: ClassVar[str] = "trm-continue"
    q_outputs: ClassVar[int] = 2  # type: ignore[misc]


@dataclass(frozen=True)
class DirectConfig(TRMConfig):
    """Shape of a model that evaluates one network once a supervision step.

    8 blocks, as the public code has it; 42 cost what the 21 evaluations of a TRM of 2 blocks cost.

    >>> DirectConfig().schedule.cycle
    ('z_H',)
    """

    architecture: ClassVar[str] = "direct"
    h_cycles: ClassVar[int] = 1  # type: ignore[misc]
    l_cycles: ClassVar[int] = 1  # type: ignore[misc]  (a curriculum has nothing to change)
    separate_networks: ClassVar[bool] = False  # type: ignore[misc]
    one_step_gradient: ClassVar[bool] = False  # type: ignore[misc]

    n_layers: int = setting(8, "blocks of the network", most=64)

    def schedule_at(self, depth: tuple[int, int]) -> Schedule:
        return Schedule(1, ("z_H",))
