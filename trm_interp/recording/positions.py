"""Which positions of a run are kept: indices, or a word that the puzzles give a meaning."""

import numpy as np

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import parse_indices
from trm_interp.subjects.settings import RANDOM_POSITIONS as RANDOM
from trm_interp.tasks.base import PuzzleSet


def kept_positions(text: str | None, puzzles: PuzzleSet, prefix: int) -> list[int] | None:
    """Indices of the positions that a setting means, from 0 with the prefix; None: all.

    `asked`: cells that at least one of the puzzles asks. `border`: cells of the outermost rows and
    columns. `random:K`: K cells of seed 0, among which are those of every smaller K. These leave
    the prefix out. One set for all puzzles, for a store is an array. UserError where it is empty.
    """
    if text is None:
        return None
    if text.startswith(RANDOM):
        order = np.random.default_rng(0).permutation(puzzles.task.cells)
        n = int(text.removeprefix(RANDOM))
        if n > len(order):
            raise UserError(f"positions: {text} of {len(order)} cells; try {RANDOM}{len(order)}")
        cells = np.sort(order[:n])
    elif text == "asked":
        cells = np.flatnonzero(puzzles.task.asked(puzzles.inputs).any(0))
        if not len(cells):
            raise UserError("positions: asked: no cell of these puzzles is asked")
    elif text == "border":
        rows, columns = np.indices(puzzles.task.grid)
        last_row, last_column = (size - 1 for size in puzzles.task.grid)
        at_edge = (rows % max(last_row, 1) == 0) | (columns % max(last_column, 1) == 0)
        cells = np.flatnonzero(at_edge)
    else:
        return parse_indices(text, "positions")
    return [prefix + int(cell) for cell in cells]
