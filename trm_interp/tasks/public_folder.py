"""The public data folder of TRM and HRM, whatever its task: tokens in NumPy files and a card."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.errors import UserError, first_line
from trm_interp.runtime.files import require_regular, sha256_of
from trm_interp.runtime.limits import require_memory, shown
from trm_interp.runtime.schema import read_json
from trm_interp.tasks.puzzles import PuzzleError

INPUTS, LABELS, DATASET = "all__inputs.npy", "all__labels.npy", "dataset.json"
IDENTIFIERS, STARTS = "all__puzzle_identifiers.npy", "all__puzzle_indices.npy"
GROUPS = "all__group_indices.npy"  # where the puzzles of one task begin
NAMES, TESTS = "identifiers.json", "test_puzzles.json"  # beside the splits
BYTES_A_CELL = 32  # of memory, while tokens are checked


@dataclass(frozen=True)
class Card:
    """What `dataset.json` says, as far as it matters here."""

    seq_len: int | None = None
    vocab_size: int | None = None


class Folder(NamedTuple):
    """A split as its headers tell it: integers [n, cell], mapped from the disk and not read yet."""

    path: Path
    inputs: NDArray[np.integer]
    labels: NDArray[np.integer]
    card: Card

    @property
    def cells(self) -> int:
        return self.inputs.shape[1]

    def require_card(self, vocab: int) -> None:
        """PuzzleError where the card says another number of cells or tokens."""
        for key, stated, here in (
            ("seq_len", self.card.seq_len, self.cells),
            ("vocab_size", self.card.vocab_size, vocab),
        ):
            if stated not in (None, here):
                raise PuzzleError(f"{self.path}: {DATASET} says {key} {stated}, here {here}")

    def read(self) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """The arrays themselves. UserError where they do not fit into memory."""
        require_memory(
            self.inputs.size * BYTES_A_CELL, f"{self.path}", "read less of it with --limit"
        )
        return np.asarray(self.inputs), np.asarray(self.labels)

    def sha256(self, *others: str) -> dict[str, str]:
        """Digests of its files, by name; of `others` as well."""
        files = (self.path / name for name in (INPUTS, LABELS, DATASET, *others))
        return {file.name: sha256_of(file) for file in files if file.exists()}

    def identifiers(self) -> NDArray[np.int64]:
        """int64 [n], which embedding each row has: that of its puzzle, of which it is an example.

        PuzzleError where the files do not say it of every row.
        """
        for name in (IDENTIFIERS, STARTS):
            if not (self.path / name).exists():
                raise PuzzleError(f"{self.path}: no {name}, which says whose example a row is")
        own, starts = (_integers(self.path / name) for name in (IDENTIFIERS, STARTS))
        rows = np.diff(starts)
        if len(starts) != len(own) + 1 or starts[0] != 0 or (rows < 1).any() or (own < 0).any():
            raise PuzzleError(f"{self.path}: {STARTS} and {IDENTIFIERS} do not belong together")
        each = np.repeat(own, rows)
        if len(each) < len(self.inputs):
            raise PuzzleError(
                f"{self.path}: {STARTS} ends at {len(each)}, {INPUTS} has more examples"
            )
        return each[: len(self.inputs)]

    def names(self) -> list[str] | None:
        """What the identifiers are called, by number; None where no file says it."""
        file = next(
            (at / NAMES for at in (self.path, self.path.parent) if (at / NAMES).is_file()), None
        )
        return None if file is None else read_json(file, list[str], PuzzleError)


def open_folder(path: Path, limit: int | None = None) -> Folder:
    """The folder of a split, or the folder around a single one; the first `limit` puzzles."""
    if not (path / INPUTS).exists():
        inside = sorted(p.parent.name for p in path.glob(f"*/{INPUTS}"))
        if len(inside) != 1:
            inside = inside or sorted(p.name for p in path.glob("*.txt"))
            advice = (
                f"name one of {', '.join(inside)}" if inside else f"no *.txt and no {INPUTS} in it"
            )
            raise PuzzleError(f"{path}: a folder; {advice}")
        path = path / inside[0]
    if not (path / LABELS).exists():
        raise PuzzleError(f"{path}: {INPUTS} without {LABELS}")
    inputs, labels = (tokens_of(path / name, limit) for name in (INPUTS, LABELS))
    if inputs.shape != labels.shape:
        raise PuzzleError(f"{path}: inputs {inputs.shape}, labels {labels.shape}")
    return Folder(path, inputs, labels, card_of(path))


def peek(path: Path) -> Folder | None:
    """`open_folder`, of no more than its first puzzle; None where it is none or damaged."""
    try:
        return open_folder(path, limit=1)
    except (UserError, OSError):
        return None


def card_of(path: Path) -> Card:
    """The card of a split; an empty one where it has none."""
    file = path / DATASET
    return read_json(file, Card, PuzzleError) if file.exists() else Card()


def tokens_of(path: Path, limit: int | None) -> NDArray[np.integer]:
    """The first rows of a file, not read yet."""
    tokens = _array(path)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        kind = f"{tokens.dtype} {tokens.shape}"
        raise PuzzleError(f"{path}: integers [n, cells] expected, got {kind[:100]}")
    return tokens[:limit]


def _integers(path: Path) -> NDArray[np.int64]:
    """A file of integers [n], read."""
    numbers = _array(path)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        kind = f"{numbers.dtype} {numbers.shape}"
        raise PuzzleError(f"{path}: integers [n] expected, got {kind[:100]}")
    require_memory(numbers.size * 8, f"{path}", "use a machine with more memory")
    return np.asarray(numbers).astype(np.int64)


def _array(path: Path) -> NDArray[Any]:
    """The array of an .npy file, mapped from the disk."""
    require_regular(path)
    try:
        claimed, size = _claimed_bytes(path), path.stat().st_size
        if claimed > size:
            raise PuzzleError(
                f"{path}: its header claims {shown(claimed)} bytes, the file has {size}: "
                "it was cut off or is no such file"
            )
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except UserError:
        raise
    except Exception as error:  # a file from anywhere: numpy's errors have no common base
        raise PuzzleError(f"{path}: not a plain NumPy array ({first_line(error)[:100]})") from None


def _claimed_bytes(path: Path) -> int:
    """Size of the array that the header of an .npy file announces."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
    return math.prod(shape) * dtype.itemsize
