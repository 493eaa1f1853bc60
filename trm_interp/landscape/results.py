"""The folder of one part: tables, figures with their plotted numbers, and the summary last."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from trm_interp.figures.style import write_html
from trm_interp.files import plain, write_json, write_text
from trm_interp.provenance import git_commit, versions

SUMMARY = "summary.json"
Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


class Results:
    """Writes what a part found. `static`: also PNG and PDF, where kaleido and a browser are.

    What an earlier run of the part wrote into the folder goes, so that no two are mixed.
    """

    def __init__(self, out: Path, static: bool = False) -> None:
        self.out, self.static, self.names = out, static, []
        for name in _names_in(out / SUMMARY):
            for kind in (".csv", ".html", ".png", ".pdf"):
                (out / f"{name}{kind}").unlink(missing_ok=True)
        (out / SUMMARY).unlink(missing_ok=True)  # not whole until it is there again

    def table(self, name: str, table: pd.DataFrame) -> Path:
        self.names.append(name)
        write_text(self.out / f"{name}.csv", table.to_csv(index=False))
        return self.out / f"{name}.csv"

    def figure(self, name: str, figure: go.Figure, numbers: pd.DataFrame) -> Path:
        """An interactive page, and the numbers it plots beside it."""
        self.table(name, numbers)
        return write_html(figure, self.out / f"{name}.html", self.static)

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The part is done: its numbers, with what computed them. Numbers as JSON has them."""
        summary = summary | {"written": sorted(set(self.names))}
        done = plain(summary | {"versions": versions(), "git_commit": git_commit()})
        write_json(self.out / SUMMARY, done)
        return done


def _names_in(summary: Path) -> list[str]:
    """What an earlier run wrote."""
    try:
        return json.loads(summary.read_text()).get("written", [])
    except (OSError, ValueError, AttributeError):
        return []
