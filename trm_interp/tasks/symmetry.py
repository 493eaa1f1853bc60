"""Symmetries of a task as tensors: a permutation of the cells and one of the tokens, per example.

They map puzzles to puzzles and solutions to solutions, so they augment training data, and an
answer to a transformed puzzle can be mapped back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symmetry:
    """One group element per example: new[i] = tokens[old[cells[i]]].

    `cells` int64 [batch, cells], a permutation per row: where each new cell comes from.
    `tokens` int64 [batch, vocab], a permutation per row: the new token of each old one.
    """

    cells: Tensor
    tokens: Tensor

    def apply(self, tokens: Tensor) -> Tensor:
        """Transformed tokens, integers [batch, cells] in and out, dtype kept."""
        moved = tokens.gather(1, self.cells).to(torch.int64)
        return self.tokens.gather(1, moved).to(tokens.dtype)

    def invert(self) -> "Symmetry":
        """The symmetries that undo these."""
        return Symmetry(self.cells.argsort(1), self.tokens.argsort(1))

    def take(self, rows: Tensor) -> "Symmetry":
        """Those of some rows of the batch: int64 positions or a bool mask."""
        return Symmetry(self.cells[rows], self.tokens[rows])

    def keep_plain(self, plain: Tensor) -> "Symmetry":
        """The identity for the rows where `plain`, bool [batch], is true.

        >>> swapped = Symmetry(torch.tensor([[1, 0], [1, 0]]), torch.tensor([[0, 1], [0, 1]]))
        >>> swapped.keep_plain(torch.tensor([True, False])).cells.tolist()
        [[0, 1], [1, 0]]
        """
        cells, tokens = (
            torch.where(plain[:, None], torch.arange(part.shape[1], device=part.device), part)
            for part in (self.cells, self.tokens)
        )
        return Symmetry(cells, tokens)

    @staticmethod
    def join(parts: Sequence["Symmetry"]) -> "Symmetry":
        """One batch of all of these, in order."""
        return Symmetry(
            torch.cat([part.cells for part in parts]), torch.cat([part.tokens for part in parts])
        )
