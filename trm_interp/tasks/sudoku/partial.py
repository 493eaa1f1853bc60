"""How much of a wrong answer can be kept."""

import numpy as np

from trm_interp.tasks.sudoku.grid import Grid, conflicts
from trm_interp.tasks.sudoku.solving import solve


def completable_part(puzzle: Grid, answer: Grid) -> Grid:
    """The givens, and cells of the answer that one solution of the puzzle has; the rest blank.

    No other cell of the answer can be added to these. With one solution they are the cells that are
    right; with several the cells without conflict are taken first, in order. All blank where the
    puzzle has no solution.

    >>> from trm_interp.tasks.sudoku.grid import parse, render
    >>> render(completable_part(parse("." * 16), parse("1123" * 4)))
    '1.23.....1......'
    """
    solved = solve(puzzle[None])
    if solved.counts[0] == 0:
        return np.zeros_like(puzzle)
    witness, is_only = solved.solutions[0], solved.counts[0] == 1
    part = puzzle.copy()
    for cell in np.argsort(conflicts(answer), kind="stable"):
        if part[cell] or not answer[cell]:
            continue
        part[cell] = answer[cell]
        if answer[cell] == witness[cell]:
            continue
        tried = None if is_only else solve(part[None], limit=1)
        if tried is None or tried.counts[0] == 0:
            part[cell] = 0
        else:
            witness = tried.solutions[0]
    return part
