"""How hard a Sudoku is: clues, deduction tier and waves, guesses of the solver, least effort.

Every number is deterministic and depends on the puzzle alone (`guesses_all` and `effort` also on
the seed), not on the other puzzles of the call. All but `guesses_first` are the same, `guesses_all`
and `effort` up to sampling noise, for puzzles that a symmetry of Sudoku maps onto each other.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.effort import least_efforts
from trm_interp.tasks.sudoku.forge.solver import geometry, solve_batch
from trm_interp.tasks.sudoku.grid import Grid, Shape, from_tokens, shape_of

RATED_AT_ONCE = 1024


class Ratings(NamedTuple):
    """One entry per puzzle."""

    clues: NDArray[np.int64]
    """Givens."""
    tier: NDArray[np.int64]
    """0: naked singles solve it; 1: hidden singles are needed too; 2: singles do not suffice."""
    waves: NDArray[np.int64]
    """Rounds of singles, naked and hidden, all of a round placed at once, until solved or stuck."""
    guesses_first: NDArray[np.int64]
    """Splits until the first solution, puzzle as given: one draw of a noisy quantity."""
    guesses_all: NDArray[np.float64]
    """Splits until the solution is proved unique, mean over random images of the puzzle."""
    effort: NDArray[np.int64]
    """The least of three exhaustive searches over the same images: hard for all (`effort.py`)."""


def rate(
    puzzles: Grid,
    seed: int = 0,
    images: int = 8,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Ratings:
    """Rate [puzzle, cells] grids, each with one solution; `images` symmetries per puzzle.

    `progress` is called with how many are rated, of how many.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> ratings = rate(parse("......2..3..2.4.")[None])
    >>> {name: values.item() for name, values in ratings._asdict().items()}
    {'clues': 4, 'tier': 0, 'waves': 3, 'guesses_first': 0, 'guesses_all': 0.0, 'effort': 0}
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    puzzles = np.ascontiguousarray(puzzles, np.uint8)
    parts = []
    for start in range(0, max(len(puzzles), 1), RATED_AT_ONCE):
        parts.append(_rate(puzzles[start : start + RATED_AT_ONCE], seed, images))
        progress(min(start + RATED_AT_ONCE, len(puzzles)), len(puzzles))
    return Ratings(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _rate(puzzles: Grid, seed: int, images: int) -> Ratings:
    guesses_first = solve_batch(puzzles, limit=1).guesses
    tier, waves = _logic_batch(puzzles, *geometry(shape_of(puzzles.shape[1])))
    drawn = random_images(puzzles, images, seed)
    splits = solve_batch(drawn.reshape(-1, puzzles.shape[1]), limit=2).guesses.reshape(images, -1)
    effort = least_efforts(drawn, splits)
    return Ratings((puzzles > 0).sum(1), tier, waves, guesses_first, splits.mean(0), effort)


def random_images(puzzles: Grid, images: int, seed: int) -> Grid:
    """[image, puzzle, cells] under random symmetries, the same ones for every puzzle."""
    tables = zip(*relabelings(shape_of(puzzles.shape[1]), images, seed), strict=True)
    return np.stack([digits[puzzles[:, cells]] for cells, digits in tables])


@cache
def relabelings(shape: Shape, images: int, seed: int) -> tuple[NDArray[np.int64], Grid]:
    """(cells [image, cell], digits [image, side + 1]): image[i] = digits[puzzle[cells[i]]]."""
    import torch  # takes seconds, and the generator, which imports this module, does without

    from trm_interp.core.counter import hash64
    from trm_interp.tasks.sudoku.augment import random_symmetry

    symmetry = random_symmetry(hash64(seed, torch.arange(images)), shape)
    return symmetry.cells.numpy(), from_tokens(symmetry.tokens.numpy()[:, 1:])


# ---- compiled


@compiled
def _logic_batch(puzzles, hh, ww):
    tier, waves = np.zeros(len(puzzles), np.int64), np.zeros(len(puzzles), np.int64)
    for i in range(len(puzzles)):
        tier[i], waves[i] = logic(puzzles[i], hh, ww)
    return tier, waves


@compiled
def logic(puzzle, hh, ww):
    """(tier, waves) of a puzzle, see `Ratings`."""
    waves, solved = _waves(puzzle, True, hh, ww)
    if not solved:
        return 2, waves
    return (0 if _waves(puzzle, False, hh, ww)[1] else 1), waves


@compiled
def _waves(puzzle, hidden, hh, ww):
    """(rounds that placed something, solved) with naked singles, and hidden ones if `hidden`."""
    H, W = len(hh), len(ww)
    N = H * W
    grid = puzzle.copy()
    can = np.zeros(N * N, np.int64)  # candidates of a blank, bit d for digit d + 1
    seen = np.zeros(3 * N, np.int64)  # digits placed in a row, column, box
    one = np.zeros(3 * N, np.int64)  # digits with at least one place there
    two = np.zeros(3 * N, np.int64)  # with at least two
    rounds = 0
    while True:
        blanks = 0
        seen[:], one[:], two[:] = 0, 0, 0
        for cell in range(N * N):
            if grid[cell] > 0:
                for unit in _units(cell, hh, ww):
                    seen[unit] |= 1 << (np.int64(grid[cell]) - 1)
            else:
                blanks += 1
        if blanks == 0:
            return rounds, True
        for cell in range(N * N):
            if grid[cell] == 0:
                row, col, box = _units(cell, hh, ww)
                can[cell] = ((1 << N) - 1) & ~(seen[row] | seen[col] | seen[box])
                for unit in (row, col, box):
                    two[unit] |= one[unit] & can[cell]
                    one[unit] |= can[cell]
        placed = False
        for cell in range(N * N):
            if grid[cell] == 0:
                single = can[cell]
                if hidden and single & (single - 1):
                    row, col, box = _units(cell, hh, ww)
                    single &= ~(two[row] & two[col] & two[box])
                if single and single & (single - 1) == 0:
                    digit = 0
                    while single >> digit:
                        digit += 1
                    grid[cell] = digit
                    placed = True
        if not placed:
            return rounds, False
        rounds += 1


@compiled
def _units(cell, hh, ww):
    """Row, column and box of a cell as units: rows first, then columns, then boxes."""
    H, W = len(hh), len(ww)
    N = H * W
    row, col = cell // N, cell % N
    return row, N + col, 2 * N + row // H * H + col // W
