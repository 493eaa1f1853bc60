"""What can be read off a board cell by cell: candidates, singles, geometry."""

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.grid import Grid, shape_of


def candidates(grid: Grid) -> NDArray[np.bool_]:
    """[cell, side]: digits that no peer has; for a given cell its own digit alone.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> (candidates(parse("12..............")).astype(int) @ [1, 2, 3, 4])[:4].tolist()
    [1, 2, 7, 7]
    """
    shape = shape_of(len(grid))
    digits = np.arange(1, shape.side + 1)
    possible = np.ones((shape.cells, shape.side), bool)
    for unit in shape.units:
        possible[unit] &= ~np.isin(digits, grid[unit])
    given = grid > 0
    possible[given] = digits == grid[given][:, None]
    return possible


def naked_singles(grid: Grid) -> NDArray[np.bool_]:
    """Blank cells with one candidate."""
    return (grid == 0) & (candidates(grid).sum(1) == 1)


def hidden_singles(grid: Grid) -> NDArray[np.bool_]:
    """Blank cells that alone in a row, column or box can take some digit."""
    possible = candidates(grid)
    single = np.zeros(len(grid), bool)
    for unit in shape_of(len(grid)).units:
        here = possible[unit]
        alone = here.sum(0) == 1
        single[unit[(here & alone).any(1)]] = True
    return single & (grid == 0)


def places(cells: int) -> NDArray[np.int64]:
    """[3, cell]: row, column and box of every cell, from 0.

    >>> places(16)[:, 6].tolist()
    [1, 2, 1]
    """
    shape = shape_of(cells)
    cell = np.arange(cells)
    row, column = np.divmod(cell, shape.side)
    boxes_across = shape.side // shape.box_cols
    return np.stack([row, column, row // shape.box_rows * boxes_across + column // shape.box_cols])
