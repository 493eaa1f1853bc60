"""Puzzles of a file, in any form that `formats.py` reads.

Everything read is checked; what is wrong is named by file and line. A file that carries its
solutions needs NumPy alone; missing solutions call the solver.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.files import replacing, require_regular
from trm_interp.runtime.limits import require_memory
from trm_interp.tasks.base import PuzzleError, PuzzleSet
from trm_interp.tasks.puzzles import WAYS, message_of_bad
from trm_interp.tasks.sudoku.formats import Reasons, Table, read_file, read_text
from trm_interp.tasks.sudoku.grid import COMPILED_SIDES, SYMBOLS, Grid, shape_of, to_tokens
from trm_interp.tasks.sudoku.propagation import MOST_STATES
from trm_interp.tasks.sudoku.public import read_folder
from trm_interp.tasks.sudoku.solving import solve
from trm_interp.tasks.sudoku.task import Sudoku
from trm_interp.tasks.sudoku.unique import ambiguous

CHUNK = 16384  # grids checked at once; keeps the temporaries near 10 MB
SOLVED_AT_ONCE = 1024
NOT_PROVED = "not proved to have one solution alone"
NOT_SOLVED = f"no solution in {MOST_STATES} steps of search: give it in the file"
BYTES_A_CHARACTER = 10  # of memory, while text becomes digits
CHARACTERS = 1000  # that a puzzle takes in a file, at most as a rule


def load(
    path: str | os.PathLike[str],
    skip_bad: bool = False,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    several: bool = False,
) -> PuzzleSet:
    """Puzzles of a text file, a CSV with a header or a public data folder, solved and checked.

    `formats.py` has the forms of text. `limit` reads only the first so many puzzles. Missing
    solutions are computed. Every puzzle must have exactly one solution (at least one with
    `several`): of two right answers only one would count as solved. Bad lines raise one
    PuzzleError, or with `skip_bad` are left out and listed in `skipped`. `progress` is called
    with how many puzzles are solved or proved, of how many.
    """
    path = Path(path)
    if not path.exists():
        raise PuzzleError(f"{path}: no such file or folder; {WAYS}")
    if path.is_dir():
        table = read_folder(path, limit)
    else:
        require_regular(path)
        size = path.stat().st_size
        taken = size if limit is None else min(size, limit * CHARACTERS)
        advice = "split the file, or read less of it with --limit"
        require_memory(taken * BYTES_A_CHARACTER, f"{path}", advice)
        table = read_file(path, limit)
    return _checked(table, path, skip_bad, progress, several)


def load_text(text: str, name: str, skip_bad: bool = False, several: bool = False) -> PuzzleSet:
    """As `load`, of a text that is at hand; `name` stands in messages for the file's."""
    table = read_text(text, name)
    return _checked(table, name, skip_bad, lambda done, of: None, several)


def _checked(
    table: Table,
    path: Path | str,
    skip_bad: bool,
    progress: Callable[[int, int], None],
    several: bool,
) -> PuzzleSet:
    if len(table.lines) == 0:
        raise PuzzleError(f"{path}: no puzzle in it")

    bad, solutions = dict(table.bad), table.solutions
    if len(bad) < len(table.lines):
        bad |= _broken(table.puzzles, solutions, table.solved, bad)
    good = np.array([row not in bad for row in range(len(table.lines))], bool)
    rows = np.flatnonzero(good & ~table.solved)
    bad |= _solve(table.puzzles, solutions, rows, several, progress)
    rows = np.flatnonzero(good & table.solved)
    if len(rows) and not several:
        second = ambiguous(table.puzzles[rows], solutions[rows], progress)
        side = shape_of(solutions.shape[1]).side
        why = "several solutions" if side in COMPILED_SIDES else NOT_PROVED
        bad |= dict.fromkeys(rows[second].tolist(), why)

    reports = [f"{table.unit} {table.lines[row]}: {bad[row]}" for row in sorted(bad)]
    if bad and not skip_bad:
        raise PuzzleError(message_of_bad(path, table.unit, reports, len(table.lines)))
    if len(bad) == len(table.lines):
        raise PuzzleError(f"{path}: no good {table.unit} among {len(bad)}; first, {reports[0]}")
    good = np.array([row for row in range(len(table.lines)) if row not in bad], np.int64)
    return PuzzleSet(
        Sudoku.of(solutions.shape[1]),
        to_tokens(table.puzzles[good]),
        to_tokens(solutions[good]),
        table.lines[good],
        str(path),
        table.sha256,
        tuple(reports),
    )


def _solve(
    puzzles: Grid,
    solutions: Grid,
    rows: NDArray[np.int64],
    several: bool,
    progress: Callable[[int, int], None],
) -> Reasons:
    """Write the solutions of those rows; which of them have none, or more than one."""
    bad: Reasons = {}
    for start in range(0, len(rows), SOLVED_AT_ONCE):
        progress(start, len(rows))
        part = rows[start : start + SOLVED_AT_ONCE]
        solved = solve(puzzles[part], limit=2)
        solutions[part] = solved.solutions
        reasons = np.select(
            [solved.counts > 1, solved.counts == 1, ~solved.given_up],
            [
                "" if several else "several solutions",
                np.where(solved.given_up & (not several), NOT_PROVED, ""),
                "no solution",
            ],
            NOT_SOLVED,
        )
        bad |= {row: why for row, why in zip(part.tolist(), reasons.tolist(), strict=True) if why}
        progress(start + len(part), len(rows))
    return bad


# Checks ---------------------------------------------------------------------------------------


def _broken(puzzles: Grid, solutions: Grid, solved: NDArray[np.bool_], earlier: Reasons) -> Reasons:
    """Rows other than those in `earlier` whose givens or whose stated solution break a rule."""
    bad: Reasons = {}
    for start in range(0, len(puzzles), CHUNK):
        part = slice(start, start + CHUNK)
        puzzle, answer = puzzles[part], solutions[part]
        checks = {  # the first that holds is reported
            "contradictory givens": repeats(puzzle),
            "solution has blanks": solved[part] & (answer == 0).any(1),
            "solution changes a given": solved[part] & ((puzzle > 0) & (answer != puzzle)).any(1),
            "solution repeats a digit in a row, column or box": solved[part] & repeats(answer),
        }
        for reason, holds in checks.items():
            for row in (np.flatnonzero(holds) + start).tolist():
                if row not in earlier:
                    bad.setdefault(row, reason)
    return bad


def repeats(grids: Grid) -> NDArray[np.bool_]:
    """[n] whether any unit of a grid holds a digit twice; blanks do not count.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> repeats(np.stack([parse("12" + "." * 14), parse("11" + "." * 14)])).tolist()
    [False, True]
    """
    units = shape_of(grids.shape[1]).units
    bits = (np.uint32(1) << grids.astype(np.uint32)) & ~np.uint32(1)  # blank 0, digit d 2**d
    members = bits[:, units]  # [n, units, side]
    # a sum of powers of two equals their union exactly where no power comes twice
    sums = members.sum(-1, dtype=np.uint32)
    return (sums != np.bitwise_or.reduce(members, axis=-1)).any(1)


# Writing --------------------------------------------------------------------------------------


def lines_text(puzzles: Grid, solutions: Grid) -> bytes:
    """`puzzle,solution` lines of digits, blanks as '.'.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> lines_text(parse("1" + "." * 15)[None], parse("1234341221434321")[None])
    b'1...............,1234341221434321\\n'
    """
    n, cells = puzzles.shape
    codes = np.zeros((n, 2 * cells + 2), np.uint8)
    codes[:, :cells], codes[:, cells + 1 : -1] = puzzles, solutions
    codes = np.frombuffer(b"." + SYMBOLS.encode(), np.uint8)[codes]
    codes[:, cells], codes[:, -1] = ord(","), ord("\n")
    return codes.tobytes()


def save_lines(path: str | os.PathLike[str], puzzles: Grid, solutions: Grid) -> str:
    """Write `puzzle,solution` lines that `load` reads, whole or not at all; the file's sha256."""
    text = lines_text(puzzles, solutions)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(text)
    return hashlib.sha256(text).hexdigest()
