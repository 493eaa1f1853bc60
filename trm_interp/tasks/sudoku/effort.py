"""Three searches and one count that have to agree before a puzzle passes for hard.

A puzzle can trap one way of searching and be easy for all others, and a climb on the guesses of one
solver finds such puzzles within seconds. `effort` is therefore the least of three searches, over
several relabelings of the puzzle:

A   guesses that split mini-rows and mini-columns (the solver's own),
B   guesses that split the cell with the fewest digits,
L   the look-ahead tree: both sides of every two-way split are tried, a side that fails is struck
    at once, and where none fails the split that removes most on both sides is branched on.

All of them prove that the solution is the only one. `resistance` counts the wrong candidates that
no single assumption refutes; it grows before any search does, which gives a climb its slope.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trm_interp.tasks.sudoku import bitmatrix as bm
from trm_interp.tasks.sudoku.branch import choose_cell
from trm_interp.tasks.sudoku.grid import Grid, shape_of
from trm_interp.tasks.sudoku.solver import (
    DEAD,
    NO_CAP,
    OPEN,
    SOLVED,
    assert_cells,
    copy_between,
    copy_level,
    drop,
    geometry,
    load,
    locate,
    new_levels,
    place,
    propagate,
    search,
)

REJECTED = -1.0
NOT_THERE = -1  # in place of a digit: the other side's digit is not in its cell
MOST_RESISTANCE = 170  # more does not count: forum-hardest puzzles have about 169


def least_efforts(images: Grid, splits: NDArray[np.int64]) -> NDArray[np.int64]:
    """[puzzle] the least of A, B and L over all images.

    `images` [image, puzzle, cells]: relabelings of puzzles with one solution; `splits` [image,
    puzzle]: the guesses A of each.
    """
    least = splits.min(0)
    hard = np.flatnonzero(least)  # without guesses there is nothing to search
    if len(hard):
        shape = shape_of(images.shape[2])
        least[hard] = _least(np.ascontiguousarray(images[:, hard]), least[hard], *geometry(shape))
    return least


def resistances(puzzles: Grid, solutions: Grid) -> NDArray[np.int64]:
    """[puzzle] wrong candidates that neither the rules nor a single assumption refute."""
    return _resistances(puzzles, solutions, *geometry(shape_of(puzzles.shape[1])))


@njit(cache=True, nogil=True)
def _least(images, caps, hh, ww):
    levels, unread = new_levels(hh, ww), np.zeros((0, images.shape[2]), np.uint8)
    root, least = levels[:1].copy(), caps.copy()
    for i in range(images.shape[1]):
        for k in range(images.shape[0]):
            load(root[0], images[k, i], hh, ww)
            least[i] = by_cell_and_ahead(root, 0, least[i], levels, unread, hh, ww)
    return least


@njit(cache=True, nogil=True)
def _resistances(puzzles, solutions, hh, ww):
    levels = new_levels(hh, ww)
    found = np.zeros(len(puzzles), np.int64)
    for i in range(len(puzzles)):
        load(levels[0], puzzles[i], hh, ww)
        if propagate(levels[0], hh, ww) == OPEN:
            found[i] = resistance(levels, solutions[i], 0, NO_CAP, hh, ww)
    return found


# ---- the measures, for compiled callers


@njit(cache=True, nogil=True)
def by_cell_and_ahead(roots, at, cap, levels, unread, hh, ww):
    """min(B, L) of level `at` of `roots`, a puzzle with one solution, and of `cap`."""
    copy_between(roots, at, levels, 0)
    cap = min(cap, search(levels, unread, 2, cap, True, hh, ww)[1])
    copy_between(roots, at, levels, 0)
    return min(cap, look_ahead(levels, cap, hh, ww))


@njit(cache=True, nogil=True)
def look_ahead(levels, cap, hh, ww):
    """L of level 0: 2 * branches + sides that failed; cut off soon after `cap`."""
    size, level = 0, 0
    while level >= 0 and size <= cap:
        state, failed, split = _strike(levels, level, cap - size, hh, ww)
        size += failed
        if state == OPEN:
            size += 2
            copy_level(levels, level, level + 1)
            _assume(levels[level + 1], split, 0, hh, ww)
            _assume(levels[level], split, 1, hh, ww)
            level += 1
        else:
            level -= 1
    return size


@njit(cache=True, nogil=True)
def resistance(levels, solution, least, most, hh, ww):
    """Wrong candidates of level 0, propagated, that no single assumption refutes.

    Counted up to `most`; where it cannot come to `least`, some number below that.
    """
    H, W = len(hh), len(ww)
    left = candidates(levels[0], hh, ww) - len(solution)
    found = 0
    for size in range(
        2, H * W + 1
    ):  # in small cells most fail: what cannot reach `least` ends soon
        for cell in range(len(solution)):
            band, bit = locate(cell, hh, ww)
            here = 0
            for d in range(H * W):
                here += (levels[0, d * W + band] & bit) != 0
            if here != size:
                continue
            for d in range(H * W):
                if d + 1 == solution[cell] or not levels[0, d * W + band] & bit:
                    continue
                if found + left < least or found >= most:
                    return found
                copy_level(levels, 0, 1)
                place(levels[1], cell, d, hh, ww)
                found += propagate(levels[1], hh, ww) != DEAD
                left -= 1
    return found


@njit(cache=True, nogil=True)
def candidates(s, hh, ww):
    """Candidates of a level, those of fixed cells included."""
    total = 0
    for word in range(len(hh) * len(ww) * len(ww)):
        total += bm.ones(s[word])
    return total


@njit(cache=True, nogil=True)
def energy(roots, puzzle, solution, least, weight, tables, levels, unread, image, hh, ww):
    """weight * ln(1 + effort) + min(R, 170); REJECTED below `least` or with a second solution.

    The last level of `roots` is the puzzle's, `tables` are `rate.relabelings`, and `image` is room
    for one puzzle. Bounds come first, the dearest count last.
    """
    cells, digits = tables
    at = len(roots) - 1
    state = propagate(roots[at], hh, ww)
    if state != OPEN:
        return 0.0 if state == SOLVED and least <= 0 else REJECTED
    wrong = candidates(roots[at], hh, ww) - len(puzzle)
    copy_between(roots, at, levels, 0)
    solutions, effort = search(levels, unread, 2, NO_CAP, False, hh, ww)
    from_search = weight * math.log(1 + effort)
    if solutions != 1 or min(wrong, MOST_RESISTANCE) < least - from_search:
        return REJECTED
    copy_between(roots, at, levels, 0)
    wanted = math.ceil(least - from_search)
    resisting = resistance(levels, solution, wanted, MOST_RESISTANCE, hh, ww)
    needed = math.exp((least - resisting) / weight) - 1
    if effort < needed:
        return REJECTED
    effort = by_cell_and_ahead(roots, at, effort, levels, unread, hh, ww)
    for k in range(len(cells)):
        if effort < needed:
            return REJECTED
        for i in range(len(puzzle)):
            image[i] = digits[k, puzzle[cells[k, i]]]
        load(roots[0], image, hh, ww)
        copy_between(roots, 0, levels, 0)
        effort = min(effort, search(levels, unread, 2, effort, False, hh, ww)[1])
        effort = by_cell_and_ahead(roots, 0, effort, levels, unread, hh, ww)
    total = weight * math.log(1 + effort) + resisting
    return total if total >= least else REJECTED


# ---- look-ahead: a split is (digit, band, bit) of one side, then of the other


@njit(cache=True, nogil=True)
def _strike(levels, level, cap, hh, ww):
    """(state, sides that failed, split to branch on) once no side of a split fails any more."""
    s = levels[level]
    state, failed = propagate(s, hh, ww), 0
    split, best, struck = (0, 0, 0, 0, 0, 0), -1, True
    while state == OPEN and struck and failed <= cap:
        struck, best = False, -1
        for at in range(2 * len(hh) ** 2 * len(ww) ** 2):
            here = _split_at(s, at, hh, ww)
            if here[2] == 0:
                continue
            product = 1
            for side in range(2):
                taken = _taken(levels, level, here, side, hh, ww)
                product *= taken
                if taken < 0:
                    failed += 1
                    struck = True
                    _assume(s, here, 1 - side, hh, ww)
                    state = propagate(s, hh, ww)
                    break
            if state != OPEN or failed > cap:
                break
            if product > best:
                best, split = product, here
    if state == OPEN and best < 0:  # no cell of two digits, no digit of two places
        d, band, bit = choose_cell(s, hh, ww)
        split = (d, band, bit, NOT_THERE, band, bit)
    return state, failed, split


@njit(cache=True, nogil=True)
def _split_at(s, at, hh, ww):
    """The two-way split in cell `at`, or from there on of a digit in a row; zeros for none."""
    H, W = len(hh), len(ww)
    N = H * W
    if at < N * N:
        band, bit = locate(at, hh, ww)
        first, last, count = 0, 0, 0
        for d in range(N):
            if s[d * W + band] & bit:
                first = d if count == 0 else first
                last = d
                count += 1
        if count == 2:
            return first, band, bit, last, band, bit
    else:
        d, row = (at - N * N) // N, at % N
        band = row // H
        places = s[d * W + band]
        places &= bm.spread(((1 << H) - 1) << row % H * H, W, H * max(H, W))
        first = places & -places
        last = places ^ first
        if last and last & (last - 1) == 0:
            return d, band, first, d, band, last
    return 0, 0, 0, 0, 0, 0


@njit(cache=True, nogil=True)
def _assume(s, split, side, hh, ww):
    """One side of a split holds."""
    d, band, bit = (split[0], split[1], split[2]) if side == 0 else (split[3], split[4], split[5])
    if d == NOT_THERE:
        drop(s, split[0], band, bit, hh, ww)
    else:
        assert_cells(s, d, band, bit, hh, ww)


@njit(cache=True, nogil=True)
def _taken(levels, level, split, side, hh, ww):
    """Candidates that one side of a split removes from a level; -1 where it fails."""
    copy_level(levels, level, level + 1)
    _assume(levels[level + 1], split, side, hh, ww)
    if propagate(levels[level + 1], hh, ww) == DEAD:
        return -1
    return candidates(levels[level], hh, ww) - candidates(levels[level + 1], hh, ww)
