"""Tables for people: accuracy in the terminal, ratings as a data frame."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from trm_interp.runtime.limits import in_seed_range
from trm_interp.runtime.progress import passing
from trm_interp.tasks.registry import load_puzzles


def show(table: Table) -> None:
    """To standard output, as wide as it needs to be when that is not a terminal.

    Titles and cells are text, never markup: a folder may be called `a[/b]`.
    """
    console = Console(markup=False, emoji=False)
    console.width = max(console.width, 100)
    console.print(table)


def accuracy_table(outcomes: pd.DataFrame, title: str) -> Table:
    """`analysis.outcomes.outcome_table` in per cent."""
    table = Table(title=title, caption="95 % Wilson intervals over puzzles; steps count from 1")
    for heading in ("step", "exact %", "ever solved %", "lost again %"):
        table.add_column(heading, justify="right")
    for row in outcomes.to_dict("records"):
        cells = [
            "-"
            if pd.isna(row[name])
            else f"{row[name]:6.1%} [{row[f'{name}_low']:.1%}, {row[f'{name}_high']:.1%}]"
            for name in ("exact", "ever", "unsolved")
        ]
        table.add_row(str(row["step"] + 1), *(cell.replace("%", "") for cell in cells))
    return table


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
