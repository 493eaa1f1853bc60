"""Puzzles as text, read into digits. Blanks are '.', '0', '_' or '*'; '#' begins a comment line.
The digits of 16x16 are 1 to 9 and A to G.

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
import string
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.files import sha256_of
from trm_interp.runtime.limits import LARGEST_INT, shown
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.sudoku.grid import BLANKS, SHAPES, SYMBOLS, Grid, parse, shape_of

PUZZLE = ("question", "puzzle", "puzzles", "quiz", "quizzes")
SOLUTION = ("answer", "answers", "solution", "solutions")
LINES = " |+-"  # drawn between the cells of a grid
TITLE = re.compile(r"grid\s*\d+", re.IGNORECASE)
CELL = SYMBOLS + SYMBOLS[9:].lower() + BLANKS
MOST_OF_4X4 = 4  # digits
LARGEST = max(SHAPES)  # side; a row of it is as long as a whole 4x4 puzzle
FIRST_LINES = 20  # that tell whether a file holds puzzles
LONGEST_LINE = 10**6  # characters; a longer one is refused before all of it is in memory
DIGITS = np.full(256, 255, np.uint8)  # of a character's code; 255 for what is no cell
for _symbols in (SYMBOLS, SYMBOLS.lower()):
    DIGITS[[ord(char) for char in _symbols]] = range(1, len(SYMBOLS) + 1)
DIGITS[[ord(char) for char in BLANKS]] = 0

Reasons = dict[int, str]  # row in the file's puzzles -> what is wrong with it


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


def read_file(path: Path, limit: int | None) -> Table:
    """Lines, CSV or drawn grids of a file; with a limit it is read no further than that.

    Its digest is of all of it.
    """
    return _read(_lines_of(path), {path.name: sha256_of(path)}, limit)


def _lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file, read one by one. PuzzleError for one that is no line of text."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        while line := file.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise PuzzleError(f"{path}: no puzzles; a line has over {LONGEST_LINE} characters")
            yield line


def read_text(text: str, name: str) -> Table:
    """As `read_file`, of text that is at hand; `name` takes the place of the file's."""
    content = text.encode("utf-8", "surrogateescape")
    lines = content.decode("utf-8-sig", "replace").split("\n")
    return _read(lines, {name: hashlib.sha256(content).hexdigest()}, None)


def _read(lines: Iterable[str], sha256: dict[str, str], limit: int | None) -> Table:
    lines = iter(lines)
    begin: list[str] = []
    are_rows = _begin_with_a_row(lines, begin)
    entries, bad = (_grids if are_rows else _entries)(chain(begin, lines), limit)
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
    numbers = np.array([entry.line for entry in entries], np.int64)
    return Table(puzzles, solutions, solved, numbers, bad, sha256, "line")


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


def _entries(lines: Iterable[str], limit: int | None) -> tuple[list[_Entry], Reasons]:
    """The puzzles of lines as text, and the rows whose fields do not fit."""
    header: _Header | None = None
    entries: list[_Entry] = []
    bad: Reasons = {}
    for line, fields in _records(lines):
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


def _begin_with_a_row(lines: Iterator[str], taken: list[str]) -> bool:
    """Whether the first cells of a text are a row of a grid, and not a whole puzzle.

    The lines that were read to know it are put into `taken`. Sixteen cells are a row of 16x16 where
    the first 16 lines are such rows and hold more digits than a 4x4 puzzle has.
    """
    rows: list[str] = []
    for line in lines:
        taken.append(line)
        row = cells_of(line)
        if row and not line.startswith("#") and not TITLE.fullmatch(line.strip()):
            rows.append(row)
            if not (len(row) in SHAPES and are_cells(row)):
                return False
            if len(row) != LARGEST:
                return len(rows) == 1
            if len(rows) == LARGEST:
                return len(set("".join(rows).upper()) - set(BLANKS)) > MOST_OF_4X4
    return False


def cells_of(line: str) -> str:
    """The cells of a line of a drawn grid.

    >>> cells_of("1 2 | . 4"), cells_of("----+----")
    ('12.4', '')
    """
    return "".join(char for char in line if char not in LINES and not char.isspace())


def are_cells(text: str) -> bool:
    """Whether a puzzle or a row of one is written like this; letters are digits of 16x16 alone.

    >>> are_cells("12.4"), are_cells("ABBA"), are_cells("1.3....A........")
    (True, False, True)
    """
    letters_too = len(text) in (LARGEST, SHAPES[LARGEST].cells)
    return set(text) <= set(CELL if letters_too else SYMBOLS[:9] + BLANKS)


def _grids(lines: Iterable[str], limit: int | None) -> tuple[list[_Entry], Reasons]:
    """The puzzles of drawn grids as text, and those whose rows do not fit."""
    entries: list[_Entry] = []
    bad: Reasons = {}
    rows: list[str] = []
    begin = 0
    for number, line in enumerate(chain(lines, [""]), start=1):
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


def _records(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number from 1 and fields of every line that is not empty or a comment.

    Fields lose spaces and quotes around them; no field of these formats holds a comma.
    """
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, [value.strip(' \t"') for value in line.split(",")]


def column(path: str | os.PathLike[str], name: str, lines: NDArray[np.int64]) -> list[str] | None:
    """What a CSV file with a header says under `name` on those lines; None where it does not."""
    path = Path(path)
    if path.is_dir():
        return None
    records = _records(_lines_of(path))
    _, first = next(records, (0, []))
    header = _header(first)
    if header is None or name not in header.names:
        return None
    at, wanted = header.names.index(name), set(lines.tolist())
    values = {line: fields[at] for line, fields in records if line in wanted}
    return [values[line] for line in lines.tolist()]


def lineages(path: str | os.PathLike[str], lines: NDArray[np.int64]) -> list[int] | None:
    """Seeds of the puzzles' lineages on those lines; None where the file does not know them.

    PuzzleError for a text that is no seed.
    """
    texts = column(path, "lineage", lines)
    if texts is None:
        return None
    for text, line in zip(texts, lines.tolist(), strict=True):
        if not (text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST_INT))):
            raise PuzzleError(f"{path}: line {line}: lineage {shown(text)!r} is no seed")
    return [int(text) for text in texts]


def typed(text: str) -> str | None:
    """A puzzle given on the command line as `read_text` reads it; None where it is none.

    Letters are digits in 16x16 alone.

    >>> typed("1 2 | 3 4"), typed("puzzles.txt"), typed("ABBA")
    ('1234', None, None)
    """
    if not set(text) <= set(f"{CELL},{LINES}{string.whitespace}"):
        return None
    if set(text) & set(string.ascii_letters) and len(cells_of(text)) < SHAPES[LARGEST].cells:
        return None
    return text if "\n" in text.strip() else cells_of(text)


def looks_like_puzzles(path: Path) -> bool:
    """Whether one of the first lines of a file is a puzzle or a row of a grid, with a digit.

    Under the header of a CSV file its first puzzle decides: other tasks have the same header.
    """
    try:
        begin = list(islice(_records(_lines_of(path)), FIRST_LINES))
    except (OSError, PuzzleError):
        return False
    for at, (_, fields) in enumerate(begin):
        if header := _header(fields):
            following = begin[at + 1][1] if at + 1 < len(begin) else []
            return are_cells("".join(following[header.puzzle : header.puzzle + 1]))
        cells = cells_of(fields[0])
        of_a_size = len(cells) in SHAPES or size_error(len(cells)) is None
        if of_a_size and are_cells(cells) and not set(cells) <= set(BLANKS):
            return True
    return False


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
