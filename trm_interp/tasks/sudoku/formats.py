"""Puzzles as text, read into digits. Blanks are '.', '0', '_' or '*'; '#' begins a comment line.

- A puzzle on each line, optionally a comma and its solution.
- CSV with a header that names the columns (`PUZZLE`, `SOLUTION`), as Sudoku-Extreme and Kaggle's
  sets have it; other columns are left alone.
- A row of the grid on each line, set apart with spaces, |, + and - if need be; a blank line or a
  title such as `Grid 01` ends a grid, and so does its last row.

Whether puzzles keep the rules is not asked here.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.errors import UserError
from trm_interp.tasks.sudoku.grid import BLANKS, SHAPES, Grid, parse, shape_of

PUZZLE = ("question", "puzzle", "puzzles", "quiz", "quizzes")
SOLUTION = ("answer", "answers", "solution", "solutions")
LINES = " |+-"  # drawn between the cells of a grid
TITLE = re.compile(r"grid\s*\d+", re.IGNORECASE)
CELL = "123456789" + BLANKS
DIGITS = np.full(256, 255, np.uint8)  # of a character's code; 255 for what is no cell
DIGITS[[ord(char) for char in CELL]] = [*range(1, 10), *(0 for _ in BLANKS)]

Reasons = dict[int, str]  # row in the file's puzzles -> what is wrong with it


class PuzzleError(UserError):
    """A puzzle file that cannot be used; the message says which lines and why."""


class _Entry(NamedTuple):
    """One puzzle as it stands in a text file."""

    line: int
    puzzle: str
    solution: str  # empty where the file gives none


class Table(NamedTuple):
    """Digits as read, before any check of the rules; a bad row's digits are zeros."""

    puzzles: Grid
    solutions: Grid
    solved: NDArray[np.bool_]  # [n] where the file gives a solution
    lines: NDArray[np.int64]
    bad: Reasons
    sha256: dict[str, str]
    unit: str  # what `lines` counts: "line" or "row"


def read_text(content: bytes, name: str, limit: int | None) -> Table:
    """Lines or CSV; `name`: the file's, for its digest."""
    text = content.decode("utf-8-sig", "replace")
    entries, bad = (_grids if _begins_with_a_row(text) else _entries)(text, limit)
    cells = next((len(e.puzzle) for e in entries if not size_error(len(e.puzzle))), 0)
    first = next((e.line for e in entries if len(e.puzzle) == cells), 0)
    for row, entry in enumerate(entries):
        if row not in bad and (reason := _wrong_length(entry, cells, first)):
            bad[row] = reason

    puzzles = np.zeros((len(entries), cells), np.uint8)
    solutions = np.zeros_like(puzzles)
    solved = np.array([bool(entry.solution) for entry in entries], bool)
    rows = np.array([row for row in range(len(entries)) if row not in bad], np.int64)
    with_solution = rows[solved[rows]]
    puzzles[rows], illegal = _digits([entries[row].puzzle for row in rows], cells)
    for at, reason in illegal.items():
        bad[int(rows[at])] = reason
    solutions[with_solution], illegal = _digits(
        [entries[row].solution for row in with_solution], cells
    )
    for at, reason in illegal.items():
        bad.setdefault(int(with_solution[at]), f"solution: {reason}")
    lines = np.array([entry.line for entry in entries], np.int64)
    digest = hashlib.sha256(content).hexdigest()
    return Table(puzzles, solutions, solved, lines, bad, {name: digest}, "line")


class _Header(NamedTuple):
    """Where a CSV file has what."""

    puzzle: int
    solution: int | None
    names: list[str]


def _header(fields: list[str]) -> _Header | None:
    """The header that these fields are, if they are one."""
    names = [name.lower() for name in fields]
    puzzle = next((at for at, name in enumerate(names) if name in PUZZLE), None)
    solution = next((at for at, name in enumerate(names) if name in SOLUTION), None)
    return None if puzzle is None else _Header(puzzle, solution, names)


def _entries(text: str, limit: int | None) -> tuple[list[_Entry], Reasons]:
    """The puzzles of lines as text, and the rows whose fields do not fit."""
    header: _Header | None = None
    entries: list[_Entry] = []
    bad: Reasons = {}
    for line, fields in _records(text):
        if not entries and header is None and (header := _header(fields)):
            continue
        if limit is not None and len(entries) == limit:
            break
        if header is None and len(fields) > 2:
            bad[len(entries)] = f"{len(fields)} fields; a line is puzzle or puzzle,solution"
        if header is not None and len(fields) != len(header.names):
            bad[len(entries)] = f"{len(fields)} fields, the header has {len(header.names)}"
        puzzle_at, solution_at = (header.puzzle, header.solution) if header else (0, 1)
        puzzle, solution = (
            "" if at is None or at >= len(fields) else "".join(fields[at].split())
            for at in (puzzle_at, solution_at)
        )
        entries.append(_Entry(line, puzzle, solution))
    return entries, bad


def _begins_with_a_row(text: str) -> bool:
    """Whether the first cells of a text are a row of a grid, and not a whole puzzle."""
    for line in text.split("\n"):
        row = cells_of(line)
        if row and not line.startswith("#") and not TITLE.fullmatch(line.strip()):
            return len(row) in SHAPES and set(row) <= set(CELL)
    return False


def cells_of(line: str) -> str:
    """The cells of a line of a drawn grid.

    >>> cells_of("1 2 | . 4"), cells_of("----+----")
    ('12.4', '')
    """
    return "".join(char for char in line if char not in LINES and not char.isspace())


def _grids(text: str, limit: int | None) -> tuple[list[_Entry], Reasons]:
    """The puzzles of drawn grids as text, and those whose rows do not fit."""
    entries: list[_Entry] = []
    bad: Reasons = {}
    rows: list[str] = []
    begin = 0
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        row = "" if line.startswith("#") or TITLE.fullmatch(line.strip()) else cells_of(line)
        if limit is not None and len(entries) == limit:
            break
        if row:
            begin = begin if rows else number
            rows.append(row)
        ends = not row and (not line.strip() or TITLE.fullmatch(line.strip()))
        if rows and (ends or len(rows) == len(rows[0])):
            if reason := _misfit(rows):
                bad[len(entries)] = reason
            entries.append(_Entry(begin, "" if reason else "".join(rows), ""))
            rows = []
    return entries, bad


def _misfit(rows: list[str]) -> str | None:
    """What is wrong with the rows of a grid, if anything is."""
    side = len(rows[0])
    if len(rows) != side:
        return f"a grid of {len(rows)} rows, its first has {side} cells"
    for at, row in enumerate(rows):
        if len(row) != side:
            return f"row {at + 1} of the grid has {len(row)} cells, its first {side}"
    return None


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number from 1 and fields of every line that is not empty or a comment.

    Fields lose spaces and quotes around them; no field of these formats holds a comma.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, [value.strip(' \t"') for value in line.split(",")]


def column(path: str | os.PathLike[str], name: str, lines: NDArray[np.int64]) -> list[str] | None:
    """What a CSV file with a header says under `name` on those lines; None where it does not."""
    path = Path(path)
    if path.is_dir():
        return None
    records = dict(_records(path.read_bytes().decode("utf-8-sig", "replace")))
    header = _header(next(iter(records.values()), []))
    if header is None or name not in header.names:
        return None
    at = header.names.index(name)
    return [records[line][at] for line in lines.tolist()]


def size_error(cells: int) -> str | None:
    try:
        shape_of(cells)
    except ValueError as error:
        return str(error)
    return None


def _wrong_length(entry: _Entry, cells: int, first: int) -> str | None:
    n = len(entry.puzzle)
    if n != cells or n == 0:
        return size_error(n) or f"{n} cells where line {first} has {cells}"
    if entry.solution and len(entry.solution) != cells:
        return f"solution has {len(entry.solution)} cells, its puzzle {cells}"
    return None


def _digits(texts: list[str], cells: int) -> tuple[Grid, Reasons]:
    """uint8 [n, cells] of texts of that length; what no digit or blank is, is reported."""
    ascii_text = "".join(texts).encode("ascii", "replace")  # one byte per character
    digits = DIGITS[np.frombuffer(ascii_text, np.uint8)].reshape(len(texts), cells)
    if not cells:
        return digits, {}
    illegal: Reasons = {}
    for row in np.flatnonzero((digits > shape_of(cells).side).any(1)).tolist():
        digits[row] = 0
        try:
            parse(texts[row])
        except ValueError as error:
            illegal[row] = str(error)
    return digits, illegal
