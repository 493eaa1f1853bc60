"""Data sets of ARC tasks in the public layout, by name.

Every task comes under augmentations, each with an identifier of its own, and they are laid down
here as in the public code, with the random translation of training pairs: `train` and `test` (drawn
tasks also `val`), beside them `identifiers.json` and `test_puzzles.json`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.runtime.files import sha256_of, write_json
from trm_interp.runtime.fresh import FolderRun
from trm_interp.runtime.limits import at_most, in_seed_range, shown
from trm_interp.runtime.outputs import entries
from trm_interp.runtime.schema import read_json
from trm_interp.runtime.version import __version__
from trm_interp.tasks.arc.augmentations import Augmentation, drawn
from trm_interp.tasks.arc.grid import LARGEST, SMALLEST, VOCAB, Pair, encode_pair
from trm_interp.tasks.arc.source import PACKAGE, Problem, made, problem_of, published
from trm_interp.tasks.base import Progress, PuzzleError, no_progress
from trm_interp.tasks.data_sets import CARD, COMMAND, SPLITS, MadeCard, card_of, require_root_free
from trm_interp.tasks.public_folder import (
    DATASET,
    GROUPS,
    IDENTIFIERS,
    INPUTS,
    LABELS,
    NAMES,
    STARTS,
    TESTS,
)

USUAL = {
    "arc1": "ARC-AGI-1, 400 tasks to train on and 400 to judge, in the public format",
    "arc2": "ARC-AGI-2, 1000 tasks to train on and 120 to judge, in the public format",
    "arc-small": "52 synthetic tasks in a 10x10 frame, each under 8 augmentations",
}
SMALL_FRAME, SMALL_AUGMENTATIONS, AUGMENTATIONS = 10, 7, 100
SMALL_PAIRS = {"train": 24, "val": 1, "test": 4}  # of a task
MOST_AUGMENTATIONS = 10_000
ARRAYS = (INPUTS, LABELS, IDENTIFIERS, STARTS, GROUPS, DATASET)
BLANK = "<blank>"  # identifier 0, which no puzzle has


def is_preset(name: str) -> bool:
    """Whether `make` makes it: a usual name, or a JSON file of ARC tasks."""
    return name in USUAL or name.endswith(".json")


@dataclass(frozen=True)
class Augmented:
    """A task with its augmentations, itself the first, and the identifier of that one; the others
    follow it."""

    problem: Problem
    augmentations: list[Augmentation]
    first: int

    def pairs(self, split: str) -> list[Pair]:
        kinds = {"train": "shown", "val": "checked", "test": "judged"}
        return getattr(self.problem, kinds[split])


def make(
    name: str,
    out: str | os.PathLike[str],
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    sizes: dict[str, int] | None = None,
    augmentations: int | None = None,
    only: Sequence[str] = (),
    frame: int | None = None,
) -> dict[str, Any]:
    """Make a data set in the folder `out`, with a card.

    `augmentations`: of every task, besides itself. `only`: names of tasks. `frame`: rows of the
    frame; tasks that do not fit are left out, and named in the card under `too_large`. `sizes`:
    puzzles of a split, of drawn tasks alone. The same arguments and versions give the same bytes.
    """
    in_seed_range(seed)
    small = name == "arc-small"
    usual = (SMALL_AUGMENTATIONS, SMALL_FRAME) if small else (AUGMENTATIONS, LARGEST)
    wanted = usual[0] if augmentations is None else augmentations
    at_most("augmentations", wanted, MOST_AUGMENTATIONS)
    side = usual[1] if frame is None else frame
    if not SMALLEST <= side <= LARGEST:
        raise PuzzleError(f"frame must be from {SMALLEST} to {LARGEST}, got {shown(side)}")
    require_root_free(out)
    problems, too_large = _fitting(_problems(name, seed, wanted, sizes or {}, only), side, only)
    about = {
        **{"preset": Path(name).name, "seed": seed, "frame": side, "augmentations": wanted},
        **{"tasks": len(problems), "too_large": too_large, "trm_interp": __version__},
    }
    if name in ("arc1", "arc2"):
        about["made_with"] = {PACKAGE: version(PACKAGE)}
    with (
        FolderRun(Path(out), COMMAND, require_data_set, overwrite=overwrite) as run,
        run.filling() as at,
    ):
        rng = np.random.default_rng([seed, len(problems)])
        augmented, n_identifiers = _augmented(problems, wanted, rng)
        names = [BLANK] * n_identifiers
        for one in augmented:
            for number, augmentation in enumerate(one.augmentations, start=one.first):
                names[number] = augmentation.name(one.problem.name)
        (at / NAMES).write_text(json.dumps(names))
        (at / TESTS).write_text(json.dumps({p.name: _plain(p) for p in problems if p.judged}))
        splits = {}
        for split in SPLITS:
            some = [one for one in augmented if one.pairs(split)]
            if some:
                n = _write(at / split, split, some, n_identifiers, side, rng, progress)
                sha256 = sha256_of(at / split / INPUTS)
                splits[split] = {"file": split, "n": n, "tasks": len(some), "sha256": sha256}
        card = {**about, "identifiers": n_identifiers, "splits": splits}
        card |= {split: entry["n"] for split, entry in splits.items()}
        write_json(at / CARD, card)
    return card


def _problems(
    name: str, seed: int, augmentations: int, sizes: dict[str, int], only: Sequence[str]
) -> list[Problem]:
    """The tasks of a data set, or those of them that are named. UserError for unknown names."""
    if name == "arc-small":
        every = made(SMALL_PAIRS["train"], SMALL_PAIRS["val"], SMALL_PAIRS["test"], seed)
        if sizes:
            each = SMALL_PAIRS | _pairs_of(len(only or every), augmentations, sizes)
            every = made(each["train"], each["val"], each["test"], seed)
    else:
        if sizes:
            raise PuzzleError(f"{name} has the pairs of its tasks: choose tasks with --only")
        every = published(int(name[-1])) if name in USUAL else _of_file(Path(name))
    if unknown := sorted(set(only) - {problem.name for problem in every}):
        some = ", ".join(problem.name for problem in every[:6])
        raise PuzzleError(f"{name} has no task {unknown[0][:40]!r}; it has {some}, ...")
    return [problem for problem in every if problem.name in only or not only]


def _pairs_of(tasks: int, augmentations: int, sizes: dict[str, int]) -> dict[str, int]:
    """Pairs of a task so that the splits have so many puzzles. UserError where these are not a
    multiple of the identifiers."""
    identifiers = tasks * (1 + augmentations)
    for split, n in sizes.items():
        if n < 1 or n % identifiers:
            raise PuzzleError(
                f"{split} must be a multiple of {identifiers}, the number of identifiers "
                f"({tasks} tasks under {1 + augmentations} augmentations), got {shown(n)}"
            )
    return {split: n // identifiers for split, n in sizes.items()}


def _of_file(path: Path) -> list[Problem]:
    """The tasks of a JSON file, one or several by name."""
    if not path.is_file():
        raise PuzzleError(f"{path}: no such file of ARC tasks")
    content = read_json(path, dict[str, Any], PuzzleError)
    if {"train", "test"} <= content.keys():
        content = {path.stem: content}
    problems = []
    for name, task in content.items():
        if not isinstance(task, dict) or not isinstance(task.get("train"), list):
            raise PuzzleError(f"{path}: {name[:40]} is no ARC task, with lists `train` and `test`")
        problems.append(problem_of(f"{path}: {name}", task, name))
    if not problems:
        raise PuzzleError(f"{path}: no task in it")
    return problems


def _fitting(
    problems: list[Problem], side: int, only: Sequence[str]
) -> tuple[list[Problem], list[str]]:
    """The tasks that fit a frame, and the names of the others. UserError where such a one was asked
    for by name, or none fits."""
    large = [problem for problem in problems if problem.rows > side]
    if large and (only or len(large) == len(problems)):
        first = large[0]
        raise PuzzleError(
            f"{first.name} has a grid of {first.rows} rows or columns, above the frame of {side}"
        )
    return [p for p in problems if p.rows <= side], [p.name for p in large]


def _augmented(
    problems: list[Problem], wanted: int, rng: np.random.Generator
) -> tuple[list[Augmented], int]:
    """Every task with its augmentations, and one more than the largest identifier."""
    augmented, number = [], 1
    for problem in problems:
        pairs = [*problem.shown, *problem.checked, *problem.judged]
        own = [Augmentation(), *drawn(pairs, wanted, rng)]
        augmented.append(Augmented(problem, own, number))
        number += len(own)
    return augmented, number


def _plain(problem: Problem) -> dict[str, Any]:
    """A task as ARC files have it."""
    return {
        kind: [{"input": a.tolist(), "output": b.tolist()} for a, b in pairs]
        for kind, pairs in (("train", problem.shown), ("test", problem.judged))
    }


def _write(
    folder: Path,
    split: str,
    tasks: list[Augmented],
    n_identifiers: int,
    side: int,
    rng: np.random.Generator,
    progress: Progress | None,
) -> int:
    """One split; how many examples it has.

    Of the training pairs of an identifier one, at random, is not moved: the public code does so.
    """
    folder.mkdir()
    tell = progress or no_progress
    n = sum(len(one.augmentations) * len(one.pairs(split)) for one in tasks)
    shape = (n, side * side)
    inputs, labels = (
        np.lib.format.open_memmap(folder / name, "w+", np.uint8, shape) for name in (INPUTS, LABELS)
    )
    identifiers, starts, groups = [], [0], [0]
    row = 0
    for one in tasks:
        pairs = one.pairs(split)
        for number, augmentation in enumerate(one.augmentations, start=one.first):
            unmoved = int(rng.integers(len(pairs)))
            for at, (first, second) in enumerate(pairs):
                moves = rng if split == "train" and at != unmoved else None
                pair = augmentation.apply(first), augmentation.apply(second)
                inputs[row], labels[row] = encode_pair(pair, side, moves)
                row += 1
            identifiers.append(number)
            starts.append(row)
            tell(row, n)
        groups.append(len(identifiers))
    inputs.flush()
    labels.flush()
    for name, numbers in ((IDENTIFIERS, identifiers), (STARTS, starts), (GROUPS, groups)):
        np.save(folder / name, np.array(numbers, np.int32))
    dataset = {
        **{"seq_len": side * side, "vocab_size": VOCAB, "pad_id": 0, "ignore_label_id": 0},
        **{"blank_identifier_id": 0, "num_puzzle_identifiers": n_identifiers},
        **{"total_groups": len(tasks), "total_puzzles": len(identifiers), "sets": ["all"]},
        "mean_puzzle_examples": n / len(identifiers),
    }
    (folder / DATASET).write_text(json.dumps(dataset))
    return n


def require_data_set(place: Path) -> None:
    """UserError unless it is a data set that was made here, and holds nothing else."""
    if not place.is_dir():
        raise PuzzleError(f"{place} is a file: not a data set, so not replaced")
    for path in entries(place):
        inside = [path]
        if path.name in SPLITS and path.is_dir() and not path.is_symlink():
            inside = entries(path)
        known = {*ARRAYS} if path.name in SPLITS else {CARD, NAMES, TESTS}
        for file in inside:
            if file.name not in known or file.is_symlink() or not file.is_file():
                raise PuzzleError(f"{place} holds {file.name}: not a data set, so not replaced")
    if card_of(place / CARD, MadeCard) is None:
        raise PuzzleError(f"{place} has no {CARD} of `{COMMAND}`: not a data set, so not replaced")
