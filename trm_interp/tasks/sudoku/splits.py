"""Which puzzles may go to which split, and whether given files keep to it.

Two puzzles are kin where a symmetry carries one into the other (one class), or where they become
one class when each, or one of them, loses one clue: neighbours. Augmentation stays inside a class,
so splits without kin between them stay apart under augmentation. At 9x9 a class is a hash
(`canonical.py`): equal ones only suggest kinship, so too much may be left out, never too little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trm_interp.tasks.base import PuzzleError, PuzzleSet
from trm_interp.tasks.sudoku.canonical import Colours, class_keys
from trm_interp.tasks.sudoku.dataset import load
from trm_interp.tasks.sudoku.formats import column
from trm_interp.tasks.sudoku.grid import Grid, from_tokens

KEYED_AT_ONCE = 256  # puzzles, each with all its one-clue-less ones
Update = Callable[[int, int], None]


@dataclass(frozen=True)
class Kin:
    """Class keys of puzzles (`own` [puzzle]) and, with those, of the same less one clue.

    `keys` uint64 [key], `owner` int64 [key]: which puzzle has it.
    """

    own: Colours
    keys: Colours
    owner: NDArray[np.int64]

    def of(self) -> list[set[int]]:
        """The keys of each puzzle."""
        sets: list[set[int]] = [set() for _ in self.own]
        for owner, key in zip(self.owner.tolist(), self.keys.tolist(), strict=True):
            sets[owner].add(key)
        return sets


def kin(puzzles: Grid, progress: Update = lambda done, of: None) -> Kin:
    """Keys of [puzzle, cells] grids and of all their one-clue-less puzzles.

    >>> from trm_interp.tasks.sudoku.grid import parse
    >>> keyed = kin(parse("1..............2")[None])
    >>> len(keyed.own), keyed.owner.tolist(), len(set(keyed.keys.tolist()))
    (1, [0, 0, 0], 2)
    """
    keys, owners = [], []
    for start in range(0, len(puzzles), KEYED_AT_ONCE):
        part = puzzles[start : start + KEYED_AT_ONCE]
        row, cell = part.nonzero()
        less = part[row]
        less[np.arange(len(row)), cell] = 0
        keys.append(class_keys(np.concatenate([part, less])))
        owners.append(start + np.concatenate([np.arange(len(part)), row]))
        progress(start + len(part), len(puzzles))
    own = [k[: min(KEYED_AT_ONCE, len(puzzles) - i * KEYED_AT_ONCE)] for i, k in enumerate(keys)]
    none = np.zeros(0, np.uint64)
    return Kin(
        np.concatenate([none, *own]),
        np.concatenate([none, *keys]),
        np.concatenate([np.zeros(0, np.int64), *owners]),
    )


def assign(
    puzzles: Grid, plain: Sequence[bool], sizes: dict[str, int], plain_every: int = 0
) -> dict[str, list[int]]:
    """Numbers of puzzles for each split, in their order, without kin in two splits.

    A puzzle goes to the first split that has room for its kind, and is left out where it has kin in
    another split or its class is there already. One of `plain_every` puzzles of a split is `plain`
    (0: kinds do not matter). A longer list of puzzles only adds to what a shorter one gave.
    """
    room = {}
    for split, size in sizes.items():
        of_plain = size // plain_every if plain_every else 0
        room[split] = {True: of_plain, False: size - of_plain}
    chosen: dict[str, list[int]] = {split: [] for split in sizes}
    classes: set[int] = set()
    home: dict[int, str] = {}
    keyed = kin(puzzles)
    for number, (own, keys) in enumerate(zip(keyed.own.tolist(), keyed.of(), strict=True)):
        kind = bool(plain[number]) and plain_every > 0
        split = next((name for name in sizes if room[name][kind]), None)
        if split is None or own in classes or any(home.get(key, split) != split for key in keys):
            continue
        room[split][kind] -= 1
        chosen[split].append(number)
        classes.add(own)
        home.update(dict.fromkeys(keys, split))
    return chosen


# ---- files


def check(
    files: Sequence[Path],
    tell: Callable[[str], None] = print,
    progress: Update = lambda d, of: None,
) -> dict[str, Any]:
    """What is wrong with files as splits of one data set; every finding is reported with its lines.

    `files`: puzzles, invalid lines, puzzles whose class comes twice; `pairs`: of every two files,
    puzzles of the second with the class of one in the first, neighbours of one in the first, and
    lineages in both (None where a file does not say). `clean`: there is nothing wrong.
    """
    if len({path.resolve() for path in files}) < len(files):
        raise PuzzleError("a file is named twice; two splits are two files")
    sets = [load(path, skip_bad=True, progress=progress) for path in files]
    for path, puzzles in zip(files, sets, strict=True):
        if puzzles.task != sets[0].task:
            a, b = sets[0].task.grid[0], puzzles.task.grid[0]
            raise PuzzleError(
                f"{files[0]} holds {a}x{a} puzzles, {path} {b}x{b}: check one size at a time"
            )
    total, before = sum(map(len, sets)), 0
    keyed: list[Kin] = []
    for puzzles in sets:
        grids = from_tokens(puzzles.inputs)
        keyed.append(kin(grids, lambda d, of, so_far=before: progress(so_far + d, total)))
        before += len(puzzles)
    report: dict[str, Any] = {"files": [], "pairs": []}
    for path, puzzles, keys in zip(files, sets, keyed, strict=True):
        for line in puzzles.skipped:
            tell(f"{path}: {line}")
        twice = _twice(keys.own, puzzles)
        for first, again in twice:
            tell(f"{path}: line {again}: the class of line {first}")
        entry = {"file": str(path), "puzzles": len(puzzles), "sides": puzzles.task.grid[0]}
        report["files"].append({**entry, "invalid": len(puzzles.skipped), "repeated": len(twice)})
    for a, b in combinations(range(len(files)), 2):
        report["pairs"].append(_pair(files, sets, keyed, a, b, tell))
    counts = [entry[k] for entry in report["files"] for k in ("invalid", "repeated")]
    counts += [
        pair[k] or 0 for pair in report["pairs"] for k in ("copies", "neighbours", "lineages")
    ]
    return {**report, "clean": not any(counts)}


def _twice(own: Colours, puzzles: PuzzleSet) -> list[tuple[int, int]]:
    """(line where a class comes first, line where it comes again)."""
    first: dict[int, int] = {}
    again = []
    for key, line in zip(own.tolist(), puzzles.lines.tolist(), strict=True):
        if first.setdefault(key, line) != line:
            again.append((first[key], line))
    return again


def _pair(
    files: Sequence[Path],
    sets: list[PuzzleSet],
    keyed: list[Kin],
    a: int,
    b: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    at_a = dict(zip(keyed[a].keys.tolist(), sets[a].lines[keyed[a].owner].tolist(), strict=True))
    classes = dict(zip(keyed[a].own.tolist(), sets[a].lines.tolist(), strict=True))
    copies = neighbours = 0
    for own, keys, line in zip(keyed[b].own.tolist(), keyed[b].of(), sets[b].lines, strict=True):
        if own in classes:
            copies += 1
            tell(f"{files[b]}: line {line}: the class of {files[a]} line {classes[own]}")
        elif shared := keys & at_a.keys():
            neighbours += 1
            first = at_a[min(shared)]
            tell(f"{files[b]}: line {line}: one clue away from {files[a]} line {first}")
    seeds = [column(files[i], "lineage", sets[i].lines) for i in (a, b)]
    lineages = None if None in seeds else len(set(seeds[0] or ()) & set(seeds[1] or ()) - {""})
    if lineages:
        tell(f"{files[b]}: {lineages} lineages of {files[a]}")
    return {
        "files": [str(files[a]), str(files[b])],
        "copies": copies,
        "neighbours": neighbours,
        "lineages": lineages,
    }
