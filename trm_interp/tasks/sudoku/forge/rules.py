"""The solver's rules, applied to a level until none does anything."""

from trm_interp.tasks.sudoku.forge import bitmatrix as bm
from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.level import (
    assert_cells,
    cells_in_cols,
    cells_in_rows,
    first_minis,
    keep_cols,
    keep_rows,
    mini_cols,
    mini_rows,
    open_digits,
    remove,
)
from trm_interp.tasks.sudoku.forge.machine import lowest

DEAD, OPEN, SOLVED = 0, 1, 2


@compiled
def propagate(s, hh, ww):
    """Apply every rule until none does anything: DEAD, OPEN or SOLVED."""
    again = open_digits(hh, ww)
    state = OPEN
    while state == OPEN and s[again]:
        digits = s[again]
        while digits:
            rest = digits & digits - 1
            if not _close(s, lowest(digits), lowest(rest or digits), hh, ww):
                break
            digits = rest & rest - 1
        if digits:
            state = DEAD
        else:
            s[again] = 0
            state = _count_cells(s, hh, ww)
        cheap_rules_done = state == OPEN and not s[again]
        if cheap_rules_done and not _count_minis(s, hh, ww):
            state = DEAD
    return state


@compiled(inline="always")  # a tenth of the solver's time
def _close(s, d, e, hh, ww):
    """Keep the candidates of d and e that lie in a layout of their band and of their stack.

    Two digits (or one twice) in the halves of a word cost hardly more than one.
    """
    H, W = len(hh), len(ww)
    N, at = H * W, first_minis(hh, ww)
    row_axes, col_axes = bm.in_halves(bm.row_axes(hh, ww)), bm.in_halves(bm.col_axes(hh, ww))
    cols = bm.both(bm.high(s[at + d]), bm.high(s[at + e]))
    while True:
        all_rows = bm.both(mini_rows(s, d, hh, ww), mini_rows(s, e, hh, ww))
        rows = all_rows & bm.minors(all_rows, row_axes)
        if not bm.has_layouts(rows, row_axes):
            return False
        keep_rows(s, d, bm.low(rows), hh, ww)
        keep_rows(s, e, bm.high(rows), hh, ww)
        all_cols = bm.both(mini_cols(s, d, hh, ww), mini_cols(s, e, hh, ww))
        if all_cols == cols:
            break
        cols = all_cols & bm.minors(all_cols, col_axes)
        if not bm.has_layouts(cols, col_axes):
            return False
        if cols == all_cols:
            break
        keep_cols(s, d, bm.low(cols), hh, ww)
        keep_cols(s, e, bm.high(cols), hh, ww)
    certain_rows, certain_cols = bm.sole(rows, row_axes), bm.sole(cols, col_axes)
    for digit in (d, e):
        s[at + digit] = bm.both(bm.low(rows), bm.low(cols))
        s[at + N + digit] = bm.both(bm.low(certain_rows), bm.low(certain_cols))
        for band in range(W):
            in_row = cells_in_rows(bm.low(certain_rows), band, hh, ww)
            s[(N + digit) * W + band] = in_row & cells_in_cols(bm.low(certain_cols), band, hh, ww)
        rows, cols = bm.high(rows), bm.high(cols)
        certain_rows, certain_cols = bm.high(certain_rows), bm.high(certain_cols)
    return True


@compiled
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
            return DEAD
        if fixed != one:
            state = OPEN
        single = one & ~two
        if single == fixed:
            continue
        lost = 0
        for d in range(N):
            here, sure = s[d * W + band], s[(N + d) * W + band]
            out = here & fixed & ~sure
            s[d * W + band] = here ^ out
            new = here & single & ~fixed
            if new:
                assert_cells(s, d, band, new, hh, ww)
            lost |= (out != 0) << d
        s[open_digits(hh, ww)] |= lost
    return state


@compiled
def _count_minis(s, hh, ww):
    """A mini-row holds box_cols digits, a mini-column box_rows; False where that cannot be."""
    H, W = len(hh), len(ww)
    N, first = H * W, first_minis(hh, ww)
    row_axes, col_axes = bm.row_axes(hh, ww), bm.col_axes(hh, ww)
    all_rows, all_cols = bm.every(row_axes), bm.every(col_axes)
    can1, can2, can3, can4 = 0, 0, 0, 0  # possible for at least 1, 2, 3, 4 digits
    has1, has2, has3, has4 = 0, 0, 0, 0  # certain for at least so many
    for d in range(N):
        can, has = s[first + d], s[first + N + d]
        can4 |= can3 & can
        can3 |= can2 & can
        can2 |= can1 & can
        can1 |= can
        has4 |= has3 & has
        has3 |= has2 & has
        has2 |= has1 & has
        has1 |= has
    of_two = bm.both(all_rows if W == 2 else 0, all_cols if H == 2 else 0)
    if of_two:  # compiled only for shapes that have such minis
        can4, has4 = can4 & ~of_two | can3 & of_two, has4 & ~of_two | has3 & of_two
        can3, has3 = can3 & ~of_two | can2 & of_two, has3 & ~of_two | has2 & of_two
    if can3 != bm.both(all_rows, all_cols) or has4:
        return False
    exact = can3 & ~can4  # the digits left there are certain
    new = exact ^ has3
    if new:
        for d in range(N):
            here = s[first + d] & new & ~s[first + N + d]
            if here:
                full, left = here & has3, here & exact
                rows = bm.low(full) | bm.rivals(bm.low(left), row_axes)
                cols = bm.high(full) | bm.rivals(bm.high(left), col_axes)
                remove(s, d, rows, cols, hh, ww)
    return True
