"""ARC-like tasks of our own: each a rule with its parameters, which draws pairs in small grids.

Grids have 4 to 9 rows and columns (those that grow: 3 to 5), on black; rectangles and single cells
are the objects.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from trm_interp.tasks.arc.augmentations import turned
from trm_interp.tasks.arc.facts import connected
from trm_interp.tasks.arc.grid import COLOURS, Grid, Pair

BLACK = 0
LEAST, MOST = 4, 9  # rows and columns
TRIES = 200  # draws of a pair before a rule counts as one that draws none
ALL_SIDES = np.ones((3, 3), bool)

Rng = np.random.Generator
Draw = Callable[[Rng], Grid]
Rule = Callable[[Grid], Grid]


@dataclass(frozen=True)
class Synthetic:
    """A task: `draw` draws an input, `rule` makes its output; where nothing changes is no pair."""

    name: str
    draw: Draw
    rule: Rule

    def pairs(self, rng: Rng) -> Iterator[Pair]:
        """Endlessly many, of different inputs. RuntimeError where the rule draws no others."""
        seen: set[bytes] = set()
        while True:
            for _ in range(TRIES):
                grid = self.draw(rng)
                key = bytes(grid.shape) + grid.tobytes()
                output = self.rule(grid)
                is_new = key not in seen and output.size > 0
                if is_new and (output.shape != grid.shape or (output != grid).any()):
                    break
            else:
                raise RuntimeError(f"{self.name} draws no further pairs")
            seen.add(key)
            yield grid, np.ascontiguousarray(output)


# inputs


def _empty(rng: Rng, least: int = LEAST, most: int = MOST) -> Grid:
    return np.zeros(tuple(rng.integers(least, most + 1, size=2)), np.uint8)


def _colour(rng: Rng, *but: int) -> int:
    return int(rng.choice([at for at in range(1, len(COLOURS)) if at not in but]))


def cells(
    rng: Rng, *colours: int, share: float = 0.3, least: int = LEAST, most: int = MOST
) -> Grid:
    """Single cells; with `colours` at least one of each of these, else of three colours."""
    grid = _empty(rng, least, most)
    palette = [*colours, *(_colour(rng) for _ in range(max(1, 3 - len(colours))))]
    filled = rng.random(grid.shape) < share
    grid[filled] = rng.choice(palette, size=int(filled.sum()))
    grid.flat[rng.permutation(grid.size)[: len(colours)]] = colours
    return grid


def boxes(rng: Rng, *colours: int, n: int = 3, hollow: bool = False) -> Grid:
    """Up to `n` rectangles that touch nowhere, of 2 to 4 rows and columns (hollow ones 3 to 5)."""
    grid = _empty(rng, 6)
    taken = np.zeros(grid.shape, bool)
    for at in range(3 * n):
        low, high = (3, 5) if hollow else (2, 4)
        size = rng.integers(low, high + 1, size=2)
        if (size > grid.shape).any():
            continue
        top, left = (int(rng.integers(a - b + 1)) for a, b in zip(grid.shape, size, strict=True))
        place = np.s_[top : top + size[0], left : left + size[1]]
        if taken[place].any():
            continue
        grid[place] = colours[at % len(colours)] if colours else _colour(rng)
        if hollow:
            grid[top + 1 : top + size[0] - 1, left + 1 : left + size[1] - 1] = BLACK
        taken = ndimage.binary_dilation(grid > 0, ALL_SIDES)
    return grid


def _noisy(rng: Rng, colour: int) -> Grid:
    """Rectangles, and cells of one colour that none of them has and that touch nothing."""
    grid = boxes(rng, *(_colour(rng, colour) for _ in range(2)), n=2)
    for cell in rng.permutation(grid.size)[: grid.size // 3]:
        row, column = divmod(int(cell), grid.shape[1])
        near = grid[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if not near.any():
            grid[row, column] = colour
    return grid


def _dots(rng: Rng, colour: int) -> Grid:
    """Two cells of a colour in one row or column, and cells of other colours elsewhere."""
    grid = _empty(rng)
    line = int(rng.integers(grid.shape[0]))
    grid[line, rng.permutation(grid.shape[1])[:2]] = colour
    for row in rng.permutation(np.delete(np.arange(grid.shape[0]), line))[:2]:
        grid[row, int(rng.integers(grid.shape[1]))] = _colour(rng, colour)
    return grid if rng.random() < 0.5 else np.ascontiguousarray(grid.T)


# rules


def recoloured(grid: Grid, changes: dict[int, int]) -> Grid:
    """With these colours changed, all at once."""
    table = np.arange(len(COLOURS), dtype=np.uint8)
    table[list(changes)] = list(changes.values())
    return table[grid]


def fallen(grid: Grid, quarter_turns: int) -> Grid:
    """Every cell falls: down, or with quarter turns of the grid to the left, up, to the right.

    >>> fallen(np.array([[1, 2], [0, 3]], np.uint8), 0).tolist()
    [[0, 2], [1, 3]]
    """
    stood = np.rot90(grid, quarter_turns).copy()
    for column in stood.T:
        column[:] = np.concatenate([column[column == 0], column[column > 0]])
    return np.rot90(stood, -quarter_turns)


def filled(grid: Grid, colour: int) -> Grid:
    """Black cells that no way leads out from are filled with a colour."""
    holes = ndimage.binary_fill_holes(grid > 0) & (grid == 0)
    return np.where(holes, np.uint8(colour), grid)


def outlined(grid: Grid, colour: int) -> Grid:
    """Black cells that touch an object, by a side or a corner, get a colour."""
    around = ndimage.binary_dilation(grid > 0, ALL_SIDES) & (grid == 0)
    return np.where(around, np.uint8(colour), grid)


def shifted(grid: Grid, down: int, right: int) -> Grid:
    """Moved; what leaves the grid is lost."""
    rows, columns = grid.shape
    wide = np.pad(grid, ((abs(down),) * 2, (abs(right),) * 2))
    top, left = abs(down) - down, abs(right) - right
    return wide[top : top + rows, left : left + columns]


def without(grid: Grid, colour: int) -> Grid:
    """Without the cells of a colour."""
    return np.where(grid == colour, np.uint8(BLACK), grid)


def largest(grid: Grid, colour: int | None = None) -> Grid:
    """The largest object alone; with `colour` all of them, the largest in this colour.

    Nothing at all where several are the largest.
    """
    parts, n = connected(grid > 0)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    if not n or (sizes == sizes.max()).sum() > 1:
        return np.zeros((0, 0), np.uint8)
    is_it = parts == sizes.argmax() + 1
    return np.where(is_it, grid if colour is None else np.uint8(colour), grid if colour else 0)


def cut_out(grid: Grid, colour: int) -> Grid:
    """The smallest box around the cells of a colour."""
    row, column = np.nonzero(grid == colour)
    if not len(row):
        return np.zeros((0, 0), np.uint8)
    return grid[row.min() : row.max() + 1, column.min() : column.max() + 1]


def joined(grid: Grid, colour: int) -> Grid:
    """Black cells between two of a colour in one row or column get that colour."""
    out = grid.copy()
    for lines, drawn in ((grid, out), (grid.T, out.T)):
        for line, to in zip(lines, drawn, strict=True):
            at = np.flatnonzero(line == colour)
            if len(at) == 2:
                between = to[at[0] : at[1]]
                between[between == BLACK] = colour
    return out


def tiled(grid: Grid, down: int, right: int) -> Grid:
    """Copies below and beside one another."""
    return np.tile(grid, (down, right))


def enlarged(grid: Grid) -> Grid:
    """Every cell twice as high and twice as wide."""
    return grid.repeat(2, axis=0).repeat(2, axis=1)


def _small(rng: Rng) -> Grid:
    return cells(rng, share=0.6, least=2, most=5)


def synthetic() -> list[Synthetic]:
    """All tasks, named KIND-NUMBER, in a fixed order."""
    kinds: dict[str, list[tuple[Draw, Rule]]] = {
        "recolour": [
            (lambda rng, a=a: cells(rng, a), lambda grid, a=a, b=b: recoloured(grid, {a: b}))
            for a, b in ((1, 2), (2, 4), (3, 1), (4, 8), (6, 5), (7, 3))
        ],
        "swap": [
            (lambda rng, a=a, b=b: cells(rng, a, b),
             lambda grid, a=a, b=b: recoloured(grid, {a: b, b: a}))
            for a, b in ((1, 2), (3, 4), (5, 8), (6, 7))
        ],
        "turn": [(cells, lambda grid, k=k: turned(grid, k)) for k in range(1, 8)],
        "gravity": [(cells, lambda grid, k=k: fallen(grid, k)) for k in range(4)],
        "fill": [
            (lambda rng, c=c: boxes(rng, _colour(rng, c), n=2, hollow=True),
             lambda grid, c=c: filled(grid, c))
            for c in (1, 2, 4, 8)
        ],
        "outline": [
            (lambda rng, c=c: boxes(rng, _colour(rng, c), n=2), lambda grid, c=c: outlined(grid, c))
            for c in (1, 3, 5, 6)
        ],
        "translate": [
            (cells, lambda grid, by=by: shifted(grid, *by))
            for by in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1))
        ],
        "denoise": [
            (lambda rng, c=c: _noisy(rng, c), lambda grid, c=c: without(grid, c)) for c in (2, 5, 8)
        ],
        "largest": [
            (boxes, lambda grid, c=c: largest(grid, c)) for c in (None, 1, 4, 6)
        ],
        "crop": [
            (lambda rng, c=c: boxes(rng, c, _colour(rng, c)), lambda grid, c=c: cut_out(grid, c))
            for c in (1, 2, 3, 4)
        ],
        "join": [
            (lambda rng, c=c: _dots(rng, c), lambda grid, c=c: joined(grid, c)) for c in (1, 4, 8)
        ],
        "enlarge": [
            (_small, enlarged),
            (_small, lambda grid: tiled(grid, 2, 1)),
            (_small, lambda grid: tiled(grid, 1, 2)),
        ],
    }  # fmt: skip
    return [
        Synthetic(f"{kind}-{at}", *both)
        for kind, variants in kinds.items()
        for at, both in enumerate(variants, start=1)
    ]
