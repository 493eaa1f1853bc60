"""Boards as lines of text, for a terminal."""

from collections.abc import Sequence
from itertools import pairwise

Piece = tuple[str, int | None]  # text of a drawn line, and the cell that it shows, if any


def drawn(
    glyphs: Sequence[str],
    grid: tuple[int, int],
    rulings: tuple[list[int], list[int]],
    marks: str = "",
) -> list[list[Piece]]:
    """Lines of pieces of a board of `grid` rows and columns, with lines before those in `rulings`.

    `glyphs` [cell]: what stands in each cell, "" drawn as a dot. `marks`: a character after every
    cell, where there would else be a space.

    >>> lines = drawn("12 4", (2, 2), ([1], []))
    >>> ["".join(piece for piece, _ in line) for line in lines]
    ['1 2', '---', '  4']
    """
    (rows, columns), (before_rows, before_columns) = grid, rulings
    edges = [0, *before_columns, columns]
    dashes = "-+-".join("-" * (2 * (end - start) - 1) for start, end in pairwise(edges))
    lines: list[list[Piece]] = []
    for row in range(rows):
        if row in before_rows:
            lines.append([(dashes + (" " if marks else ""), None)])
        line: list[Piece] = []
        for column in range(columns):
            cell = row * columns + column
            if column in before_columns:
                line.append(("| ", None))
            line.append((glyphs[cell] or ".", cell))
            if marks or column < columns - 1:
                line.append((marks[cell] if marks else " ", None))
        lines.append(line)
    return lines
