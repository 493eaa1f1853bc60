"""What the commands on puzzle files show: ratings as a data frame, splits compared in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from trm_interp.runtime.limits import in_seed_range
from trm_interp.runtime.progress import passing
from trm_interp.tasks.registry import load_puzzles


def ratings(
    source: Path,
    seed: int,
    skip_bad: bool,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """One row per puzzle: line, puzzle, its task's ratings, and what the file tells of it.

    The second value names the puzzles that were skipped.
    """
    in_seed_range(seed)
    with passing("checking", "puzzles") as update:
        puzzles = load_puzzles(source, skip_bad, progress=update)
    task = puzzles.task
    table = pd.DataFrame(
        {
            "line": puzzles.lines,
            "puzzle": [task.text(tokens) for tokens in puzzles.inputs],
            **task.rate(puzzles, seed, progress),
            **task.remarks(source, puzzles),
        }
    )
    return table, puzzles.skipped


def check_lines(report: dict[str, Any]) -> list[str]:
    """The report of `Task.check_splits` for people: a line for every file and every pair."""
    lines = [
        f"{entry['file']}: {entry['puzzles']} puzzles, {entry['invalid']} invalid lines, "
        f"{entry['repeated']} repeated"
        for entry in report["files"]
    ]
    for pair in report["pairs"]:
        shared = "lineages unknown" if pair["lineages"] is None else f"{pair['lineages']} lineages"
        lines.append(
            f"{pair['files'][0]} and {pair['files'][1]}: {pair['copies']} copies, "
            f"{pair['neighbours']} neighbours, {shared} in both"
        )
    return lines
