"""The forms of puzzle files, read into digits: text (plain lines, CSV) and the public data folder.

Whether puzzles keep the rules is not asked here.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.errors import UserError
from trm_interp.files import sha256_of
from trm_interp.tasks.sudoku.grid import Grid, from_tokens, parse, shape_of

INPUTS, LABELS, DATASET = "all__inputs.npy", "all__labels.npy", "dataset.json"

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
    entries, bad = _entries(text, limit)
    cells = next((len(e.puzzle) for e in entries if not _size_error(len(e.puzzle))), 0)
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


def _entries(text: str, limit: int | None) -> tuple[list[_Entry], Reasons]:
    """The puzzles of a file as text, and the rows whose fields do not fit."""
    puzzle_at, solution_at, width = 0, 1, None
    entries: list[_Entry] = []
    bad: Reasons = {}
    for line, fields in _records(text):
        if not entries and width is None and {"question", "answer"} <= set(fields):
            puzzle_at, solution_at = fields.index("question"), fields.index("answer")
            width = len(fields)
            continue
        if limit is not None and len(entries) == limit:
            break
        if width is None and len(fields) > 2:
            bad[len(entries)] = f"{len(fields)} fields; a line is puzzle or puzzle,solution"
        if width is not None and len(fields) != width:
            bad[len(entries)] = f"{len(fields)} fields, the header has {width}"
        fields = fields + [""] * (1 + max(puzzle_at, solution_at) - len(fields))
        entries.append(_Entry(line, fields[puzzle_at], fields[solution_at]))
    return entries, bad


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
    records = (
        {} if path.is_dir() else dict(_records(path.read_bytes().decode("utf-8-sig", "replace")))
    )
    header = next(iter(records.values()), [])
    if "question" not in header or name not in header:
        return None
    at = header.index(name)
    return [records[line][at] for line in lines.tolist()]


def _size_error(cells: int) -> str | None:
    try:
        shape_of(cells)
    except ValueError as error:
        return str(error)
    return None


def _wrong_length(entry: _Entry, cells: int, first: int) -> str | None:
    n = len(entry.puzzle)
    if n != cells:
        return _size_error(n) or f"{n} cells where line {first} has {cells}"
    if entry.solution and len(entry.solution) != cells:
        return f"solution has {len(entry.solution)} cells, its puzzle {cells}"
    return None


def _digits(texts: list[str], cells: int) -> tuple[Grid, Reasons]:
    """uint8 [n, cells] of texts of that length; what no digit or blank is, is reported."""
    ascii_text = "".join(texts).encode("ascii", "replace")  # one byte per character
    codes = np.frombuffer(ascii_text, np.uint8).reshape(len(texts), cells)
    digits = np.where(codes == ord("."), np.uint8(0), codes - np.uint8(ord("0")))
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


def read_folder(path: Path, limit: int | None) -> Table:
    """The public data folder of a split, or the folder around a single one."""
    if not (path / INPUTS).exists():
        inside = sorted(p.parent.name for p in path.glob(f"*/{INPUTS}"))
        if len(inside) != 1:
            inside = inside or sorted(p.name for p in path.glob("*.txt"))
            known = f"name one of {', '.join(inside)}" if inside else f"no {INPUTS} in it"
            raise PuzzleError(f"{path}: a folder; {known}")
        path = path / inside[0]
    files = {name: path / name for name in (INPUTS, LABELS, DATASET)}
    if not files[LABELS].exists():
        raise PuzzleError(f"{path}: {INPUTS} without {LABELS}")
    inputs, labels = (_tokens(files[name], limit) for name in (INPUTS, LABELS))
    if inputs.shape != labels.shape:
        raise PuzzleError(f"{path}: inputs {inputs.shape}, labels {labels.shape}")
    cells = inputs.shape[1]
    if error := _size_error(cells):
        raise PuzzleError(f"{path}: {error}")
    shape = shape_of(cells)
    if files[DATASET].exists():
        try:
            card = json.loads(files[DATASET].read_text())
        except ValueError as error:
            raise PuzzleError(f"{files[DATASET]}: {error}") from None
        for key, expected in (("seq_len", cells), ("vocab_size", shape.vocab)):
            if card.get(key, expected) != expected:
                raise PuzzleError(f"{path}: {DATASET} says {key} {card[key]}, here {expected}")

    bad: Reasons = {}
    for what, tokens, lowest in (("input", inputs, 1), ("label", labels, 2)):
        outside = (tokens < lowest) | (tokens >= shape.vocab)
        for row in np.flatnonzero(outside.any(1)).tolist():
            at = int(outside[row].argmax())
            bad.setdefault(
                row, f"{what} token {tokens[row, at]} at {at}; {lowest} to {shape.vocab - 1}"
            )
    puzzles, solutions = from_tokens(inputs), from_tokens(labels)
    puzzles[list(bad)] = solutions[list(bad)] = 0
    sha256 = {p.name: sha256_of(p) for p in files.values() if p.exists()}
    rows = np.arange(len(inputs))
    return Table(puzzles, solutions, np.ones(len(rows), bool), rows, bad, sha256, "row")


def _tokens(path: Path, limit: int | None) -> NDArray[np.integer]:
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)[:limit]
    except (ValueError, OSError, EOFError) as error:
        raise PuzzleError(f"{path}: not a plain NumPy array ({error})") from None
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise PuzzleError(
            f"{path}: integers [n, cells] expected, got {tokens.dtype} {tokens.shape}"
        )
    return np.asarray(tokens)
