"""Puzzle files: plain lines, Sudoku-Extreme's CSV and the public TRM data folder.

Everything read is checked; what is wrong is named by file and line. A file that carries its
solutions needs NumPy alone; only missing solutions and uniqueness call the solver.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.errors import UserError
from trm_interp.files import replacing, sha256_of
from trm_interp.tasks.sudoku.grid import Grid, Shape, from_tokens, parse, shape_of, to_tokens

INPUTS, LABELS, DATASET = "all__inputs.npy", "all__labels.npy", "dataset.json"
SHOWN = 5  # bad lines spelled out in a message
CHUNK = 16384  # grids checked at once; keeps the temporaries near 10 MB
SOLVED_AT_ONCE = 1024

Reasons = dict[int, str]  # row in the file's puzzles -> what is wrong with it


class PuzzleError(UserError):
    """A puzzle file that cannot be used; the message says which lines and why."""


@dataclass(frozen=True)
class PuzzleSet:
    """Checked puzzles with their solutions, in file order.

    `puzzles` and `solutions`: uint8 [n, cells] digits, 0 for a blank. `lines`: where each stood in
    `source`, line numbers from 1 (a public data folder: rows from 0). `sha256`: file name -> hex
    digest. `skipped`: what was left out and why, one text per bad line.
    """

    puzzles: Grid
    solutions: Grid
    lines: NDArray[np.int64]
    source: str
    sha256: dict[str, str]
    skipped: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.puzzles.shape != self.solutions.shape or len(self.lines) != len(self.puzzles):
            raise ValueError(
                f"puzzles {self.puzzles.shape}, solutions {self.solutions.shape}, "
                f"lines {self.lines.shape} do not belong together"
            )

    def __len__(self) -> int:
        return len(self.puzzles)

    @property
    def shape(self) -> Shape:
        return shape_of(self.puzzles.shape[1])

    @property
    def inputs(self) -> Grid:
        """uint8 [n, cells] tokens of the puzzles."""
        return to_tokens(self.puzzles)

    @property
    def labels(self) -> Grid:
        """uint8 [n, cells] tokens of the solutions."""
        return to_tokens(self.solutions)

    def subset(self, index: slice | Sequence[int] | NDArray[np.integer]) -> "PuzzleSet":
        """The puzzles at those positions of this set (from 0), in the order given."""
        at = index if isinstance(index, slice) else np.asarray(index, np.int64)
        return replace(
            self,
            puzzles=self.puzzles[at],
            solutions=self.solutions[at],
            lines=self.lines[at],
        )


class _Entry(NamedTuple):
    """One puzzle as it stands in a text file."""

    line: int
    puzzle: str
    solution: str  # empty where the file gives none


class _Table(NamedTuple):
    """Digits as read, before any check of the rules; a bad row's digits are zeros."""

    puzzles: Grid
    solutions: Grid
    solved: NDArray[np.bool_]  # [n] where the file gives a solution
    lines: NDArray[np.int64]
    bad: Reasons
    sha256: dict[str, str]
    unit: str  # what `lines` counts: "line" or "row"


def load(
    path: str | os.PathLike[str],
    skip_bad: bool = False,
    limit: int | None = None,
    check_unique: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
    several: bool = False,
) -> PuzzleSet:
    """Puzzles of a text file, a Sudoku-Extreme CSV or a public data folder, solved and checked.

    Text: one puzzle per line, '.' or '0' for a blank, optionally a comma and its solution; empty
    lines and lines that start with '#' are passed over. `limit` reads only the first so many
    puzzles. Missing solutions are computed, and then exactly one must exist (at least one with
    `several`); with `check_unique` that is demanded of every puzzle. Bad lines raise one
    PuzzleError, or with `skip_bad` are left out and listed in `skipped`. `progress` is told how
    many puzzles are solved, of how many.
    """
    path = Path(path)
    if not path.exists():
        raise PuzzleError(f"{path}: no such file or folder")
    if path.is_dir():
        table = _read_folder(path, limit)
    else:
        table = _read_text(path.read_bytes(), path.name, limit)
    return _checked(table, path, skip_bad, check_unique, progress, several)


def load_text(text: str, name: str, skip_bad: bool = False, several: bool = False) -> PuzzleSet:
    """As `load`, of a text that is at hand; `name` stands in messages for the file's."""
    table = _read_text(text.encode(), name, None)
    return _checked(table, name, skip_bad, False, lambda done, of: None, several)


def _checked(
    table: _Table,
    path: Path | str,
    skip_bad: bool,
    check_unique: bool,
    progress: Callable[[int, int], None],
    several: bool,
) -> PuzzleSet:
    if len(table.lines) == 0:
        raise PuzzleError(f"{path}: no puzzle in it")

    bad, solutions = dict(table.bad), table.solutions
    if len(bad) < len(table.lines):
        bad |= _broken(table.puzzles, solutions, table.solved, bad)
    rows = [
        row
        for row, solved in enumerate(table.solved.tolist())
        if row not in bad and (check_unique or not solved)
    ]
    if rows:
        from trm_interp.tasks.sudoku.solver import solve_batch

        for start in range(0, len(rows), SOLVED_AT_ONCE):
            part = rows[start : start + SOLVED_AT_ONCE]
            found = solve_batch(table.puzzles[part], limit=2)
            solutions[part] = found.solutions
            for row, count in zip(part, found.counts.tolist(), strict=True):
                if count == 0 or (count > 1 and not several):
                    bad[row] = "several solutions" if count > 1 else "no solution"
            progress(start + len(part), len(rows))

    reports = [f"{table.unit} {table.lines[row]}: {bad[row]}" for row in sorted(bad)]
    if bad and not skip_bad:
        raise PuzzleError(_message(path, table.unit, reports, len(table.lines)))
    if len(bad) == len(table.lines):
        raise PuzzleError(f"{path}: no good {table.unit} among {len(bad)}; first, {reports[0]}")
    good = np.array([row for row in range(len(table.lines)) if row not in bad], np.int64)
    return PuzzleSet(
        table.puzzles[good],
        solutions[good],
        table.lines[good],
        str(path),
        table.sha256,
        tuple(reports),
    )


def _message(path: Path | str, unit: str, reports: list[str], n: int) -> str:
    plural = "" if len(reports) == 1 else "s"
    rest = [f"and {len(reports) - SHOWN} more"] if len(reports) > SHOWN else []
    head = f"{path}: {len(reports)} bad {unit}{plural} of {n}; --skip-bad goes on without them"
    return "\n  ".join([head, *reports[:SHOWN], *rest])


# Text files -----------------------------------------------------------------------------------


def _read_text(content: bytes, name: str, limit: int | None) -> _Table:
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
    return _Table(puzzles, solutions, solved, lines, bad, {name: digest}, "line")


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


# The public data folder -----------------------------------------------------------------------


def _read_folder(path: Path, limit: int | None) -> _Table:
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
    return _Table(puzzles, solutions, np.ones(len(rows), bool), rows, bad, sha256, "row")


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


# Checks ---------------------------------------------------------------------------------------


def _broken(puzzles: Grid, solutions: Grid, solved: NDArray[np.bool_], known: Reasons) -> Reasons:
    """Rows, beside the known ones, whose givens or whose stated solution break a rule."""
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
                if row not in known:
                    bad.setdefault(row, reason)
    return bad


def repeats(grids: Grid) -> NDArray[np.bool_]:
    """[n] whether any unit of a grid holds a digit twice; blanks do not count.

    >>> repeats(np.stack([parse("12" + "." * 14), parse("11" + "." * 14)])).tolist()
    [False, True]
    """
    units = shape_of(grids.shape[1]).units
    bits = (np.uint16(1) << grids.astype(np.uint16)) & ~np.uint16(1)  # blank 0, digit d 2**d
    members = bits[:, units]  # [n, units, side]
    # a sum of powers of two equals their union exactly where no power comes twice
    sums = members.sum(-1, dtype=np.uint16)
    return (sums != np.bitwise_or.reduce(members, axis=-1)).any(1)


# Writing --------------------------------------------------------------------------------------


def lines_text(puzzles: Grid, solutions: Grid) -> bytes:
    """`puzzle,solution` lines of digits, blanks as '.'.

    >>> lines_text(parse("1" + "." * 15)[None], parse("1234341221434321")[None])
    b'1...............,1234341221434321\\n'
    """
    n, cells = puzzles.shape
    codes = np.empty((n, 2 * cells + 2), np.uint8)
    codes[:, :cells], codes[:, cells + 1 : -1] = puzzles, solutions
    codes = np.where(codes == 0, np.uint8(ord(".")), codes + np.uint8(ord("0")))
    codes[:, cells], codes[:, -1] = ord(","), ord("\n")
    return codes.tobytes()


def save_lines(path: str | os.PathLike[str], puzzles: Grid, solutions: Grid) -> str:
    """Write `puzzle,solution` lines that `load` reads, whole or not at all; the file's sha256."""
    text = lines_text(puzzles, solutions)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(text)
    return hashlib.sha256(text).hexdigest()
