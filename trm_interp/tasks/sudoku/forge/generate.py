"""Random minimal Sudoku puzzles, the same on every machine for the same seed.

A puzzle starts from a random full grid; clues are then taken away in random order for as long as
the solution stays the only one, so no clue of the result can be spared. This favours no difficulty
on purpose; `harder_of` draws several and keeps the hardest. The distribution is that of "top-down
deletion", not uniform over minimal puzzles.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from trm_interp.tasks.sudoku.forge.compiled import compiled
from trm_interp.tasks.sudoku.forge.level import (
    copy_cells,
    load,
    locate,
    new_levels,
    place,
    read,
)
from trm_interp.tasks.sudoku.forge.machine import words_of
from trm_interp.tasks.sudoku.forge.rate import logic
from trm_interp.tasks.sudoku.forge.rules import DEAD, OPEN, SOLVED, propagate
from trm_interp.tasks.sudoku.forge.solver import NO_CAP, geometry, search
from trm_interp.tasks.sudoku.grid import Grid, Shape

CHUNK = 1024
Hardness = Literal["search", "chain"]


def generate(
    shape: Shape,
    n: int,
    seed: int,
    harder_of: int = 1,
    start: int = 0,
    progress: Callable[[int], None] | None = None,
    hardness: Hardness = "search",
) -> tuple[Grid, Grid]:
    """Puzzles number `start` to `start + n - 1` and their solutions, both [n, cells].

    Puzzle i depends only on (shape, seed, harder_of, hardness, i), so workers can share the range.
    Of `harder_of` draws the hardest stays, on a tie the first. `progress` gets the number done,
    about every thousand. Hardest by "search": the largest (tier, guesses, waves), with tier 0 naked
    singles, 1 hidden singles, 2 more; guesses that prove the solution unique, single run; waves of
    singles until solved or stuck. 95 % of the 6x6 draws need no guess, so there the choice is
    mostly by tier and waves. By "chain": the most waves among those that naked singles solve: easy
    deductions, many of them after each other.

    >>> from trm_interp.tasks.sudoku.grid import render
    >>> puzzles, solutions = generate(Shape(2, 3), n=2, seed=0)
    >>> render(puzzles[0]), solutions.shape
    ('.....3.14..66....4...5..1......4.3..', (2, 36))
    """
    if n < 0 or start < 0:
        raise ValueError(f"n and start must be at least 0, got {n} and {start}")
    if harder_of < 1:
        raise ValueError(f"harder_of must be at least 1, got {harder_of}")
    if hardness not in get_args(Hardness):
        raise ValueError(f"hardness must be one of {get_args(Hardness)}, got {hardness!r}")
    puzzles = np.zeros((n, shape.cells), np.uint8)
    solutions = np.zeros((n, shape.cells), np.uint8)
    hh, ww = geometry(shape)
    for low in range(0, n, CHUNK):
        part = slice(low, low + CHUNK)
        word = np.uint64(seed % 2**64)
        chain = hardness == "chain"
        _fill_chunk(puzzles[part], solutions[part], word, start + low, harder_of, chain, hh, ww)
        if progress is not None:
            progress(min(low + CHUNK, n))
    return puzzles, solutions


@compiled
def _fill_chunk(puzzles, solutions, seed, start, harder_of, chain, hh, ww):
    cells = puzzles.shape[1]
    puzzle, solution = np.zeros(cells, np.uint8), np.zeros(cells, np.uint8)
    levels, unread = new_levels(hh, ww), np.zeros((0, cells), np.uint8)
    for i in range(len(puzzles)):
        rng = stream(seed, start + i)
        best = (-1, 0, 0)
        for _ in range(harder_of):
            random_grid(solution, rng, levels, hh, ww)
            copy_cells(solution, puzzle)
            reduce(puzzle, solution, rng, levels, unread, hh, ww)
            key = (0, 0, 0)
            if harder_of > 1:
                key = _hardness(puzzle, chain, levels, unread, hh, ww)
            if key > best:
                best = key
                copy_cells(puzzle, puzzles[i])
                copy_cells(solution, solutions[i])


@compiled
def _hardness(puzzle, chain, levels, unread, hh, ww):
    """(tier, guesses, waves), where singles solve there are no guesses; with `chain` the waves."""
    tier, waves = logic(puzzle, hh, ww)
    if chain:
        return 0, 0, waves if tier == 0 else 0
    if tier < 2:
        return tier, 0, waves
    load(words_of(levels, 0), puzzle, hh, ww)
    return tier, search(levels, unread, np.int64(2), NO_CAP, False, hh, ww)[1], waves


@compiled
def random_grid(grid, rng, levels, hh, ww):
    """Fill `grid`: cells in random order take a random candidate; a dead end starts over."""
    N = len(hh) * len(ww)
    s = words_of(levels, 0)
    order = np.arange(N * N)
    state = DEAD
    while state != SOLVED:
        grid[:] = 0
        load(s, grid, hh, ww)
        shuffle(order, rng)
        for cell in order:
            band, bit = locate(cell, hh, ww)
            left = np.int64(0)
            for d in range(N):
                left += (s[d * len(ww) + band] & bit) != 0
            if left < 2:
                continue
            skip = below(left, rng)
            for d in range(N):
                if s[d * len(ww) + band] & bit:
                    if skip == 0:
                        place(s, cell, d, hh, ww)
                        break
                    skip -= 1
            state = propagate(s, hh, ww)
            if state != OPEN:
                break
    read(s, grid, hh, ww)


@compiled
def reduce(puzzle, solution, rng, levels, unread, hh, ww):
    """Make `puzzle` minimal, clues of `solution` that they are: try each once, in random order.

    True where a clue was taken away.
    """
    order = np.arange(len(solution))
    shuffle(order, rng)
    taken = False
    for cell in order:
        if puzzle[cell] == 0:
            continue
        puzzle[cell] = 0
        if _has_other(puzzle, cell, solution[cell], levels, unread, hh, ww):
            puzzle[cell] = solution[cell]
        else:
            taken = True
    return taken


@compiled
def _has_other(puzzle, cell, digit, levels, unread, hh, ww):
    """True where some solution of the puzzle has another digit in that cell."""
    load(words_of(levels, 0), puzzle, hh, ww)
    band, bit = locate(cell, hh, ww)
    words_of(levels, 0)[(np.int64(digit) - 1) * len(ww) + band] &= ~bit
    return search(levels, unread, np.int64(1), NO_CAP, False, hh, ww)[0] > 0


# ---- random numbers: uint64 throughout, numba turns int64 with uint64 into float64


@compiled
def stream(seed, counter):
    """uint64 [1], state of the generator of one puzzle: splitmix64 of (seed, counter)."""
    rng = np.empty(1, np.uint64)
    rng[0] = _mix(_mix(seed) + np.uint64(counter)) | np.uint64(1)  # xorshift must not be 0
    return rng


@compiled
def _mix(word):
    """splitmix64 (Steele, Lea & Flood 2014): a bijection of the 64-bit words."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@compiled
def below(n, rng):
    """A random int64 from 0 to n - 1, n small, by xorshift64* (Vigna 2016)."""
    word = rng[0]
    word ^= word >> np.uint64(12)
    word ^= word << np.uint64(25)
    word ^= word >> np.uint64(27)
    rng[0] = word
    high = (word * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(32)
    return np.int64((high * np.uint64(n)) >> np.uint64(32))


@compiled
def uniform(rng):
    """A random float64 in [0, 1), a multiple of 2**-30."""
    return below(np.int64(1 << 30), rng) / (1 << 30)


@compiled
def shuffle(order, rng):
    """Fisher-Yates, in place."""
    for i in range(len(order) - 1, 0, -1):
        j = below(i + 1, rng)
        order[i], order[j] = order[j], order[i]
