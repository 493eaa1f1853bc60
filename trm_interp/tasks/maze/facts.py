"""Facts of cells and ratings of mazes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.base import Progress, no_progress
from trm_interp.tasks.maze.grid import (
    OPEN,
    PATH,
    WALL,
    Bools,
    Steps,
    Tokens,
    fill_rounds,
    neighbours,
    squares,
    ways,
)

RATINGS = ("path", "junctions", "dead_ends", "fill_rounds", "open")
NEAR = (4, 8, 16)  # steps from start or goal, in facts
ROUNDS = (1, 4, 16)  # of filling dead ends, in facts
AT_ONCE = 2048  # mazes that are rated together


def exits(inputs: Tokens) -> Steps:
    """[n, cell]: how many of the four neighbours of each cell are no wall."""
    out = neighbours(squares(inputs) > WALL).sum(0, dtype=np.int16)
    return out.reshape(inputs.shape)


def facts(inputs: Tokens, labels: Tokens) -> dict[str, Bools]:
    """By name, [cell] of a maze and its solution [cell]; true of open cells only.

    What is on the path, dead ends (one way out), corridors (two), junctions (three or more), how
    far start and goal are, and when filling dead ends, round after round, fills a cell.
    """
    one = inputs[None]
    between, out, rounds = ways(one), exits(one)[0], fill_rounds(one)[0]
    from_start, to_goal = between.from_start[0], between.to_goal[0]
    reached = (from_start >= 0) & (to_goal >= 0)
    named = {
        "on the path": labels == PATH,
        "dead end": out == 1,
        "corridor": out == 2,
        "junction": out > 2,
        "nearer to the start": reached & (from_start < to_goal),
        **{f"start within {n}": reached & (from_start <= n) for n in NEAR},
        **{f"goal within {n}": reached & (to_goal <= n) for n in NEAR},
        **{f"filled by round {n}": (rounds > 0) & (rounds <= n) for n in ROUNDS},
        "filled": rounds > 0,
    }
    return {name: values & (inputs == OPEN) for name, values in named.items()}


def rate(inputs: Tokens, progress: Progress = no_progress) -> dict[str, NDArray[Any]]:
    """By the names of RATINGS, a number per maze [n, cell].

    `path`: steps of the shortest path, -1 where there is none. `junctions`: cells on a shortest
    path with more than two ways out. `dead_ends`: open cells with one way out. `fill_rounds`:
    rounds that filling dead ends takes. `open`: cells that are no wall.
    """
    parts: list[NDArray[np.int64]] = []
    for begin in range(0, len(inputs), AT_ONCE):
        some = inputs[begin : begin + AT_ONCE]
        between, out = ways(some), exits(some)
        numbers = (
            between.length,
            (between.on & (out > 2)).sum(1),
            ((out == 1) & (some == OPEN)).sum(1),
            fill_rounds(some).max(1),
            (some > WALL).sum(1),
        )
        parts.append(np.stack(numbers).astype(np.int64))
        progress(begin + len(some), len(inputs))
    table = np.concatenate([np.zeros((len(RATINGS), 0), np.int64), *parts], axis=1)
    return dict(zip(RATINGS, table, strict=True))
