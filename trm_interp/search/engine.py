"""Runs K trajectories of many puzzles in one batch that is kept full.

A row of the batch is one trajectory at its own supervision step. Rows that have ended leave the
batch and waiting ones take their places, so the cost falls with every puzzle that is decided.

What rounding can change: a row's noise is the same in any batch, but matrix products of another
batch size may round otherwise, and runs that do not come to rest amplify it. Those that do end in
the same grid.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.losses import PAD
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.layers import weights_held
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.shapes import Bool, Float, Int
from trm_interp.search.batch import Answers, Batch, Group
from trm_interp.search.settings import SearchConfig
from trm_interp.tasks.base import Task
from trm_interp.tasks.symmetric import Copies

ROUND = 8  # most trajectories of one puzzle that an adaptive search runs at once
NO_ANSWER = 0  # of `grid_ids`: a grid of pads alone
Numbers = np.ndarray


@dataclass(frozen=True)
class Trajectories:
    """What every trajectory answered after every supervision step, held from its end on.

    Columns are the trajectories 0..k-1; where none of these is the plain run, one more column is.
    A column that was never run holds zeros and q = -inf.
    """

    tokens: Int[Numbers, "puzzle column step cell"]  # uint8, symmetries undone
    q: Float[Numbers, "puzzle column step"]  # float32, halting logit
    valid: Bool[Numbers, "puzzle column step"]  # the rules prove the answer right
    ran: Int[Numbers, "puzzle column"]  # supervision steps that were computed
    k: int
    said: Int[Numbers, "puzzle column step"]  # `grid_ids` of answers as `Task.compared` has them

    @property
    def baseline(self) -> int:
        """Column of the plain run."""
        return 0 if self.ran.shape[1] == self.k else self.k

    @property
    def steps_run(self) -> Int[Numbers, " puzzle"]:
        """Supervision steps that the k trajectories cost."""
        return self.ran[:, : self.k].sum(1, dtype=np.int64)

    def solved(self, labels: Int[Numbers, "puzzle cell"]) -> Bool[Numbers, "puzzle column step"]:
        """Every cell as in `labels` (tokens) that is not pad there."""
        wanted = labels[:, None, None]
        return ((self.tokens == wanted) | (wanted == PAD)).all(-1)


def grid_ids(tokens: Int[Numbers, "*run cell"]) -> Int[Numbers, "*run"]:
    """A number for every grid: equal grids share it, two others do with a chance of 2**-60."""
    odd = np.random.default_rng(0).integers(2**62, size=tokens.shape[-1]) * 2 + 1
    return tokens.astype(np.int64) @ odd


@torch.no_grad()
def search(
    model: RecursiveModel,
    task: Task,
    inputs: Int[Tensor, "puzzle cell"],
    config: SearchConfig,
    batch_size: int = 128,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int], None] = lambda done: None,
    identifiers: Int[Tensor, " puzzle"] | None = None,
    copies: Copies | None = None,
) -> Trajectories:
    """Search these puzzles (tokens) of a task; `progress` gets the number that are done.
    `identifiers`: as in `RecursiveModel.embed`; `copies`: as in `Task.copies`, of these puzzles.

    Memory grows with `batch_size` (an adaptive search takes ROUND rows where that is more) and,
    for the answers, with puzzles x k x steps x cells bytes. An adaptive search runs trajectories
    in groups of 1, 1, 2, 4, 8, 8, ...; the first of a group to end early ends its puzzle.
    """
    if inputs.shape[1] != model.config.cells:
        raise ValueError(f"the model reads {model.config.cells} cells, got {inputs.shape[1]}")
    answers = _Answers(task, inputs, config)
    queue = _Queue(len(inputs), config)
    batch = Batch(model, task, inputs, config, dtype, identifiers, copies)
    with weights_held(model, dtype):
        while queue.waiting or len(batch):
            batch.admit(queue.take(batch_size - len(batch), alone=not len(batch)))
            ended = answers.record(batch, batch.read(batch.advance()[-1]))
            decided = np.unique(batch.group[ended])
            done = (batch.step + 1 == config.steps) | np.isin(batch.group, decided)
            answers.end(batch, done)
            for number in np.unique(batch.group[done]).tolist():
                queue.finished(batch.groups.pop(number), number in decided)
            batch.keep(~done)
            progress(queue.puzzles_done)
    return answers.held()


@torch.no_grad()
def trace(
    model: RecursiveModel,
    task: Task,
    inputs: Int[Tensor, "1 cell"],
    trajectory: int,
    steps: int,
    config: SearchConfig,
    dtype: torch.dtype = torch.float32,
    identifiers: Int[Tensor, " 1"] | None = None,
    copies: Copies | None = None,
) -> tuple[Int[Numbers, "step h_cycle cell"], Float[Numbers, "step h_cycle"]]:
    """Tokens and halting logits of one trajectory after every H-cycle, run by itself."""
    batch = Batch(model, task, inputs, config, dtype, identifiers, copies)
    batch.admit([Group(0, range(trajectory, trajectory + 1))])
    read = []
    for _ in range(steps):
        read.append([batch.read(answer) for answer in batch.advance()])
        batch.keep(np.ones(1, bool))
    tokens = np.array([[at.tokens[0] for at in cycles] for cycles in read])
    return tokens, np.array([[at.q[0] for at in cycles] for cycles in read])


class _Answers:
    """What the trajectories answered so far."""

    def __init__(self, task: Task, inputs: Tensor, config: SearchConfig) -> None:
        n, cells = inputs.shape
        columns = config.k + (not config.clean)
        n_bytes = n * columns * config.steps * (cells + 13)  # grids, their numbers, logits, flags
        what = f"{config.k} trajectories of {config.steps} steps for {n} puzzles"
        require_memory(2 * n_bytes, what, "lower --k or --steps")
        self.task, self.config = task, config
        self.inputs = inputs.cpu().numpy()
        self.tokens = np.zeros((n, columns, config.steps, cells), np.uint8)
        self.q = np.full((n, columns, config.steps), -np.inf, np.float32)
        self.valid = np.zeros((n, columns, config.steps), bool)
        self.said = np.zeros((n, columns, config.steps), np.int64)
        self.margin = np.full((n, columns), -np.inf, np.float32)  # at the step before
        self.ran = np.zeros((n, columns), np.int16)

    def record(self, batch: Batch, read: Answers) -> Bool[Numbers, " row"]:
        """Keep what the rows answer after their step; which of them end early with it."""
        at = batch.puzzle, batch.column, batch.step
        before = batch.puzzle, batch.column, np.maximum(batch.step - 1, 0)
        self.tokens[at], self.q[at] = read.tokens, read.q
        inputs = self.inputs[batch.puzzle]
        self.valid[at] = self.task.proves(inputs, read.tokens)
        self.said[at] = said = grid_ids(self.task.compared(inputs, read.tokens))
        margin_before = self.margin[at[:2]]
        self.margin[at[:2]] = read.margin
        if self.config.stop == "q":
            confident = np.minimum(read.margin, margin_before) > self.config.threshold
            held = (batch.step > 0) & (said == self.said[before]) & (said != NO_ANSWER)
            return confident & held
        return self.valid[at] & (self.config.stop == "rules")

    def end(self, batch: Batch, done: Bool[Numbers, " row"]) -> None:
        """These rows have run for the last time."""
        self.ran[batch.puzzle[done], batch.column[done]] = batch.step[done] + 1

    def held(self) -> Trajectories:
        """The answers of every trajectory, its last one repeated from its end on."""
        last = np.minimum(np.arange(self.config.steps), np.maximum(self.ran[..., None] - 1, 0))
        return Trajectories(
            np.take_along_axis(self.tokens, last[..., None], axis=2),
            np.take_along_axis(self.q, last, axis=2),
            np.take_along_axis(self.valid, last, axis=2),
            self.ran,
            self.config.k,
            np.take_along_axis(self.said, last, axis=2),
        )


class _Queue:
    """The groups that wait for a place in the batch, and the puzzles that are done."""

    def __init__(self, n: int, config: SearchConfig) -> None:
        self.config = config
        self.waiting = deque(_first_groups(n, config))
        self.left = np.bincount([g.puzzle for g in self.waiting], minlength=n)  # of each puzzle

    @property
    def puzzles_done(self) -> int:
        return int((self.left == 0).sum())

    def take(self, room: int, alone: bool) -> list[Group]:
        """The groups that fit, in order; a larger one waits, unless it would be `alone`."""
        taken: list[Group] = []
        passed: list[Group] = []
        while self.waiting and room > 0:
            group = self.waiting.popleft()
            if len(group.columns) <= room:
                taken.append(group)
                room -= len(group.columns)
            else:
                passed.append(group)
        if alone and not taken:
            taken.append(passed.pop(0))
        self.waiting.extendleft(reversed(passed))
        return taken

    def finished(self, group: Group, decided: bool) -> None:
        """A group has ended; where it has not `decided` its puzzle, an adaptive search goes on."""
        self.left[group.puzzle] -= 1
        is_baseline = group.columns.start >= self.config.k
        if decided or is_baseline or not self.config.adaptive:
            return
        if more := _next_group(group, self.config.k):
            self.waiting.append(more)
            self.left[group.puzzle] += 1


def _first_groups(n: int, config: SearchConfig) -> Iterator[Group]:
    """What runs first: everything, or the first trajectory of each puzzle in an adaptive search."""
    baseline = [] if config.clean else [config.k]
    for puzzle in range(n):
        now = [0] if config.adaptive else range(config.k)
        for column in (*now, *baseline):
            yield Group(puzzle, range(column, column + 1))


def _next_group(ended: Group, k: int) -> Group | None:
    """As many more as have run, at most ROUND: the first 1, 1, 2, 4, 8, 8, ... trajectories."""
    start = ended.columns.stop
    stop = min(k, start + min(start, ROUND))
    return Group(ended.puzzle, range(start, stop)) if start < stop else None
