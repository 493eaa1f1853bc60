import numpy as np
import pytest
from sudoku_oracles import is_solution

from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.forge.rate import rate
from trm_interp.tasks.sudoku.forge.solver import solve_batch
from trm_interp.tasks.sudoku.grid import SHAPES

SIX = SHAPES[6]


@pytest.mark.parametrize(("side", "n"), [(6, 100), (9, 30)])
def test_puzzles_are_minimal_and_solutions_theirs(side, n):
    puzzles, solutions = generate(SHAPES[side], n, seed=3)
    for puzzle, solution in zip(puzzles, solutions, strict=True):
        assert is_solution(puzzle, solution)
        spared = np.stack([puzzle] * np.count_nonzero(puzzle))
        spared[np.arange(len(spared)), puzzle.nonzero()[0]] = 0  # each clue once
        assert (solve_batch(spared).counts == 2).all()
    assert (solve_batch(puzzles).counts == 1).all()


def test_puzzle_depends_on_seed_and_number_alone():
    puzzles, solutions = generate(SIX, 40, seed=1)
    assert len(np.unique(puzzles, axis=0)) == 40
    for start, n in ((0, 40), (0, 7), (33, 7), (12, 1)):
        some, answers = generate(SIX, n, seed=1, start=start)
        assert (some == puzzles[start : start + n]).all()
        assert (answers == solutions[start : start + n]).all()
    assert (generate(SIX, 40, seed=2)[0] != puzzles).any(1).all()


def test_chunks_leave_no_trace_and_report():
    done = []
    puzzles, _ = generate(SIX, 1030, seed=1, progress=done.append)
    assert done == [1024, 1030]
    assert (puzzles[1020:] == generate(SIX, 10, seed=1, start=1020)[0]).all()


def test_harder_of_keeps_the_hardest_draw():
    plain, hard = (rate(generate(SIX, 300, seed=7, harder_of=m)[0]) for m in (1, 6))
    key = [np.stack([r.tier, r.waves]) for r in (plain, hard)]
    # the first of the six draws is the plain puzzle: no puzzle becomes easier
    assert (key[1][0] >= key[0][0]).all()
    same = (plain.tier == hard.tier) & (hard.tier < 2)
    assert (key[1][1] >= key[0][1])[same].all()
    assert hard.guesses_all.mean() > 2 * plain.guesses_all.mean()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="harder_of"):
        generate(SIX, 1, seed=0, harder_of=0)
    with pytest.raises(ValueError, match="start"):
        generate(SIX, 1, seed=0, start=-1)


def test_nothing_wanted_nothing_drawn():
    puzzles, solutions = generate(SIX, 0, seed=0)
    assert puzzles.shape == solutions.shape == (0, 36)


def test_hardest_by_chain_is_the_longest_that_naked_singles_solve():
    draws = 12
    chained = rate(generate(SIX, 60, seed=4, harder_of=draws, hardness="chain")[0])
    shallow = rate(generate(SIX, 60, seed=4, harder_of=draws - 1, hardness="chain")[0])
    assert (chained.tier == 0).mean() > 0.9  # two of three draws are
    assert (chained.waves >= shallow.waves)[(chained.tier == 0) & (shallow.tier == 0)].all()
    assert chained.waves.mean() > rate(generate(SIX, 60, seed=4)[0]).waves.mean() + 0.5
    with pytest.raises(ValueError, match="hardness must be one of"):
        generate(SIX, 1, seed=0, hardness="length")  # type: ignore
