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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.forge import bitmatrix as bm
from trm_interp.tasks.sudoku.forge.branch import choose_mini, crowded
from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.level import (
    assert_cells,
    copy_between,
    copy_level,
    load,
    locate,
    mini_cols,
    mini_rows,
    new_levels,
)
from trm_interp.tasks.sudoku.forge.look_ahead import candidates, look_ahead
from trm_interp.tasks.sudoku.forge.machine import count_ones, words_of
from trm_interp.tasks.sudoku.forge.rules import DEAD, OPEN, SOLVED, propagate
from trm_interp.tasks.sudoku.forge.solver import geometry, search, split_mini
from trm_interp.tasks.sudoku.grid import Grid, shape_of

REJECTED = -1.0
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


@compiled
def _least(images, caps, hh, ww):
    levels, unread = new_levels(hh, ww), np.zeros((0, images.shape[2]), np.uint8)
    root, least = levels[:1].copy(), caps.copy()
    for i in range(images.shape[1]):
        for k in range(images.shape[0]):
            load(words_of(root, 0), images[k, i], hh, ww)
            least[i] = by_cell_and_ahead(root, np.int64(0), least[i], levels, unread, hh, ww)
    return least


# ---- the measures, for compiled callers


class Desk(NamedTuple):
    """Room for the measures of one puzzle after the other; words are [digit, band] as in a level.

    What is already shown of wrong candidates saves work and changes no number.
    """

    levels: NDArray[np.int64]
    unread: Grid  # no solution is wanted
    image: Grid
    answer: NDArray[np.int64]  # the solution's candidates
    standing: NDArray[np.int64]  # candidates that were shown to outlive a single assumption
    pending: NDArray[np.int64]  # candidates that are not yet tried
    struck: NDArray[np.int64]  # refuted when last tried, maybe in another puzzle: tried first


@compiled
def new_desk(cells, hh, ww):
    words = len(hh) * len(ww) * len(ww)
    return Desk(
        new_levels(hh, ww),
        np.zeros((0, cells), np.uint8),
        np.zeros(cells, np.uint8),
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
        np.zeros(words, np.int64),
    )


@compiled
def write_answer(solution, words, hh, ww):
    """The candidates that a full grid has."""
    words[:] = 0
    for cell in range(len(solution)):
        band, bit = locate(cell, hh, ww)
        words[(np.int64(solution[cell]) - 1) * len(ww) + band] |= bit


@compiled
def only_answer(desk, hh, ww):
    """(whether `desk.answer` is the only solution of level 0, guesses A if so).

    As `search` with limit 2, but the side of a split that the answer is not on goes first, which
    leads to another solution soon. Level 0 always is the side of the answer. What is fixed in a
    state without contradiction has none on its own: it is added to `desk.standing`.
    """
    levels, standing = desk.levels, desk.standing
    guesses, level = 0, np.int64(0)
    while level >= 0:
        s = words_of(levels, level)
        state = propagate(s, hh, ww)
        if state == OPEN:
            if not _clashes(s, hh, ww):
                for word in range(len(standing)):
                    standing[word] |= s[len(standing) + word]
            guesses += 1
            d, row, col = choose_mini(s, hh, ww)
            in_answer = mini_rows(desk.answer, d, hh, ww) & row
            in_answer |= mini_cols(desk.answer, d, hh, ww) & col
            copy_level(levels, level, level + 1)
            if level == 0 and in_answer:
                split_mini(words_of(levels, 1), s, d, row, col, hh, ww)
            else:
                split_mini(s, words_of(levels, level + 1), d, row, col, hh, ww)
            level += 1
        elif state == SOLVED and level > 0:
            return False, guesses
        else:
            level -= 1
    return True, guesses


@compiled
def by_cell_and_ahead(roots, at, cap, levels, unread, hh, ww):
    """min(B, L) of level `at` of `roots`, a puzzle with one solution, and of `cap`."""
    copy_between(roots, at, levels, np.int64(0))
    cap = min(cap, search(levels, unread, np.int64(2), cap, True, hh, ww)[1])
    copy_between(roots, at, levels, np.int64(0))
    return min(cap, look_ahead(levels, cap, hh, ww))


@compiled
def resistance(desk, least, most, hh, ww):
    """Wrong candidates of level 0, propagated, that no single assumption refutes.

    Counted up to `most`; where it cannot come to `least`, some number below that. A state without
    contradiction shows that whatever is fixed in it would have none on its own.
    """
    N, W = len(hh) * len(ww), len(ww)
    s, trial = words_of(desk.levels, 0), words_of(desk.levels, 1)
    pending, struck = desk.pending, desk.struck
    standing, left = 0, 0
    for word in range(N * W):
        wrong = s[word] & ~desk.answer[word]
        pending[word] = wrong & ~desk.standing[word]
        standing += count_ones(wrong & desk.standing[word])
        left += count_ones(pending[word])
    for turn in range(4):  # what is likely refuted first: what cannot reach `least` ends soon
        for band in range(W):
            now = bm.band_cells(hh, ww)
            if turn == 1 or turn == 2:
                two, three, four = crowded(s, band, hh, ww)
                now = two & ~three if turn == 1 else three & ~four
            for word in range(band, N * W, W):
                while True:
                    todo = pending[word] & now
                    if turn == 0:
                        todo &= struck[word]
                    if todo == 0:
                        break
                    if standing + left < least:
                        return standing
                    if standing >= most:
                        return most
                    bit = todo & -todo
                    copy_level(desk.levels, np.int64(0), np.int64(1))
                    assert_cells(trial, word // W, band, bit, hh, ww)
                    if propagate(trial, hh, ww) == DEAD:
                        pending[word] ^= bit
                        struck[word] |= bit
                        left -= 1
                        continue
                    clashes = _clashes(trial, hh, ww)
                    for other in range(N * W):
                        stands = pending[other] & trial[N * W + other]
                        if clashes:
                            stands = bit if other == word else 0
                        pending[other] ^= stands
                        struck[other] &= ~stands
                        standing += count_ones(stands)
                        left -= count_ones(stands)
    return min(standing, most)


@compiled
def _clashes(s, hh, ww):
    """Whether two digits are fixed in one cell: the rules miss that where both come at once.

    Then a state is no witness for what is fixed in it.
    """
    N, W = len(hh) * len(ww), len(ww)
    clash = 0
    for band in range(W):
        fixed = 0
        for word in range(N * W + band, 2 * N * W, W):
            clash |= fixed & s[word]
            fixed |= s[word]
    return clash != 0


@compiled
def energy(roots, puzzle, solution, least, weight, tables, desk, hh, ww):
    """weight * ln(1 + effort) + min(R, 170); REJECTED below `least` or with a second solution.

    The last level of `roots` is the puzzle's, `tables` are `rate.relabelings`. Bounds come first,
    the dearest count last.
    """
    cells, digits = tables
    levels, unread, image = desk.levels, desk.unread, desk.image
    at = len(roots) - 1
    state = propagate(words_of(roots, at), hh, ww)
    if state != OPEN:
        return 0.0 if state == SOLVED and least <= 0 else REJECTED
    wrong = candidates(words_of(roots, at), hh, ww) - len(puzzle)
    copy_between(roots, at, levels, np.int64(0))
    desk.standing[:] = 0
    write_answer(solution, desk.answer, hh, ww)
    unique, effort = only_answer(desk, hh, ww)
    from_search = weight * math.log(1 + effort)
    if not unique or min(wrong, MOST_RESISTANCE) < least - from_search:
        return REJECTED
    copy_between(roots, at, levels, np.int64(0))
    wanted = math.ceil(least - from_search)
    resisting = resistance(desk, wanted, MOST_RESISTANCE, hh, ww)
    needed = math.exp((least - resisting) / weight) - 1
    if effort < needed:
        return REJECTED
    effort = by_cell_and_ahead(roots, at, effort, levels, unread, hh, ww)
    for k in range(len(cells)):
        if effort < needed:
            return REJECTED
        for i in range(len(puzzle)):
            image[i] = digits[k, puzzle[cells[k, i]]]
        load(words_of(roots, 0), image, hh, ww)
        copy_between(roots, np.int64(0), levels, np.int64(0))
        effort = min(effort, search(levels, unread, np.int64(2), effort, False, hh, ww)[1])
        effort = by_cell_and_ahead(roots, np.int64(0), effort, levels, unread, hh, ww)
    total = weight * math.log(1 + effort) + resisting
    return total if total >= least else REJECTED
