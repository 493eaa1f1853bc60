"""The public data folder of TRM and HRM: tokens in NumPy files, read into digits.

nano-trm's folders have a token more, 1 for the end of a text, which no puzzle holds: 2 is a blank
and digit + 2 a digit. `vocab_size` tells them apart.
"""

from pathlib import Path

import numpy as np

from trm_interp.runtime.errors import UserError
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.public_folder import INPUTS, card_of, open_folder, tokens_of
from trm_interp.tasks.sudoku.formats import Reasons, Table, size_error
from trm_interp.tasks.sudoku.grid import from_tokens, shape_of


def read_folder(path: Path, limit: int | None) -> Table:
    """The public data folder of a split, or the folder around a single one."""
    folder = open_folder(path, limit)
    if error := size_error(folder.cells):
        raise PuzzleError(f"{folder.path}: {error}")
    shape = shape_of(folder.cells)
    shift = int(folder.card.vocab_size == shape.vocab + 1)
    folder.require_card(shape.vocab + shift)
    inputs, labels = folder.read()

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
    rows = np.arange(len(inputs))
    return Table(puzzles, solutions, np.ones(len(rows), bool), rows, bad, folder.sha256(), "row")


def is_public_folder(path: Path) -> bool:
    """Whether a folder holds puzzles of a size that Sudoku has, as far as its headers tell."""
    folders = [path] if (path / INPUTS).exists() else [p.parent for p in path.glob(f"*/{INPUTS}")]
    if not folders:
        return False
    try:
        cells = tokens_of(folders[0] / INPUTS, None).shape[1]
        card = card_of(folders[0])
    except UserError:
        return False
    if size_error(cells):
        return False
    vocab = shape_of(cells).vocab
    return card.vocab_size in (None, vocab, vocab + 1)
