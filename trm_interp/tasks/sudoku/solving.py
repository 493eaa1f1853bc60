"""Solutions of puzzles of every size, by the fastest search that there is."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trm_interp.tasks.sudoku.grid import COMPILED_SIDES, Grid, Shape, shape_of
from trm_interp.tasks.sudoku.propagation import Found, solutions

if TYPE_CHECKING:
    from trm_interp.tasks.sudoku.forge.solver import Solved


def compiled_solver(shape: Shape) -> "Callable[..., Solved] | None":
    """`forge.solver.solve_batch`; None for a size that it does not know, and without numba."""
    if shape.side not in COMPILED_SIDES:
        return None
    try:
        from trm_interp.tasks.sudoku.forge.solver import solve_batch
    except ImportError:
        return None
    return solve_batch


def solve(puzzles: Grid, limit: int = 2) -> Found:
    """Solve [puzzle, cells] grids; limit 2 proves that a solution is the only one.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> solve(parse("......2..3..2.4.")[None]).counts.tolist()
    [1]
    """
    if (compiled := compiled_solver(shape_of(puzzles.shape[1]))) is None:
        return solutions(puzzles, limit)
    solved = compiled(puzzles, limit)
    return Found(solved.solutions, solved.counts, solved.guesses < 0)
