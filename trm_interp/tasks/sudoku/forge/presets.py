"""Data sets by name, made with our own generator.

A made data set is a folder of `train.txt`, `val.txt`, `test.txt` (hard ones: `.csv`, with ratings)
and `card.json`. All its puzzles
are of different symmetry classes (`canonical.py`), so no augmentation of a training puzzle is a
test puzzle.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_interp.runtime.files import plain, write_json
from trm_interp.runtime.fresh import FolderRun
from trm_interp.runtime.identity import differing, require_same
from trm_interp.runtime.limits import at_most, in_seed_range, require_memory, shown
from trm_interp.runtime.runs import read_identity
from trm_interp.runtime.schema import read_json
from trm_interp.runtime.version import __version__
from trm_interp.runtime.work import Tell, silent
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.data_sets import (
    CARD,
    COMMAND,
    SPLITS,
    require_data_set,
    require_root_free,
)
from trm_interp.tasks.settings import MOST_PUZZLES, MOST_WORKERS
from trm_interp.tasks.sudoku.dataset import save_lines
from trm_interp.tasks.sudoku.forge.build import ABOUT, building
from trm_interp.tasks.sudoku.forge.hard import HardPreset, make
from trm_interp.tasks.sudoku.forge.walk import LARGEST_SEED, Walk
from trm_interp.tasks.sudoku.grid import COMPILED_SIDES, SHAPES, Grid, shape_of
from trm_interp.tasks.sudoku.splits import assign

if TYPE_CHECKING:
    from trm_interp.tasks.sudoku.forge.generate import Hardness

Card = dict[str, Any]
MAX_DRAWS = 50  # puzzles drawn per puzzle wanted, before the classes count as used up
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}  # of guesses, on the card
EXTRA_GIVENS, ORDER = 1, 2  # what a random number is for, apart from the seed
CLASSES = {4: 4710}  # of all puzzles of a side, where they have been counted
BYTES_A_CELL = 24  # of memory, while puzzles are drawn


@dataclass(frozen=True)
class Preset:
    """A data set to generate: `side` 4, 6 or 9, puzzles per split, and how they are drawn.

    `harder_of`: each puzzle is the hardest of that many random minimal ones, by `hardness`, whose
    values are `generate.Hardness`.
    `extra_givens`: up to that many solved cells, a number uniform from 0, are given on top.
    """

    side: int
    train: int
    val: int
    test: int
    harder_of: int = 1
    hardness: "Hardness" = "search"
    extra_givens: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(SPLITS, (self.train, self.val, self.test), strict=True))


PRESETS: dict[str, Preset | HardPreset] = {
    # A smoke test: no 4x4 puzzle needs search. The 36 classes of minimal puzzles would not fill
    # three splits, so these carry extra givens and draw on the 4 710 classes of all puzzles.
    "sudoku4": Preset(side=4, train=200, val=50, test=50, extra_givens=6),
    # Solved by naked singles, in many waves of singles: what a TRM solves step by step. On random
    # minimal puzzles, and on those that need search, its first step does too much (LOG.md).
    "sudoku6": Preset(side=6, train=1000, val=500, test=5000, harder_of=16, hardness="chain"),
    "sudoku9": Preset(side=9, train=16000, val=500, test=2000),
    # Three of four climb to a target of E (`walk.py`), the fourth is random minimal.
    # At 6x6 E = 21 is one guess that no search is spared; few climbs come to 50.
    "sudoku6-hard": HardPreset(
        Walk(side=6, mean=30, sd=10, low=21, high=50, temperature=2, lists=100, climbs=60),
        train=1000,
        val=500,
        test=2000,
    ),
    "sudoku9-hard": HardPreset(
        Walk(side=9, mean=168, sd=22, low=110, high=215), train=1000, val=1000, test=2000
    ),
}


def make_preset(
    name: str,
    out: str | os.PathLike[str],
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    sizes: dict[str, int] | None = None,
    resume: bool = False,
    workers: int | None = None,
    tell: Tell = silent,
) -> Card:
    """Generate a data set of `PRESETS` into the folder `out`; its card, which is written there too.

    `sizes` changes how many puzzles a split gets. Hard presets grow on `workers` threads (default:
    all cores) in a folder next to `out`, `out` + ".build"; killed there, they go on with `resume`.
    The same name, seed and version give the same bytes. `progress` is called now and then with the
    number of puzzles drawn, out of `sum(sizes)`; it falls a little when duplicates are dropped.
    The folder appears when all of it is there. One that exists is refused, or with `overwrite`
    replaced; with `resume` it is complete, if it was made with the same settings, unless the build
    that is resumed was to replace it.
    """
    if name not in PRESETS:
        raise PuzzleError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    preset = replace(PRESETS[name], **(sizes or {}))
    _require_limits(preset, seed, sizes or {}, workers)
    require_root_free(out)
    about = {"preset": name, "seed": seed, **asdict(preset), "trm_interp": __version__}
    with FolderRun(
        Path(out),
        COMMAND,
        require_data_set,
        resume=resume and not overwrite,
        overwrite=overwrite,
        resumable=isinstance(preset, HardPreset),
        tell=tell,
    ) as run:
        if run.begun and run.resume and not _was_to_replace(run, about):
            card = read_json(run.place / CARD, dict[str, Any], PuzzleError)
            require_same(run.out, _only(card, plain(about)), about)
            run.tell_complete()
            return card
        if isinstance(preset, HardPreset):
            return _grow(preset, run, about, resume, workers, progress or (lambda done, of: None))
        return _fill(preset, run, about, progress)


def _was_to_replace(run: FolderRun, about: Card) -> bool:
    """Whether what is unfinished is of these settings and the data set that it is to replace is
    not."""
    begun, now = read_identity(_build_folder(run) / ABOUT), plain(about)
    if begun is None or differing(begun, now):
        return False
    card = read_json(run.place / CARD, dict[str, Any], PuzzleError)
    return bool(differing(_only(card, now), now))


def _build_folder(run: FolderRun) -> Path:
    """Where a hard data set grows: next to it."""
    return run.place.with_name(f"{run.place.name}.build")


def _only(card: Card, about: Card) -> Card:
    """Of a card the fields of `about`, and inside them the same fields; a card tells more."""
    there = {name: card.get(name) for name in about}
    return {
        name: _only(value, about[name])
        if isinstance(value, dict) and isinstance(about[name], dict)
        else value
        for name, value in there.items()
    }


def _fill(
    preset: Preset, run: FolderRun, about: Card, progress: Callable[[int, int], None] | None
) -> Card:
    """Draw the puzzles of all splits at once; the card."""
    with run.filling() as at:
        splits: dict[str, Card] = {}
        for split, (puzzles, solutions) in _draw_splits(preset, about["seed"], progress).items():
            sha256 = save_lines(at / f"{split}.txt", puzzles, solutions)
            splits[split] = {"file": f"{split}.txt", "sha256": sha256, **describe(puzzles)}
        card = {
            **about,
            "classes": "no two puzzles of the data set share a class key",
            "splits": splits,
        }
        write_json(at / CARD, card)
    return card


def _require_limits(
    preset: Preset | HardPreset, seed: int, sizes: dict[str, int], workers: int | None
) -> None:
    """UserError for numbers that cannot be met."""
    in_seed_range(seed)
    if isinstance(preset, HardPreset):
        at_most("seed", seed, LARGEST_SEED, "lineages have seeds of their own, made from it")
    for name, n in {**sizes, "workers": workers}.items():
        if n is not None and n < 1:
            raise PuzzleError(f"{name} must be at least 1, got {shown(n)}")
        at_most(name, n, MOST_WORKERS if name == "workers" else MOST_PUZZLES)
    wanted, classes = sum(preset.sizes.values()), CLASSES.get(preset.side)
    if classes is not None and wanted > classes:
        side = f"{preset.side}x{preset.side}"
        raise PuzzleError(f"{side} puzzles are of {classes} classes, {wanted} are wanted")
    size = wanted * preset.side**2 * BYTES_A_CELL
    require_memory(size, f"{wanted} puzzles", "lower --n-train, --n-val or --n-test")


def _grow(
    preset: HardPreset,
    run: FolderRun,
    about: Card,
    resume: bool,
    workers: int | None,
    progress: Callable[[int, int], None],
) -> Card:
    """Grow the puzzles in a folder next to the data set; the card."""
    with (  # the build is deleted when the data set is in its place, not before
        building(_build_folder(run), about, resume, run.overwrite) as grown,
        run.filling() as at,
    ):
        card = {**about, **make(preset, at, about["seed"], grown, workers, progress)}
        write_json(at / CARD, card)
    return card


def describe(puzzles: Grid) -> Card:
    """What puzzles are like (`rate.py`): how many have each number of clues, tier and waves.

    `guesses`: mean and quantiles of the solver's guesses until the first solution, single run.
    16x16 puzzles, which `rate.py` does not take, are told by their clues alone.
    """
    from trm_interp.tasks.sudoku.forge.rate import rate

    card: Card = {"n": len(puzzles)}
    if shape_of(puzzles.shape[1]).side not in COMPILED_SIDES:
        values, counts = np.unique((puzzles > 0).sum(1), return_counts=True)
        return card | {"clues": {str(v): n for v, n in zip(values, counts.tolist(), strict=True)}}
    ratings = rate(puzzles, images=1)
    for name in ("clues", "tier", "waves"):
        values, counts = np.unique(getattr(ratings, name), return_counts=True)
        card[name] = {str(v): n for v, n in zip(values.tolist(), counts.tolist(), strict=True)}
    guesses = ratings.guesses_first
    quantiles = np.quantile(guesses, list(QUANTILES.values())).round(2).tolist()
    card["guesses"] = {
        "mean": round(float(guesses.mean()), 3),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }
    return card


def _draw_splits(
    preset: Preset, seed: int, progress: Callable[[int, int], None] | None
) -> dict[str, tuple[Grid, Grid]]:
    """Puzzles and solutions of each split, without kin in two of them (`splits.py`).

    Where the classes of a side are few, one drawn puzzle is often a clue away from another: more
    are drawn than are wanted, and the small splits choose first. Elsewhere they are cut in order.
    """
    wanted = sum(preset.sizes.values())
    if preset.side not in CLASSES:
        puzzles, solutions = _draw(preset, seed, wanted, progress)
        ends = np.cumsum(list(preset.sizes.values()))[:-1]
        parts = zip(np.split(puzzles, ends), np.split(solutions, ends), strict=True)
        return dict(zip(preset.sizes, parts, strict=True))
    by_size = dict(sorted(preset.sizes.items(), key=lambda item: item[1]))
    n, most = wanted, CLASSES[preset.side]
    while True:

        def shown(done: int, of: int) -> None:
            if progress:
                progress(done * wanted // of, wanted)

        puzzles, solutions = _draw(preset, seed, n, shown)
        chosen = assign(puzzles, [False] * n, by_size)
        if sum(map(len, chosen.values())) == wanted:
            return {split: (puzzles[chosen[split]], solutions[chosen[split]]) for split in SPLITS}
        if n == most:
            raise PuzzleError(
                f"{wanted} puzzles in splits without kin are more than {preset.side}x"
                f"{preset.side} puzzles have: lower --n-train, --n-val or --n-test"
            )
        n = min(2 * n, most)


def _draw(
    preset: Preset, seed: int, wanted: int, progress: Callable[[int, int], None] | None
) -> tuple[Grid, Grid]:
    """So many puzzles of distinct classes, in random order.

    Of each class the first puzzle drawn stays; the order is then shuffled, so that classes that
    turn up early, being common, go to all splits alike.
    """
    import torch

    from trm_interp.core.counter import hash64
    from trm_interp.tasks.sudoku.canonical import class_keys
    from trm_interp.tasks.sudoku.forge.generate import generate

    shape = SHAPES[preset.side]
    puzzles, solutions = np.zeros((2, 0, shape.cells), np.uint8)
    drawn, missing = 0, wanted
    if progress:
        progress(0, wanted)
    while missing:
        if drawn > MAX_DRAWS * wanted:
            raise PuzzleError(f"{drawn} puzzles hold {len(puzzles)} classes, {wanted} are wanted")
        have = len(puzzles)
        report = (lambda done, have=have: progress(have + done, wanted)) if progress else None
        more, answers = generate(
            shape, missing, seed, preset.harder_of, drawn, report, preset.hardness
        )
        more = _with_givens(more, answers, preset.extra_givens, seed, drawn)
        drawn += missing
        puzzles, solutions = np.concatenate([puzzles, more]), np.concatenate([solutions, answers])
        kept = np.sort(np.unique(class_keys(puzzles), return_index=True)[1])
        puzzles, solutions = puzzles[kept], solutions[kept]
        missing = wanted - len(puzzles)
    order = hash64(seed, ORDER, torch.arange(wanted)).argsort().numpy()
    return puzzles[order], solutions[order]


def _with_givens(puzzles: Grid, solutions: Grid, most: int, seed: int, start: int) -> Grid:
    """Puzzle start + i with 0 to `most` of its blanks filled in, chosen by (seed, start + i)."""
    if most == 0:
        return puzzles
    import torch

    from trm_interp.core.counter import hash64

    index = torch.arange(start, start + len(puzzles))[:, None]
    extra = (hash64(seed, EXTRA_GIVENS, index) % (most + 1)).numpy()  # [n, 1]
    draws = hash64(seed, EXTRA_GIVENS, index, torch.arange(puzzles.shape[1])).numpy()
    blank = puzzles == 0
    order = np.where(blank, draws, np.iinfo(np.int64).max).argsort(1, kind="stable")
    rank = order.argsort(1)  # of each cell; blanks come before givens
    return np.where(blank & (rank < extra), solutions, puzzles)
