"""Whether files are splits of one ARC data set: no pair of one task in two of them."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from trm_interp.tasks.arc.augmentations import key_of, parsed
from trm_interp.tasks.arc.dataset import load
from trm_interp.tasks.arc.grid import boxes_around, crop
from trm_interp.tasks.base import Progress, PuzzleError, PuzzleSet, no_progress


def check(
    files: Sequence[Path],
    tell: Callable[[str], None] = print,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """What is wrong with files as splits; every finding is reported with its row.

    `files`: pairs, those that are not valid, and those that come twice; `pairs`: of every two
    files, how many of the first's inputs come in the second for the same task, with augmentations
    undone. `clean`: there is nothing wrong.
    """
    if len({path.resolve() for path in files}) < len(files):
        raise PuzzleError("a file is named twice; two splits are two files")
    sets = [load(path, skip_bad=True, progress=progress) for path in files]
    report: dict[str, Any] = {"files": [], "pairs": []}
    keys: list[dict[tuple[str, bytes], int]] = []
    for path, pairs in zip(files, sets, strict=True):
        if pairs.task != sets[0].task:
            raise PuzzleError(
                f"{files[0]} holds {sets[0].task.title} pairs, {path} {pairs.task.title} pairs: "
                "check one size at a time"
            )
        for line in pairs.skipped:
            tell(f"{path}: {line}")
        rows = _keys(pairs)
        repeated = len(pairs) - len({(name, key) for name, _, key in rows})
        keys.append({(task, key): row for row, (_, task, key) in enumerate(rows)})
        entry = {"file": str(path), "puzzles": len(pairs), "sides": pairs.task.grid[0]}
        report["files"].append({**entry, "invalid": len(pairs.skipped), "repeated": repeated})
    for a, b in combinations(range(len(files)), 2):
        shared = sorted(keys[a].keys() & keys[b].keys(), key=keys[b].__getitem__)
        for key in shared:
            row = sets[b].lines[keys[b][key]]
            tell(f"{files[b]}: {row}: an input of {key[0]} that {files[a]} has, too")
        names = [str(files[a]), str(files[b])]
        report["pairs"].append({"files": names, "copies": len(shared)})
    counts = [entry[kind] for entry in report["files"] for kind in ("invalid", "repeated")]
    counts += [pair["copies"] for pair in report["pairs"]]
    return {**report, "clean": not any(counts)}


def _keys(pairs: PuzzleSet) -> list[tuple[str, str, bytes]]:
    """Of every pair its name, its task, and its input with the augmentation undone."""
    names = pairs.names
    if names is None:
        raise PuzzleError(f"{pairs.source}: no identifiers.json names its tasks")
    boxes = boxes_around(pairs.inputs)
    keys = []
    for at, name in enumerate(names.tolist()):
        task, augmentation = parsed(name)
        grid = augmentation.invert(crop(pairs.inputs[at], boxes, at))
        keys.append((name, task, key_of(grid)))
    return keys
