"""The folder of one part: tables, figures with their plotted numbers, and the summary last."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trm_interp.figures.style import write_html
from trm_interp.files import write_json, write_text
from trm_interp.provenance import git_commit, versions

SUMMARY = "summary.json"
Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


class Results:
    """Writes what a part found. `static`: also PNG and PDF, where kaleido and a browser are."""

    def __init__(self, out: Path, static: bool = False) -> None:
        self.out, self.static = out, static
        (out / SUMMARY).unlink(missing_ok=True)  # not whole until it is there again

    def table(self, name: str, table: pd.DataFrame) -> Path:
        write_text(self.out / f"{name}.csv", table.to_csv(index=False))
        return self.out / f"{name}.csv"

    def figure(self, name: str, figure: go.Figure, numbers: pd.DataFrame) -> Path:
        """An interactive page, and the numbers it plots beside it."""
        self.table(name, numbers)
        return write_html(figure, self.out / f"{name}.html", self.static)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The part is done: its numbers, with what computed them. Numbers as JSON has them."""
        done = plain(summary | {"versions": versions(), "git_commit": git_commit()})
        write_json(self.out / SUMMARY, done)
        return done


def plain(value: Any) -> Any:
    """Numpy's numbers and arrays as Python's; NaN and infinity, which JSON lacks, as None.

    >>> plain({"a": np.float32(0.5), "b": [np.nan, np.arange(2)], "c": Path("d")})
    {'a': 0.5, 'b': [None, [0, 1]], 'c': 'd'}
    """
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
