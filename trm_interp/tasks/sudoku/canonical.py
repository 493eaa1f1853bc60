"""Class keys: one number for all puzzles that a symmetry of Sudoku carries into each other.

Two splits that share no key share no class, so no symmetry (and no augmentation) can turn a
training puzzle into a test puzzle. 4x4 and 6x6 keys hash the exact canonical form; 9x9, whose
group has 1.2e12 elements, hashes by colour refinement: equivalent puzzles always have equal keys,
different classes nearly always different ones. Tried where the truth is known, refinement tells
4 657 of the 4 710 classes of 4x4 puzzles apart, and all 19 942 classes of partial 6x6 grids.
"""

from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.grid import Grid, Shape, shape_of

EXACT_SIDES = (4, 6)
ROUNDS = 5  # of colour refinement; at 4x4, 3 tell 4 596 classes apart, 4 and more 4 657
CHUNK = 2048  # puzzles refined at once; keeps temporaries near the cache's size

Colours = NDArray[np.uint64]


def class_keys(puzzles: Grid) -> Colours:
    """uint64 [n], equal for equivalent puzzles; `puzzles` uint8 [n, cells] digits, 0 for a blank.

    Unequal keys prove different classes. Equal keys prove one class up to a 64-bit hash collision
    at 4x4 and 6x6; at 9x9 they only suggest it (full grids, above all, look alike).
    """
    shape = shape_of(puzzles.shape[1])
    if shape.side not in EXACT_SIDES:
        parts = range(0, len(puzzles), CHUNK)
        keys = [_refined(puzzles[start : start + CHUNK], shape) for start in parts]
        return np.concatenate([np.zeros(0, np.uint64), *keys])
    keys = np.zeros(len(puzzles), np.uint64)
    for digits in canonical_forms(puzzles).T:
        keys = _mix(keys ^ digits.astype(np.uint64))
    return keys


# Exact: 4x4 and 6x6 ---------------------------------------------------------------------------


def canonical_forms(puzzles: Grid) -> Grid:
    """uint8 [n, cells]: the lexicographically least of all equivalent puzzles, blanks lowest.

    Exact, by trying all cell symmetries (128 at 4x4, 3456 at 6x6) and naming the digits in order
    of first appearance; 66 us per 6x6 puzzle measured on a shared core.

    >>> from trm_interp.tasks.sudoku.grid import parse, render
    >>> render(canonical_forms(parse("4" + "." * 15)[None])[0])
    '...............1'
    """
    shape = shape_of(puzzles.shape[1])
    if shape.side not in EXACT_SIDES:
        raise ValueError(f"exact canonical forms up to 6x6, got {shape.side}x{shape.side}")
    return _minlex(np.ascontiguousarray(puzzles), cell_symmetries(shape), shape.side)


@cache
def cell_symmetries(shape: Shape) -> NDArray[np.uint8]:
    """[symmetries, cells] source of every cell under every cell symmetry of a small shape."""
    rows = _line_orders(shape.box_cols, shape.box_rows)
    cols = _line_orders(shape.box_rows, shape.box_cols)
    cells = rows[:, None, :, None] * shape.side + cols[None, :, None, :]
    cells = cells.reshape(-1, shape.side, shape.side)
    if shape.box_rows == shape.box_cols:
        cells = np.concatenate([cells, cells.swapaxes(1, 2)])
    return cells.reshape(-1, shape.cells).astype(np.uint8)


def _line_orders(groups: int, size: int) -> NDArray[np.int64]:
    """[orders, groups * size] every order of the rows that keeps bands together."""
    inside = list(permutations(range(size)))
    return np.array(
        [
            [group * size + member for group, order in zip(outer, orders, strict=True)
             for member in order]
            for outer in permutations(range(groups))
            for orders in product(inside, repeat=groups)
        ]
    )  # fmt: skip


@compiled
def _minlex(puzzles: Grid, symmetries: NDArray[np.uint8], side: int) -> Grid:
    n, cells = puzzles.shape
    forms = np.full((n, cells), 255, np.uint8)
    names = np.zeros(side + 1, np.uint8)
    for i in range(n):
        puzzle, best = puzzles[i], forms[i]
        for s in range(len(symmetries)):
            names[:] = 0
            used = 0
            smaller = False  # than the best so far; until then equal up to here
            for at in range(cells):
                digit = puzzle[symmetries[s, at]]
                if digit > 0 and names[digit] == 0:
                    used += 1
                    names[digit] = used
                name = names[digit]  # names[0] stays 0: a blank
                if not smaller:
                    if name > best[at]:
                        break
                    smaller = name < best[at]
                if smaller:
                    best[at] = name
    return forms


# Colour refinement: 9x9 -----------------------------------------------------------------------

ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)


def _refined(puzzles: Grid, shape: Shape) -> Colours:
    """uint64 [n] class hash: the least over the transpose, where boxes are square."""
    grids = puzzles.reshape(-1, shape.side, shape.side)
    keys = _refined_upright(grids, shape)
    if shape.box_rows == shape.box_cols:
        keys = np.minimum(keys, _refined_upright(grids.swapaxes(1, 2), shape))
    return keys


def _refined_upright(grids: Grid, shape: Shape) -> Colours:
    """Weisfeiler-Leman colours of cells, rows, columns, bands, stacks, boxes and digits.

    All rows begin with one colour, all digits with one, and so on; each round a colour absorbs the
    sum of what it touches. Sums forget order, so no symmetry but the transpose changes the result.
    """
    n, side = grids.shape[:2]
    flat = grids.reshape(n, -1)
    cell = np.zeros((n, side, side), np.uint64)
    row, col, box = np.zeros((3, n, side), np.uint64)
    digit = np.ones((n, side + 1), np.uint64)
    digit[:, 0] = 0  # a blank differs from all digits, which start alike
    box_of = _box_of(shape)
    odd = [np.uint64(factor) for factor in ODD]
    for _ in range(ROUNDS):
        around = row[:, :, None] * odd[0] + col[:, None, :] * odd[1] + box[:, box_of] * odd[2]
        written = np.take_along_axis(digit, flat, axis=1).reshape(cell.shape)
        cell = _mix(cell + around + written * odd[3])
        row = _with_groups(_mix(row + cell.sum(2)), shape.box_rows)
        col = _with_groups(_mix(col + cell.sum(1)), shape.box_cols)
        blocks = cell.reshape(n, shape.box_cols, shape.box_rows, shape.box_rows, shape.box_cols)
        box = _mix(box + blocks.sum((2, 4)).reshape(n, side))
        for value in range(side + 1):
            digit[:, value] += np.where(grids == value, cell, np.uint64(0)).sum((1, 2))
        digit = _mix(digit)
    return _mix(cell.sum((1, 2)))


def _with_groups(lines: Colours, size: int) -> Colours:
    """Each row's colour mixed with its band's (or each column's with its stack's)."""
    grouped = lines.reshape(len(lines), -1, size)
    groups = _mix(grouped.sum(2, keepdims=True))
    return _mix(grouped * np.uint64(ODD[0]) + groups).reshape(lines.shape)


def _box_of(shape: Shape) -> NDArray[np.int64]:
    """[side, side] number of the box of each cell."""
    row, col = np.indices((shape.side, shape.side))
    return row // shape.box_rows * shape.box_rows + col // shape.box_cols


def _mix(colours: Colours) -> Colours:
    """splitmix64 (see `core/counter.py`) on NumPy's uint64, which wraps."""
    colours = colours + np.uint64(0x9E3779B97F4A7C15)
    colours = (colours ^ (colours >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    colours = (colours ^ (colours >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return colours ^ (colours >> np.uint64(31))
