"""Grids of colours in a square frame, as tokens of the public TRM and HRM code.

Tokens: 0 pad, 1 end marker, colour + 2 for the colours 0 to 9. A grid lies at an offset in its
frame; end markers stand below its last row and right of its last column, where the frame goes on,
and everything else is pad.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PAD, END, FIRST = 0, 1, 2
COLOURS = ("black", "blue", "red", "green", "yellow", "grey", "pink", "orange", "cyan", "maroon")
PALETTE = (
    *("#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00"),
    *("#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25"),
)
VOCAB = FIRST + len(COLOURS)
SMALLEST, LARGEST = 3, 30  # sides of frames
CHARACTERS = ".|0123456789"  # of tokens

Tokens = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Grid = NDArray[np.uint8]  # [row, column] colours
Pair = tuple[Grid, Grid]  # input and output

_TOKENS = np.full(256, VOCAB, np.uint8)
_TOKENS[[ord(char) for char in CHARACTERS]] = np.arange(VOCAB)


def side_of(cells: int) -> int:
    """Rows of a frame with so many cells. ValueError where it is not square or of no size."""
    side = math.isqrt(max(cells, 0))
    if side * side != cells:
        raise ValueError(f"a frame of {cells} cells is not square")
    if not SMALLEST <= side <= LARGEST:
        raise ValueError(f"a frame of {side}x{side}; frames have {SMALLEST} to {LARGEST} rows")
    return side


def grid_of(rows: Any, side: int = LARGEST) -> Grid:
    """A grid of rows of colours. ValueError where it is ragged, empty, of other colours, or does
    not fit a frame of `side` rows.

    >>> grid_of([[0, 1], [2, 3]]).tolist()
    [[0, 1], [2, 3]]
    """
    try:
        grid = np.array(rows)
    except ValueError:
        raise ValueError("rows of unequal length") from None
    if grid.ndim != 2 or not grid.size or grid.dtype.kind not in "iu":
        raise ValueError("not a grid: rows of whole numbers are expected")
    if ((grid < 0) | (grid >= len(COLOURS))).any():
        wrong = grid[(grid < 0) | (grid >= len(COLOURS))][0]
        raise ValueError(f"colour {wrong}; colours are 0 to {len(COLOURS) - 1}")
    require_fit(grid, side)
    return grid.astype(np.uint8)


def require_fit(grid: NDArray[Any], side: int) -> None:
    """ValueError for a grid that is larger than a frame of `side` rows."""
    rows, columns = grid.shape
    if max(rows, columns) > side:
        raise ValueError(f"a grid of {rows}x{columns}, above the frame of {side}x{side}")


def encode(grid: Grid, side: int, top: int = 0, left: int = 0) -> Tokens:
    """[cell]: the tokens of a grid in a frame of `side` rows, at this offset.

    >>> print(encode(np.array([[5, 0]], np.uint8), 3).reshape(3, 3))
    [[7 2 1]
     [1 1 0]
     [0 0 0]]
    """
    rows, columns = grid.shape
    frame = np.zeros((side, side), np.uint8)
    bottom, right = top + rows, left + columns
    frame[top:bottom, left:right] = grid + FIRST
    frame[bottom : bottom + 1, left:right] = END
    frame[top:bottom, right : right + 1] = END
    return frame.ravel()


def encode_pair(
    pair: Pair, side: int, rng: np.random.Generator | None = None
) -> tuple[Tokens, Tokens]:
    """[cell] each: both grids at one offset; a random one that both fit with `rng`, else none."""
    top = left = 0
    if rng is not None:
        rows, columns = (max(sizes) for sizes in zip(pair[0].shape, pair[1].shape, strict=True))
        top, left = (int(rng.integers(side - most + 1)) for most in (rows, columns))
    first, second = (encode(grid, side, top, left) for grid in pair)
    return first, second


class Boxes(NamedTuple):
    """Where grids lie in their frames, each int64 [n]; of no grid all are 0."""

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def inside(self, side: int) -> Bools:
        """[n, cell]: cells of the grids."""
        row, column = self._from_corner(side)
        rows, columns = self.rows[:, None, None], self.columns[:, None, None]
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        return inside.reshape(len(self.top), -1)

    def ends(self, side: int) -> Bools:
        """[n, cell]: where end markers belong."""
        row, column = self._from_corner(side)
        rows, columns = self.rows[:, None, None], self.columns[:, None, None]
        below = (row == rows) & (column >= 0) & (column < columns)
        right = (column == columns) & (row >= 0) & (row < rows)
        return (below | right).reshape(len(self.top), -1)

    def _from_corner(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        at = np.arange(side)
        return at[:, None] - self.top[:, None, None], at[None] - self.left[:, None, None]


def squares(tokens: NDArray[Any]) -> NDArray[Any]:
    """[*, row, column] of [*, cell]."""
    side = math.isqrt(tokens.shape[-1])
    return tokens.reshape(*tokens.shape[:-1], side, side)


def boxes_around(tokens: Tokens) -> Boxes:
    """The smallest box around the colours of each frame [n, cell]: of what is encoded, its grid."""
    coloured = squares(tokens >= FIRST)
    side = coloured.shape[-1]
    numbers = []
    for axis in (2, 1):
        some: Bools = np.any(coloured, axis=axis)  # [n, row], then [n, column]
        first, last = some.argmax(1), side - some[:, ::-1].argmax(1)
        numbers.append((first, np.where(some.any(1), last - first, 0)))
    (top, rows), (left, columns) = numbers
    return Boxes(top, left, rows, columns)


def boxes_of_answers(answers: Tokens, top: NDArray[np.int64], left: NDArray[np.int64]) -> Boxes:
    """The largest box of colours alone that begins at these offsets, of each answer [n, cell].

    As the public evaluation crops, which knows the offset 0 alone: what lies beyond the first token
    that is no colour is not looked at; of boxes of one area the one with the fewest rows counts.
    """
    n, side = len(answers), math.isqrt(answers.shape[-1])
    at = np.arange(side)
    row, column = top[:, None] + at, left[:, None] + at
    here = (row < side)[:, :, None] & (column < side)[:, None, :]
    row, column = np.minimum(row, side - 1), np.minimum(column, side - 1)
    moved = squares(answers)[np.arange(n)[:, None, None], row[:, :, None], column[:, None, :]]
    other = ~(here & (moved >= FIRST))
    width = np.where(other.any(2), other.argmax(2), side)  # colours before the first other token
    width = np.minimum.accumulate(width, axis=1)
    area = width * (at + 1)
    best = area.argmax(1)
    some = area.max(1) > 0
    rows = np.where(some, best + 1, 0)
    columns = np.where(some, width[np.arange(n), best], 0)
    return Boxes(top, left, rows, columns)


def crop(tokens: Tokens, boxes: Boxes, at: int) -> Grid:
    """The colours in box number `at` of one frame [cell]."""
    top, left, rows, columns = (int(part[at]) for part in boxes)
    return squares(tokens)[top : top + rows, left : left + columns] - np.uint8(FIRST)


def misplaced(tokens: Tokens) -> Bools:
    """[n, cell]: cells of frames that are not as `encode` writes them, given the box around their
    colours; every cell of one without a colour."""
    side = math.isqrt(tokens.shape[-1])
    boxes = boxes_around(tokens)
    inside, ends = boxes.inside(side), boxes.ends(side)
    expected = np.where(ends, END, PAD)
    wrong = np.where(inside, tokens < FIRST, tokens != expected)
    return wrong | (boxes.rows == 0)[:, None]


def parse(text: str) -> Tokens:
    """[cell] of the characters of a frame. ValueError for any other character.

    >>> parse("5|.||.").tolist()
    [7, 1, 0, 1, 1, 0]
    """
    tokens = _TOKENS[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]
    if (tokens == VOCAB).any():
        wrong = text[int((tokens == VOCAB).argmax())]
        raise ValueError(f"{wrong!r} is no colour 0 to 9, no end marker '|' and no pad '.'")
    return tokens


def render(tokens: Sequence[int] | Tokens) -> str:
    """The characters of [cell] tokens.

    >>> render([7, 1, 0])
    '5|.'
    """
    return "".join(CHARACTERS[token] for token in tokens)
