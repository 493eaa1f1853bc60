"""Mazes as text and as public data folders, read into tokens.

- CSV as the public Maze-Hard files have it: `source,question,answer,rating`, grids of `# SGo` in
  one field; other columns are left alone.
- A maze on each line, optionally a comma and its solution.
- A maze over several lines, a row on each, as people type it; an empty line ends it. Spaces between
  all cells are left out.

An open cell is a space or a dot. Whether there is a way from start to goal is not asked here.
"""

import csv
import hashlib
import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import sha256_of
from trm_interp.runtime.limits import counted
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.maze.grid import CHARACTERS, DOT, PATH, VOCAB, Tokens, parse, side_of
from trm_interp.tasks.public_folder import open_folder, peek

HEADER = ("source", "question", "answer", "rating")
PUZZLE = ("question", "puzzle", "maze")
SOLUTION = ("answer", "solution")
CELL = set(CHARACTERS + DOT)
LONGEST_LINE = 10**6  # characters; a longer one is refused before all of it is in memory
SHOWN = 20  # characters of a text in a message
LEAST_TYPED = 25  # characters of a maze on one line, the smallest

Reasons = dict[int, str]  # row in the file's mazes -> what is wrong with it


class Table(NamedTuple):
    """Tokens as read, before any check of the paths; a bad row's tokens are zeros.

    `solved` [n]: where the file gives a solution. `unit`: what `lines` counts.
    """

    puzzles: Tokens
    solutions: Tokens
    solved: NDArray[np.bool_]
    lines: NDArray[np.int64]
    bad: Reasons
    sha256: dict[str, str]
    unit: str


class _Entry(NamedTuple):
    """A maze as it stands in a text."""

    line: int
    puzzle: str
    solution: str = ""
    fault: str = ""


def read_file(path: Path, limit: int | None) -> Table:
    """The mazes of a text file; with a limit it is read no further than that."""
    return _table(_entries(_lines_of(path)), {path.name: sha256_of(path)}, limit)


def read_text(text: str, name: str) -> Table:
    """As `read_file`, of text that is at hand; `name` takes the place of the file's."""
    content = text.encode("utf-8", "surrogateescape")
    lines = content.decode("utf-8-sig", "replace").split("\n")
    return _table(_entries(iter(lines)), {name: hashlib.sha256(content).hexdigest()}, None)


def read_folder(path: Path, limit: int | None) -> Table:
    """The public data folder of a split, or the folder around a single one."""
    folder = open_folder(path, limit)
    try:
        side_of(folder.cells)
    except ValueError as error:
        raise PuzzleError(f"{folder.path}: {error}") from None
    folder.require_card(VOCAB)
    puzzles, solutions = folder.read()
    bad: Reasons = {}
    for what, tokens, end in (("input", puzzles, PATH), ("label", solutions, VOCAB)):
        outside = (tokens < 1) | (tokens >= end)
        for row in np.flatnonzero(outside.any(1)).tolist():
            at = int(outside[row].argmax())
            bad.setdefault(row, f"{what} token {tokens[row, at]} at {at}; 1 to {end - 1}")
    puzzles, solutions = (np.where(t < VOCAB, t, 0).astype(np.uint8) for t in (puzzles, solutions))
    rows = np.arange(len(puzzles))
    solved = np.ones(len(rows), bool)
    return Table(puzzles, solutions, solved, rows, bad, folder.sha256(), "row")


def is_public_folder(path: Path) -> bool:
    """Whether a folder holds mazes, as far as its headers and its first puzzle tell."""
    folder = peek(path)
    if folder is None or folder.card.vocab_size not in (None, VOCAB):
        return False
    try:
        side_of(folder.cells)
    except ValueError:
        return False
    first = np.asarray(folder.inputs)
    return folder.card.vocab_size == VOCAB or bool(len(first) and (first < PATH).all())


def looks_like_mazes(path: Path) -> bool:
    """Whether the first maze of a file, or the row of one, is written in characters of mazes."""
    try:
        begin = [line for line in islice(_lines_of(path), 3) if line]
    except (OSError, PuzzleError):
        return False
    if not begin:
        return False
    if (columns := _columns(begin[0])) is None:
        text = begin[0].partition(",")[0]
    elif len(begin) > 1 and len(fields := _fields(begin[1])) > columns.puzzle:
        text = fields[columns.puzzle]
    else:
        return tuple(columns.names) == HEADER
    return set(text) <= CELL and bool(set(text) & set(CHARACTERS.replace(" ", "")))


def typed(text: str) -> str | None:
    """A maze given on the command line, as `read_text` reads it; None where it is none.

    >>> typed("#####\\n#S.G#\\n"), typed("maze.txt"), typed("S")
    ('#####\\n#S.G#\\n', None, None)
    """
    is_maze = set(text) <= CELL | set("\r\n,") and bool(set(text) & set("#SG"))
    return text if is_maze and ("\n" in text.strip() or len(text) >= LEAST_TYPED) else None


def _lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file without their ends. PuzzleError for one that is no line of text."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        while line := file.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise PuzzleError(f"{path}: no mazes; a line has over {LONGEST_LINE} characters")
            yield line.rstrip("\r\n")


class _Columns(NamedTuple):
    """Where a CSV file has what."""

    puzzle: int
    solution: int | None
    names: list[str]


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # a file of something else, such as weights
        return []


def _columns(line: str) -> _Columns | None:
    """The columns that a header names; None where the line is no header."""
    names = [name.strip().lower() for name in _fields(line)]
    puzzle = next((at for at, name in enumerate(names) if name in PUZZLE), None)
    solution = next((at for at, name in enumerate(names) if name in SOLUTION), None)
    return None if puzzle is None else _Columns(puzzle, solution, names)


def _entries(lines: Iterator[str]) -> Iterator[_Entry]:
    """The mazes of a text, whatever its form."""
    numbered = ((at, line.rstrip("\r")) for at, line in enumerate(lines, start=1))
    first = next(((at, line) for at, line in numbered if line.strip()), None)
    if first is None:
        return iter(())
    columns = _columns(first[1])
    if columns is not None:
        return _records(numbered, columns)
    return chain.from_iterable(map(_of_block, _blocks(chain([first], numbered))))


def _records(numbered: Iterable[tuple[int, str]], columns: _Columns) -> Iterator[_Entry]:
    for at, line in numbered:
        if not line.strip():
            continue
        fields = _fields(line)
        if len(fields) != len(columns.names):
            fault = f"{len(fields)} fields, the header has {len(columns.names)}"
            yield _Entry(at, "", "", fault)
            continue
        solution = "" if columns.solution is None else fields[columns.solution]
        yield _Entry(at, fields[columns.puzzle], solution)


def _blocks(numbered: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Lines that no empty line divides; a row of open cells written as spaces is not empty."""
    block: list[tuple[int, str]] = []
    for at, line in chain(numbered, [(0, "")]):
        if line:
            block.append((at, line))
        elif block:
            yield block
            block = []


def _of_block(block: list[tuple[int, str]]) -> list[_Entry]:
    """The maze that the lines of a block draw, or the mazes that stand on a line each."""
    rows = [line for _, line in block]
    width = max(map(len, rows))
    each = [line.partition(",") for line in rows]
    first = len(each[0][0])
    if first >= LEAST_TYPED and math.isqrt(first) ** 2 == first and len(rows) != width:
        pairs = zip(block, each, strict=True)
        return [_Entry(at, puzzle, solution) for (at, _), (puzzle, _, solution) in pairs]
    at, n = block[0][0], len(rows)
    rows = [row.ljust(width) for row in rows]
    if width == 2 * n - 1 and all(set(row[1::2]) <= {" "} for row in rows):
        rows, width = [row[::2] for row in rows], n
    fault = "" if width == n else f"not square: {counted(n, 'row')} of {width} cells"
    return [_Entry(at, "".join(rows), "", fault)]


def _table(entries: Iterator[_Entry], sha256: dict[str, str], limit: int | None) -> Table:
    """Tokens of the mazes; what cannot be read, or has another size than the first, is bad."""
    taken = list(islice(entries, limit))
    cells = next((len(e.puzzle) for e in taken if not e.fault and not _size_fault(e.puzzle)), 0)
    first = next((e.line for e in taken if len(e.puzzle) == cells and not e.fault), 0)
    puzzles = np.zeros((len(taken), cells), np.uint8)
    solutions = np.zeros_like(puzzles)
    bad: Reasons = {}
    for row, entry in enumerate(taken):
        try:
            _require_form(entry, cells, first)
            puzzles[row] = parse(entry.puzzle)
            if (puzzles[row] == PATH).any():
                raise ValueError("a path is drawn in the maze: 'o' belongs into the answer")
            if entry.solution:
                solutions[row] = parse(entry.solution)
        except ValueError as error:
            bad[row] = str(error)
            puzzles[row] = solutions[row] = 0
    solved = np.array([bool(entry.solution) for entry in taken], bool)
    lines = np.array([entry.line for entry in taken], np.int64)
    return Table(puzzles, solutions, solved, lines, bad, sha256, "line")


def _size_fault(puzzle: str) -> str:
    try:
        side_of(len(puzzle))
    except ValueError as error:
        return str(error)
    return ""


def _require_form(entry: _Entry, cells: int, first: int) -> None:
    """ValueError where the cells of a maze are not of the size of the first one, or no square."""
    fault = entry.fault or _size_fault(entry.puzzle)
    n, answered = len(entry.puzzle), len(entry.solution)
    if fault:
        raise ValueError(fault)
    if n != cells:
        raise ValueError(f"{n} cells where line {first} has {cells}")
    if entry.solution and answered != n:
        raise ValueError(f"the answer has {answered} cells, its maze {n}")


def ratings_of(path: Path, lines: NDArray[np.int64]) -> list[str] | None:
    """What a CSV file says under `rating` on those lines; None where it does not."""
    if path.is_dir():
        return None
    try:
        text = _lines_of(path)
        columns = _columns(next(text, ""))
        if columns is None or "rating" not in columns.names:
            return None
        at, wanted = columns.names.index("rating"), set(lines.tolist())
        values = {n: _fields(line)[at] for n, line in enumerate(text, start=2) if n in wanted}
    except (UserError, IndexError):
        return None
    return [values[line] for line in lines.tolist()]
