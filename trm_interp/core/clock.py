"""The clock of a run: which network evaluation is which. Needs no torch.

One supervision step is `h_cycles` H-cycles; one H-cycle is a fixed sequence of evaluations, each of
which writes one of the model's states. A TRM's is `l_cycles` evaluations that write z_L and then
one that writes z_H. Recorder, store, analyses and tests share this order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

MOST_STEPS = 1_000_000  # supervision steps of a run; more take weeks
MOST_COUNTED = 32_767  # of them where their number is kept, as an int16


class Tick(NamedTuple):
    """One network evaluation. Indices count from 0; `l_cycle` is that within its H-cycle."""

    step: int
    h_cycle: int
    l_cycle: int
    writes: str
    ends_cycle: bool = False

    @property
    def name(self) -> str:
        """Prefix of the hook points of this evaluation; the last of an H-cycle is named after it.

        >>> Tick(3, 1, 2, "z_L").name, Tick(3, 1, 6, "z_H", ends_cycle=True).name
        ('step.3.h.1.l.2', 'step.3.h.1')
        """
        cycle = f"step.{self.step}.h.{self.h_cycle}"
        return cycle if self.ends_cycle else f"{cycle}.l.{self.l_cycle}"

    @property
    def hook(self) -> str:
        """Hook point of the state that this evaluation writes.

        >>> Tick(0, 2, 6, "z_H", ends_cycle=True).hook
        'step.0.h.2.hook_z_H'
        """
        return f"{self.name}.hook_{self.writes}"


@dataclass(frozen=True)
class Schedule:
    """A supervision step: `h_cycles` H-cycles, each of which writes the states in `cycle` in turn.

    >>> Schedule(3, ("z_L", "z_L", "z_H")).evaluations
    9
    """

    h_cycles: int
    cycle: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.h_cycles < 1 or not self.cycle:
            raise ValueError(f"a schedule has at least one evaluation, got {self}")

    @property
    def evaluations(self) -> int:
        """Network evaluations of a supervision step."""
        return self.h_cycles * len(self.cycle)

    @property
    def states(self) -> tuple[str, ...]:
        """The states that are written, in the order of their first writing."""
        return tuple(dict.fromkeys(self.cycle))

    def tick(self, step: int, h_cycle: int, l_cycle: int) -> Tick:
        """The evaluation at these indices.

        >>> Schedule(3, ("z_L", "z_L", "z_H")).tick(5, 0, 2)
        Tick(step=5, h_cycle=0, l_cycle=2, writes='z_H', ends_cycle=True)
        """
        return Tick(step, h_cycle, l_cycle, self.cycle[l_cycle], l_cycle == len(self.cycle) - 1)

    def ticks(self, n_sup: int = 1) -> list[Tick]:
        """Every network evaluation of a run of `n_sup` supervision steps, in order."""
        return [
            self.tick(step, h, i)
            for step in range(n_sup)
            for h in range(self.h_cycles)
            for i in range(len(self.cycle))
        ]

    def writes_per_cycle(self, state: str) -> int:
        """How often an H-cycle writes this state."""
        return self.cycle.count(state)

    def ends_cycle(self, state: str) -> bool:
        """Whether an H-cycle writes this state exactly once, and last."""
        return self.cycle[-1] == state and self.writes_per_cycle(state) == 1

    def write_index(self, tick: Tick) -> int:
        """How many earlier evaluations of the tick's H-cycle wrote the same state.

        >>> schedule = Schedule(1, ("fast", "slow", "fast"))
        >>> [schedule.write_index(tick) for tick in schedule.ticks()]
        [0, 0, 1]
        """
        return self.cycle[: tick.l_cycle].count(tick.writes)

    def is_last_write(self, tick: Tick) -> bool:
        """Whether no later evaluation of the tick's H-cycle writes the same state.

        >>> schedule = Schedule(1, ("fast", "slow", "fast"))
        >>> [schedule.is_last_write(tick) for tick in schedule.ticks()]
        [False, True, True]
        """
        return tick.writes not in self.cycle[tick.l_cycle + 1 :]

    def to_json(self) -> dict[str, Any]:
        return {"h_cycles": self.h_cycles, "cycle": list(self.cycle)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Schedule":
        """What `to_json` wrote; KeyError, TypeError or ValueError for anything else."""
        return Schedule(int(value["h_cycles"]), tuple(str(state) for state in value["cycle"]))


def trm_schedule(h_cycles: int, l_cycles: int) -> Schedule:
    """TRM's supervision step: H-cycles of `l_cycles` writes of z_L and one of z_H.

    >>> trm_schedule(3, 2)
    Schedule(h_cycles=3, cycle=('z_L', 'z_L', 'z_H'))
    """
    return Schedule(h_cycles, ("z_L",) * l_cycles + ("z_H",))


def schedule(n_sup: int, h_cycles: int, l_cycles: int) -> list[Tick]:
    """Every network evaluation of one run of a TRM, in order.

    >>> [tick.writes for tick in schedule(n_sup=1, h_cycles=1, l_cycles=2)]
    ['z_L', 'z_L', 'z_H']
    >>> len(schedule(n_sup=16, h_cycles=3, l_cycles=6))
    336
    """
    return trm_schedule(h_cycles, l_cycles).ticks(n_sup)
