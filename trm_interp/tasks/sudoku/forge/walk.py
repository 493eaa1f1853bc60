"""Hard puzzles by a random walk on an energy that no single solver defines.

A lineage starts from a random minimal puzzle. Again and again it takes one clue away, lists
solutions of the rest, and puts in one or two clues that single out one of the listed solutions; the
new puzzle is made minimal and accepted by the rule of Metropolis et al. (1953) on

    E = weight * ln(1 + effort) + min(R, 170)      (`effort.py`)

until E comes to a target. Everything about a lineage, its target included, is drawn from its seed,
so one number says how to make its puzzle again. A lineage gives one puzzle: lineages are
independent, and puzzles of different lineages are no more alike than chance makes them.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.effort import REJECTED, Desk, energy, new_desk
from trm_interp.tasks.sudoku.forge.generate import below, random_grid, reduce, stream, uniform
from trm_interp.tasks.sudoku.forge.level import copy_between, copy_cells, load, place
from trm_interp.tasks.sudoku.forge.machine import words_of
from trm_interp.tasks.sudoku.forge.rate import relabelings
from trm_interp.tasks.sudoku.forge.rules import propagate
from trm_interp.tasks.sudoku.forge.solver import NO_CAP, geometry, search
from trm_interp.tasks.sudoku.grid import SHAPES, Grid

LISTED = 100  # solutions that are listed of a puzzle without one of its clues
RELABELINGS_SEED = 1  # the energy's; a rating's default is 0, so ratings are held out
LINEAGES = 2**32  # per seed of a data set
LARGEST_SEED = LINEAGES // 2 - 1  # of a data set: that of a lineage fits an int64


@dataclass(frozen=True)
class Walk:
    """How lineages of one kind are drawn.

    The target of E is normal (`mean`, `sd`), clipped to [`low`, `high`]; every `plain_every`-th
    lineage stays at its random minimal start (0: none does). `images`: relabelings in the effort.
    A climb has `lists` lists of solutions to come to the target, a lineage `climbs` climbs from new
    starts; it fails when they are spent.
    """

    side: int
    mean: float
    sd: float
    low: float
    high: float
    plain_every: int = 4
    temperature: float = 4.0
    weight: float = 30.0
    images: int = 1
    two_clues: float = 0.8
    attempts: int = 8
    last_clues: int = 8
    lists: int = 400
    climbs: int = 8


class Lineage(NamedTuple):
    """What became of one lineage; `puzzle` is where its last climb ended."""

    puzzle: Grid
    solution: Grid
    seed: int
    target: float
    energy: float
    lists: int
    """Lists of solutions it took: its cost."""

    @property
    def reached(self) -> bool:
        return self.energy >= self.target


def lineage_seed(seed: int, number: int) -> int:
    """The seed of lineage `number` of a data set's seed.

    >>> lineage_seed(1, 2)
    4294967298
    """
    if not (0 <= number < LINEAGES and 0 <= seed <= LARGEST_SEED):
        raise ValueError(f"seed from 0 to 2**31 - 1 and number to 2**32 - 1, got {seed}, {number}")
    return seed * LINEAGES + number


def is_plain(seed: Any, every: int) -> Any:
    """Whether the lineage of a seed, or of each of an array, stays plain (`Walk.plain_every`).

    >>> is_plain(np.array([2, 3, lineage_seed(5, 3)]), every=4).tolist()
    [False, True, True]
    """
    return (every > 0) & (seed % LINEAGES % max(every, 1) == every - 1)


def grow(walk: Walk, seed: int) -> Lineage:
    """The lineage of that seed; the same on every call, releases the interpreter's lock.

    The seed's number within its data set (`lineage_seed`) says whether it stays plain.

    >>> plain = grow(Walk(side=6, mean=0, sd=0, low=0, high=0, plain_every=1), seed=0)
    >>> plain.puzzle.shape, plain.target, plain.lists
    ((36,), 0.0, 0)
    """
    shape = SHAPES[walk.side]
    puzzle, solution = np.zeros((2, shape.cells), np.uint8)
    plain = bool(is_plain(seed, walk.plain_every))
    asked = (*map(float, (walk.mean, walk.sd, walk.low, walk.high)), plain, walk.lists, walk.climbs)
    rule, tables = _rule(walk, math.inf), energy_tables(walk)
    target, reached, lists = _grow(
        puzzle, solution, np.uint64(seed), asked, rule, tables, *geometry(shape)
    )
    return Lineage(puzzle, solution, seed, target, reached, lists)


@dataclass
class Walker:
    """A walk that can be gone on with: changed in place by `roam`."""

    puzzle: Grid
    solution: Grid
    rng: NDArray[np.uint64]
    energy: float = 0.0

    def clone(self, seed: int) -> "Walker":
        """The same puzzle with random numbers of its own."""
        rng = stream(np.uint64(seed), 0)
        return Walker(self.puzzle.copy(), self.solution.copy(), rng, self.energy)


def walker(walk: Walk, seed: int) -> Walker:
    """At the random minimal puzzle where the lineage of that seed starts, with its E."""
    start = grow(replace(walk, mean=0, sd=0, low=0, high=0, plain_every=1), seed)
    at_start = Walker(start.puzzle, start.solution, stream(np.uint64(seed), 1))
    roam(walk, at_start, lists=0)
    return at_start


def roam(walk: Walk, at: Walker, lists: int, floor: float = math.inf, keep: bool = False) -> Grid:
    """Go on for so many lists; with `keep`, [kept, 2, cells] the puzzles (and solutions) passed.

    Above `floor` every E is accepted, and only puzzles there are kept, each time one is accepted.
    What comes of one start is a family: its members share most clues, keep them in one split.
    """
    kept = np.zeros((lists if keep else 0, 2, len(at.puzzle)), np.uint8)
    rule, tables = _rule(walk, floor), energy_tables(walk)
    room_for = geometry(SHAPES[walk.side])
    at.energy, n = _roam(at.puzzle, at.solution, at.rng, lists, kept, rule, tables, *room_for)
    return kept[:n]


def energy_tables(walk: Walk) -> tuple[NDArray[np.int64], Grid]:
    """Cells and digits of the relabelings that the energy looks at (`effort.energy`)."""
    cells, digits = relabelings(SHAPES[walk.side], walk.images, RELABELINGS_SEED)
    return cells, digits


def settings(walk: Walk) -> dict[str, float]:
    """For a card: everything that a lineage depends on apart from its seed."""
    return {**asdict(walk), "listed": LISTED}


def _rule(walk: Walk, floor: float) -> "_Rule":
    return _Rule(  # an int for a float would compile everything again
        float(walk.temperature),
        float(walk.weight),
        float(floor),
        float(walk.two_clues),
        walk.attempts,
        walk.last_clues,
    )


# ---- compiled


@compiled
def _grow(puzzle, solution, seed, asked, rule, tables, hh, ww):
    """(target, E, lists) of one lineage, whose puzzle and solution are filled in."""
    mean, sd, low, high, plain, lists, climbs = asked
    rng = stream(seed, np.int64(0))
    normal = -6.0  # a sum of 12 uniforms less 6: close to normal, and exact on every machine
    for _ in range(12):
        normal += uniform(rng)
    target = 0.0 if plain else min(max(mean + sd * normal, low), high)
    room = _room(hh, ww)
    spent, reached = 0, REJECTED
    for _ in range(climbs):
        random_grid(solution, rng, room.desk.levels, hh, ww)
        copy_cells(solution, puzzle)
        reduce(puzzle, solution, rng, room.desk.levels, room.desk.unread, hh, ww)
        reached = _energy(puzzle, solution, 0.0, rule, tables, room, hh, ww)
        last = spent + lists
        while reached < target and spent < last:
            reached = _move(puzzle, solution, reached, rng, rule, tables, room, hh, ww)
            spent += 1
        if reached >= target:
            break
    return target, reached, spent


@compiled
def _roam(puzzle, solution, rng, lists, kept, rule, tables, hh, ww):
    """(E, kept) after so many lists; `kept` takes accepted moves at or above the floor."""
    room = _room(hh, ww)
    now = _energy(puzzle, solution, 0.0, rule, tables, room, hh, ww)
    last, n = puzzle.copy(), 0
    for _ in range(lists):
        now = _move(puzzle, solution, now, rng, rule, tables, room, hh, ww)
        if n < len(kept) and now >= rule.floor and (puzzle != last).any():
            copy_cells(puzzle, kept[n, 0])
            copy_cells(solution, kept[n, 1])
            n += 1
        copy_cells(puzzle, last)
    return now, n


class _Rule(NamedTuple):
    """What a move goes by."""

    temperature: float
    weight: float
    floor: float  # above it every E is accepted
    two_clues: float
    attempts: int
    last_clues: int


class _Room(NamedTuple):
    """Space for one walk: the search's levels, and what a move works on."""

    desk: Desk
    roots: NDArray[np.int64]  # of an image; the puzzle less a clue; plus one; plus the last
    listed: Grid  # [solution, cells]
    kept: NDArray[np.int64]  # numbers of those solutions that have the first new clue
    all_tally: NDArray[np.int64]  # [cell, digit] listed solutions that have it
    tally: NDArray[np.int64]  # kept ones
    pairs: NDArray[np.int64]  # numbers of (cell, digit) to choose from
    trial: Grid


@compiled
def _room(hh, ww):
    N = len(hh) * len(ww)
    cells = N * N
    desk = new_desk(cells, hh, ww)
    return _Room(
        desk,
        desk.levels[:4].copy(),
        np.zeros((LISTED, cells), np.uint8),
        np.zeros(LISTED, np.int64),
        np.zeros((cells, N), np.int64),
        np.zeros((cells, N), np.int64),
        np.zeros(cells * N, np.int64),
        np.zeros(cells, np.uint8),
    )


@compiled
def _energy(puzzle, solution, least, rule, tables, room, hh, ww):
    load(words_of(room.roots, len(room.roots) - 1), puzzle, hh, ww)
    return energy(room.roots, puzzle, solution, least, rule.weight, tables, room.desk, hh, ww)


@compiled
def _move(puzzle, solution, now, rng, rule, tables, room, hh, ww):
    """One list and its attempts; E afterwards. Changes `puzzle` and `solution` on acceptance."""
    listed, kept, tally, trial, roots = room.listed, room.kept, room.tally, room.trial, room.roots
    desk = room.desk
    levels = desk.levels
    copy_cells(puzzle, trial)
    gone = _some_given(trial, rng)
    trial[gone] = 0
    load(words_of(roots, 1), trial, hh, ww)
    propagate(words_of(roots, 1), hh, ww)
    copy_between(roots, np.int64(1), levels, np.int64(0))
    n = search(levels, listed, np.int64(LISTED), NO_CAP, False, hh, ww)[0]
    for i in range(n):
        kept[i] = i
    _count(listed, kept, n, room.all_tally)
    for _ in range(rule.attempts):
        first = -1
        copy_between(roots, np.int64(1), roots, np.int64(2))
        if uniform(rng) < rule.two_clues:
            several = _pairs(room.all_tally, np.int64(2), n // 2, room.pairs)
            if several == 0:
                continue
            first, digit = _some_pair(room.pairs, several, hh, ww, rng)
            place(words_of(roots, 2), first, digit - 1, hh, ww)
            propagate(words_of(roots, 2), hh, ww)
            left = _keep_with(listed, kept, n, first, digit)
            _count(listed, kept, left, tally)
        else:
            digit, left = 0, n
            for i in range(n):
                kept[i] = i
            for cell in range(len(tally)):
                copy_cells(room.all_tally[cell], tally[cell])
        sole = _pairs(tally, np.int64(1), np.int64(1), room.pairs)
        for _ in range(rule.last_clues if sole else 0):
            last, digit_last = _some_pair(room.pairs, sole, hh, ww, rng)
            if last == gone and digit_last == puzzle[gone]:
                continue
            answer = listed[_one_with(listed, kept, last, digit_last)]
            copy_cells(puzzle, trial)
            trial[gone] = 0
            if first >= 0:
                trial[first] = digit
            trial[last] = digit_last
            least = min(now + rule.temperature * math.log(uniform(rng) + 1e-12), rule.floor)
            copy_between(roots, np.int64(2), roots, np.int64(3))
            place(words_of(roots, 3), last, digit_last - 1, hh, ww)
            reached = energy(roots, trial, answer, least, rule.weight, tables, desk, hh, ww)
            if reached == REJECTED:
                continue
            if reduce(trial, answer, rng, levels, desk.unread, hh, ww):
                reached = _energy(trial, answer, least, rule, tables, room, hh, ww)
                if reached == REJECTED:
                    continue
            copy_cells(trial, puzzle)
            copy_cells(answer, solution)
            return reached
    return now


@compiled
def _some_given(puzzle, rng):
    given = np.int64(0)
    for digit in puzzle:
        given += digit > 0
    skip = below(given, rng)
    for cell in range(len(puzzle)):
        if puzzle[cell] > 0:
            if skip == 0:
                return cell
            skip -= 1
    return -1


@compiled
def _keep_with(listed, kept, n, cell, digit):
    """Keep those of n solutions that have that digit there; how many."""
    left = 0
    for i in range(n):
        if listed[i, cell] == digit:
            kept[left] = i
            left += 1
    return left


@compiled
def _count(listed, kept, n, tally):
    """How many of the kept solutions have each digit in each cell."""
    tally[:] = 0
    for i in range(n):
        answer = listed[kept[i]]
        for cell in range(len(answer)):
            tally[cell, answer[cell] - 1] += 1


@compiled
def _pairs(tally, least, most, pairs):
    """How many (cell, digit) between `least` and `most` solutions have; `pairs` takes them."""
    n, at = 0, 0
    for cell in range(tally.shape[0]):
        for d in range(tally.shape[1]):
            pairs[n] = at
            n += least <= tally[cell, d] <= most
            at += 1
    return n


@compiled
def _some_pair(pairs, n, hh, ww, rng):
    """(cell, digit), one of the first n."""
    N = len(hh) * len(ww)
    at = pairs[below(n, rng)]
    return at // N, at % N + 1


@compiled
def _one_with(listed, kept, cell, digit):
    """The first kept solution with that digit there."""
    i = 0
    while listed[kept[i], cell] != digit:
        i += 1
    return kept[i]
