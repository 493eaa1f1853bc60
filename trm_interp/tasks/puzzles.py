"""Puzzles of a task as tokens, with their solutions and where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from trm_interp.tasks.base import Task

WAYS = "puzzles that ship are in artifacts/data, and `trm-interp data make` makes others"
SHOWN = 5  # bad puzzles spelled out in a message
Tokens = NDArray[np.uint8]


class PuzzleError(UserError):
    """A puzzle file that cannot be used; the message says which lines and why."""


def message_of_bad(source: object, unit: str, reports: Sequence[str], n: int) -> str:
    """What a PuzzleError says of bad puzzles among `n`: the first reports, one a line.

    `unit`: what the reports count, such as "line".

    >>> message_of_bad("a.txt", "line", ["line 3: no solution"], 9)
    'a.txt: 1 bad line of 9; --skip-bad goes on without them\\n  line 3: no solution'
    """
    plural = "" if len(reports) == 1 else "s"
    rest = [f"and {len(reports) - SHOWN} more"] if len(reports) > SHOWN else []
    head = f"{source}: {len(reports)} bad {unit}{plural} of {n}"
    if len(reports) < n:
        head += "; --skip-bad goes on without them"
    return "\n  ".join([head, *reports[:SHOWN], *rest])


class PuzzleTensors(NamedTuple):
    """What a model reads of puzzles, and the solutions, as tensors on the CPU."""

    inputs: "Tensor"  # uint8 [n, cell]
    labels: "Tensor"  # uint8 [n, cell]
    identifiers: "Tensor | None"  # int64 [n], where puzzles have embeddings of their own

    @classmethod
    def of(
        cls, inputs: Tokens, labels: Tokens, identifiers: NDArray[np.int64] | None
    ) -> "PuzzleTensors":
        """Of arrays, whose memory they share."""
        import torch

        own = None if identifiers is None else torch.from_numpy(identifiers)
        return cls(torch.from_numpy(inputs), torch.from_numpy(labels), own)

    def at(self, rows: "slice | Tensor") -> "PuzzleTensors":
        """Some of them."""
        return PuzzleTensors(*(None if of is None else of[rows] for of in self))  # type: ignore


@dataclass(frozen=True)
class PuzzleSet:
    """Checked puzzles with their solutions, in file order.

    `inputs` and `labels`: uint8 [n, cells] tokens of the puzzles and of their solutions. `lines`:
    where each stood in `source`, line numbers from 1 (a public data folder: rows from 0).
    `sha256`: file name -> hex digest. `skipped`: what was left out and why, one text per bad line.
    `given_identifiers`: int64 [n], the puzzles' embeddings where the file says which they have.
    `names`: [n], what the file calls the puzzles, where it does. `rows`: int64 [n], the embeddings
    by the numbers that they have in a model which was read with some of them alone.
    """

    task: "Task"
    inputs: Tokens
    labels: Tokens
    lines: NDArray[np.int64]
    source: str
    sha256: dict[str, str]
    skipped: tuple[str, ...] = field(default=())
    given_identifiers: NDArray[np.int64] | None = None
    names: NDArray[np.str_] | None = None
    rows: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.inputs.shape != self.labels.shape or len(self.lines) != len(self.inputs):
            raise ValueError(
                f"inputs {self.inputs.shape}, labels {self.labels.shape}, "
                f"lines {self.lines.shape} do not belong together"
            )
        if self.inputs.shape[1:] != (self.task.cells,):
            raise ValueError(
                f"{self.task.name} has {self.task.cells} cells, not {self.inputs.shape}"
            )
        for what in (self.given_identifiers, self.names, self.rows):
            if what is not None and what.shape != (len(self.inputs),):
                raise ValueError(f"{what.shape} names or identifiers of {len(self)} puzzles")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def identifiers(self) -> NDArray[np.int64] | None:
        """[n], which embedding of its own each puzzle has; None where all share one."""
        if self.rows is not None:
            return self.rows
        if self.given_identifiers is not None:
            return self.given_identifiers
        return self.task.identifiers(self)

    @property
    def tensors(self) -> PuzzleTensors:
        """What a model reads of them, and the solutions."""
        return PuzzleTensors.of(self.inputs, self.labels, self.identifiers)

    def subset(self, index: slice | Sequence[int] | NDArray[np.integer]) -> "PuzzleSet":
        """The puzzles at those positions of this set (from 0), in the order given."""
        at = index if isinstance(index, slice) else np.asarray(index, np.int64)
        own = {name: getattr(self, name) for name in ("given_identifiers", "names", "rows")}
        return replace(
            self,
            inputs=self.inputs[at],
            labels=self.labels[at],
            lines=self.lines[at],
            **{name: None if of is None else of[at] for name, of in own.items()},
        )
