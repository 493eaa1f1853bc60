"""The clock of a TRM run: which network evaluation is which.

One supervision step is `h_cycles` H-cycles; one H-cycle is `l_cycles` evaluations that write
z_L and then one that writes z_H. Recorder, store, analyses and tests share this order.
"""

from typing import Literal, NamedTuple

Written = Literal["z_L", "z_H"]


class Tick(NamedTuple):
    """One network evaluation. Indices count from 0; `l_cycle == l_cycles` where z_H is written."""

    step: int
    h_cycle: int
    l_cycle: int
    writes: Written

    @property
    def name(self) -> str:
        """Prefix of the hook points of this evaluation.

        >>> Tick(3, 1, 2, "z_L").name, Tick(3, 1, 6, "z_H").name
        ('step.3.h.1.l.2', 'step.3.h.1')
        """
        cycle = f"step.{self.step}.h.{self.h_cycle}"
        return f"{cycle}.l.{self.l_cycle}" if self.writes == "z_L" else cycle

    @property
    def hook(self) -> str:
        """Hook point of the state that this evaluation writes.

        >>> Tick(0, 2, 6, "z_H").hook
        'step.0.h.2.hook_z_H'
        """
        return f"{self.name}.hook_{self.writes}"


def schedule(n_sup: int, h_cycles: int, l_cycles: int) -> list[Tick]:
    """Every network evaluation of one run, in order.

    >>> [tick.writes for tick in schedule(n_sup=1, h_cycles=1, l_cycles=2)]
    ['z_L', 'z_L', 'z_H']
    >>> len(schedule(n_sup=16, h_cycles=3, l_cycles=6))
    336
    """
    return [
        Tick(step, h, i, "z_L" if i < l_cycles else "z_H")
        for step in range(n_sup)
        for h in range(h_cycles)
        for i in range(l_cycles + 1)
    ]
