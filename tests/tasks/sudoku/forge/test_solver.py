import heldout
import numpy as np
import pytest
from sudoku_oracles import count_solutions, is_solution

from trm_interp.tasks.sudoku.forge.generate import generate
from trm_interp.tasks.sudoku.forge.rate import random_images, rate
from trm_interp.tasks.sudoku.forge.solver import solve_batch, unique_solution
from trm_interp.tasks.sudoku.grid import SHAPES, conflicts, parse, shape_of

# 30 clues, solved by naked singles; the usual first example of a Sudoku
EASY = parse("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79")
# a puzzle known to defeat every pattern a person uses ("Golden Nugget")
HARD = parse(".......39.....1..5..3.5.8....8.9...6.7...2...1..4.......9.8..5..2....6..4..7.....")
FULL = "1234341221434321"


def count_plainly(puzzle, limit):
    """Solutions up to `limit` by filling the first blank with every digit in turn."""
    shape = shape_of(len(puzzle))
    peers = [
        sorted({int(c) for unit in shape.units if cell in unit for c in unit} - {cell})
        for cell in range(shape.cells)
    ]
    grid = puzzle.tolist()
    if conflicts(puzzle).any():
        return 0

    def count(limit):
        blanks = [cell for cell, digit in enumerate(grid) if digit == 0]
        if not blanks:
            return 1
        options = {c: set(range(1, shape.side + 1)) - {grid[p] for p in peers[c]} for c in blanks}
        cell, total = min(blanks, key=lambda c: len(options[c])), 0
        for digit in options[cell]:
            grid[cell] = digit
            total += count(limit - total)
            grid[cell] = 0
            if total >= limit:
                break
        return total

    return count(limit)


def random_clues(side, n, seed):
    """Grids with random digits at random cells: mostly without a solution, or with many."""
    shape, rng = SHAPES[side], np.random.default_rng(seed)
    blank = rng.random((n, shape.cells)) > rng.uniform(0.05, 0.4, (n, 1))
    return np.where(blank, 0, rng.integers(1, side + 1, (n, shape.cells))).astype(np.uint8)


def thinned(side, n, seed):
    """Grids with solutions: full ones with more or less digits taken out."""
    if side == 4:  # spares compiling the generator for a third shape
        full = random_images(parse(FULL)[None], n, seed)[:, 0]
    else:
        full = generate(SHAPES[side], n, seed)[1]
    rng = np.random.default_rng(seed)
    kept = rng.random(full.shape) < rng.uniform(0.3, 0.6, (n, 1))
    return np.where(kept, full, 0).astype(np.uint8)


def test_a_4x4_puzzle_by_hand():
    # row 1: box 0 wants 3 and 4, column 0 has the 4, so 34; box 1 wants 1 and 2, column 2 has the
    # 2, so 12. row 2: the last digit of each column, 2143
    assert unique_solution(parse("1234........4321")).tolist() == parse(FULL).tolist()


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="no solution"):
        unique_solution(parse("11.............."))
    with pytest.raises(ValueError, match="no solution"):
        unique_solution(parse("123....4........"))  # cell 3 sees 1, 2, 3 and 4
    with pytest.raises(ValueError, match="several solutions"):
        unique_solution(parse("." * 36))
    with pytest.raises(ValueError, match="digit 5"):
        solve_batch(np.full((1, 16), 5))
    with pytest.raises(ValueError, match="limit"):
        solve_batch(np.zeros((1, 16)), limit=0)


def test_there_are_288_grids_of_4x4():
    assert count_solutions(parse("." * 16), limit=1000) == 288
    assert count_solutions(parse("." * 16), limit=100) == 100


@pytest.mark.slow
def test_there_are_28_200_960_grids_of_6x6():
    assert count_solutions(parse("." * 36), limit=10**9) == 28_200_960


def test_a_full_grid_is_its_own_solution():
    assert unique_solution(parse(FULL)).tolist() == parse(FULL).tolist()
    wrong = parse(FULL)
    wrong[0] = 2
    assert count_solutions(wrong) == 0


def test_no_solution_is_zeros_and_a_cap_cuts_the_search():
    assert not solve_batch(parse("11..............")[None]).solutions.any()
    assert solve_batch(HARD[None]).counts[0] == 1
    cut = solve_batch(HARD[None], max_guesses=3)
    assert cut.guesses[0] == 4 and cut.counts[0] == 0


def test_a_digit_without_any_place_needs_no_guess():
    four_twice = solve_batch(parse("0400000404000004")[None])  # no 4 fits into the third column
    assert (four_twice.counts[0], four_twice.guesses[0]) == (0, 0)


@pytest.mark.parametrize(("side", "limit"), [(4, 300), (6, 50), (9, 5)])
def test_counts_agree_with_plain_search(side, limit):
    puzzles = np.concatenate([random_clues(side, 150, seed=1), thinned(side, 50, seed=2)])
    solved = solve_batch(puzzles, limit)
    assert solved.counts.tolist() == [count_plainly(puzzle, limit) for puzzle in puzzles]
    assert {0, 1, 2} <= set(solved.counts.tolist())
    for puzzle, answer, count in zip(puzzles, solved.solutions, solved.counts, strict=True):
        assert is_solution(puzzle, answer) == (count > 0)


@pytest.mark.parametrize("side", [6, 9])
def test_counts_agree_with_a_sat_solver(side):
    solvers = pytest.importorskip("pysat.solvers")
    shape = SHAPES[side]
    name = heldout.variables(shape)

    def count(puzzle):
        given = [int(name[cell, puzzle[cell] - 1]) for cell in puzzle.nonzero()[0]]
        if not solver.solve(assumptions=given):
            return 0
        model = [literal for literal in solver.get_model() if 0 < literal <= name.max()]
        unlock = next(fresh)  # the clause that forbids this solution holds under `unlock` only
        solver.add_clause([-unlock, *[-literal for literal in model]])
        return 1 + solver.solve(assumptions=[*given, unlock])

    fresh = iter(range(name.max() + 1, name.max() + 10_000))
    minimal = generate(shape, 50, seed=4)[0]
    puzzles = np.concatenate([random_clues(side, 150, seed=3), thinned(side, 50, 5), minimal])
    with solvers.Solver("minisat22", bootstrap_with=heldout.clauses(shape)) as solver:
        counts = [count(puzzle) for puzzle in puzzles]
    assert {0, 1, 2} == set(counts)  # none, one and many
    assert solve_batch(puzzles).counts.tolist() == counts


def test_ratings_of_an_easy_and_a_hard_puzzle():
    ratings = rate(np.stack([EASY, HARD]))
    assert ratings.clues.tolist() == [30, 21]
    assert ratings.tier.tolist() == [0, 2]
    assert ratings.guesses_first[0] == 0 and ratings.guesses_all[0] == 0
    assert ratings.guesses_all[1] > 20


def plain_waves(puzzle, hidden):
    """(rounds, solved) by singles, from sets."""
    shape, grid, rounds = shape_of(len(puzzle)), puzzle.copy(), 0
    while not (grid > 0).all():
        free = {
            cell: set(range(1, shape.side + 1)).difference(
                *(grid[u] for u in shape.units if cell in u)
            )
            for cell in (grid == 0).nonzero()[0]
        }
        singles = {cell: min(digits) for cell, digits in free.items() if len(digits) == 1}
        for unit in shape.units if hidden else []:
            for digit in range(1, shape.side + 1):
                places = [cell for cell in unit if digit in free.get(cell, ())]
                if len(places) == 1:
                    singles[places[0]] = digit
        if not singles:
            return rounds, False
        for cell, digit in singles.items():
            grid[cell] = digit
        rounds += 1
    return rounds, True


def test_waves_and_tiers():
    row = parse("...." + FULL[4:])  # each column misses one digit: all four in one round
    assert rate(np.stack([parse(FULL), row])).waves.tolist() == [0, 1]
    puzzles = generate(SHAPES[6], 60, seed=8, harder_of=2)[0]
    ratings = rate(puzzles, images=1)
    for puzzle, tier, waves in zip(puzzles, ratings.tier, ratings.waves, strict=True):
        rounds, solved = plain_waves(puzzle, hidden=True)
        assert waves == rounds
        assert tier == (2 if not solved else 0 if plain_waves(puzzle, hidden=False)[1] else 1)


def test_ratings_keep_under_symmetry_and_alone():
    puzzles = generate(SHAPES[6], 200, seed=5, harder_of=4)[0]
    plain = rate(puzzles)
    assert set(plain.tier) == {0, 1, 2}
    for image in random_images(puzzles, images=3, seed=6):
        moved = rate(image)
        for name in ("clues", "tier", "waves"):
            assert getattr(moved, name).tolist() == getattr(plain, name).tolist()
        # the tree of guesses depends on the order of digits and cells, its being needed does not
        assert ((moved.guesses_all == 0) == (plain.guesses_all == 0)).all()
    alone = rate(puzzles[7:8])
    assert [float(column[0]) for column in alone] == [float(column[7]) for column in plain]


def test_sat_conflicts_agree_that_effort_is_hardness():
    pytest.importorskip("pysat.solvers")
    conflicts = heldout.conflicts(np.stack([EASY, HARD]))
    assert conflicts[0] < 5  # singles solve it, and unit propagation knows naked and hidden ones
    assert conflicts[1] > 20
    with pytest.raises(ValueError, match="several solutions"):
        heldout.conflicts(parse("1" + "." * 15)[None])
    with pytest.raises(ValueError, match="no solution"):
        heldout.conflicts(parse("11" + "." * 14)[None])
