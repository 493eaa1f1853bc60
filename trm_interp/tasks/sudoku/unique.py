"""Which puzzles have a second solution, other than a known one. NumPy alone; numba speeds it up.

The proof for a set of puzzles is kept in the user's cache folder, under the hash of the puzzles.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.caches import user_cache
from trm_interp.runtime.files import write_json
from trm_interp.tasks.sudoku.grid import Grid, Shape, shape_of

PART = 16384  # puzzles that are searched together
AT_ONCE = 2048  # states of the search that are propagated together
FEW = 120_000  # states after which the compiled solver, slow to start, takes what is left
MOST_KEPT = 100  # proofs in the cache folder
EDITION = "unique-1"  # of the kept proofs

Masks = NDArray[np.uint16]  # [cell, state]: bit d of a cell is set where digit d may stand there


def ambiguous(
    puzzles: Grid,
    solutions: Grid,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> NDArray[np.bool_]:
    """[puzzle] whether it has a solution other than the given, valid one.

    Puzzles that singles solve cost little; what takes a search is kept on disk and read there
    the next time, where the cache folder can be written. `progress` is called with how many are
    done.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> solution = parse("1234341221434321")
    >>> puzzles = np.stack([parse("......2..3..2.4."), parse("12343412........")])
    >>> ambiguous(puzzles, np.stack([parse("1234342143122143"), solution])).tolist()
    [False, True]
    """
    file = _kept(puzzles)
    if file is not None and (proof := _read(file, len(puzzles))) is not None:
        return proof
    second = np.zeros(len(puzzles), bool)
    states = 0
    progress(0, len(puzzles))
    for start in range(0, len(puzzles), PART):
        part = slice(start, start + PART)
        second[part], n = _second_solutions(puzzles[part], solutions[part], FEW - states)
        states += n
        progress(min(start + PART, len(puzzles)), len(puzzles))
    if file is not None and states > len(puzzles):
        with suppress(OSError):  # a cache that cannot be written is done without
            write_json(file, {"ambiguous": np.flatnonzero(second).tolist()})
            _drop_the_oldest(file.parent)
    return second


def _second_solutions(puzzles: Grid, solutions: Grid, few: int) -> tuple[NDArray[np.bool_], int]:
    """`ambiguous`, and how many states that took: one a puzzle where singles suffice.

    After `few` states the compiled solver takes over where there is one. Depth first, so that few
    states wait at a time: the last ones are propagated together, and each that stays open is split
    in two at its most constrained cell.
    """
    shape = shape_of(puzzles.shape[1])
    stated_masks = (np.uint16(1) << solutions.astype(np.uint16)).T
    masks = np.where(puzzles == 0, _all_digits(shape), np.uint16(1) << puzzles.astype(np.uint16))
    waiting = [(masks.T, np.arange(len(puzzles)))]
    second = np.zeros(len(puzzles), bool)
    states, may_compile = 0, True
    while waiting:
        if states > few and may_compile:
            left = np.unique(np.concatenate([owner for _, owner in waiting]))
            try:
                from trm_interp.tasks.sudoku.forge.solver import solve_batch
            except ImportError:  # a machine without numba
                may_compile = False
            else:
                second[left] |= solve_batch(puzzles[left], limit=2).counts > 1
                return second, states + len(left)
        masks, owner = waiting.pop()
        if len(owner) > AT_ONCE:
            waiting.append((masks[:, :-AT_ONCE], owner[:-AT_ONCE]))
            masks, owner = masks[:, -AT_ONCE:], owner[-AT_ONCE:]
        here = ~second[owner]
        masks, dead = _propagate(masks[:, here], shape)
        owner = owner[here]
        states += len(owner)
        full = ~dead & (masks & (masks - np.uint16(1)) == 0).all(0)
        second[owner[full & (masks != stated_masks[:, owner]).any(0)]] = True
        still_open = ~dead & ~full
        if still_open.any():
            masks, owner = masks[:, still_open], owner[still_open]
            waiting.append((_split(masks, stated_masks[:, owner]), np.concatenate([owner, owner])))
    return second, states


def _propagate(masks: Masks, shape: Shape) -> tuple[Masks, NDArray[np.bool_]]:
    """Naked and hidden singles until nothing changes; and [state] which came to a contradiction."""
    units, side = shape.units, shape.side
    units_of = np.argsort(units, axis=None, kind="stable").reshape(shape.cells, 3) // side
    everything, one = _all_digits(shape), np.uint16(1)
    end, dead = masks.copy(), np.zeros(masks.shape[1], bool)
    live = np.arange(masks.shape[1])
    while len(live):
        single = masks & (masks - one) == 0
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
        fewer = np.where(only == 0, fewer, np.where(only & (only - one) == 0, only, np.uint16(0)))
        after = np.where(single, masks, fewer)
        end[:, live], dead[live] = after, wrong
        going = ~wrong & (after != masks).any(0)
        live, masks = live[going], after[:, going]
    return end, dead


def _split(masks: Masks, stated_masks: Masks) -> Masks:
    """Every state twice: with one digit of its most constrained open cell, and without it.

    The digit is the known solution's where it may still stand there.
    """
    counts = np.bitwise_count(masks)
    at = np.where(counts > 1, counts, np.uint8(255)).argmin(0), np.arange(masks.shape[1])
    here, stated = masks[at], stated_masks[at]
    digit = np.where(here & stated, stated, here & (~here + np.uint16(1)))
    with_it, without = masks.copy(), masks.copy()
    with_it[at], without[at] = digit, here & ~digit
    return np.concatenate([with_it, without], axis=1)


def _all_digits(shape: Shape) -> np.uint16:
    return np.uint16((2 << shape.side) - 2)


# What was proved before -------------------------------------------------------------------------


def _kept(puzzles: Grid) -> Path | None:
    """Where the proof for these puzzles is kept; None where nothing is."""
    if (cache := user_cache()) is None:
        return None
    digest = hashlib.sha256(f"{puzzles.shape}".encode())
    digest.update(np.ascontiguousarray(puzzles, np.uint8).tobytes())
    return cache / EDITION / f"{digest.hexdigest()}.json"


def _read(file: Path, n: int) -> NDArray[np.bool_] | None:
    """The kept proof; None where there is none, or none that can be believed."""
    try:
        rows = json.loads(file.read_bytes())["ambiguous"] if file.is_file() else None
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < n for row in rows):
        return None
    with suppress(OSError):
        os.utime(file)  # in use: not among the oldest
    second = np.zeros(n, bool)
    second[rows] = True
    return second


def _drop_the_oldest(folder: Path) -> None:
    """Keep the proofs that were used last."""
    kept = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    for file in kept[:-MOST_KEPT]:
        file.unlink(missing_ok=True)
