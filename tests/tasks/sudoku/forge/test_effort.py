import numpy as np
import pytest
from numba import njit
from sudoku_oracles import resistances

from trm_interp.tasks.sudoku.forge.effort import (
    least_efforts,
    new_desk,
    only_answer,
    write_answer,
)
from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.forge.level import load
from trm_interp.tasks.sudoku.forge.machine import count_ones, lowest, words_of
from trm_interp.tasks.sudoku.forge.rate import random_images, rate, relabelings
from trm_interp.tasks.sudoku.forge.solver import geometry, solve_batch
from trm_interp.tasks.sudoku.grid import SHAPES, parse

# a puzzle known to defeat every pattern a person uses ("Golden Nugget")
HARD = parse(".......39.....1..5..3.5.8....8.9...6.7...2...1..4.......9.8..5..2....6..4..7.....")


@pytest.fixture(scope="module")
def six():
    """6x6 puzzles and solutions, some of which need guesses."""
    puzzles, solutions = generate(SHAPES[6], 40, seed=5, harder_of=30)
    return puzzles, solutions


def plain_resistance(puzzle, solution):
    """Wrong digits in blank cells that leave the solver without a contradiction and a guess."""
    trials = [
        (cell, digit)
        for cell in np.flatnonzero(puzzle == 0)
        for digit in range(1, int(len(puzzle) ** 0.5) + 1)
        if digit != solution[cell]
    ]
    grids = np.stack([puzzle] * len(trials))
    for grid, (cell, digit) in zip(grids, trials, strict=True):
        grid[cell] = digit
    solved = solve_batch(grids, limit=1, max_guesses=0)
    return int((solved.guesses > 0).sum())  # cut off at the first guess: still open


def test_resistance_counts_what_one_assumption_leaves_open(six):
    puzzles, solutions = np.stack([HARD]), solve_batch(HARD[None]).solutions
    assert resistances(puzzles, solutions).tolist() == [plain_resistance(HARD, solutions[0])]
    counts = resistances(*six).tolist()
    # a puzzle that the rules solve has no candidate left to refute
    assert counts == [plain_resistance(p, s) for p, s in zip(*six, strict=True)]
    assert max(counts) > 0


@njit
def proved(puzzle, solution, hh, ww):
    desk = new_desk(len(puzzle), hh, ww)
    load(words_of(desk.levels, 0), puzzle, hh, ww)
    write_answer(solution, desk.answer, hh, ww)
    return only_answer(desk, hh, ww)


def test_a_proof_away_from_the_answer_takes_the_guesses_of_the_search(six):
    puzzles, solutions = six
    guesses = solve_batch(puzzles).guesses
    assert guesses.max() > 0
    for puzzle, solution, taken in zip(puzzles, solutions, guesses, strict=True):
        assert proved(puzzle, solution, *geometry(SHAPES[6])) == (True, taken)
        less = puzzle.copy()
        less[puzzle.nonzero()[0][0]] = 0  # the puzzle is minimal: another solution comes in
        assert not proved(less, solution, *geometry(SHAPES[6]))[0]


@njit
def bits_of(word):
    return count_ones(word), lowest(word)


def test_ones_and_the_lowest_one_of_a_word():
    for word in (1, 0b101000, 2**62 + 2**40, 2**63 - 1):
        low = next(i for i in range(63) if word >> i & 1)
        assert bits_of(word) == (word.bit_count(), low)


def test_effort_is_below_every_search_and_nought_without_a_guess(six):
    images = random_images(six[0], 4, seed=3)
    splits = np.stack([solve_batch(image).guesses for image in images])
    effort = least_efforts(images, splits)
    assert (effort <= splits.min(0)).all()
    assert ((effort == 0) == (splits.min(0) == 0)).all()  # all three see the same deductions
    more = least_efforts(images[:2], splits[:2])
    assert (effort <= more).all()  # the least over more relabelings


def test_effort_of_a_puzzle_does_not_depend_on_the_others(six):
    together = rate(six[0]).effort
    assert together.tolist() == [int(rate(grid[None]).effort[0]) for grid in six[0]]
    hard = rate(HARD[None])
    # forum-hardest puzzles: median 36 over 8 relabelings, 10 % quantile 25 (card)
    assert 10 < hard.effort[0] <= hard.guesses_all[0]


def test_relabelings_are_the_images():
    cells, digits = relabelings(SHAPES[9], 3, seed=0)
    for image, at, names in zip(random_images(HARD[None], 3, 0)[:, 0], cells, digits, strict=True):
        assert image.tolist() == [names[HARD[cell]] for cell in at]
        assert sorted(at) == list(range(81)) and sorted(names) == list(range(10))
