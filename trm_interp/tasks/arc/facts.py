"""Facts of cells and ratings of ARC pairs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trm_interp.tasks.arc.grid import (
    COLOURS,
    END,
    FIRST,
    PAD,
    Bools,
    Tokens,
    boxes_around,
    squares,
)
from trm_interp.tasks.base import Progress, no_progress

RATINGS = ("changed", "cells", "colours", "objects")
LEAST = 2  # cells of an object


def background(inputs: Tokens) -> int:
    """The token of the most frequent colour of one input [cell]; of several the smallest."""
    counts = np.bincount(inputs[inputs >= FIRST] - FIRST, minlength=len(COLOURS))
    return FIRST + int(counts.argmax())


def connected(cells: Bools) -> tuple[NDArray[np.int64], int]:
    """The parts [row, column] of cells that hang together by their sides, from 1, and how many."""
    numbered: Any = ndimage.label(cells)
    return numbered


def objects(inputs: Tokens) -> NDArray[np.int64]:
    """[cell]: the number of the object that each cell of one input [cell] is in, from 1; else 0.

    Objects are cells of one colour other than the background's that hang together by their sides,
    at least two.

    >>> objects(np.array([2, 3, 3, 2, 4, 2, 2, 2, 2], np.uint8)).tolist()
    [0, 1, 1, 0, 0, 0, 0, 0, 0]
    """
    grid, number = squares(inputs), 0
    labelled = np.zeros(grid.shape, np.int64)
    for colour in set(np.unique(grid).tolist()) - {PAD, END, background(inputs)}:
        parts, n = connected(grid == colour)
        sizes = np.bincount(parts.ravel(), minlength=n + 1)
        for part in np.flatnonzero(sizes[1:] >= LEAST) + 1:
            number += 1
            labelled[parts == part] = number
    return labelled.ravel()


def facts(inputs: Tokens, labels: Tokens) -> dict[str, Bools]:
    """By name, [cell] of one pair [cell]: about the input, but for what is said of the output.

    Changed cells have another colour in the output than in the input, or are in one of the two
    grids alone.
    """
    grid, output = inputs >= FIRST, labels >= FIRST
    box = boxes_around(inputs[None])
    (top, left, rows, columns) = (int(part[0]) for part in box)
    row, column = np.divmod(np.arange(len(inputs)), len(squares(inputs)))
    at_edge = np.isin(row - top, (0, rows - 1)) | np.isin(column - left, (0, columns - 1))
    numbers = objects(inputs)
    largest = np.bincount(numbers, minlength=1)[1:].max(initial=0)
    sizes = np.bincount(numbers)[numbers]
    in_object = numbers > 0
    return {
        "in the grid": grid,
        "background": grid & (inputs == background(inputs)),
        "border of the grid": grid & at_edge,
        "in an object": in_object,
        "in the largest object": in_object & (sizes == largest),
        "in the output": output,
        "changed": (grid | output) & (inputs != labels),
        "end marker of the output": labels == END,
        **{f"{name} in the input": inputs == FIRST + at for at, name in enumerate(COLOURS)},
    }


def rate(
    inputs: Tokens, labels: Tokens, progress: Progress = no_progress
) -> dict[str, NDArray[Any]]:
    """By the names of RATINGS, a number per pair [n, cell].

    `changed`: cells of the fact of that name. `cells`: of the input's grid. `colours`: in it, the
    background's included. `objects`: in it.
    """
    n = len(inputs)
    numbers = np.zeros((len(RATINGS), n), np.int64)
    numbers[1] = (inputs >= FIRST).sum(1)
    numbers[0] = (((inputs >= FIRST) | (labels >= FIRST)) & (inputs != labels)).sum(1)
    for at, tokens in enumerate(inputs):
        numbers[2, at] = len(np.unique(tokens[tokens >= FIRST]))
        numbers[3, at] = objects(tokens).max(initial=0)
        progress(at + 1, n)
    return dict(zip(RATINGS, numbers, strict=True))
