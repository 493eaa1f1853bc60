"""Whether files are splits of one data set: good mazes, none a symmetric copy of another."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from trm_interp.tasks.base import Progress, PuzzleError, no_progress
from trm_interp.tasks.maze.dataset import load
from trm_interp.tasks.maze.symmetries import class_keys


def check(
    files: Sequence[Path],
    tell: Callable[[str], None] = print,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """What is wrong with files as splits; every finding is reported with its lines.

    `files`: mazes, invalid lines, mazes whose class comes twice; `pairs`: of every two files, mazes
    of the second that are symmetric copies of one in the first. `clean`: there is nothing wrong.
    """
    if len({path.resolve() for path in files}) < len(files):
        raise PuzzleError("a file is named twice; two splits are two files")
    sets = [load(path, skip_bad=True, progress=progress) for path in files]
    for path, mazes in zip(files, sets, strict=True):
        if mazes.task != sets[0].task:
            titles = sets[0].task.title, mazes.task.title
            raise PuzzleError(
                f"{files[0]} holds {titles[0]} puzzles, {path} {titles[1]} puzzles: "
                "check one size at a time"
            )
    classes: list[dict[int, int]] = []  # of every file, key -> line where it comes first
    report: dict[str, Any] = {"files": [], "pairs": []}
    for path, mazes in zip(files, sets, strict=True):
        for line in mazes.skipped:
            tell(f"{path}: {line}")
        first: dict[int, int] = {}
        for key, line in zip(class_keys(mazes.inputs).tolist(), mazes.lines.tolist(), strict=True):
            if first.setdefault(key, line) != line:
                tell(f"{path}: line {line}: a symmetric copy of line {first[key]}")
        classes.append(first)
        entry = {"file": str(path), "puzzles": len(mazes), "sides": mazes.task.grid[0]}
        repeated = len(mazes) - len(first)
        report["files"].append({**entry, "invalid": len(mazes.skipped), "repeated": repeated})
    for a, b in combinations(range(len(files)), 2):
        shared = sorted(classes[a].keys() & classes[b].keys(), key=classes[b].__getitem__)
        for key in shared:
            tell(
                f"{files[b]}: line {classes[b][key]}: a symmetric copy of {files[a]} "
                f"line {classes[a][key]}"
            )
        names = [str(files[a]), str(files[b])]
        report["pairs"].append({"files": names, "copies": len(shared)})
    counts = [entry[k] for entry in report["files"] for k in ("invalid", "repeated")]
    counts += [pair["copies"] for pair in report["pairs"]]
    return {**report, "clean": not any(counts)}
