"""Augmentations of an ARC task: a symmetry of the square and a permutation of the colours.

They are named as the public data sets name them, `TASK|||t3|||0213456789`: the number of the
symmetry, and the new colour of every old one. Black, colour 0, stays. A name without the marks is
of the task itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trm_interp.tasks.arc.grid import COLOURS, Grid, Pair

SEPARATOR = "|||"
PLAIN = "".join(map(str, range(len(COLOURS))))
N_SYMMETRIES = 8
TRIES = 5  # draws for each augmentation that is wanted, before there are no more

_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)


def turned(grid: Grid, symmetry: int) -> Grid:
    """A grid under one of the eight symmetries of a square.

    0 to 3: that many quarter turns counter-clockwise; 4: left and right change places; 5: top and
    bottom; 6: rows and columns; 7: the same along the other diagonal.

    >>> [turned(np.array([[1, 2]]), symmetry).tolist() for symmetry in (1, 4)]
    [[[2], [1]], [[2, 1]]]
    """
    if not 0 <= symmetry < N_SYMMETRIES:
        raise ValueError(f"symmetry {symmetry}; there are 0 to {N_SYMMETRIES - 1}")
    if symmetry < 4:
        return np.rot90(grid, symmetry)
    return (grid[:, ::-1], grid[::-1], grid.T, grid[::-1, ::-1].T)[symmetry - 4]


@dataclass(frozen=True)
class Augmentation:
    """`symmetry` as in `turned`; `colours`: the new colour of every old one, as ten digits."""

    symmetry: int = 0
    colours: str = PLAIN

    def apply(self, grid: Grid) -> Grid:
        """The augmented grid, [row, column] of colours."""
        return np.ascontiguousarray(turned(self._table[grid], self.symmetry))

    def invert(self, grid: Grid) -> Grid:
        """The grid that `apply` makes into this one."""
        table = np.argsort(self._table).astype(np.uint8)
        return np.ascontiguousarray(table[turned(grid, _INVERSE[self.symmetry])])

    @property
    def _table(self) -> Grid:
        return np.frombuffer(self.colours.encode(), np.uint8) - np.uint8(ord("0"))

    def name(self, task: str) -> str:
        """What the task under this augmentation is called."""
        if self == Augmentation():
            return task
        return SEPARATOR.join((task, f"t{self.symmetry}", self.colours))


def parsed(name: str) -> tuple[str, Augmentation]:
    """The task and the augmentation of a name. ValueError for one that is none.

    >>> parsed("007bbfb7|||t3|||0213456789")
    ('007bbfb7', Augmentation(symmetry=3, colours='0213456789'))
    """
    task, *marks = name.split(SEPARATOR)
    if not marks:
        return name, Augmentation()
    symmetry, colours = marks if len(marks) == 2 else ("", "")
    if symmetry[1:] not in list(PLAIN[:N_SYMMETRIES]) or symmetry[:1] != "t":
        raise ValueError(f"{name[:60]!r} names no symmetry t0 to t{N_SYMMETRIES - 1}")
    if sorted(colours) != list(PLAIN):
        raise ValueError(f"{name[:60]!r} names no permutation of the ten colours")
    return task, Augmentation(int(symmetry[1:]), colours)


def drawn(pairs: list[Pair], n: int, rng: np.random.Generator) -> Iterator[Augmentation]:
    """Random augmentations that make other pairs of these, `n` of them where there are as many."""
    seen = {_key(pairs, Augmentation())}
    left = n
    for _ in range(TRIES * n):
        if not left:
            return
        order = rng.permutation(np.arange(1, len(COLOURS)))
        colours = "0" + "".join(map(str, order))
        augmentation = Augmentation(int(rng.integers(N_SYMMETRIES)), colours)
        if (key := _key(pairs, augmentation)) not in seen:
            seen.add(key)
            left -= 1
            yield augmentation


def _key(pairs: list[Pair], augmentation: Augmentation) -> frozenset[bytes]:
    """Equal for augmentations that make the same pairs, in any order."""
    return frozenset(b"|".join(key_of(augmentation.apply(grid)) for grid in pair) for pair in pairs)


def key_of(grid: Grid) -> bytes:
    """Equal for equal grids of colours."""
    return bytes(grid.shape) + grid.astype(np.uint8).tobytes()
