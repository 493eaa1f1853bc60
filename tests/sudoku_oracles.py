"""What tests of Sudoku compare with: plain facts that the package itself does not need."""

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.effort import new_desk, resistance, write_answer
from trm_interp.tasks.sudoku.forge.level import load
from trm_interp.tasks.sudoku.forge.machine import words_of
from trm_interp.tasks.sudoku.forge.rules import OPEN, propagate
from trm_interp.tasks.sudoku.forge.solver import NO_CAP, geometry, solve_batch
from trm_interp.tasks.sudoku.grid import Grid, conflicts, shape_of


def is_solution(puzzle: Grid, answer: Grid) -> bool:
    """True where `answer` is full, keeps the givens and breaks no rule."""
    given = puzzle > 0
    full = bool((answer > 0).all())
    return full and bool((answer[given] == puzzle[given]).all()) and not conflicts(answer).any()


def count_solutions(puzzle: Grid, limit: int = 2) -> int:
    """Number of solutions, counted up to `limit`."""
    return int(solve_batch(puzzle[None], limit).counts[0])


def resistances(puzzles: Grid, solutions: Grid) -> NDArray[np.int64]:
    """[puzzle] wrong candidates that neither the rules nor a single assumption refute."""
    return _resistances(puzzles, solutions, *geometry(shape_of(puzzles.shape[1])))


@compiled
def _resistances(puzzles, solutions, hh, ww):
    desk = new_desk(puzzles.shape[1], hh, ww)
    counts = np.zeros(len(puzzles), np.int64)
    for i in range(len(puzzles)):
        load(words_of(desk.levels, 0), puzzles[i], hh, ww)
        desk.standing[:] = 0
        if propagate(words_of(desk.levels, 0), hh, ww) == OPEN:
            write_answer(solutions[i], desk.answer, hh, ww)
            counts[i] = resistance(desk, 0, NO_CAP, hh, ww)
    return counts
