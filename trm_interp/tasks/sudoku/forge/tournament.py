"""Harder than lineages get: a race of walks with cloning, and families spread from the winners.

A race starts from many lineages, keeps the best after every heat, and at the end clones the best
in place of the worst round after round. Nearly all of the last walks descend from one start: a
race gives one family, and its members share most of their clues.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np

from trm_interp.tasks.sudoku.forge.build import cores
from trm_interp.tasks.sudoku.forge.walk import (
    Walk,
    Walker,
    energy_tables,
    lineage_seed,
    roam,
    walker,
)
from trm_interp.tasks.sudoku.grid import Grid

# E weighs the effort more: R is at its cap where these puzzles are
TOURNAMENT = Walk(side=9, mean=0, sd=0, low=0, high=0, plain_every=0, temperature=5.0, weight=50.0)


@dataclass(frozen=True)
class Race:
    """Walks at the start and after each heat, lists of a heat; then rounds of the last ones.

    In each round the best `kept` go on and the best of them are cloned for the others.
    """

    heats: tuple[int, ...] = (160, 64, 32)
    lists: int = 40
    rounds: int = 8
    round_lists: int = 120
    kept: int = 22


def race(
    seed: int,
    rules: Race | None = None,
    walk: Walk = TOURNAMENT,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Walker]:
    """The walks of the last round, best first; the same for the same seed and rules."""
    rules = rules or Race()
    energy_tables(walk)  # imports torch, once and not in a thread
    total, done = len(rules.heats) + rules.rounds, 0
    clones = count(lineage_seed(seed, rules.heats[0]))

    with ThreadPoolExecutor(workers or cores()) as pool:

        def heat(walks: list[Walker], lists: int) -> list[Walker]:
            nonlocal done
            list(pool.map(lambda one: roam(walk, one, lists), walks))
            done += 1
            progress(done, total)
            return sorted(walks, key=lambda one: -one.energy)

        seeds = [lineage_seed(seed, i) for i in range(rules.heats[0])]
        walks = list(pool.map(lambda one: walker(walk, one), seeds))
        for size in rules.heats:
            walks = heat(walks[:size], rules.lists)
        for _ in range(rules.rounds):
            best = walks[: rules.kept]
            missing = len(walks) - len(best)
            walks = best + [one.clone(next(clones)) for one in best[:missing]]
            walks = heat(walks, rules.round_lists)
    return walks


def family(
    start: Walker, floor: float, lists: int, seed: int, walk: Walk = TOURNAMENT
) -> tuple[Grid, Grid]:
    """Distinct puzzles a walk above E = `floor` passes, and their solutions, [n, cells] both."""
    passed = roam(walk, start.clone(seed), lists, floor, keep=True)
    first = np.sort(np.unique(passed[:, 0], axis=0, return_index=True)[1])
    return passed[first, 0], passed[first, 1]
