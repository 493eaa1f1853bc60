"""Many lineages on all cores: resumable, with a budget, the same bytes however often interrupted.

A build is a folder next to the data set to be, with what is built and a line for every finished
lineage. It goes when the data set is there.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.runtime.errors import first_line
from trm_interp.runtime.files import append_row, keep_rows
from trm_interp.runtime.outputs import drop_if_empty
from trm_interp.runtime.runs import Run
from trm_interp.runtime.schema import convert
from trm_interp.tasks.base import PuzzleError
from trm_interp.tasks.data_sets import COMMAND as COMMAND
from trm_interp.tasks.sudoku.forge.walk import (
    Lineage,
    Walk,
    energy_tables,
    grow,
    is_plain,
    lineage_seed,
)
from trm_interp.tasks.sudoku.grid import SHAPES, Grid, parse, render
from trm_interp.tasks.sudoku.splits import assign

ABOUT, LINEAGES = "build.json", "lineages.jsonl"
ORDER = 3  # what a random number is for, apart from the seed
Update = Callable[[int, int], None]


@dataclass(frozen=True)
class Built:
    """Puzzles of splits: lineages in random order, how many were grown, how many of them failed."""

    splits: dict[str, list[Lineage]]
    grown: int
    failed: int
    lists: int
    """Lists of solutions that all lineages took: the cost."""


@contextmanager
def building(folder: Path, about: dict[str, Any], resume: bool, overwrite: bool) -> Iterator[Path]:
    """The build's folder, new or with `resume` as a killed build left it; gone at the end.

    After an error or an interruption it stays. `about` must be what it was begun with.
    """
    with Run(
        folder,
        COMMAND,
        (ABOUT, LINEAGES),
        identity=about,
        identity_file=ABOUT,
        resume=resume,
        overwrite=overwrite and not resume,  # then it is the data set that is overwritten
        unmarked=lambda folder: (folder / ABOUT).is_file(),
    ) as run:
        yield folder
        run.clear()
    drop_if_empty(folder)


def build(
    walk: Walk,
    sizes: dict[str, int],
    seed: int,
    folder: Path | None = None,
    workers: int | None = None,
    progress: Update = lambda done, of: None,
) -> Built:
    """Grow lineages 0, 1, ... of a seed until the splits are full.

    One lineage in 8 may fail to come to its target, and as many again may be kin of others; then
    the budget is spent, and a PuzzleError says how far it came.
    """
    wanted = sum(sizes.values())
    may_fail = 16 + wanted // 8
    done = _finished(folder, seed, SHAPES[walk.side].cells)
    number = 0
    chosen: dict[str, list[int]] = {split: [] for split in sizes}
    grown: list[Lineage] = []
    while missing := wanted - sum(map(len, chosen.values())):
        if number > 2 * wanted + 64:
            raise PuzzleError(
                f"{number} lineages gave {wanted - missing} of the {wanted} puzzles that are "
                "wanted; the others failed or are kin of these"
            )
        # kinds and kin: more than are missing, yet as many whatever was interrupted
        number += missing if number == 0 else max(4, 2 * missing)
        todo = [i for i in range(number) if i not in done]
        progress(number - len(todo), number)
        with closing(_grown(walk, seed, todo, workers)) as arriving:
            for i, lineage in arriving:
                done[i] = lineage
                if folder is not None:
                    append_row(folder / LINEAGES, _row(lineage))
                failed = [one for one in done.values() if not one.reached]
                if len(failed) > may_fail:
                    raise PuzzleError(_spent(walk, failed, len(done), wanted))
                progress(len(done), number)
        grown = [done[i] for i in range(number) if done[i].reached]
        puzzles = np.array([one.puzzle for one in grown], np.uint8)
        plain = [bool(is_plain(one.seed, walk.plain_every)) for one in grown]
        cells = SHAPES[walk.side].cells
        chosen = assign(puzzles.reshape(-1, cells), plain, sizes, walk.plain_every)
    splits = {split: _mixed([grown[i] for i in at], seed) for split, at in chosen.items()}
    all_grown = [done[i] for i in range(number)]
    failures = sum(not one.reached for one in all_grown)
    return Built(splits, number, failures, sum(one.lists for one in all_grown))


def _mixed(lineages: list[Lineage], seed: int) -> list[Lineage]:
    """In random order: kinds fill up at different times, and often the first n are read."""
    import torch

    from trm_interp.core.counter import hash64

    keys = hash64(seed, ORDER, torch.tensor([one.seed for one in lineages], dtype=torch.int64))
    return [lineages[i] for i in keys.argsort(stable=True).tolist()]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _grown(
    walk: Walk, seed: int, numbers: Iterable[int], workers: int | None
) -> Generator[tuple[int, Lineage], None, None]:
    """Lineages as they are finished; the compiled walk lets the threads run side by side."""
    energy_tables(walk)  # imports torch, once and not in a thread
    workers = workers or cores()
    left = iter(numbers)
    pool = ThreadPoolExecutor(workers)
    try:
        running = {
            pool.submit(grow, walk, lineage_seed(seed, i)): i for i in islice(left, 2 * workers)
        }
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
                for i in islice(left, 1):
                    running[pool.submit(grow, walk, lineage_seed(seed, i))] = i
    finally:
        pool.shutdown(cancel_futures=True)


def _spent(walk: Walk, failed: list[Lineage], grown: int, wanted: int) -> str:
    best = max(failed, key=lambda lineage: lineage.energy)
    return (
        f"budget spent: {len(failed)} of {grown} lineages did not come to their target of E in "
        f"{walk.climbs} climbs of {walk.lists} lists, and {wanted} puzzles are wanted; "
        f"the furthest came to {best.energy:.0f} of {best.target:.0f}"
    )


def _row(lineage: Lineage) -> dict[str, Any]:
    grids: dict[str, Grid] = {"puzzle": lineage.puzzle, "solution": lineage.solution}
    return {**lineage._asdict(), **{name: render(grid) for name, grid in grids.items()}}


def _finished(folder: Path | None, seed: int, cells: int) -> dict[int, Lineage]:
    """Lineages of an earlier run by number; a line that a kill cut off is dropped."""
    if folder is None or not (folder / LINEAGES).exists():
        return {}
    path = folder / LINEAGES
    keep_rows(path, sum(1 for _ in path.open("rb")))
    lineages = [
        _lineage(line, cells, f"{path}: line {at}")
        for at, line in enumerate(path.open("rb"), start=1)
    ]
    return {lineage.seed - lineage_seed(seed, 0): lineage for lineage in lineages}


@dataclass(frozen=True)
class Row:
    """A line of a build."""

    puzzle: str
    solution: str
    seed: int
    target: float
    energy: float
    lists: int


def _lineage(line: bytes, cells: int, name: str) -> Lineage:
    advice = "start with --overwrite"
    try:
        row = convert(json.loads(line), Row, name, PuzzleError, advice)
        if not len(row.puzzle) == len(row.solution) == cells:
            raise PuzzleError(f"{name}: {cells} cells expected: {advice}")
        grids = parse(row.puzzle), parse(row.solution)
    except PuzzleError:
        raise
    except (ValueError, RecursionError) as error:
        raise PuzzleError(f"{name} is damaged ({first_line(error)[:100]}): {advice}") from None
    return Lineage(*grids, row.seed, row.target, row.energy, row.lists)
