"""Mazes of a file, in any form that `formats.py` reads, checked and solved; and their files.

Everything read is checked; what is wrong is named by file and line.
"""

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.files import replacing, require_regular
from trm_interp.runtime.limits import require_memory
from trm_interp.tasks.base import Progress, PuzzleError, PuzzleSet, no_progress
from trm_interp.tasks.maze.formats import (
    HEADER,
    Reasons,
    Table,
    read_file,
    read_folder,
    read_text,
)
from trm_interp.tasks.maze.grid import (
    GOAL,
    OPEN,
    PATH,
    START,
    Tokens,
    path_faults,
    render,
    side_of,
    solutions,
    ways,
)
from trm_interp.tasks.maze.task import Maze
from trm_interp.tasks.puzzles import WAYS, message_of_bad

AT_ONCE = 2048  # mazes that are solved together
BYTES_A_CHARACTER = 40  # of memory, while text becomes tokens
CHARACTERS = 4000  # that a maze takes in a file, at most as a rule


def load(
    path: str | os.PathLike[str],
    skip_bad: bool = False,
    limit: int | None = None,
    progress: Progress = no_progress,
    several: bool = False,
) -> PuzzleSet:
    """As `Task.load`: mazes of a text file, a CSV with a header or a public data folder."""
    path = Path(path)
    if not path.exists():
        raise PuzzleError(f"{path}: no such file or folder; {WAYS}")
    if path.is_dir():
        return checked(read_folder(path, limit), path, skip_bad, progress, several)
    require_regular(path)
    size = path.stat().st_size
    taken = size if limit is None else min(size, limit * CHARACTERS)
    advice = "split the file, or read less of it with --limit"
    require_memory(taken * BYTES_A_CHARACTER, f"{path}", advice)
    return checked(read_file(path, limit), path, skip_bad, progress, several)


def load_text(text: str, name: str, skip_bad: bool = False, several: bool = False) -> PuzzleSet:
    """As `load`, of a text that is at hand; `name` stands in messages for the file's."""
    return checked(read_text(text, name), name, skip_bad, no_progress, several)


def checked(
    table: Table, path: Path | str, skip_bad: bool, progress: Progress, several: bool
) -> PuzzleSet:
    """The good mazes with their solutions; PuzzleError for bad ones unless `skip_bad`."""
    if len(table.lines) == 0:
        raise PuzzleError(f"{path}: no maze in it")
    bad = dict(table.bad)
    labels = table.solutions.copy()
    good = [row for row in range(len(table.lines)) if row not in bad]
    for begin in range(0, len(good), AT_ONCE):
        rows = np.array(good[begin : begin + AT_ONCE])
        labels[rows], faults = _solved(
            table.puzzles[rows], labels[rows], table.solved[rows], several
        )
        bad |= {int(rows[at]): reason for at, reason in faults.items()}
        progress(begin + len(rows), len(good))
    reports = [f"{table.unit} {table.lines[row]}: {bad[row]}" for row in sorted(bad)]
    if bad and not skip_bad:
        raise PuzzleError(message_of_bad(path, table.unit, reports, len(table.lines)))
    if len(bad) == len(table.lines):
        raise PuzzleError(f"{path}: no good {table.unit} among {len(bad)}; first, {reports[0]}")
    kept = np.array([row for row in good if row not in bad], np.int64)
    task = Maze(side_of(table.puzzles.shape[1]))
    return PuzzleSet(
        task,
        table.puzzles[kept],
        labels[kept],
        table.lines[kept],
        str(path),
        table.sha256,
        tuple(reports),
    )


def _solved(
    puzzles: Tokens, given: Tokens, solved: NDArray[np.bool_], several: bool
) -> tuple[Tokens, Reasons]:
    """The solutions of mazes [n, cell], those that are given where there are, and what is wrong."""
    between = ways(puzzles)
    own = solutions(puzzles, between)
    labels = np.where(solved[:, None], given, own)
    bad: Reasons = {}
    starts, goals = ((puzzles == kind).sum(1) for kind in (START, GOAL))
    changed = (np.where(labels == PATH, OPEN, labels) != puzzles).any(1)
    wrong = path_faults(puzzles, labels, between).any(1)
    for reason, holds in (
        ("no start (S)", starts == 0),
        ("several starts (S)", starts > 1),
        ("no goal (G)", goals == 0),
        ("several goals (G)", goals > 1),
        ("no way from start to goal", between.length < 0),
        ("several shortest paths", between.several & (not several)),
        ("the answer changes the maze", changed),
        ("the answer is no shortest path from start to goal", wrong),
    ):
        for row in np.flatnonzero(holds).tolist():
            bad.setdefault(row, reason)
    return labels, bad


def save(
    path: str | os.PathLike[str],
    inputs: Tokens,
    labels: Tokens,
    ratings: Sequence[int],
    source: str = "",
) -> str:
    """Write the public CSV `source,question,answer,rating`, whole or not at all; its sha256."""
    content = csv_text(inputs, labels, ratings, source)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def csv_text(inputs: Tokens, labels: Tokens, ratings: Sequence[int], source: str = "") -> bytes:
    """The bytes of such a file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for puzzle, answer, rating in zip(inputs, labels, ratings, strict=True):
        writer.writerow([source, render(puzzle, " "), render(answer, " "), rating])
    return text.getvalue().encode()
