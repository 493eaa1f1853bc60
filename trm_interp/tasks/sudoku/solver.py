"""Sudoku solver on bit masks, compiled by numba: counts solutions and the guesses they took.

Candidates of one digit in one band (box_rows rows) are one integer. Inside a band a digit takes one
mini-row (a row's part of a box) per row and per box: a permutation matrix. The same holds for
mini-columns in a stack. Restricting both matrices to entries of a permutation gives hidden singles
and locked candidates. The second kind of rule counts digits: a cell holds 1, a mini-row box_cols, a
mini-column box_rows; where just enough digits are left they are in, where enough are in the others
are out. That is the logic and the branching of tdoku (github.com/t-dillon/tdoku), whose guess
counts `guesses` follows closely.

Bits, for a box of H rows and W columns, G = H * max(H, W):
    candidates  column_in_box * G + row_in_band * H + box, a word per digit and band
    mini-rows   band * H * H + row_in_band * H + box, a word per digit
    mini-cols   column_in_box * G + band * H + stack, a word per digit

`hh` and `ww` are tuples of H and W zeros: their lengths are constants to the compiler, so every
shape gets its own code and the on-disk cache tells the shapes apart.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trm_interp.tasks.sudoku import bitmatrix as bm
from trm_interp.tasks.sudoku.branch import choose_cell, choose_mini
from trm_interp.tasks.sudoku.grid import Grid, Shape, shape_of
from trm_interp.tasks.sudoku.machine import lowest, words_of

DEAD, OPEN, SOLVED = 0, 1, 2
NO_CAP = 2**62


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


def count_solutions(puzzle: Grid, limit: int = 2) -> int:
    """Number of solutions, counted up to `limit`."""
    return int(solve_batch(puzzle[None], limit).counts[0])


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
    if not {shape.box_rows, shape.box_cols} <= {2, 3}:
        raise ValueError(f"box sides must be 2 or 3, got {shape}")
    return (0,) * shape.box_rows, (0,) * shape.box_cols


@njit(cache=True, nogil=True)
def _solve_batch(puzzles, limit, max_guesses, hh, ww):
    n, cells = puzzles.shape
    solutions = np.zeros((n, cells), np.uint8)
    counts = np.zeros(n, np.int64)
    guesses = np.zeros(n, np.int64)
    levels = new_levels(hh, ww)
    for i in range(n):
        load(words_of(levels, 0), puzzles[i], hh, ww)
        found = solutions[i : i + 1]
        counts[i], guesses[i] = search(levels, found, limit, max_guesses, False, hh, ww)
    return solutions, counts, guesses


# ---- the parts, for compiled callers


@njit(cache=True, nogil=True)
def new_levels(hh, ww):
    """int64 [level, word]: room for one search. A level is one state of the candidates.

    Words of a level: candidates [digit, band], fixed cells [digit, band], mini-rows [digit],
    mini-columns [digit], digits to look at again. A split removes a layout (a permutation), so
    the depth is at most the number of layouts that can go.
    """
    H, W = len(hh), len(ww)
    spare = (0, 0, 1, 5)  # n! - 1
    depth = H * W * (W * spare[H] + H * spare[W])
    return np.zeros((depth + 2, open_digits(hh, ww) + 1), np.int64)


@njit(cache=True, nogil=True)
def open_digits(hh, ww):
    """The last word of a level: digits to look at again."""
    return len(hh) * len(ww) * (2 * len(ww) + 2)


@njit(cache=True, nogil=True)
def load(s, puzzle, hh, ww):
    """Set level `s` to the candidates that the givens of each digit leave to that digit."""
    H, W = len(hh), len(ww)
    N = H * W
    for word in range(open_digits(hh, ww) + 1):
        s[word] = 0
    for cell in range(N * N):
        if puzzle[cell] > 0:
            band, bit = locate(cell, hh, ww)
            s[(puzzle[cell] - 1) * W + band] |= bit
    for d in range(N):
        rows, cols = mini_rows(s, d, hh, ww), mini_cols(s, d, hh, ww)
        for band in range(W):
            s[d * W + band] = bm.band_cells(hh, ww)
        remove(
            s, d, bm.rivals(rows, bm.row_axes(hh, ww)), bm.rivals(cols, bm.col_axes(hh, ww)), hh, ww
        )


@njit(cache=True, nogil=True)
def locate(cell, hh, ww):
    """(band, candidate bit) of a cell."""
    H, W = len(hh), len(ww)
    row, col = cell // (H * W), cell % (H * W)
    return row // H, 1 << ((col % W) * H * max(H, W) + (row % H) * H + col // W)


@njit(cache=True, nogil=True)
def place(s, cell, d, hh, ww):
    """Assert digit d (from 0) in a cell: its mini-row and mini-column hold it."""
    band, bit = locate(cell, hh, ww)
    assert_cells(s, d, band, bit, hh, ww)


@njit(cache=True, nogil=True)
def assert_cells(s, d, band, cells, hh, ww):
    """Digit d is in these cells of a band: their mini-rows and mini-columns rule out rivals."""
    H, W = len(hh), len(ww)
    row = (bm.fold(cells, W, H * max(H, W)) & bm.lane(hh)) << band * H * H
    col = (bm.fold(cells, H, H) & bm.band_cols(hh, ww)) << band * H
    remove(s, d, bm.rivals(row, bm.row_axes(hh, ww)), bm.rivals(col, bm.col_axes(hh, ww)), hh, ww)


@njit(cache=True, nogil=True)
def search(levels, found, limit, max_guesses, by_cell, hh, ww):
    """(solutions found, guesses) from level 0.

    The first solutions are written to the rows of `found` [room, cells], as far as there is room.
    It splits on a mini-row or mini-column, or with `by_cell` on the digits of a cell (`branch.py`).
    """
    count, guesses, level = 0, 0, 0
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
                if count < len(found):
                    read(s, found[count], hh, ww)
                count += 1
                if count == limit:
                    break
            level -= 1
    return count, guesses


@njit(cache=True, nogil=True)
def split_mini(without, with_it, d, row, col, hh, ww):
    """Digit d is not in a mini-row (or mini-column, the other being 0); it is."""
    remove(without, d, row, col, hh, ww)
    row = bm.rivals(row, bm.row_axes(hh, ww))
    remove(with_it, d, row, bm.rivals(col, bm.col_axes(hh, ww)), hh, ww)


@njit(cache=True, nogil=True)
def copy_level(levels, source, target):
    copy_between(levels, source, levels, target)


@njit(cache=True, nogil=True)
def copy_between(some, source, others, target):
    old, new = words_of(some, source), words_of(others, target)
    for word in range(some.shape[1]):
        new[word] = old[word]


@njit(cache=True, nogil=True)
def read(s, grid, hh, ww):
    """Write the fixed digits of level `s` into `grid` [cells]."""
    H, W = len(hh), len(ww)
    N, G = H * W, H * max(H, W)
    for d in range(N):
        for band in range(W):
            cells = s[(N + d) * W + band]
            while cells:
                at = lowest(cells)
                cells &= cells - 1
                row, col = band * H + at % G // H, at % H * W + at // G  # see `locate`
                grid[row * N + col] = d + 1


@njit(cache=True, nogil=True)
def remove(s, d, rows, cols, hh, ww):
    """Take digit d out of mini-rows and mini-columns."""
    H, W = len(hh), len(ww)
    for band in range(W):
        out = bm.spread((rows >> band * H * H) & bm.lane(hh), W, H * max(H, W))
        out |= bm.spread((cols >> band * H) & bm.band_cols(hh, ww), H, H)
        s[d * W + band] &= ~out
    s[open_digits(hh, ww)] |= 1 << d


@njit(cache=True, nogil=True)
def drop(s, d, band, cells, hh, ww):
    """Take digit d out of these cells of a band."""
    s[d * len(ww) + band] &= ~cells
    s[open_digits(hh, ww)] |= 1 << d


@njit(cache=True, nogil=True)
def propagate(s, hh, ww):
    """Apply every rule until none does anything: DEAD, OPEN or SOLVED."""
    again = open_digits(hh, ww)
    state = OPEN
    while state == OPEN and s[again]:
        digits = s[again]
        while digits and _close(s, lowest(digits), hh, ww):
            digits &= digits - 1
        if digits:
            state = DEAD
        else:
            s[again] = 0
            state = _count_cells(s, hh, ww)
        cheap_rules_done = state == OPEN and not s[again]
        if cheap_rules_done and not (
            _count_minis(s, True, hh, ww) and _count_minis(s, False, hh, ww)
        ):
            state = DEAD
    return state


# ---- one digit


@njit(cache=True, nogil=True, inline="always")
def _close(s, d, hh, ww):
    """Keep the candidates of digit d that lie in a layout of their band and of their stack."""
    H, W = len(hh), len(ww)
    G = H * max(H, W)
    row_axes, col_axes = bm.row_axes(hh, ww), bm.col_axes(hh, ww)
    rows, cols = 0, 0
    while True:
        all_rows = mini_rows(s, d, hh, ww)
        if all_rows == rows:
            break
        rows = all_rows & bm.minors(all_rows, row_axes)
        if not bm.has_layouts(rows, row_axes):
            return False
        if rows != all_rows:
            for band in range(W):
                s[d * W + band] &= bm.spread((rows >> band * H * H) & bm.lane(hh), W, G)
        all_cols = mini_cols(s, d, hh, ww)
        cols = all_cols & bm.minors(all_cols, col_axes)
        if not bm.has_layouts(cols, col_axes):
            return False
        if cols == all_cols:
            break
        for band in range(W):
            s[d * W + band] &= bm.spread((cols >> band * H) & bm.band_cols(hh, ww), H, H)
    sole_rows, sole_cols = bm.sole(rows, row_axes), bm.sole(cols, col_axes)
    for band in range(W):
        in_rows = bm.spread((sole_rows >> band * H * H) & bm.lane(hh), W, G)
        in_cols = bm.spread((sole_cols >> band * H) & bm.band_cols(hh, ww), H, H)
        s[(H * W + d) * W + band] = in_rows & in_cols
    s[2 * H * W * W + d] = rows
    s[(2 * W + 1) * H * W + d] = cols
    return True


@njit(cache=True, nogil=True)
def mini_rows(s, d, hh, ww):
    """Mini-rows with a candidate of digit d."""
    H, W = len(hh), len(ww)
    out = 0
    for band in range(W):
        out |= (bm.fold(s[d * W + band], W, H * max(H, W)) & bm.lane(hh)) << band * H * H
    return out


@njit(cache=True, nogil=True)
def mini_cols(s, d, hh, ww):
    """Mini-columns with a candidate of digit d."""
    H, W = len(hh), len(ww)
    out = 0
    for band in range(W):
        out |= (bm.fold(s[d * W + band], H, H) & bm.band_cols(hh, ww)) << band * H
    return out


# ---- all digits


@njit(cache=True, nogil=True)
def _count_cells(s, hh, ww):
    """A cell with one candidate takes it; a cell that a digit has fixed loses the others."""
    H, W = len(hh), len(ww)
    N = H * W
    state = SOLVED
    for band in range(W):
        one, two, fixed = 0, 0, 0
        for d in range(N):
            here = s[d * W + band]
            two |= one & here
            one |= here
            fixed |= s[(N + d) * W + band]
        if one != bm.band_cells(hh, ww):
            state = DEAD
            break
        if fixed != one:
            state = OPEN
        single = one & ~two
        if single == fixed:
            continue
        lost = 0
        for d in range(N):
            out = s[d * W + band] & fixed & ~s[(N + d) * W + band]
            s[d * W + band] ^= out
            lost |= (out != 0) << d
        s[open_digits(hh, ww)] |= lost
        if single & ~fixed:
            for d in range(N):
                new = s[d * W + band] & single & ~fixed
                if new:
                    assert_cells(s, d, band, new, hh, ww)
    return state


@njit(cache=True, nogil=True)
def _count_minis(s, by_row, hh, ww):
    """A mini-row holds box_cols digits, a mini-column box_rows; False where that cannot be."""
    H, W = len(hh), len(ww)
    need = W if by_row else H
    axes = bm.row_axes(hh, ww) if by_row else bm.col_axes(hh, ww)
    first = 2 * H * W * W if by_row else (2 * W + 1) * H * W
    can1, can2, can3, can4 = 0, 0, 0, 0  # possible for at least 1, 2, 3, 4 digits
    has1, has2, has3, has4 = 0, 0, 0, 0  # certain for at least so many
    for d in range(H * W):
        can, has = s[first + d], bm.sole(s[first + d], axes)
        can4 |= can3 & can
        can3 |= can2 & can
        can2 |= can1 & can
        can1 |= can
        has4 |= has3 & has
        has3 |= has2 & has
        has2 |= has1 & has
        has1 |= has
    if need == 2:
        can3, can4, has3, has4 = can2, can3, has2, has3
    if can3 != bm.every(axes) or has4:
        return False
    exact = can3 & ~can4  # the digits left there are certain
    new = exact ^ has3
    if new:
        for d in range(H * W):
            here = s[first + d] & new & ~bm.sole(s[first + d], axes)
            if here:
                out = here & has3 | bm.rivals(here & exact, axes)
                remove(s, d, out if by_row else 0, 0 if by_row else out, hh, ww)
    return True
