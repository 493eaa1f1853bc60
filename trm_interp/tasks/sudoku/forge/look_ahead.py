"""The look-ahead tree, the measure L of `effort.py`: how far trying one step ahead leads.

A split is (digit, band, bit) of one side, then of the other.
"""

import numpy as np

from trm_interp.tasks.sudoku.forge import bitmatrix as bm
from trm_interp.tasks.sudoku.forge.branch import choose_cell
from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.level import assert_cells, copy_level, drop, locate
from trm_interp.tasks.sudoku.forge.machine import count_ones, words_of
from trm_interp.tasks.sudoku.forge.rules import DEAD, OPEN, propagate

NOT_THERE = -1  # in place of a digit: the other side's digit is not in its cell


@compiled
def look_ahead(levels, cap, hh, ww):
    """L of level 0: 2 * branches + sides that failed; cut off soon after `cap`."""
    size, level = 0, np.int64(0)
    while level >= 0 and size <= cap:
        state, failed, split = _strike(levels, level, cap - size, hh, ww)
        size += failed
        if state == OPEN:
            size += 2
            copy_level(levels, level, level + 1)
            _assume(words_of(levels, level + 1), split, np.int64(0), hh, ww)
            _assume(words_of(levels, level), split, np.int64(1), hh, ww)
            level += 1
        else:
            level -= 1
    return size


@compiled
def _strike(levels, level, cap, hh, ww):
    """(state, sides that failed, split to branch on) once no side of a split fails any more."""
    s = words_of(levels, level)
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


@compiled
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


@compiled
def _assume(s, split, side, hh, ww):
    """One side of a split holds."""
    d, band, bit = (split[0], split[1], split[2]) if side == 0 else (split[3], split[4], split[5])
    if d == NOT_THERE:
        drop(s, split[0], band, bit, hh, ww)
    else:
        assert_cells(s, d, band, bit, hh, ww)


@compiled
def _taken(levels, level, split, side, hh, ww):
    """Candidates that one side of a split removes from a level; -1 where it fails."""
    copy_level(levels, level, level + 1)
    _assume(words_of(levels, level + 1), split, side, hh, ww)
    if propagate(words_of(levels, level + 1), hh, ww) == DEAD:
        return -1
    after = candidates(words_of(levels, level + 1), hh, ww)
    return candidates(words_of(levels, level), hh, ww) - after


@compiled
def candidates(s, hh, ww):
    """Candidates of a level, those of fixed cells included."""
    total = 0
    for word in range(len(hh) * len(ww) * len(ww)):
        total += count_ones(s[word])
    return total
