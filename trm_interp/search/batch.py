"""The trajectories that run at once: their states on the model's device, rows that come and go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.infer import identifiers_for
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.search.noise import perturb, puzzle_keys, symmetric_copies, target_states
from trm_interp.search.settings import SearchConfig
from trm_interp.tasks.base import Task
from trm_interp.tasks.symmetric import Copies
from trm_interp.tasks.symmetry import Symmetry

Numbers = np.ndarray


@dataclass(frozen=True)
class Group:
    """Trajectories of a puzzle that run in step with each other and end together."""

    puzzle: int
    columns: range


class Answers(NamedTuple):
    """Read-outs of rows."""

    tokens: Numbers  # uint8 [row, cell], symmetries undone
    q: Numbers  # float32 [row], halting logit: that the answer is right
    margin: Numbers  # float32 [row], above 0 where the model would halt


@dataclass(frozen=True)
class Carried:
    """Rows that run as copies `source` of the puzzles `target` in a pool, each [row]: their answers
    are carried back. The interface is that of a Symmetry."""

    copies: Copies
    source: Numbers
    target: Numbers

    def apply(self, tokens: Tensor) -> Tensor:
        """Answers [row, cell] to the copies, as answers to the puzzles."""
        answers = tokens.to(torch.uint8).cpu().numpy()
        back = self.copies.carried(answers, self.source, self.target)
        return torch.from_numpy(back).to(tokens)

    def take(self, rows: Tensor) -> "Carried":
        """Those of some rows of the batch."""
        at = rows.cpu().numpy()
        return Carried(self.copies, self.source[at], self.target[at])

    @staticmethod
    def join(parts: Sequence["Carried"]) -> "Carried":
        """One batch of all of these, in order."""
        source = np.concatenate([part.source for part in parts])
        return Carried(parts[0].copies, source, np.concatenate([part.target for part in parts]))


class Batch:
    """The rows that run now. Bookkeeping in NumPy, states on the model's device.

    Of every row: `puzzle`, `column` (its trajectory), `step` (the one that comes next) and `group`.
    """

    def __init__(
        self,
        model: RecursiveModel,
        task: Task,
        inputs: Tensor,
        config: SearchConfig,
        dtype: torch.dtype,
        identifiers: Tensor | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.model, self.task, self.config, self.dtype = model, task, config, dtype
        self.targets = target_states(model, config.target)
        self.device = model.device
        self.inputs = inputs.to(self.device)
        own = identifiers_for(model.config, identifiers, len(inputs))
        self.identifiers = None if own is None else own.to(self.device)
        self.keys = puzzle_keys(self.inputs)
        self.copies = copies
        self.puzzle, self.column, self.step, self.group = np.zeros((4, 0), np.int64)
        self.groups: dict[int, Group] = {}
        self.admitted = 0
        self.state: States | None = None
        self.x: Tensor | None = None
        self.undo: Symmetry | Carried | None = None

    def __len__(self) -> int:
        return len(self.puzzle)

    def admit(self, groups: list[Group]) -> None:
        """New rows at the end of the batch, before their first step."""
        if not groups:
            return
        numbers = np.arange(self.admitted, self.admitted + len(groups))
        self.admitted += len(groups)
        self.groups.update(zip(numbers.tolist(), groups, strict=True))
        sizes = [len(group.columns) for group in groups]
        puzzle = np.repeat([group.puzzle for group in groups], sizes)
        column = np.concatenate([group.columns for group in groups])
        x, undo = self._embed(puzzle, column)
        state = self.model.initial_state(x)
        if self.state is not None and self.x is not None:
            both = zip(self.state, state, strict=True)
            state = type(state)(*(torch.cat(pair) for pair in both))
            x = torch.cat([self.x, x])
        if self.undo is not None and undo is not None:
            undo = type(undo).join([self.undo, undo])  # type: ignore[list-item]
        self.state, self.x, self.undo = state, x, undo
        self.puzzle = np.concatenate([self.puzzle, puzzle])
        self.column = np.concatenate([self.column, column])
        self.step = np.concatenate([self.step, np.zeros_like(puzzle)])
        self.group = np.concatenate([self.group, np.repeat(numbers, sizes)])

    def _embed(self, puzzle: Numbers, column: Numbers) -> tuple[Tensor, Symmetry | Carried | None]:
        """Embedded inputs of new rows, one embedding a puzzle; or of symmetric copies of them."""
        if not self.config.symmetry:
            used, row = np.unique(puzzle, return_inverse=True)
            x = self.model.embed(self.inputs[used], self.dtype, self._identifiers(used))
            return x[row], None
        if self.copies is not None:
            return self._embed_copies(self.copies, puzzle, column)
        trajectory = torch.from_numpy(column).to(self.device)
        drawn = symmetric_copies(self.task, self.keys[puzzle], trajectory, self.config.seed)
        drawn = drawn.keep_plain(torch.from_numpy(~self._varied(column)).to(self.device))
        copies = drawn.apply(self.inputs[puzzle])
        return self.model.embed(copies, self.dtype, self._identifiers(puzzle)), drawn.invert()

    def _embed_copies(
        self, copies: Copies, puzzle: Numbers, column: Numbers
    ) -> tuple[Tensor, Carried]:
        """Of copies that the file lays down, under their own identifiers."""
        own, keys = copies.of[puzzle], self.keys[puzzle].cpu().numpy()
        drawn = copies.drawn(puzzle, column - self.config.clean, keys, self.config.seed)
        rows = np.where(self._varied(column), drawn, own)
        inputs = torch.from_numpy(copies.pool.inputs[rows]).to(self.device)
        numbers = copies.pool.identifiers
        which = None if numbers is None else torch.from_numpy(numbers[rows])
        which = identifiers_for(self.model.config, which, len(rows))
        which = None if which is None else which.to(self.device)
        return self.model.embed(inputs, self.dtype, which), Carried(copies, rows, own)

    def _identifiers(self, puzzle: Numbers) -> Tensor | None:
        return None if self.identifiers is None else self.identifiers[puzzle]

    def _varied(self, column: Numbers) -> Numbers:
        """Rows that are not the plain run."""
        return column > 0 if self.config.clean else column < self.config.k

    def advance(self) -> list[Tensor]:
        """One supervision step of every row: the answer state after each of its H-cycles."""
        assert self.state is not None and self.x is not None
        rows = np.flatnonzero(
            self._varied(self.column) & ((self.config.when == "every") | (self.step == 0))
        )
        at, trajectory, step = (
            torch.from_numpy(part).to(self.device)
            for part in (rows, self.column[rows], self.step[rows])
        )
        keys = self.keys[self.puzzle[rows]]
        state = perturb(self.state, self.targets, at, keys, trajectory, step, self.config)
        self.state, per_cycle = self.model.advance(state, self.x)
        return per_cycle

    def read(self, answer: Tensor) -> Answers:
        """What the answer state says in every row."""
        readout = self.model.readout(answer)
        tokens = readout.logits.argmax(-1)
        if self.undo is not None:
            tokens = self.undo.apply(tokens)
        margin = self.model.halting_margin(readout)
        return Answers(
            tokens.to(torch.uint8).cpu().numpy(),
            readout.q_halt.float().cpu().numpy(),
            margin.float().cpu().numpy(),
        )

    def keep(self, kept: Numbers) -> None:
        """End of a step: the rows that are kept are one step further, the others go."""
        self.step = self.step + 1
        if kept.all():
            return
        assert self.state is not None and self.x is not None
        self.puzzle, self.column = self.puzzle[kept], self.column[kept]
        self.step, self.group = self.step[kept], self.group[kept]
        at = torch.from_numpy(np.flatnonzero(kept)).to(self.device)
        self.state = type(self.state)(*(z[at] for z in self.state))
        self.x = self.x[at]
        if self.undo is not None:
            self.undo = self.undo.take(at)
