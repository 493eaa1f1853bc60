"""Mazes for tests, made without the package that `data make` needs."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from trm_interp.tasks.base import PuzzleSet, Tokens
from trm_interp.tasks.maze.grid import GOAL, OPEN, START, WALL, solutions, ways
from trm_interp.tasks.maze.task import Maze


def random_mazes(n: int, side: int, seed: int = 0) -> Tokens:
    """[n, cell] random spanning trees of a lattice, with start and goal `side // 2` steps apart or
    more; an even side has walls below and on the right."""
    rng = np.random.default_rng([seed, side])
    mazes: list[Tokens] = []
    while len(mazes) < n:
        maze = _tree(side, rng).ravel()
        maze[rng.permutation(np.flatnonzero(maze == OPEN))[:2]] = START, GOAL
        if ways(maze[None]).length[0] >= side // 2:
            mazes.append(maze)
    return np.stack(mazes)


def _tree(side: int, rng: np.random.Generator) -> Tokens:
    """[row, column] a maze without start and goal."""
    at = np.arange(((side + 1) // 2) ** 2).reshape((side + 1) // 2, -1)
    ones = np.concatenate([at[:-1].ravel(), at[:, :-1].ravel()])
    others = np.concatenate([at[1:].ravel(), at[:, 1:].ravel()])
    edges = coo_array((rng.random(len(ones)) + 1, (ones, others)), (at.size, at.size))
    tree = minimum_spanning_tree(edges).tocoo()
    grid = np.full((side, side), WALL, np.uint8)
    grid[: 2 * len(at) - 1 : 2, : 2 * len(at) - 1 : 2] = OPEN
    first, second = (np.divmod(end, len(at)) for end in (tree.row, tree.col))
    grid[first[0] + second[0], first[1] + second[1]] = OPEN
    return grid


def maze_puzzles(n: int, side: int, seed: int = 0) -> PuzzleSet:
    """The same as puzzles."""
    mazes = random_mazes(n, side, seed)
    labels = solutions(mazes, ways(mazes))
    return PuzzleSet(Maze(side), mazes, labels, np.arange(n) + 2, "made", {})


def easy_and_hard(n: int, side: int, seed: int = 0) -> PuzzleSet:
    """Mazes half of which have their goal next to the start, so that a copy of them solves them."""
    mazes = random_mazes(n, side, seed)
    for maze in mazes[::2]:
        start = int(np.flatnonzero(maze == START)[0])
        between = ways(maze[None]).from_start[0]
        maze[maze == GOAL] = OPEN
        maze[np.flatnonzero(between == 1)[0]] = GOAL
        assert maze[start] == START
    labels = solutions(mazes, ways(mazes))
    return PuzzleSet(Maze(side), mazes, labels, np.arange(n) + 2, "made", {})
