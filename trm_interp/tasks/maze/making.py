"""Mazes made with the maze-dataset package, and data sets of them by name.

A maze is a spanning tree of a lattice, with further passages where a preset has loops; start and
goal are chosen among the pairs with one shortest path. Lattice points and passages between them
are cells, so a lattice of n x n points is a maze of 2 n - 1 rows. Even sides have a line of walls
more, above or below, left or right.
"""

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.errors import UserError, first_line
from trm_interp.runtime.files import write_json
from trm_interp.runtime.fresh import FolderRun
from trm_interp.runtime.limits import at_most, in_seed_range, require_memory, shown
from trm_interp.runtime.version import __version__
from trm_interp.runtime.work import Tell, silent
from trm_interp.tasks.base import Progress, PuzzleError, Tokens, no_progress
from trm_interp.tasks.data_sets import CARD, COMMAND, SPLITS, require_data_set, require_root_free
from trm_interp.tasks.maze.dataset import save
from trm_interp.tasks.maze.grid import (
    GOAL,
    LARGEST,
    OPEN,
    SMALLEST,
    START,
    WALL,
    Bools,
    solutions,
    spread,
    ways,
)
from trm_interp.tasks.maze.symmetries import class_keys
from trm_interp.tasks.settings import MOST_PUZZLES

PACKAGE = "maze-dataset"
ALGORITHMS = {"dfs": "gen_dfs", "kruskal": "gen_kruskal"}  # long corridors; many short dead ends
LOOPS = 0.15  # of the walls between neighbouring lattice points that are taken away
AT_ONCE = 512  # mazes drawn together
MAX_DRAWS = 20  # mazes drawn per maze wanted, before the classes count as used up
BYTES_A_CELL = 24  # of memory, while mazes are drawn
ORDER = 0x5EED
USUAL = {
    "maze10": "10x10, spanning trees of two kinds: one way everywhere",
    "maze10-loops": "10x10 with loops, and one shortest path",
    "maze30": "30x30 spanning trees, the size of Maze-Hard",
}
_NAME = re.compile(r"maze([1-9]\d?)(-loops)?")


@dataclass(frozen=True)
class Preset:
    """A data set to generate: side, mazes per split, and how they are drawn.

    `least`: steps that a shortest path has at least. `loops`: share of the walls between lattice
    points that are taken away from a spanning tree.
    """

    side: int
    train: int
    val: int
    test: int
    least: int
    loops: float = 0.0
    algorithms: tuple[str, ...] = ("dfs", "kruskal")

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(SPLITS, (self.train, self.val, self.test), strict=True))


def preset_named(name: str) -> Preset | None:
    """The data set of that name, `mazeSIDE` or `mazeSIDE-loops`; None where it has none.

    >>> preset_named("maze12-loops").loops, preset_named("maze3")
    (0.15, None)
    """
    match = _NAME.fullmatch(name)
    side = int(match[1]) if match else 0
    if match is None or not SMALLEST <= side <= LARGEST:
        return None
    sizes = (8000, 500, 2000) if side < 20 else (1000, 200, 1000)
    return Preset(side, *sizes, least=max(4, side // 2), loops=LOOPS if match[2] else 0.0)


def make(
    name: str,
    out: str | os.PathLike[str],
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    sizes: dict[str, int] | None = None,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Generate a data set into the folder `out`, `train.csv`, `val.csv`, `test.csv` and a card.

    No two mazes of it are symmetric copies of each other. The same name, seed and versions give the
    same bytes. `sizes`: mazes of a split, where it is not to be the preset's number.
    """
    preset = preset_named(name)
    if preset is None:
        raise PuzzleError(f"no preset {name!r}; there are {', '.join(USUAL)} and other sides")
    preset = replace(preset, **(sizes or {}))
    _require_limits(preset, seed)
    require_root_free(out)
    _generators()
    about = {"preset": name, "seed": seed, **asdict(preset), "trm_interp": __version__}
    about["made_with"] = {PACKAGE: version(PACKAGE)}
    with (
        FolderRun(Path(out), COMMAND, require_data_set, overwrite=overwrite, tell=tell) as run,
        run.filling() as at,
    ):
        mazes = draw(preset, seed, sum(preset.sizes.values()), progress or no_progress)
        ends = np.cumsum(list(preset.sizes.values()))[:-1]
        splits = {}
        for split, some in zip(SPLITS, np.split(mazes, ends), strict=True):
            between = ways(some)
            labels = solutions(some, between)
            file, path = f"{split}.csv", between.length
            sha256 = save(at / file, some, labels, path.tolist(), name)
            splits[split] = {"file": file, "sha256": sha256, "n": len(some), **described(path)}
        card = {**about, "classes": "no two mazes share a class key", "splits": splits}
        write_json(at / CARD, card)
    return card


def described(path: NDArray[np.int16]) -> dict[str, Any]:
    """What shortest paths are like: their steps, least, mean and most."""
    return {"path": {"min": int(path.min()), "mean": float(path.mean()), "max": int(path.max())}}


def _require_limits(preset: Preset, seed: int) -> None:
    """UserError for numbers that cannot be met."""
    in_seed_range(seed)
    for split, n in preset.sizes.items():
        if n < 1:
            raise PuzzleError(f"{split} must be at least 1, got {shown(n)}")
        at_most(split, n, MOST_PUZZLES)
    wanted = sum(preset.sizes.values())
    size = wanted * preset.side**2 * BYTES_A_CELL
    require_memory(size, f"{wanted} mazes", "lower --n-train, --n-val or --n-test")


def draw(preset: Preset, seed: int, wanted: int, progress: Progress = no_progress) -> Tokens:
    """[wanted, cell] mazes of distinct classes, in random order."""
    mazes = np.zeros((0, preset.side**2), np.uint8)
    drawn = 0
    while len(mazes) < wanted:
        progress(len(mazes), wanted)
        if drawn > MAX_DRAWS * wanted:
            raise PuzzleError(f"{drawn} mazes hold {len(mazes)} classes, {wanted} are wanted")
        n = min(AT_ONCE, wanted - len(mazes))
        mazes = np.concatenate([mazes, _some(preset, seed, drawn, n)])
        mazes = mazes[np.sort(np.unique(class_keys(mazes), return_index=True)[1])]
        drawn += n
    progress(wanted, wanted)
    return mazes[np.random.default_rng([seed, ORDER]).permutation(wanted)]


def _some(preset: Preset, seed: int, first: int, n: int) -> Tokens:
    """Mazes number `first` and following, less those without a pair of start and goal."""
    rngs = [np.random.default_rng([seed, number]) for number in range(first, first + n)]
    passable = np.stack([_passable(preset, rng) for rng in rngs])
    starts = np.zeros(passable.shape, bool)
    for start, cells, rng in zip(starts, passable, rngs, strict=True):
        start.flat[rng.choice(np.flatnonzero(cells))] = True
    steps, counts = spread(passable, starts)
    mazes = np.where(passable, np.uint8(OPEN), np.uint8(WALL))
    mazes[starts] = START
    good = []
    for row, rng in enumerate(rngs):
        able = (steps[row] >= preset.least) & (counts[row] == 1)
        if able.any():  # every distance is equally likely, so that long paths are not rare
            distance = rng.choice(np.unique(steps[row][able]))
            goal = rng.choice(np.flatnonzero(able & (steps[row] == distance)))
            mazes[row].flat[goal] = GOAL
            good.append(row)
    return mazes[good].reshape(len(good), -1)


def _passable(preset: Preset, rng: np.random.Generator) -> Bools:
    """[row, column]: the cells of a maze that are no walls."""
    side, points = preset.side, (preset.side + 1) // 2
    name = preset.algorithms[rng.integers(len(preset.algorithms))]
    down, right = connections(name, points, rng)
    if preset.loops:
        down, right = (each | (rng.random(each.shape) < preset.loops) for each in (down, right))
    core = np.zeros((2 * points - 1,) * 2, bool)
    core[::2, ::2] = True
    core[1::2, ::2], core[::2, 1::2] = down[:-1], right[:, :-1]
    grid = np.zeros((side, side), bool)
    top, left = rng.integers(side - len(core) + 1, size=2)
    grid[top : top + len(core), left : left + len(core)] = core
    return grid


def connections(algorithm: str, points: int, rng: np.random.Generator) -> tuple[Bools, Bools]:
    """[point, point] each: whether a spanning tree of a square lattice joins a point with the one
    below it, and with the one on its right. `algorithm`: a name in ALGORITHMS."""
    generate = getattr(_generators(), ALGORITHMS[algorithm])
    with _global_generators(int(rng.integers(2**32))):
        joined = generate(np.array([points, points])).connection_list
    return joined[0], joined[1]


@contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """The generators that maze-dataset draws from, seeded; afterwards as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _generators() -> Any:
    """maze-dataset's algorithms. UserError where the package is not installed, or does not work."""
    try:
        return import_module("maze_dataset.generation").LatticeMazeGenerators
    except ImportError as error:
        raise UserError(
            f"mazes are made with {PACKAGE} ({first_line(error)}): "
            "pip install 'trm-interp[maze]' and run the command again"
        ) from None
