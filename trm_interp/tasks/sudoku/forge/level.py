"""One state of a search: a level, whose words hold the candidates of every digit.

Bits, for a box of H rows and W columns, G = H * max(H, W):
    candidates  column_in_box * G + row_in_band * H + box, a word per digit and band
    mini-rows   band * H * H + row_in_band * H + box      } a word per digit: rows in its lower
    mini-cols   column_in_box * G + band * H + stack      } half, columns in its upper

`hh` and `ww` are tuples of H and W zeros: their lengths are constants to the compiler, so every
shape gets its own code and the on-disk cache tells the shapes apart. `s` is a level.
"""

import numpy as np

from trm_interp.tasks.sudoku.forge import bitmatrix as bm
from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.machine import lowest, words_of


@compiled
def new_levels(hh, ww):
    """int64 [level, word]: room for one search. A level is one state of the candidates.

    Words of a level: candidates [digit, band], fixed cells [digit, band], possible minis [digit],
    certain ones [digit] (in every layout), digits to look at again. A split removes a layout (a
    permutation), so the depth is at most the number of layouts that can go.
    """
    H, W = len(hh), len(ww)
    spare = (0, 0, 1, 5)  # n! - 1
    depth = H * W * (W * spare[H] + H * spare[W])
    return np.zeros((depth + 2, open_digits(hh, ww) + 1), np.int64)


@compiled
def first_minis(hh, ww):
    """The word of a level that holds the possible minis of digit 0."""
    return 2 * len(hh) * len(ww) * len(ww)


@compiled
def lane_minis(at, hh, ww):
    """The minis of band `at`, or after the bands those of a stack."""
    H, W = len(hh), len(ww)
    if at < W:
        return bm.lane(hh) << at * H * H
    return bm.both(np.int64(0), bm.stack(hh, ww) << at - W)


@compiled
def open_digits(hh, ww):
    """The last word of a level: digits to look at again."""
    return len(hh) * len(ww) * (2 * len(ww) + 2)


@compiled
def load(s, puzzle, hh, ww):
    """Set level `s` to the candidates that the givens of each digit leave to that digit."""
    H, W = len(hh), len(ww)
    N = H * W
    for word in range(open_digits(hh, ww) + 1):
        s[word] = 0
    for d in range(N):
        s[first_minis(hh, ww) + d] = -1  # unlike any minis, so `_close` looks at them
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


@compiled
def locate(cell, hh, ww):
    """(band, candidate bit) of a cell."""
    H, W = len(hh), len(ww)
    row, col = cell // (H * W), cell % (H * W)
    return row // H, 1 << ((col % W) * H * max(H, W) + (row % H) * H + col // W)


@compiled
def place(s, cell, d, hh, ww):
    """Assert digit d (from 0) in a cell: its mini-row and mini-column hold it."""
    band, bit = locate(cell, hh, ww)
    assert_cells(s, d, band, bit, hh, ww)


@compiled
def assert_cells(s, d, band, cells, hh, ww):
    """Digit d is in these cells of a band: their mini-rows and mini-columns rule out rivals."""
    H, W = len(hh), len(ww)
    row = (bm.fold(cells, W, H * max(H, W)) & bm.lane(hh)) << band * H * H
    col = (bm.fold(cells, H, H) & bm.band_cols(hh, ww)) << band * H
    remove(s, d, bm.rivals(row, bm.row_axes(hh, ww)), bm.rivals(col, bm.col_axes(hh, ww)), hh, ww)


@compiled
def remove(s, d, rows, cols, hh, ww):
    """Take digit d out of mini-rows and mini-columns."""
    for band in range(len(ww)):
        out = cells_in_rows(rows, band, hh, ww) | cells_in_cols(cols, band, hh, ww)
        s[d * len(ww) + band] &= ~out
    s[open_digits(hh, ww)] |= 1 << d


@compiled
def drop(s, d, band, cells, hh, ww):
    """Take digit d out of these cells of a band."""
    s[d * len(ww) + band] &= ~cells
    s[open_digits(hh, ww)] |= 1 << d


@compiled
def keep_rows(s, d, rows, hh, ww):
    """Digit d is in none but these mini-rows."""
    for band in range(len(ww)):
        s[d * len(ww) + band] &= cells_in_rows(rows, band, hh, ww)


@compiled
def keep_cols(s, d, cols, hh, ww):
    """Digit d is in none but these mini-columns."""
    for band in range(len(ww)):
        s[d * len(ww) + band] &= cells_in_cols(cols, band, hh, ww)


@compiled
def cells_in_rows(rows, band, hh, ww):
    """Candidate bits of a band that lie in these mini-rows."""
    H, W = len(hh), len(ww)
    return bm.spread((rows >> band * H * H) & bm.lane(hh), W, H * max(H, W))


@compiled
def cells_in_cols(cols, band, hh, ww):
    """Candidate bits of a band that lie in these mini-columns."""
    H = len(hh)
    return bm.spread((cols >> band * H) & bm.band_cols(hh, ww), H, H)


@compiled
def mini_rows(s, d, hh, ww):
    """Mini-rows with a candidate of digit d."""
    H, W = len(hh), len(ww)
    out = 0
    for band in range(W):
        out |= (bm.fold(s[d * W + band], W, H * max(H, W)) & bm.lane(hh)) << band * H * H
    return out


@compiled
def mini_cols(s, d, hh, ww):
    """Mini-columns with a candidate of digit d."""
    H, W = len(hh), len(ww)
    out = 0
    for band in range(W):
        out |= (bm.fold(s[d * W + band], H, H) & bm.band_cols(hh, ww)) << band * H
    return out


@compiled
def copy_cells(source, target):
    """The same as `target[:] = source`."""
    for cell in range(len(source)):
        target[cell] = source[cell]


@compiled
def copy_level(levels, source, target):
    copy_between(levels, source, levels, target)


@compiled
def copy_between(some, source, others, target):
    old, new = words_of(some, source), words_of(others, target)
    for word in range(some.shape[1]):
        new[word] = old[word]


@compiled
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
