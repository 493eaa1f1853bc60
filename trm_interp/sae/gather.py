"""One pass over the puzzles: what is kept of every feature's activations."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from trm_interp.analysis.lens import decided
from trm_interp.analysis.recurrence import STILL, relative_drift
from trm_interp.core.devices import widest
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.runs import quiet
from trm_interp.sae.applied import AppliedSAE, Progress
from trm_interp.sae.early import lead
from trm_interp.sae.meaning import Facts, facts_of


@dataclass(frozen=True)
class Examples:
    """The puzzles in which each feature is largest: the value, its tick (in the series) and
    position, and the activations of all positions at that tick. Puzzles are indices into
    `AppliedSAE.puzzles`; -1 if the feature fires in fewer."""

    value: np.ndarray  # [feature, example]
    puzzle: np.ndarray
    tick: np.ndarray
    pos: np.ndarray
    board: np.ndarray  # float16 [feature, example, pos]


@dataclass(frozen=True)
class Observations:
    """What one pass over the puzzles keeps."""

    level: np.ndarray  # float32 [puzzle, tick, feature], mean over positions
    density: np.ndarray  # [feature], share of rows
    largest: np.ndarray  # [feature]
    drift: np.ndarray  # [puzzle, feature], relative same-phase drift of the tail
    drift_curve: np.ndarray  # [puzzle, tick - cycle], over all features
    lead: np.ndarray  # [puzzle, feature]
    examples: Examples
    acts: scipy.sparse.csc_matrix  # [row, feature] at the ends of steps
    facts: list[Facts]
    cells: np.ndarray  # cells whose states are stored
    at: np.ndarray  # their indices among the stored positions


def gather(applied: AppliedSAE, n_examples: int, progress: Progress = quiet) -> Observations:
    """Encode every puzzle once."""
    reader = applied.reader
    cycle, n, ticks = reader.ticks_per_cycle, len(applied.puzzles), len(reader.indices)
    cells, at = cells_of(applied)
    times = _Times(applied)
    level = np.zeros((n, ticks, applied.d_sae), np.float32)
    drift, leads = np.full((2, n, applied.d_sae), np.nan, np.float32)
    curve = np.zeros((n, ticks - cycle), np.float32)
    fired = torch.zeros(applied.d_sae, dtype=widest(applied.device), device=applied.device)
    keep = _Keeper(applied.d_sae, min(n_examples, n), reader.n_pos)
    sparse, facts = [], []
    for i, (puzzle, _, acts) in enumerate(applied.encode(progress)):
        level[i] = acts.mean(1).cpu().numpy()
        fired += (acts > 0).sum((0, 1))
        keep.add(i, acts)
        change = (acts[cycle:] - acts[:-cycle]).square().mean((1, 2))
        size = acts.square().mean().clamp(min=1e-30)
        curve[i] = (change / size).sqrt().cpu().numpy()
        values = acts.cpu().numpy()
        drift[i] = relative_drift(values, cycle, STILL * values.max(axis=(0, 1)))
        ended = times.at_ends(values)[:, at].reshape(-1, applied.d_sae)
        sparse.append(scipy.sparse.csr_matrix(ended))
        board = _Board(applied, puzzle)
        facts.append(board.facts(cells, times.inside))
        if times.is_whole:
            leads[i] = lead(
                times.step_means(values)[:, at], board.decided[cells], board.asked[cells]
            )
    rows = n * reader.rows
    return Observations(
        level,
        (fired / rows).cpu().numpy(),
        keep.largest(),
        drift,
        curve,
        leads,
        keep.examples(),
        scipy.sparse.csc_matrix(scipy.sparse.vstack(sparse)),
        facts,
        cells,
        at,
    )


class _Times:
    """Which ticks of the series belong to which supervision step.

    `inside`: the steps that are followed by another one, or all if there are none; facts are
    evaluated at their ends. `is_whole`: the series covers every step of the run.
    """

    def __init__(self, applied: AppliedSAE) -> None:
        self.step_of = np.array([tick.step for tick in applied.reader.ticks])
        self.steps = np.unique(self.step_of)
        last = applied.store.n_steps - 1
        before_last = self.steps[self.steps < last]
        self.inside = (before_last if len(before_last) else self.steps).tolist()
        self.is_whole = len(self.steps) == applied.store.n_steps

    def at_ends(self, values: np.ndarray) -> np.ndarray:
        """[step, pos, feature] of [tick, pos, feature]: at the last ticks of `inside`."""
        return values[[int(np.flatnonzero(self.step_of == step)[-1]) for step in self.inside]]

    def step_means(self, values: np.ndarray) -> np.ndarray:
        """[step, pos, feature] of [tick, pos, feature]."""
        return np.stack([values[self.step_of == step].mean(0) for step in self.steps])


class _Board:
    """A puzzle of the store, its solution, and the answers after every step; in tokens."""

    def __init__(self, applied: AppliedSAE, puzzle: int) -> None:
        store = applied.store
        self.task = store.task
        self.inputs, self.labels, self.guesses = (
            store[name][puzzle] for name in ("inputs", "labels", "predictions")
        )
        self.asked = self.task.asked(self.inputs)

    @property
    def decided(self) -> np.ndarray:
        """[cell]: the step from which on the answer stays."""
        return decided(self.guesses)

    def facts(self, cells: np.ndarray, steps: list[int]) -> Facts:
        """Facts of some cells at the ends of some steps."""
        facts = facts_of(self.task, self.inputs, self.labels, self.guesses, steps)
        rows = (np.arange(len(steps))[:, None] * len(self.inputs) + cells).ravel()
        return facts._replace(values=facts.values[rows], asked=facts.asked[rows])


def cells_of(applied: AppliedSAE) -> tuple[np.ndarray, np.ndarray]:
    """Cells whose states are stored, and their indices among the stored positions."""
    prefix = applied.store.model.prefix
    positions = np.array(applied.store.positions)
    at = np.flatnonzero(positions >= prefix)
    if not len(at):
        raise UserError(f"{applied.store.path} holds prefix positions only: record cells as well")
    return positions[at] - prefix, at


def check_gathering(applied: AppliedSAE, n_examples: int) -> None:
    """UserError where the ticks are too few, the positions are no cells, or the memory is short."""
    reader, n = applied.reader, len(applied.puzzles)
    cycles = [(t.step, t.h_cycle) for t in reader.ticks]
    counts = [cycles.count(cycle) for cycle in dict.fromkeys(cycles)]
    if len(set(counts)) > 1 or len(counts) < 4:
        raise UserError(
            f"features over time need four whole H-cycles or more; {reader.site} is read at "
            f"{len(reader.indices)} ticks of {len(counts)}"
        )
    cells_of(applied)
    of_puzzle = 4 * applied.d_sae * (len(reader.indices) + 3)
    need = n * of_puzzle + 2 * applied.d_sae * reader.n_pos * min(n_examples, n)
    what = f"{n} puzzles at {len(reader.indices)} ticks with {applied.d_sae} features"
    require_memory(need, what, "lower --limit")


class _Keeper:
    """Keeps the largest examples while puzzles come by."""

    def __init__(self, d_sae: int, n: int, n_pos: int) -> None:
        self.n = n
        self.value = np.zeros((d_sae, n), np.float32)
        self.place = np.full((d_sae, n, 3), -1, np.int32)  # puzzle, tick, pos
        self.board = np.zeros((d_sae, n, n_pos), np.float16)

    def add(self, puzzle: int, acts: Tensor) -> None:
        tick = acts.amax(1).argmax(0)
        board = acts[tick, :, torch.arange(acts.shape[2], device=acts.device)]  # [feature, pos]
        value, pos = board.max(1)
        value, tick, pos = (t.cpu().numpy() for t in (value, tick, pos))
        better = np.flatnonzero((value > self.value[:, -1]) & (value > 0))
        last = self.n - 1
        self.value[better, last] = value[better]
        self.place[better, last] = np.stack(
            [np.full(len(better), puzzle), tick[better], pos[better]], 1
        )
        self.board[better, last] = board.cpu().numpy()[better]
        order = np.argsort(-self.value[better], axis=1, kind="stable")
        for kept in (self.value, self.place, self.board):
            trailing = (1,) * (kept.ndim - 2)
            kept[better] = np.take_along_axis(
                kept[better], order.reshape(*order.shape, *trailing), 1
            )

    def largest(self) -> np.ndarray:
        return self.value[:, 0].copy()

    def examples(self) -> Examples:
        puzzle, tick, pos = np.moveaxis(self.place, 2, 0)
        return Examples(self.value, puzzle, tick, pos, self.board)
