"""What the solver splits on; both rules give two halves, so guesses count binary splits.

Compiled functions on one level of the search; `level.py` explains its words.
"""

import numpy as np

from trm_interp.tasks.sudoku.forge import bitmatrix as bm
from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.level import first_minis, lane_minis
from trm_interp.tasks.sudoku.forge.machine import count_ones

FREEDOM = 0xDA85550000  # hex digit i: 5 log2(layouts) of a closed 2x2 or 3x3 matrix with i ones


@compiled
def choose_mini(s, hh, ww):
    """(digit, mini-row, mini-column), one of the last two 0: what to split on.

    The band or stack with the smallest product of layouts over all digits, there the digit with
    the fewest of at least 2, of that its first uncertain mini-row or mini-column.
    """
    H, W = len(hh), len(ww)
    N = H * W
    smallest, best_lane = 1 << 30, np.int64(0)
    for lane in range(W + H):
        total = 0
        for d in range(N):
            total += _freedom(s, d, lane, hh, ww)
        if 0 < total < smallest:
            smallest, best_lane = total, lane
    best_digit, least = 0, 1 << 30
    for d in range(N):
        freedom = _freedom(s, d, best_lane, hh, ww)
        if 0 < freedom < least:
            least, best_digit = freedom, d
    at = first_minis(hh, ww) + best_digit
    uncertain = s[at] & ~s[at + N] & lane_minis(best_lane, hh, ww)
    bit = uncertain & -uncertain
    return best_digit, bm.low(bit), bm.high(bit)


@compiled
def _freedom(s, d, lane, hh, ww):
    """5 log2(layouts) of digit d in a band, or after the bands a stack."""
    here = s[first_minis(hh, ww) + d] & lane_minis(lane, hh, ww)
    return FREEDOM >> 4 * count_ones(here) & 15


@compiled
def choose_cell(s, hh, ww):
    """(digit, band, candidate bit) of the first cell with the fewest digits.

    A cell with two is taken at once; of its digits the lowest is tried first.
    """
    W = len(ww)
    best_band, best_bit, fewest = 0, 0, 5
    for band in range(W):
        two, three, four = crowded(s, band, hh, ww)
        for count, cells in ((2, two & ~three), (3, three & ~four), (4, four)):
            if count < fewest and cells:
                best_band, best_bit, fewest = band, cells & -cells, count
        if fewest == 2:
            break
    digit = 0
    while not s[digit * W + best_band] & best_bit:
        digit += 1
    return digit, best_band, best_bit


@compiled
def crowded(s, band, hh, ww):
    """Cells of a band with at least two, three and four digits."""
    one, two, three, four = 0, 0, 0, 0
    for word in range(band, len(hh) * len(ww) * len(ww), len(ww)):
        four |= three & s[word]
        three |= two & s[word]
        two |= one & s[word]
        one |= s[word]
    return two, three, four
