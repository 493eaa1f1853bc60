"""Runs K trajectories of many puzzles in one batch that is kept full.

A row of the batch is one trajectory at its own supervision step. Rows that have ended leave the
batch and waiting ones take their places, so the cost falls with every puzzle that is decided.

What rounding can change: a row's noise is the same in any batch, but matrix products of another
batch size may round otherwise, and runs that do not settle amplify it. Runs that settle end in the
same grid.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.models.trm import TRM, State
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.shapes import Bool, Float, Int
from trm_interp.search.config import SearchConfig
from trm_interp.search.noise import perturb, puzzle_keys, symmetric_copies
from trm_interp.tasks.sudoku.dataset import repeats
from trm_interp.tasks.sudoku.grid import from_tokens, shape_of
from trm_interp.tasks.symmetry import Symmetry

ROUND = 8  # most trajectories of one puzzle that an adaptive search runs at once
Numbers = np.ndarray


@dataclass(frozen=True)
class Found:
    """What every trajectory answered after every supervision step, held from its end on.

    Columns are the trajectories 0..k-1; where none of these is the plain run, one more column is.
    A column that was never run holds zeros and q = -inf.
    """

    tokens: Int[Numbers, "puzzle column step cell"]  # uint8, symmetries undone
    q: Float[Numbers, "puzzle column step"]  # float32, halting logit
    valid: Bool[Numbers, "puzzle column step"]  # a full grid that keeps the givens and the rules
    ran: Int[Numbers, "puzzle column"]  # supervision steps that were computed
    k: int

    @property
    def baseline(self) -> int:
        """Column of the plain run."""
        return 0 if self.ran.shape[1] == self.k else self.k

    @property
    def steps_run(self) -> Int[Numbers, " puzzle"]:
        """Supervision steps that the k trajectories cost."""
        return self.ran[:, : self.k].sum(1, dtype=np.int64)

    def solved(self, labels: Int[Numbers, "puzzle cell"]) -> Bool[Numbers, "puzzle column step"]:
        """Every cell as in `labels` (tokens)."""
        return (self.tokens == labels[:, None, None]).all(-1)


@dataclass(frozen=True)
class _Group:
    """Trajectories of a puzzle that run in step with each other and end together."""

    puzzle: int
    columns: range


def _first_groups(n: int, config: SearchConfig) -> Iterator[_Group]:
    """What to run at the start: all of it, or, where the search is adaptive, one of each puzzle."""
    baseline = [] if config.clean else [config.k]
    for puzzle in range(n):
        now = [0] if config.adaptive else range(config.k)
        for column in (*now, *baseline):
            yield _Group(puzzle, range(column, column + 1))


def _next_group(ended: _Group, k: int) -> _Group | None:
    """As many more as there were, at most ROUND: the first 1, 1, 2, 4, 8, 8, ... trajectories."""
    start = ended.columns.stop
    stop = min(k, start + min(start, ROUND))
    return _Group(ended.puzzle, range(start, stop)) if start < stop else None


@torch.no_grad()
def search(
    model: TRM,
    inputs: Int[Tensor, "puzzle cell"],
    config: SearchConfig,
    batch_size: int = 128,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int], None] = lambda done: None,
) -> Found:
    """Search these puzzles (tokens); `progress` is told how many of them are done.

    Memory grows with `batch_size` (an adaptive search takes ROUND rows where that is more) and,
    for the answers, with puzzles x k x steps x cells bytes. An adaptive search runs trajectories
    in groups of 1, 1, 2, 4, 8, 8, ...; the first of a group to end early ends its puzzle.
    """
    if inputs.shape[1] != model.config.cells:
        raise ValueError(f"the model reads {model.config.cells} cells, got {inputs.shape[1]}")
    n, cells = inputs.shape
    columns = config.k + (not config.clean)
    answers = n * columns * config.steps * (cells + 5)  # grids, logits and flags
    what = f"{config.k} trajectories of {config.steps} steps for {n} puzzles"
    require_memory(2 * answers, what, "lower --k or --steps")
    tokens = np.zeros((n, columns, config.steps, cells), np.uint8)
    q = np.full((n, columns, config.steps), -np.inf, np.float32)
    valid = np.zeros((n, columns, config.steps), bool)
    ran = np.zeros((n, columns), np.int16)
    givens = from_tokens(inputs.cpu().numpy())

    waiting = deque(_first_groups(n, config))
    left = np.bincount([group.puzzle for group in waiting], minlength=n)  # groups of a puzzle
    batch = _Batch(model, inputs, config, dtype)
    while waiting or len(batch):
        batch.admit(_fitting(waiting, batch_size - len(batch), alone=not len(batch)))
        read, halt = batch.read(batch.advance()[-1])
        at = batch.puzzle, batch.column, batch.step
        before = batch.puzzle, batch.column, np.maximum(batch.step - 1, 0)
        tokens[at], q[at] = read, halt
        valid[at] = _obeys_rules(givens[batch.puzzle], from_tokens(read))
        if config.stop == "q":
            confident = np.minimum(halt, q[before]) > config.threshold
            ended = confident & (batch.step > 0) & (read == tokens[before]).all(1)
        else:
            ended = valid[at] & (config.stop == "rules")

        decided = np.unique(batch.group[ended])
        last = batch.step + 1 == config.steps
        done = last | np.isin(batch.group, decided)
        ran[at[0][done], at[1][done]] = batch.step[done] + 1
        for number in np.unique(batch.group[done]).tolist():
            group = batch.groups.pop(number)
            left[group.puzzle] -= 1
            more = None
            if config.adaptive and group.columns.start < config.k and number not in decided:
                more = _next_group(group, config.k)
            if more:
                waiting.append(more)
                left[group.puzzle] += 1
        batch.keep(~done)
        progress(int((left == 0).sum()))

    held = np.minimum(np.arange(config.steps), np.maximum(ran[..., None] - 1, 0))
    return Found(
        np.take_along_axis(tokens, held[..., None], axis=2),
        np.take_along_axis(q, held, axis=2),
        np.take_along_axis(valid, held, axis=2),
        ran,
        config.k,
    )


@torch.no_grad()
def trace(
    model: TRM,
    inputs: Int[Tensor, "1 cell"],
    trajectory: int,
    steps: int,
    config: SearchConfig,
    dtype: torch.dtype = torch.float32,
) -> tuple[Int[Numbers, "step h_cycle cell"], Float[Numbers, "step h_cycle"]]:
    """Tokens and halting logits of one trajectory after every H-cycle, run by itself."""
    batch = _Batch(model, inputs, config, dtype)
    batch.admit([_Group(0, range(trajectory, trajectory + 1))])
    read = []
    for _ in range(steps):
        read.append([batch.read(z_H) for z_H in batch.advance()])
        batch.keep(np.ones(1, bool))
    tokens = np.array([[grid[0] for grid, _ in cycles] for cycles in read])
    return tokens, np.array([[q[0] for _, q in cycles] for cycles in read])


def _fitting(waiting: deque[_Group], room: int, alone: bool) -> list[_Group]:
    """Take the groups that fit, in order; a larger one waits, unless it would be `alone`."""
    taken: list[_Group] = []
    passed: list[_Group] = []
    while waiting and room > 0:
        group = waiting.popleft()
        if len(group.columns) <= room:
            taken.append(group)
            room -= len(group.columns)
        else:
            passed.append(group)
    if alone and not taken:
        taken.append(passed.pop(0))
    waiting.extendleft(reversed(passed))
    return taken


def _obeys_rules(
    puzzles: Int[Numbers, "row cell"], answers: Int[Numbers, "row cell"]
) -> Bool[Numbers, " row"]:
    """Full grids (digits) that keep the givens and repeat no digit: a proof, whatever q says."""
    full = (answers > 0).all(1)
    kept = ((puzzles == 0) | (answers == puzzles)).all(1)
    return full & kept & ~repeats(answers)


class _Batch:
    """The rows that run now. Bookkeeping in NumPy, states on the model's device."""

    def __init__(
        self, model: TRM, inputs: Tensor, config: SearchConfig, dtype: torch.dtype
    ) -> None:
        self.model, self.config, self.dtype = model, config, dtype
        self.device = next(model.parameters()).device
        self.inputs = inputs.to(self.device)
        self.keys = puzzle_keys(self.inputs)
        self.puzzle, self.column, self.step, self.group = np.zeros((4, 0), np.int64)
        self.groups: dict[int, _Group] = {}
        self.admitted = 0
        self.state: State | None = None
        self.x: Tensor | None = None
        self.undo: Symmetry | None = None

    def __len__(self) -> int:
        return len(self.puzzle)

    def admit(self, groups: list[_Group]) -> None:
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
            state = State(*(torch.cat(pair) for pair in zip(self.state, state, strict=True)))
            x = torch.cat([self.x, x])
        if self.undo is not None and undo is not None:
            undo = Symmetry.join([self.undo, undo])
        self.state, self.x, self.undo = state, x, undo
        self.puzzle = np.concatenate([self.puzzle, puzzle])
        self.column = np.concatenate([self.column, column])
        self.step = np.concatenate([self.step, np.zeros_like(puzzle)])
        self.group = np.concatenate([self.group, np.repeat(numbers, sizes)])

    def _embed(self, puzzle: Numbers, column: Numbers) -> tuple[Tensor, Symmetry | None]:
        """Embedded inputs of new rows, one embedding a puzzle; or of symmetric copies of them."""
        if not self.config.symmetry:
            used, row = np.unique(puzzle, return_inverse=True)
            return self.model.embed(self.inputs[used], self.dtype)[row], None
        keys, trajectory = self.keys[puzzle], torch.from_numpy(column).to(self.device)
        shape = shape_of(self.inputs.shape[1])
        drawn = symmetric_copies(keys, trajectory, self.config.seed, shape)
        drawn = drawn.keep_plain(torch.from_numpy(~self._varied(column)).to(self.device))
        return self.model.embed(drawn.apply(self.inputs[puzzle]), self.dtype), drawn.invert()

    def _varied(self, column: Numbers) -> Numbers:
        """Rows that are not the plain run."""
        return column > 0 if self.config.clean else column < self.config.k

    def advance(self) -> list[Tensor]:
        """One supervision step of every row: z_H after each of its H-cycles."""
        assert self.state is not None and self.x is not None
        rows = np.flatnonzero(
            self._varied(self.column) & ((self.config.when == "every") | (self.step == 0))
        )
        at, trajectory, step = (
            torch.from_numpy(part).to(self.device)
            for part in (rows, self.column[rows], self.step[rows])
        )
        keys = self.keys[self.puzzle[rows]]
        state = perturb(self.state, at, keys, trajectory, step, self.config)
        self.state, per_cycle = self.model.advance(state, self.x)
        return per_cycle

    def read(self, z_H: Tensor) -> tuple[Numbers, Numbers]:
        """Tokens [row, cell], symmetries undone, and halting logits [row]."""
        logits, q_halt = self.model.readout(z_H)
        tokens = logits.argmax(-1)
        if self.undo is not None:
            tokens = self.undo.apply(tokens)
        return tokens.to(torch.uint8).cpu().numpy(), q_halt.float().cpu().numpy()

    def keep(self, kept: Numbers) -> None:
        """End of a step: the rows that are kept are one step further, the others go."""
        self.step = self.step + 1
        if kept.all():
            return
        assert self.state is not None and self.x is not None
        self.puzzle, self.column = self.puzzle[kept], self.column[kept]
        self.step, self.group = self.step[kept], self.group[kept]
        at = torch.from_numpy(np.flatnonzero(kept)).to(self.device)
        self.state, self.x = State(*(z[at] for z in self.state)), self.x[at]
        if self.undo is not None:
            self.undo = self.undo.take(at)
