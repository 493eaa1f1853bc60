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
from trm_interp.sae.early import lead
from trm_interp.sae.meaning import Facts, facts_of
from trm_interp.sae.opened import Opened, Progress, quiet


@dataclass(frozen=True)
class Examples:
    """Of every feature the puzzles in which it is largest: value, tick (in the series) and cell
    there, and the activation of every position at that tick. Puzzles count in the opened ones;
    -1 where there are fewer that fire."""

    value: np.ndarray  # [feature, example]
    puzzle: np.ndarray
    tick: np.ndarray
    pos: np.ndarray
    board: np.ndarray  # float16 [feature, example, pos]


@dataclass(frozen=True)
class Gathered:
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
    places: np.ndarray  # their places among the stored positions


def gather(opened: Opened, n_examples: int, progress: Progress = quiet) -> Gathered:
    """Encode every puzzle once."""
    reader, store = opened.reader, opened.store
    cycle, n = reader.ticks_per_cycle, len(opened.puzzles)
    cells, at = cells_of(opened)
    step_of = np.array([tick.step for tick in reader.ticks])
    steps = np.unique(step_of)
    ends = [int(np.flatnonzero(step_of == step)[-1]) for step in steps]
    inside = steps[steps < store.n_steps - 1] if steps[0] < store.n_steps - 1 else steps
    inside_ends = [ends[i] for i in range(len(steps)) if steps[i] in inside]
    ticks = len(reader.indices)
    level = np.zeros((n, ticks, opened.d_sae), np.float32)
    drift, leads = np.full((2, n, opened.d_sae), np.nan, np.float32)
    curve = np.zeros((n, ticks - cycle), np.float32)
    fired = torch.zeros(opened.d_sae, dtype=widest(opened.device), device=opened.device)
    keep = _Keeper(opened.d_sae, min(n_examples, n), reader.n_pos)
    sparse, facts = [], []
    for i, (puzzle, _, acts) in enumerate(opened.encode(progress)):
        level[i] = acts.mean(1).cpu().numpy()
        fired += (acts > 0).sum((0, 1))
        keep.add(i, acts)
        change = (acts[cycle:] - acts[:-cycle]).square().mean((1, 2))
        size = acts.square().mean().clamp(min=1e-30)
        curve[i] = (change / size).sqrt().cpu().numpy()
        values = acts.cpu().numpy()
        drift[i] = relative_drift(values, cycle, STILL * values.max(axis=(0, 1)))
        inputs, labels, guesses = (store[n][puzzle] for n in ("inputs", "labels", "predictions"))
        ended = values[inside_ends][:, at].reshape(-1, opened.d_sae)
        sparse.append(scipy.sparse.csr_matrix(ended))
        facts.append(
            _chosen(facts_of(inputs, labels, guesses, inside.tolist()), cells, len(inside))
        )
        if len(steps) == store.n_steps:
            by_step = np.stack([values[step_of == s].mean(0) for s in steps])[:, at]
            decided_at, blank = decided(guesses)[cells], (inputs == 1)[cells]
            leads[i] = lead(by_step, decided_at, blank)
    rows = n * reader.rows
    return Gathered(
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


def cells_of(opened: Opened) -> tuple[np.ndarray, np.ndarray]:
    """Cells whose states are stored, and their places among the stored positions."""
    prefix = opened.store.model.prefix
    positions = np.array(opened.store.positions)
    at = np.flatnonzero(positions >= prefix)
    if not len(at):
        raise UserError(f"{opened.store.path} holds prefix positions only: record cells as well")
    return positions[at] - prefix, at


def _chosen(facts: Facts, cells: np.ndarray, n_steps: int) -> Facts:
    """Facts of the cells that are stored."""
    n = len(facts.values) // n_steps
    rows = (np.arange(n_steps)[:, None] * n + cells).ravel()
    return facts._replace(values=facts.values[rows], blank=facts.blank[rows])


def check_gathering(opened: Opened, n_examples: int) -> None:
    """UserError where the ticks are too few, the positions are no cells, or the memory is short."""
    reader, n = opened.reader, len(opened.puzzles)
    places = [(t.step, t.h_cycle) for t in reader.ticks]
    counts = [places.count(place) for place in dict.fromkeys(places)]
    if len(set(counts)) > 1 or len(counts) < 4:
        raise UserError(
            f"features over time need four whole H-cycles or more; {reader.site} is read at "
            f"{len(reader.indices)} ticks of {len(counts)}"
        )
    cells_of(opened)
    of_puzzle = 4 * opened.d_sae * (len(reader.indices) + 3)
    need = n * of_puzzle + 2 * opened.d_sae * reader.n_pos * min(n_examples, n)
    what = f"{n} puzzles at {len(reader.indices)} ticks with {opened.d_sae} features"
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
