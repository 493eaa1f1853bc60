"""Sudoku grids: geometry, text, tokens, rules.

A grid is a row-major uint8 array of digits, 0 for a blank; digits above 9 are written A to G.
Tokens are what the network reads: 0 pad, 1 blank, digit + 1 for a digit.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.uint8]
BLANKS = ".0_*"
SYMBOLS = "123456789ABCDEFG"  # of the digits from 1


@dataclass(frozen=True)
class Shape:
    """Box height and width; side = box_rows * box_cols digits, side ** 2 cells."""

    box_rows: int
    box_cols: int

    @property
    def side(self) -> int:
        return self.box_rows * self.box_cols

    @property
    def cells(self) -> int:
        return self.side**2

    @property
    def symbols(self) -> str:
        """How the digits are written.

        >>> SHAPES[16].symbols
        '123456789ABCDEFG'
        """
        return SYMBOLS[: self.side]

    @property
    def vocab(self) -> int:
        """Tokens: pad, blank and the digits."""
        return self.side + 2

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """[3 * side, side] cells of every row, column and box."""
        cell = np.arange(self.cells).reshape(self.side, self.side)
        boxes = cell.reshape(self.box_cols, self.box_rows, self.box_rows, self.box_cols)
        return np.concatenate([cell, cell.T, boxes.swapaxes(1, 2).reshape(self.side, self.side)])


COMPILED_SIDES = 4, 6, 9  # that `forge` solves, rates and makes; its words hold no larger bands
SHAPES = {4: Shape(2, 2), 6: Shape(2, 3), 9: Shape(3, 3), 16: Shape(4, 4)}


def shape_of(cells: int) -> Shape:
    """The shape with that many cells.

    >>> shape_of(36)
    Shape(box_rows=2, box_cols=3)
    """
    for shape in SHAPES.values():
        if shape.cells == cells:
            return shape
    *sizes, last = (str(shape.cells) for shape in SHAPES.values())
    raise ValueError(f"{cells} cells; a Sudoku here has {', '.join(sizes)} or {last}")


def parse(text: str) -> Grid:
    """Digits of one line, blanks as '.', '0', '_' or '*'; ValueError says what is wrong.

    Letters may be small.

    >>> parse("1.3.....4......2").tolist()
    [1, 0, 3, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 2]
    """
    shape = shape_of(len(text))
    digit = {symbol: at for at, symbol in enumerate(shape.symbols, start=1)}
    digit |= {symbol.lower(): at for symbol, at in digit.items()} | dict.fromkeys(BLANKS, 0)
    for at, char in enumerate(text):
        if char not in digit:
            blanks = " ".join(BLANKS)
            raise ValueError(
                f"character {char!r} at {at}; digits are {named(shape.side)}, blanks {blanks}"
            )
    return np.array([digit[char] for char in text], np.uint8)


def named(side: int) -> str:
    """The digits of a size, for a message.

    >>> named(9), named(16)
    ('1 to 9', '1 to 9 and A to G')
    """
    return f"1 to {min(side, 9)}" + (f" and A to {SYMBOLS[side - 1]}" if side > 9 else "")


def render(grid: Grid) -> str:
    """One line of text, blanks as '.'.

    >>> render(parse("1030000040000002"))
    '1.3.....4......2'
    """
    return "".join(("." + SYMBOLS)[digit] for digit in grid)


def to_tokens(grids: Grid) -> Grid:
    """Tokens of digits, any shape: blank 1, digit + 1."""
    return (grids + 1).astype(np.uint8)


def from_tokens(tokens: NDArray[np.integer]) -> Grid:
    """Digits of tokens; pad (which the network may emit) and blank both give 0."""
    return np.clip(np.asarray(tokens, np.int64) - 1, 0, None).astype(np.uint8)


def violations(grids: Grid) -> NDArray[np.bool_]:
    """[*, 3, cell] of [*, cell]: cells whose digit stands elsewhere in their row, column, box.

    >>> violations(parse("11..............")).sum(1).tolist()
    [2, 0, 2]
    """
    shape = shape_of(grids.shape[-1])
    inside = grids[..., shape.units]  # [*, unit, place]
    same = (inside[..., :, None] == inside[..., None, :]) & (inside[..., None] > 0)
    repeated = same.sum(-1) > 1
    broken = np.zeros((*grids.shape[:-1], 3, shape.cells), bool)
    for kind in range(3):
        units = slice(kind * shape.side, (kind + 1) * shape.side)
        broken[..., kind, shape.units[units]] = repeated[..., units, :]
    return broken


def conflicts(grid: Grid) -> NDArray[np.bool_]:
    """Cells whose digit stands elsewhere in their row, column or box.

    >>> conflicts(parse("11..............")).nonzero()[0].tolist()
    [0, 1]
    """
    return np.logical_or.reduce(violations(grid), axis=-2)
