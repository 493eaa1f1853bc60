"""`trm-interp data rate`: ratings of every puzzle of a file."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from trm_interp.runtime.progress import Update, passing
from trm_interp.runtime.runs import Tell, quiet
from trm_interp.tasks.registry import load_puzzles
from trm_interp.tasks.settings import RateConfig


@dataclass(frozen=True)
class Ratings:
    """One row per puzzle: line, puzzle, its task's ratings, and what the file tells of it."""

    table: pd.DataFrame

    def to_json(self) -> Any:
        """A list of objects, one a puzzle."""
        return json.loads(self.table.to_json(orient="records") or "[]")


def run(config: RateConfig, tell: Tell = print, progress: Update = quiet) -> Ratings:
    """Rate the puzzles of a file."""
    with passing("checking", "puzzles") as update:
        puzzles = load_puzzles(config.source, config.skip_bad, progress=update)
    for line in puzzles.skipped:
        tell(f"skipped {line}")
    task = puzzles.task
    return Ratings(
        pd.DataFrame(
            {
                "line": puzzles.lines,
                "puzzle": [task.text(tokens) for tokens in puzzles.inputs],
                **task.rate(puzzles, config.seed, progress),
                **task.remarks(config.source, puzzles),
            }
        )
    )


def lines(ratings: Ratings) -> list[str]:
    """The table as CSV."""
    return [ratings.table.to_csv(index=False).rstrip("\n")]
