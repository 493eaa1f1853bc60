"""What a task says of its symmetries: drawn by a key, or laid down in a file as copies."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.puzzles import PuzzleSet

if TYPE_CHECKING:
    from torch import Tensor

    from trm_interp.tasks.symmetry import Symmetry

Tokens = NDArray[np.uint8]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Copies(ABC):
    """Puzzles of a set with their symmetric copies among the set's other puzzles.

    `pool`: the set. `of`: int64 [puzzle], which puzzles of the pool are meant. `alike`: int64
    [puzzle of the pool], the same number for copies of each other; `form`: the same number for
    those that are the same in every way, of which one counts.
    """

    pool: PuzzleSet
    of: Rows
    alike: Rows
    form: Rows

    def at(self, index: slice | Sequence[int] | Rows) -> "Copies":
        """Those of some of the puzzles; the pool stays whole."""
        return replace(self, of=self.of[index])

    def drawn(self, puzzle: Rows, number: Rows, keys: Rows, seed: int) -> Rows:
        """[n]: for each copy that is wanted, its row in the pool.

        `puzzle` [n]: of which puzzle; `number` [n]: which of its copies, in a random order that the
        seed and the puzzle's key [n] name, the puzzle itself last; after the last the first again.
        """
        rows = np.empty_like(puzzle)
        for i, own in enumerate(self.of[puzzle].tolist()):
            others = np.flatnonzero(self.alike == self.alike[own])
            others = others[np.unique(self.form[others], return_index=True)[1]]
            rng = np.random.default_rng([seed, int(keys[i]) & (1 << 63) - 1])
            order = [*rng.permutation(others[self.form[others] != self.form[own]]), own]
            rows[i] = order[number[i] % len(order)]
        return rows

    @abstractmethod
    def carried(self, answers: Tokens, source: Rows, target: Rows) -> Tokens:
        """[n, cell]: answers [n, cell] to puzzles `source` of the pool as answers to their copies
        `target`; no answer, all pad, where a grid has no place there."""


class HasSymmetries:
    """The part of a `Task` that says what its symmetries are. By default there are none."""

    def symmetry(self, keys: "Tensor") -> "Symmetry | None":
        """The symmetry named by each key, int64 [batch], on the keys' device; None: there is none.

        All symmetries are equally likely; the same key names the same one on every device.
        """
        return None

    def copies(self, puzzles: PuzzleSet) -> Copies | None:
        """The symmetric copies that a file has laid down beside its puzzles, where models know a
        symmetry by its identifier, so that `symmetry` draws none; None where there are none."""
        return None

    def augment(
        self, inputs: "Tensor", labels: "Tensor", keys: "Tensor"
    ) -> tuple["Tensor", "Tensor"]:
        """Each puzzle and its solution under the random symmetry that its key names.

        `inputs`, `labels`: integer tokens [batch, cells]; `keys`: int64 [batch], on the same
        device. A pure function of its arguments; without symmetries nothing changes.
        """
        symmetry = self.symmetry(keys)
        if symmetry is None:
            return inputs, labels
        return symmetry.apply(inputs), symmetry.apply(labels)

    def class_keys(self, inputs: Tokens) -> NDArray[np.uint64] | None:
        """[n], equal for puzzles that a symmetry carries into each other; None if unknown.

        Unequal keys prove that two puzzles are no copies of each other.
        """
        return None
