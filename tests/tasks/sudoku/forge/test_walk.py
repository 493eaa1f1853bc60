import math
from dataclasses import replace

import numpy as np
import pytest
from sudoku_oracles import is_solution, resistances

from trm_interp.tasks.sudoku.forge.effort import least_efforts
from trm_interp.tasks.sudoku.forge.rate import random_images
from trm_interp.tasks.sudoku.forge.solver import solve_batch
from trm_interp.tasks.sudoku.forge.walk import (
    RELABELINGS_SEED,
    Walk,
    grow,
    is_plain,
    lineage_seed,
    roam,
    walker,
)
from trm_interp.tasks.sudoku.grid import render

WALK = Walk(side=6, mean=30, sd=8, low=21, high=45, temperature=2, lists=100, climbs=60)


@pytest.fixture(scope="module")
def grown():
    return [grow(WALK, lineage_seed(3, i)) for i in range(24)]


def plain_energy(puzzle, solution, walk=WALK):
    """E from its parts: the puzzle as it stands and its relabelings, then its resistance."""
    images = np.concatenate(
        [puzzle[None], random_images(puzzle[None], walk.images, RELABELINGS_SEED)[:, 0]]
    )
    splits = solve_batch(images).guesses[:, None]
    effort = int(least_efforts(images[:, None], splits)[0])
    resisting = int(resistances(puzzle[None], solution[None])[0])
    return walk.weight * math.log(1 + effort) + min(resisting, 170)


def test_a_lineage_is_replayed_from_its_seed_alone(grown):
    for lineage in reversed(grown):  # in another order, and with other lineages before it
        again = grow(WALK, lineage.seed)
        assert render(again.puzzle) == render(lineage.puzzle)
        assert render(again.solution) == render(lineage.solution)
        assert again[2:] == lineage[2:]
    assert len({render(lineage.puzzle) for lineage in grown}) == len(grown)


def test_a_lineage_ends_at_its_target_with_a_minimal_puzzle(grown):
    for number, lineage in enumerate(grown):
        assert is_solution(lineage.puzzle, lineage.solution)
        spared = np.stack([lineage.puzzle] * np.count_nonzero(lineage.puzzle))
        spared[np.arange(len(spared)), lineage.puzzle.nonzero()[0]] = 0  # each clue once
        assert solve_batch(lineage.puzzle[None]).counts[0] == 1
        assert (solve_batch(spared).counts == 2).all()
        plain = number % 4 == 3
        assert is_plain(lineage.seed, 4) == plain
        if plain:
            assert (lineage.target, lineage.lists) == (0, 0)
        else:
            assert 21 <= lineage.target <= 45
            assert lineage.reached
    reached = [one for one in grown if one.lists]
    for lineage in reached:
        assert math.isclose(lineage.energy, plain_energy(lineage.puzzle, lineage.solution))


def test_targets_are_drawn_from_the_wanted_distribution():
    # without a climb a lineage only draws its target: mean 30, sd 8, clipped 1.125 and 1.875 sd out
    walk = replace(WALK, plain_every=0, climbs=0)
    targets = np.array([grow(walk, seed).target for seed in range(400)])
    assert targets.min() == 21 and targets.max() == 45
    # P(z < -1.125) = 0.130: of 400, 52 with standard deviation 6.7
    assert abs((targets == 21).sum() - 52) < 4 * 6.7
    middle = targets[(targets > 21) & (targets < 45)]
    assert abs(np.median(middle) - 31) < 2


def test_out_of_reach_is_told_and_a_lineage_without_lists_fails():
    lineage = grow(replace(WALK, mean=500, low=500, high=500, lists=3, climbs=2, plain_every=0), 1)
    assert not lineage.reached and lineage.lists == 6 and lineage.target == 500


def test_a_family_stays_above_its_floor():
    start = walker(WALK, 7)
    roam(WALK, start, lists=60)
    assert math.isclose(start.energy, plain_energy(start.puzzle, start.solution))
    floor = start.energy - 5
    twin = start.clone(1)
    family = roam(WALK, start.clone(1), lists=40, floor=floor, keep=True)
    assert (roam(WALK, twin, lists=40, floor=floor, keep=True) == family).all()
    for puzzle, solution in family:
        assert plain_energy(puzzle, solution) >= floor
        assert solve_batch(puzzle[None]).counts[0] == 1
        assert is_solution(puzzle, solution)


def test_seeds_of_data_sets_do_not_meet():
    assert lineage_seed(0, 2**32 - 1) + 1 == lineage_seed(1, 0)
    with pytest.raises(ValueError, match="number"):
        lineage_seed(0, 2**32)
