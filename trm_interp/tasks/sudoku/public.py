"""The public data folder of TRM and HRM: tokens in NumPy files, read into digits.

nano-trm's folders have a token more, 1 for the end of a text, which no puzzle holds: 2 is a blank
and digit + 2 a digit. `vocab_size` tells them apart.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.errors import UserError, first_line
from trm_interp.runtime.files import require_regular, sha256_of
from trm_interp.runtime.limits import require_memory, shown
from trm_interp.runtime.schema import read_json
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.sudoku.formats import Reasons, Table, size_error
from trm_interp.tasks.sudoku.grid import from_tokens, shape_of

INPUTS, LABELS, DATASET = "all__inputs.npy", "all__labels.npy", "dataset.json"
BYTES_A_CELL = 32  # of memory, while tokens become digits


@dataclass(frozen=True)
class Card:
    """What `dataset.json` says, as far as it matters here."""

    seq_len: int | None = None
    vocab_size: int | None = None


def read_folder(path: Path, limit: int | None) -> Table:
    """The public data folder of a split, or the folder around a single one."""
    if not (path / INPUTS).exists():
        inside = sorted(p.parent.name for p in path.glob(f"*/{INPUTS}"))
        if len(inside) != 1:
            inside = inside or sorted(p.name for p in path.glob("*.txt"))
            advice = (
                f"name one of {', '.join(inside)}" if inside else f"no *.txt and no {INPUTS} in it"
            )
            raise PuzzleError(f"{path}: a folder; {advice}")
        path = path / inside[0]
    files = {name: path / name for name in (INPUTS, LABELS, DATASET)}
    if not files[LABELS].exists():
        raise PuzzleError(f"{path}: {INPUTS} without {LABELS}")
    inputs, labels = (_tokens(files[name], limit) for name in (INPUTS, LABELS))
    if inputs.shape != labels.shape:
        raise PuzzleError(f"{path}: inputs {inputs.shape}, labels {labels.shape}")
    cells = inputs.shape[1]
    if error := size_error(cells):
        raise PuzzleError(f"{path}: {error}")
    shape = shape_of(cells)
    shift = 0
    if files[DATASET].exists():
        card = read_json(files[DATASET], Card, PuzzleError)
        shift = int(card.vocab_size == shape.vocab + 1)
        for key, stated, here in (
            ("seq_len", card.seq_len, cells),
            ("vocab_size", card.vocab_size, shape.vocab + shift),
        ):
            if stated not in (None, here):
                raise PuzzleError(f"{path}: {DATASET} says {key} {stated}, here {here}")
    require_memory(inputs.size * BYTES_A_CELL, f"{path}", "read less of it with --limit")
    inputs, labels = np.asarray(inputs), np.asarray(labels)

    bad: Reasons = {}
    for what, tokens, lowest in (("input", inputs, 1), ("label", labels, 2)):
        lowest, end = lowest + shift, shape.vocab + shift
        outside = (tokens < lowest) | (tokens >= end)
        for row in np.flatnonzero(outside.any(1)).tolist():
            at = int(outside[row].argmax())
            bad.setdefault(row, f"{what} token {tokens[row, at]} at {at}; {lowest} to {end - 1}")
    puzzles, solutions = (
        from_tokens(tokens.astype(np.int64) - shift) for tokens in (inputs, labels)
    )
    puzzles[list(bad)] = solutions[list(bad)] = 0
    sha256 = {p.name: sha256_of(p) for p in files.values() if p.exists()}
    rows = np.arange(len(inputs))
    return Table(puzzles, solutions, np.ones(len(rows), bool), rows, bad, sha256, "row")


def is_public_folder(path: Path) -> bool:
    """Whether a folder holds puzzles of a size that Sudoku has, as far as its headers tell."""
    folders = [path] if (path / INPUTS).exists() else [p.parent for p in path.glob(f"*/{INPUTS}")]
    if not folders:
        return False
    try:
        cells = _tokens(folders[0] / INPUTS, None).shape[1]
        card = Card()
        if (folders[0] / DATASET).exists():
            card = read_json(folders[0] / DATASET, Card, PuzzleError)
    except UserError:
        return False
    if size_error(cells):
        return False
    vocab = shape_of(cells).vocab
    return card.vocab_size in (None, vocab, vocab + 1)


def _tokens(path: Path, limit: int | None) -> NDArray[np.integer]:
    """The first rows of a file, not read yet."""
    require_regular(path)
    try:
        claimed, size = _claimed_bytes(path), path.stat().st_size
        if claimed > size:
            raise PuzzleError(
                f"{path}: its header claims {shown(claimed)} bytes, the file has {size}: "
                "it was cut off or is no such file"
            )
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except UserError:
        raise
    except Exception as error:  # a file from anywhere: numpy's errors have no common base
        raise PuzzleError(f"{path}: not a plain NumPy array ({first_line(error)[:100]})") from None
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        kind = f"{tokens.dtype} {tokens.shape}"
        raise PuzzleError(f"{path}: integers [n, cells] expected, got {kind[:100]}")
    return tokens[:limit]


def _claimed_bytes(path: Path) -> int:
    """Size of the array that the header of an .npy file announces."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    return math.prod(shape) * dtype.itemsize
