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
from trm_interp.tasks.sudoku.grid import COMPILED_SIDES, Grid, shape_of
from trm_interp.tasks.sudoku.propagation import MOST_STATES, Masks, Owners, masks_of, search
from trm_interp.tasks.sudoku.solving import compiled_solver

PART = 16384  # puzzles that are searched together
FEW = 120_000  # states after which the compiled solver, slow to start, takes what is left
NO_END = 2**62  # states, where there is no compiled solver
MOST_KEPT = 100  # proofs in the cache folder
EDITION = "unique-1"  # of the kept proofs


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

    After `few` states the compiled solver takes over. Where it does not know the size, a puzzle
    counts as ambiguous whose proof takes over `MOST_STATES`.
    """
    stated = masks_of(solutions).T
    second = np.zeros(len(puzzles), bool)

    def note(masks: Masks, owner: Owners) -> None:
        second[owner[(masks != stated[:, owner]).any(0)]] = True

    def is_done(owner: Owners) -> NDArray[np.bool_]:
        return second[owner]

    shape = shape_of(puzzles.shape[1])
    if shape.side not in COMPILED_SIDES:
        few = len(puzzles) * MOST_STATES
    left, states = search(puzzles, stated, note, is_done, few)
    if len(left) == 0:
        return second, states
    if (solve_batch := compiled_solver(shape)) is not None:
        second[left] |= solve_batch(puzzles[left], limit=2).counts > 1
        return second, states + len(left)
    if shape.side in COMPILED_SIDES:
        second[left], more = _second_solutions(puzzles[left], solutions[left], NO_END)
        return second, states + more
    second[left] = True
    return second, states


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
