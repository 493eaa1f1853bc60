"""A search for solutions that takes every size: singles, many states at once. NumPy alone.

The compiled solver (`forge/solver.py`) is faster up to 9x9, and knows no larger boxes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.grid import Grid, Shape, shape_of

AT_ONCE = 2048  # states of the search that are propagated together
AT_ONCE_OF_ONE = 16  # of a single puzzle: enough to share the work, few enough to go deep
MOST_STATES = 400_000  # of one puzzle's search, before it is given up
ONE = np.uint16(1)

Masks = NDArray[
    np.uint16
]  # [cell, state]: bit d - 1 of a cell is set where digit d may stand there
Owners = NDArray[np.int64]  # [state] number of the puzzle that it belongs to


class Found(NamedTuple):
    """Solutions of puzzles, one entry per puzzle."""

    solutions: Grid
    """[puzzle, cells] the first solution met, zeros where there is none."""
    counts: NDArray[np.int64]
    """[puzzle] solutions met; the search stops at the limit."""
    given_up: NDArray[np.bool_]
    """[puzzle] whether the search was cut off, so that there may be more."""


def solutions(puzzles: Grid, limit: int = 2, most: int = MOST_STATES) -> Found:
    """Solve [puzzle, cells] grids of any size; limit 2 proves that a solution is the only one.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> solutions(np.stack([parse("......2..3..2.4."), parse("1...............")])).counts.tolist()
    [1, 2]
    """
    found = Found(
        np.zeros_like(puzzles), np.zeros(len(puzzles), np.int64), np.zeros(len(puzzles), bool)
    )
    for row in range(len(puzzles)):  # one by one: a hard one takes no states from the others

        def note(masks: Masks, _: Owners, row: int = row) -> None:
            if found.counts[row] == 0:
                found.solutions[row] = digits_of(masks[:, 0])
            found.counts[row] = min(found.counts[row] + masks.shape[1], limit)

        def is_done(owner: Owners, row: int = row) -> NDArray[np.bool_]:
            return np.full(len(owner), found.counts[row] == limit)

        left, _ = search(puzzles[row : row + 1], None, note, is_done, most)
        found.given_up[row] = len(left) > 0 and found.counts[row] < limit
    return found


def search(
    puzzles: Grid,
    preferred: Masks | None,
    note: Callable[[Masks, Owners], None],
    is_done: Callable[[Owners], NDArray[np.bool_]],
    most: int,
) -> tuple[Owners, int]:
    """Puzzles whose search is not over after `most` states, and how many states there were.

    Every solution is told once: `note(masks [cell, solution], owner [solution])`. Owners for which
    `is_done` are dropped. `preferred` [cell, puzzle]: a digit to try first, where it may still
    stand. Depth first, so that few states wait at a time: the last ones are propagated together,
    and each that stays open is split in two at its most constrained cell.
    """
    shape, at_once = shape_of(puzzles.shape[1]), min(AT_ONCE, AT_ONCE_OF_ONE * len(puzzles))
    masks = np.where(puzzles == 0, all_digits(shape), masks_of(puzzles))
    waiting = [(masks.T, np.arange(len(puzzles)))]
    states = 0
    while waiting:
        if states > most:
            return np.unique(np.concatenate([owner for _, owner in waiting])), states
        masks, owner = waiting.pop()
        if len(owner) > at_once:
            waiting.append((masks[:, :-at_once], owner[:-at_once]))
            masks, owner = masks[:, -at_once:], owner[-at_once:]
        here = ~is_done(owner)
        masks, dead = _propagate(masks[:, here], shape)
        owner = owner[here]
        states += len(owner)
        full = ~dead & (masks & (masks - ONE) == 0).all(0)
        if full.any():
            note(masks[:, full], owner[full])
        still_open = ~dead & ~full
        if still_open.any():
            masks, owner = masks[:, still_open], owner[still_open]
            first = None if preferred is None else preferred[:, owner]
            waiting.append((_split(masks, first), np.concatenate([owner, owner])))
    return np.zeros(0, np.int64), states


def masks_of(digits: Grid) -> Masks:
    """The bit of every digit, any shape; 0 for a blank."""
    return np.where(digits == 0, np.uint16(0), ONE << (digits.astype(np.uint16) - ONE))


def digits_of(masks: Masks) -> Grid:
    """The digit of every mask that has one bit, any shape.

    >>> digits_of(masks_of(np.array([1, 9, 16], np.uint8))).tolist()
    [1, 9, 16]
    """
    return (np.bitwise_count(masks - ONE) + 1).astype(np.uint8)


def all_digits(shape: Shape) -> np.uint16:
    return np.uint16((1 << shape.side) - 1)


def _propagate(masks: Masks, shape: Shape) -> tuple[Masks, NDArray[np.bool_]]:
    """Naked and hidden singles until nothing changes; and [state] which came to a contradiction."""
    units, side = shape.units, shape.side
    units_of = np.argsort(units, axis=None, kind="stable").reshape(shape.cells, 3) // side
    everything = all_digits(shape)
    end, dead = masks.copy(), np.zeros(masks.shape[1], bool)
    live = np.arange(masks.shape[1])
    while len(live):
        single = masks & (masks - ONE) == 0
        placed = np.where(single, masks, np.uint16(0))
        # of every unit: digits possible anywhere, in two cells, placed, placed twice
        once, twice, used, clash = np.zeros((4, len(units), len(live)), np.uint16)
        for place in range(side):
            possible, digit = masks[units[:, place]], placed[units[:, place]]
            twice |= once & possible
            once |= possible
            clash |= used & digit
            used |= digit
        wrong = (masks == 0).any(0) | (once != everything).any(0) | clash.any(0)
        taken, hidden = (
            of[units_of[:, 0]] | of[units_of[:, 1]] | of[units_of[:, 2]]
            for of in (used, once & ~twice)
        )
        fewer = masks & ~taken
        only = fewer & hidden
        fewer = np.where(only == 0, fewer, np.where(only & (only - ONE) == 0, only, np.uint16(0)))
        after = np.where(single, masks, fewer)
        end[:, live], dead[live] = after, wrong
        going = ~wrong & (after != masks).any(0)
        live, masks = live[going], after[:, going]
    return end, dead


def _split(masks: Masks, preferred: Masks | None) -> Masks:
    """Every state twice: with one digit of its most constrained open cell, and without it.

    The digit is the preferred one where it may still stand there, else the lowest. What comes last
    is searched first: what the preferred digit does not lead to, else what the digit leads to.
    """
    counts = np.bitwise_count(masks)
    at = np.where(counts > 1, counts, np.uint8(255)).argmin(0), np.arange(masks.shape[1])
    here = masks[at]
    digit = here & (~here + ONE)
    if preferred is not None:
        digit = np.where(here & preferred[at], preferred[at], digit)
    with_it, without = masks.copy(), masks.copy()
    with_it[at], without[at] = digit, here & ~digit
    order = [without, with_it] if preferred is None else [with_it, without]
    return np.concatenate(order, axis=1)
