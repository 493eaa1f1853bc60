"""Mazes as grids of tokens, and what lies between start and goal.

A maze is square. Its tokens are those of the public TRM and HRM code: 0 pad, then 1 to 5 for the
characters of "# SGo": wall, open, start, goal, path. Steps go to the four neighbours.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.limits import counted

PAD, WALL, OPEN, START, GOAL, PATH = range(6)
CHARACTERS = "# SGo"  # of tokens 1 to 5
VOCAB = 6
DOT = "."  # an open cell where a space would be lost
SMALLEST, LARGEST = 5, 99  # sides; 4x4 grids of 6 tokens are Sudokus
MOST_COUNTED = 2  # shortest paths: one, or several

Tokens = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Steps = NDArray[np.int16]

_TOKENS = np.zeros(256, np.uint8)
_TOKENS[[ord(char) for char in CHARACTERS + DOT]] = [WALL, OPEN, START, GOAL, PATH, OPEN]


def side_of(cells: int) -> int:
    """Rows of a maze with so many cells. ValueError where it is not square or of no size."""
    side = math.isqrt(max(cells, 0))
    if side * side != cells:
        raise ValueError(f"not square: {counted(cells, 'cell')}")
    if not SMALLEST <= side <= LARGEST:
        raise ValueError(f"{side}x{side}; mazes have {SMALLEST} to {LARGEST} rows")
    return side


def parse(text: str) -> Tokens:
    """[cell] of the characters of a maze, row after row. ValueError for any other character.

    >>> parse("#S .oG").tolist()
    [1, 3, 2, 2, 5, 4]
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    tokens = _TOKENS[codes]
    if (tokens == PAD).any():
        wrong = text[int((tokens == PAD).argmax())]
        raise ValueError(f"{wrong!r} is none of {', '.join(map(repr, CHARACTERS + DOT))}")
    return tokens


def render(tokens: Tokens, blank: str = DOT) -> str:
    """The characters of [cell] tokens; a pad looks like an open cell.

    >>> render(np.array([1, 3, 2, 5, 4, 0], np.uint8))
    '#S.oG.'
    """
    return "".join((blank + CHARACTERS)[token] for token in tokens.tolist()).replace(" ", blank)


def squares(tokens: NDArray) -> NDArray:
    """[*, row, column] of [*, cell]."""
    side = math.isqrt(tokens.shape[-1])
    return tokens.reshape(*tokens.shape[:-1], side, side)


def neighbours(values: NDArray) -> NDArray:
    """[4, *, row, column]: what stands above, below, left and right; 0 beyond the border."""
    out = np.zeros((4, *values.shape), values.dtype)
    out[0, ..., 1:, :] = values[..., :-1, :]
    out[1, ..., :-1, :] = values[..., 1:, :]
    out[2, ..., :, 1:] = values[..., :, :-1]
    out[3, ..., :, :-1] = values[..., :, 1:]
    return out


def spread(passable: Bools, source: Bools) -> tuple[Steps, Tokens]:
    """Steps from the sources to every cell of [n, row, column] grids, and how many shortest ways.

    Steps are -1 where a cell cannot be reached; ways are counted up to 2.

    >>> steps, ways = spread(np.ones((1, 2, 2), bool), np.array([[[True, False], [False, False]]]))
    >>> steps[0].tolist(), ways[0].tolist()
    ([[0, 1], [1, 2]], [[1, 1], [1, 2]])
    """
    ways = (source & passable).astype(np.uint8)
    steps = ways.astype(np.int16) - 1
    front, step = ways, 0
    while front.any():
        step += 1
        reached = neighbours(front).sum(0, dtype=np.uint8)
        front = np.where(passable & (steps < 0), np.minimum(reached, MOST_COUNTED), 0)
        front = front.astype(np.uint8)
        steps[front > 0] = step
        ways = ways + front
    return steps, ways


class Ways(NamedTuple):
    """What lies between start and goal of mazes [n, cell].

    `from_start`, `to_goal` [n, cell]: steps, -1 where there is no way. `length` [n]: steps of the
    shortest path, -1 where there is none. `several` [n]: there is more than one shortest path.
    `on` bool [n, cell]: cells of any shortest path, start and goal included.
    """

    from_start: Steps
    to_goal: Steps
    length: Steps
    several: Bools
    on: Bools


def ways(inputs: Tokens) -> Ways:
    """Shortest paths of mazes [n, cell]; there are none where start or goal is not exactly one."""
    grids = squares(inputs)
    passable = grids > WALL
    ends = well_formed(inputs)[:, None, None]
    from_start, counts = spread(passable, (grids == START) & ends)
    to_goal, _ = spread(passable, (grids == GOAL) & ends)
    at_goal = grids == GOAL
    length = np.where(at_goal & ends, from_start, -1).max((1, 2))
    several = np.where(at_goal & ends, counts, 0).max((1, 2)) > 1
    reached = (from_start >= 0) & (to_goal >= 0)
    on = reached & (from_start + to_goal == length[:, None, None])
    flat = inputs.shape
    return Ways(from_start.reshape(flat), to_goal.reshape(flat), length, several, on.reshape(flat))


def well_formed(inputs: Tokens) -> Bools:
    """[n]: mazes with one start and one goal."""
    return ((inputs == START).sum(1) == 1) & ((inputs == GOAL).sum(1) == 1)


def solutions(inputs: Tokens, between: Ways) -> Tokens:
    """[n, cell]: the mazes with a shortest path drawn in; of several the first, upward and leftward
    steps from the goal first. A maze without a way stays as it is."""
    labels = np.where(between.on & (inputs == OPEN), np.uint8(PATH), inputs)
    for row in np.flatnonzero(between.several):
        labels[row] = _one_path(inputs[row], between.from_start[row])
    return labels


def _one_path(inputs: Tokens, from_start: Steps) -> Tokens:
    """One maze with one of its shortest paths."""
    labels, steps = squares(inputs).copy(), squares(from_start)
    row, column = (int(at) for at in np.argwhere(labels == GOAL)[0])
    while (here := steps[row, column]) > 1:
        row, column = next(
            (r, c)
            for r, c in ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column))
            if 0 <= r < len(steps) and 0 <= c < len(steps) and steps[r, c] == here - 1
        )
        labels[row, column] = PATH
    return labels.ravel()


def path_faults(inputs: Tokens, answers: Tokens, between: Ways | None = None) -> Bools:
    """[n, cell]: cells that keep the path of answers from being a shortest one.

    Path cells off every shortest path, path cells beside another one at the same distance or
    without one before them, and the cells at a distance where the path is missing. Every cell of a
    maze that has no way from start to goal.
    """
    between = ways(inputs) if between is None else between
    path = (answers == PATH) & (inputs == OPEN)
    drawn = path & between.on
    n, steps = len(inputs), between.from_start
    row = np.broadcast_to(np.arange(n)[:, None], inputs.shape)
    at = np.where(between.on, steps, 0).astype(np.int64)
    counts = np.zeros((n, int(at.max(initial=0)) + 1), np.int64)
    np.add.at(counts, (row[drawn], at[drawn]), 1)
    here = counts[row, at]  # path cells at the distance of each cell
    missing = between.on & (inputs == OPEN) & (here == 0)

    reached = squares(np.where(drawn | (inputs == START), steps, np.int16(-9)))
    shifted = neighbours(reached + np.int16(10)) - 10  # beyond the border: -10
    follows = (shifted == squares(steps) - 1).any(0).reshape(inputs.shape)
    faults = (path & ~between.on) | missing | (drawn & ((here > 1) | ~follows))
    return faults | (between.length < 0)[:, None]


def fill_rounds(inputs: Tokens) -> Steps:
    """[n, cell]: the round in which filling dead ends fills a cell, from 1; 0 where it never does.

    A round fills every open cell with at most one way out at once. What stays between start and
    goal of a maze without loops is the path.
    """
    grids = squares(inputs)
    passable = grids > WALL
    ends = grids > OPEN
    rounds = np.zeros(grids.shape, np.int16)
    number = 0
    while True:
        number += 1
        out = neighbours(passable).sum(0, dtype=np.uint8)
        filled = passable & ~ends & (out <= 1)
        if not filled.any():
            return rounds.reshape(inputs.shape)
        rounds[filled] = number
        passable = passable & ~filled
