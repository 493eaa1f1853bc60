"""ARC pairs of a file or folder as tokens, checked; and their files.

- The public data folder of a split, with `identifiers.json` beside it or in it.
- CSV of our own, `arc,identifier,input,output`: what the public code calls the task and its
  augmentation, the number of its embedding (may be empty), both frames in the characters of
  `grid.render`.
"""

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.files import replacing, require_regular, sha256_of
from trm_interp.runtime.limits import require_memory
from trm_interp.tasks.arc.augmentations import parsed
from trm_interp.tasks.arc.grid import (
    VOCAB,
    Bools,
    Tokens,
    boxes_around,
    misplaced,
    parse,
    render,
    side_of,
)
from trm_interp.tasks.arc.task import Arc
from trm_interp.tasks.base import Progress, PuzzleError, PuzzleSet, no_progress
from trm_interp.tasks.public_folder import IDENTIFIERS, STARTS, open_folder, peek
from trm_interp.tasks.puzzles import WAYS, message_of_bad

HEADER = ("arc", "identifier", "input", "output")
AT_ONCE = 4096  # pairs that are checked together
BYTES_A_CHARACTER = 8  # of memory, while text becomes tokens
CHARACTERS = 1900  # that a pair takes in a file, at most as a rule
LONGEST_LINE = 10_000  # characters

Reasons = dict[int, str]  # row -> what is wrong with it


class Table(NamedTuple):
    """Pairs as read; a bad row's tokens are zeros. `unit`: what `lines` counts."""

    inputs: Tokens
    labels: Tokens
    lines: NDArray[np.int64]
    identifiers: NDArray[np.int64] | None
    names: NDArray[np.str_] | None
    bad: Reasons
    sha256: dict[str, str]
    unit: str


def load(
    path: str | os.PathLike[str],
    skip_bad: bool = False,
    limit: int | None = None,
    progress: Progress = no_progress,
) -> PuzzleSet:
    """As `Task.load`: pairs of a CSV file or a public data folder."""
    path = Path(path)
    if not path.exists():
        raise PuzzleError(f"{path}: no such file or folder; {WAYS}")
    if path.suffix == ".json":
        raise PuzzleError(
            f"{path}: models know ARC tasks by the identifiers that they were trained with: "
            f"`data make {path}` lays down augmentations and identifiers of its tasks"
        )
    if path.is_dir():
        return checked(_read_folder(path, limit), path, skip_bad, progress)
    require_regular(path)
    size = path.stat().st_size
    taken = size if limit is None else min(size, limit * CHARACTERS)
    advice = "split the file, or read less of it with --limit"
    require_memory(taken * BYTES_A_CHARACTER, f"{path}", advice)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        table = _table(_short_lines(file.readline, path), {path.name: sha256_of(path)}, path, limit)
    return checked(table, path, skip_bad, progress)


def load_text(text: str, name: str, skip_bad: bool = False) -> PuzzleSet:
    """As `load`, of CSV text that is at hand; `name` stands in messages for the file's."""
    content = text.encode("utf-8", "surrogateescape")
    sha256 = {name: hashlib.sha256(content).hexdigest()}
    lines = content.decode("utf-8-sig", "replace").splitlines()
    return checked(_table(lines, sha256, name, None), name, skip_bad)


def recognises(path: Path) -> bool:
    """Whether a file or folder holds ARC pairs, as far as its header tells."""
    if path.is_dir():
        folder = peek(path)
        return folder is not None and folder.card.vocab_size == VOCAB and _is_frame(folder.cells)
    with path.open("rb") as file:
        if path.suffix == ".json":
            return b'"train"' in file.read(1 << 16)
        return file.readline(80).strip().removeprefix(b"\xef\xbb\xbf") == ",".join(HEADER).encode()


def _is_frame(cells: int) -> bool:
    try:
        side_of(cells)
    except ValueError:
        return False
    return True


def checked(
    table: Table, path: Path | str, skip_bad: bool, progress: Progress = no_progress
) -> PuzzleSet:
    """The good pairs; PuzzleError for bad ones unless `skip_bad`."""
    n = len(table.lines)
    if n == 0:
        raise PuzzleError(f"{path}: no pair in it")
    bad = dict(table.bad)
    for begin in range(0, n, AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        for at, reason in _faults(table.inputs[rows], table.labels[rows]).items():
            bad.setdefault(begin + at, reason)
        progress(min(begin + AT_ONCE, n), n)
    reports = [f"{table.unit} {table.lines[row]}: {bad[row]}" for row in sorted(bad)]
    if bad and not skip_bad:
        raise PuzzleError(message_of_bad(path, table.unit, reports, n))
    if len(bad) == n:
        raise PuzzleError(f"{path}: no good {table.unit} among {n}; first, {reports[0]}")
    whole = PuzzleSet(
        Arc(side_of(table.inputs.shape[1])),
        table.inputs,
        table.labels,
        table.lines,
        str(path),
        table.sha256,
        tuple(reports),
        table.identifiers,
        table.names,
    )
    return whole.subset([row for row in range(n) if row not in bad]) if bad else whole


def _faults(inputs: Tokens, labels: Tokens) -> Reasons:
    """What is wrong with the tokens of pairs, by row."""
    bad: Reasons = {}
    for what, tokens in (("input", inputs), ("output", labels)):
        wrong = misplaced(tokens)
        none = ~(tokens > 1).any(1)
        for row in np.flatnonzero(none).tolist():
            bad.setdefault(row, f"no grid in the {what}")
        ending = "; a grid fills a rectangle, with end markers below and on the right"
        _name_cells(bad, f"{what} token", wrong, tokens, ending)
    first, second = boxes_around(inputs), boxes_around(labels)
    apart = (first.top != second.top) | (first.left != second.left)
    for row in np.flatnonzero(apart).tolist():
        bad.setdefault(row, "input and output begin at two places of the frame")
    return bad


def _name_cells(bad: Reasons, what: str, wrong: Bools, tokens: NDArray[Any], ending: str) -> None:
    for row in np.flatnonzero(wrong.any(1)).tolist():
        cell = int(wrong[row].argmax())
        bad.setdefault(row, f"{what} {tokens[row, cell]} at {cell}{ending}")


def _read_folder(path: Path, limit: int | None) -> Table:
    folder = open_folder(path, limit)
    try:
        side_of(folder.cells)
    except ValueError as error:
        raise PuzzleError(f"{folder.path}: {error}") from None
    folder.require_card(VOCAB)
    identifiers, names = folder.identifiers(), folder.names()
    rows = np.arange(len(identifiers))
    own = None
    if names is not None:
        if (last := int(identifiers.max(initial=0))) >= len(names):
            raise PuzzleError(f"{folder.path}: identifier {last}, but there are {len(names)} names")
        try:
            for number in np.unique(identifiers).tolist():
                parsed(names[number])
        except ValueError as error:
            raise PuzzleError(f"{folder.path}: {error}") from None
        own = np.array(names, np.str_)[identifiers]
    bad: Reasons = {}
    both: list[Tokens] = []
    for what, tokens in zip(("input", "output"), folder.read(), strict=True):
        outside = (tokens < 0) | (tokens >= VOCAB)
        _name_cells(bad, f"{what} token", outside, tokens, f"; tokens are 0 to {VOCAB - 1}")
        both.append(np.where(outside, 0, tokens).astype(np.uint8))
    digests = folder.sha256(IDENTIFIERS, STARTS)
    inputs, labels = both
    return Table(inputs, labels, rows, identifiers, own, bad, digests, "row")


def _short_lines(readline: Callable[[int], str], path: Path) -> Iterable[str]:
    """The lines of a text file. PuzzleError for one that is no line of text."""
    while line := readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise PuzzleError(f"{path}: no pairs; a line has over {LONGEST_LINE} characters")
        yield line


def _table(
    lines: Iterable[str], sha256: dict[str, str], source: Path | str, limit: int | None
) -> Table:
    """The pairs of a CSV file; the first good one tells the size of the frame."""
    records = csv.reader(lines)
    if tuple(next(records, [])) != HEADER:
        raise PuzzleError(f"{source}: an ARC file begins with {','.join(HEADER)}")
    taken = list(islice((row for row in enumerate(records, start=2) if row[1]), limit))
    cells = next((len(fields[2]) for _, fields in taken if not _fault(fields)), 0)
    inputs = np.zeros((len(taken), cells), np.uint8)
    labels = np.zeros_like(inputs)
    identifiers = np.full(len(taken), -1, np.int64)
    names: list[str] = []
    bad: Reasons = {}
    for row, (_, fields) in enumerate(taken):
        names.append(fields[0])
        try:
            if fault := _fault(fields):
                raise ValueError(fault)
            if len(fields[2]) != cells:
                raise ValueError(f"{len(fields[2])} cells where the first pair has {cells}")
            parsed(fields[0])
            identifiers[row] = int(fields[1]) if fields[1] else -1
            inputs[row], labels[row] = parse(fields[2]), parse(fields[3])
        except ValueError as error:
            bad[row] = str(error)
    at = np.array([line for line, _ in taken], np.int64)
    good = [row for row in range(len(taken)) if row not in bad]
    unnumbered = identifiers[good] < 0
    if unnumbered.any() and not unnumbered.all():
        raise PuzzleError(f"{source}: some pairs have an identifier, others none")
    own = None if unnumbered.all() else identifiers
    return Table(inputs, labels, at, own, np.array(names, np.str_), bad, sha256, "line")


def _fault(fields: list[str]) -> str:
    """What is wrong with the fields of a line, as far as their number and lengths tell."""
    if len(fields) != len(HEADER):
        return f"{len(fields)} fields, an ARC file has {len(HEADER)}"
    if fields[1] and not (fields[1].isascii() and fields[1].isdigit() and len(fields[1]) < 19):
        return f"identifier {fields[1][:20]!r} is no number"
    if len(fields[2]) != len(fields[3]):
        return f"the input has {len(fields[2])} cells, the output {len(fields[3])}"
    try:
        side_of(len(fields[2]))
    except ValueError as error:
        return str(error)
    return ""


def save(path: str | os.PathLike[str], puzzles: PuzzleSet) -> str:
    """Write the CSV file, whole or not at all; its sha256. Pairs without a name get their line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    names = puzzles.lines.astype(np.str_) if puzzles.names is None else puzzles.names
    own = puzzles.identifiers
    numbers = [""] * len(puzzles) if own is None else own.tolist()
    for name, number, first, second in zip(
        names.tolist(), numbers, puzzles.inputs, puzzles.labels, strict=True
    ):
        writer.writerow([name, number, render(first), render(second)])
    content = text.getvalue().encode()
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
