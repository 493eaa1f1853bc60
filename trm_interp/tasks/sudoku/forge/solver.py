"""Sudoku solver on bit masks, compiled by numba: counts solutions and the guesses they took.

Candidates of one digit in one band (box_rows rows) are one integer. Inside a band a digit takes one
mini-row (a row's part of a box) per row and per box: a permutation matrix. The same holds for
mini-columns in a stack. Restricting both matrices to entries of a permutation gives hidden singles
and locked candidates. The second kind of rule counts digits: a cell holds 1, a mini-row box_cols, a
mini-column box_rows; where just enough digits are left they are in, where enough are in the others
are out. That is the logic and the branching of tdoku (github.com/t-dillon/tdoku), whose guess
counts `guesses` follows closely.

`level.py` lays the bits out, `rules.py` applies that logic, `branch.py` chooses what to split on.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.forge import bitmatrix as bm
from trm_interp.tasks.sudoku.forge.branch import choose_cell, choose_mini
from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.level import (
    assert_cells,
    copy_level,
    drop,
    load,
    new_levels,
    read,
    remove,
)
from trm_interp.tasks.sudoku.forge.machine import words_of
from trm_interp.tasks.sudoku.forge.rules import OPEN, SOLVED, propagate
from trm_interp.tasks.sudoku.grid import COMPILED_SIDES, SHAPES, Grid, Shape, shape_of

NO_CAP: Any = np.int64(2**62)  # see `compiled`


class Solved(NamedTuple):
    """One entry per puzzle."""

    solutions: Grid
    """[puzzle, cells] the first solution found, zeros where there is none."""
    counts: NDArray[np.int64]
    """[puzzle] solutions found; the search stops at the limit."""
    guesses: NDArray[np.int64]
    """[puzzle] binary splits of the search; above `max_guesses` where that cut it off."""


def solve_batch(puzzles: Grid, limit: int = 2, max_guesses: int = NO_CAP) -> Solved:
    """Solve [puzzle, cells] grids; limit 2 proves that a solution is the only one.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> solved = solve_batch(np.stack([parse("......2..3..2.4."), parse("1...............")]))
    >>> solved.counts.tolist(), solved.guesses.tolist()
    ([1, 2], [0, 6])
    """
    puzzles = np.ascontiguousarray(puzzles, np.uint8)
    if puzzles.ndim != 2:
        raise ValueError(f"puzzles must be [puzzle, cells], got shape {puzzles.shape}")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    shape = shape_of(puzzles.shape[1])
    if puzzles.size and puzzles.max() > shape.side:
        raise ValueError(f"digit {puzzles.max()}; this shape has 1 to {shape.side}, 0 for a blank")
    return Solved(*_solve_batch(puzzles, limit, max_guesses, *geometry(shape)))


def unique_solution(puzzle: Grid) -> Grid:
    """The solution; ValueError where there is none or more than one.

    >>> from trm_interp.tasks.sudoku.grid import parse, render
    >>> render(unique_solution(parse("......2..3..2.4.")))
    '1234342143122143'
    """
    solved = solve_batch(puzzle[None])
    if solved.counts[0] != 1:
        raise ValueError("several solutions" if solved.counts[0] else "no solution")
    return solved.solutions[0]


def geometry(shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(hh, ww), the shape as the compiled functions take it.

    >>> geometry(Shape(2, 3))
    ((0, 0), (0, 0, 0))
    """
    if shape not in [SHAPES[side] for side in COMPILED_SIDES]:
        raise ValueError(f"boxes of 2 x 2, 2 x 3 or 3 x 3, got {shape}")
    return (0,) * shape.box_rows, (0,) * shape.box_cols


@compiled
def _solve_batch(puzzles, limit, max_guesses, hh, ww):
    n, cells = puzzles.shape
    solutions = np.zeros((n, cells), np.uint8)
    counts = np.zeros(n, np.int64)
    guesses = np.zeros(n, np.int64)
    levels = new_levels(hh, ww)
    for i in range(n):
        load(words_of(levels, 0), puzzles[i], hh, ww)
        first = solutions[i : i + 1]
        counts[i], guesses[i] = search(levels, first, limit, max_guesses, False, hh, ww)
    return solutions, counts, guesses


@compiled
def search(levels, room, limit, max_guesses, by_cell, hh, ww):
    """(solutions found, guesses) from level 0.

    The first solutions are written to the rows of `room` [row, cells], as far as they suffice.
    It splits on a mini-row or mini-column, or with `by_cell` on the digits of a cell (`branch.py`).
    """
    count, guesses, level = 0, 0, np.int64(0)
    while level >= 0:
        s = words_of(levels, level)
        state = propagate(s, hh, ww)
        if state == OPEN:
            if guesses >= max_guesses:
                return count, guesses + 1
            guesses += 1
            copy_level(levels, level, level + 1)
            one, other = s, words_of(levels, level + 1)
            if by_cell:
                d, band, bit = choose_cell(s, hh, ww)
                drop(one, d, band, bit, hh, ww)
                assert_cells(other, d, band, bit, hh, ww)
            else:
                d, row, col = choose_mini(s, hh, ww)
                split_mini(one, other, d, row, col, hh, ww)
            level += 1
        else:
            if state == SOLVED:
                if count < len(room):
                    read(s, room[count], hh, ww)
                count += 1
                if count == limit:
                    break
            level -= 1
    return count, guesses


@compiled
def split_mini(without, with_it, d, row, col, hh, ww):
    """Digit d is not in a mini-row (or mini-column, the other being 0); it is."""
    remove(without, d, row, col, hh, ww)
    row = bm.rivals(row, bm.row_axes(hh, ww))
    remove(with_it, d, row, bm.rivals(col, bm.col_axes(hh, ww)), hh, ww)
