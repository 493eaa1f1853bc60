"""Data sets of hard puzzles: one lineage a puzzle, rated, in files that hold the ratings.

A file is CSV with a header; each line has a puzzle, its solution, the seed of its lineage and its
ratings (`rate.py`, 8 relabelings that the walk did not see).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trm_interp.runtime.files import replacing
from trm_interp.tasks.sudoku.forge.build import build
from trm_interp.tasks.sudoku.forge.rate import Ratings, rate
from trm_interp.tasks.sudoku.forge.reference import LISTS, PUBLISHED
from trm_interp.tasks.sudoku.forge.walk import Lineage, Walk, is_plain, settings
from trm_interp.tasks.sudoku.grid import SHAPES, Grid, render

RATED = ("clues", "guesses_first", "guesses_all", "effort")
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class HardPreset:
    """A data set to grow: how its lineages walk, and puzzles per split."""

    walk: Walk
    train: int
    val: int
    test: int

    @property
    def side(self) -> int:
        return self.walk.side

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": self.train, "val": self.val, "test": self.test}


def distribution(values: NDArray[Any]) -> dict[str, float]:
    """Mean and quantiles, rounded to 2 decimals; all NaN for none.

    >>> distribution(np.array([0, 1, 2, 3]))["p50"]
    1.5
    """
    if len(values) == 0:
        return {}
    at = np.quantile(values, list(QUANTILES.values())).round(2).tolist()
    return {"mean": round(float(values.mean()), 2), **dict(zip(QUANTILES, at, strict=True))}


def distributions(ratings: Ratings) -> dict[str, dict[str, float]]:
    """Of each rating that a file of hard puzzles holds."""
    return {name: distribution(getattr(ratings, name)) for name in RATED}


def make(
    preset: HardPreset,
    at: Path,
    seed: int,
    folder: Path,
    workers: int | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the files of a data set into `at`, growing in `folder`; what its card says of them."""
    built = build(preset.walk, preset.sizes, seed, folder, workers, progress)
    splits, hard_ratings = {}, []
    for split, lineages in built.splits.items():
        puzzles = _grids([one.puzzle for one in lineages], preset.side)
        ratings = rate(puzzles)
        seeds = np.array([one.seed for one in lineages], np.int64)
        plain = is_plain(seeds, preset.walk.plain_every)
        hard = _of(ratings, ~plain)
        easy = _of(ratings, plain)
        hard_ratings.append(hard)
        name = f"{split}.csv"
        splits[split] = {
            "file": name,
            "sha256": _save(at / name, lineages, ratings),
            "n": len(lineages),
            "hard": {"n": int((~plain).sum()), **distributions(hard)},
            "random_minimal": {"n": int(plain.sum()), **distributions(easy)},
            "all": distributions(ratings),
            "target": distribution(np.array([f.target for f in lineages])[~plain]),
            "energy": distribution(np.array([f.energy for f in lineages])[~plain]),
        }
    efforts = np.concatenate([ratings.effort for ratings in hard_ratings])
    guesses = np.concatenate([ratings.guesses_all for ratings in hard_ratings])
    return {
        "walk": settings(preset.walk),
        "lineages": {"grown": built.grown, "failed": built.failed, "lists": built.lists},
        "classes": "no two puzzles share a class key; no two splits hold neighbours (splits.py)",
        "splits": splits,
        "reference": {"published": PUBLISHED, **LISTS},
        "gap": _gap(preset.side, efforts, guesses),
    }


def _of(ratings: Ratings, which: NDArray[np.bool_]) -> Ratings:
    return Ratings(**{name: values[which] for name, values in ratings._asdict().items()})


def _gap(side: int, efforts: NDArray[np.int64], guesses: NDArray[np.float64]) -> str:
    """How far below forum-hardest, in words."""
    if side != 9:
        return (
            f"{side}x{side}: forum-hardest and the other lists are 9x9, where all counts are "
            f"larger; median effort here {np.median(efforts):g}"
        )
    forum = LISTS["forum_hardest_11plus"]
    ratio = forum["effort"]["p50"] / max(float(np.median(efforts)), 1.0)
    below = float((efforts < forum["effort"]["p10"]).mean())
    return (
        f"well below forum-hardest: the hard part has median effort {np.median(efforts):g} and "
        f"median guesses_all {np.median(guesses):g}, forum-hardest {forum['effort']['p50']:g} "
        f"({ratio:.1f} times as much) and {forum['guesses_all']['p50']:g}; {below:.1%} of it lies "
        "below the 10 % quantile of forum-hardest's effort"
    )


def _grids(grids: list[Grid], side: int) -> Grid:
    return np.array(grids, np.uint8).reshape(-1, SHAPES[side].cells)


def _save(path: Path, lineages: list[Lineage], ratings: Ratings) -> str:
    """Write the CSV; its sha256."""
    rows = [",".join(("question", "answer", "lineage", *RATED))]
    columns = zip(*(getattr(ratings, name).tolist() for name in RATED), strict=True)
    for lineage, values in zip(lineages, columns, strict=True):
        numbers = ",".join(f"{value:g}" for value in values)
        rows.append(f"{render(lineage.puzzle)},{render(lineage.solution)},{lineage.seed},{numbers}")
    text = ("\n".join(rows) + "\n").encode()
    with replacing(path) as temporary:
        temporary.write_bytes(text)
    return hashlib.sha256(text).hexdigest()
