"""Curves with bands over ticks: what figures over time share."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trm_interp.figures.style import literal

DASHES = ("solid", "dot", "dashdot", "longdash", "longdashdot")  # of lines of several kinds
STEPS = "dotted lines: a supervision step begins"  # subtitle of figures with `step_lines`
Band = tuple[np.ndarray, np.ndarray, np.ndarray]  # mean, low, high


def groups(table: pd.DataFrame, *by: str) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Rows of equal values in some columns, in the order in which they come.

    >>> table = pd.DataFrame({"site": ["b", "a", "b"], "kind": 1, "n": [3, 4, 5]})
    >>> [(key, rows["n"].tolist()) for key, rows in groups(table, "site", "kind")]
    [(('b', 1), [3, 5]), (('a', 1), [4])]
    """
    for key, rows in table.groupby(list(by), sort=False):
        yield tuple(key), rows  # type: ignore[arg-type]


def by_outcome(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of solved and of failed runs, in this order; an outcome without rows is left out.

    >>> [name for name, _ in by_outcome(pd.DataFrame({"outcome": ["failed", "solved"]}))]
    ['solved', 'failed']
    """
    for name in ("solved", "failed"):
        rows = where(table, table["outcome"] == name)
        if len(rows):
            yield name, rows


def where(table: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """The rows of a mask (an array or a column): a table again, which type checkers do not see.

    >>> where(pd.DataFrame({"n": [3, 4]}), np.array([False, True]))["n"].tolist()
    [4]
    """
    return table[rows]  # type: ignore[return-value]


def curve(
    figure: go.Figure,
    x: np.ndarray,
    band: Band,
    colour: str,
    name: str,
    in_legend: bool,
    row: int = 1,
    column: int = 1,
    dash: str = "solid",
    over: str = "evaluation",
) -> None:
    """A line over its band; both hide with the legend entry. `over`: what x counts.

    Where the bounds are NaN there is no band.
    """
    mean, low, high = band
    there = np.isfinite(low) & np.isfinite(high)
    inside, low, high = x[there], low[there], high[there]
    shown = literal(name)
    common = {"legendgroup": name, "name": shown}
    figure.add_trace(
        go.Scatter(
            x=np.concatenate([inside, inside[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            mode="lines",  # of few points plotly would draw each
            fill="toself",
            fillcolor=colour,
            line={"width": 0},
            opacity=0.15,
            hoverinfo="skip",
            showlegend=False,
            **common,
        ),
        row=row,
        col=column,
    )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            mode="lines",
            line={"color": colour, "width": 1.5, "dash": dash},
            showlegend=in_legend,
            hovertemplate=f"{shown}<br>{over} %{{x}}: %{{y:.3g}}<extra></extra>",
            **common,
        ),
        row=row,
        col=column,
    )


def step_lines(figure: go.Figure, steps: Iterable[int]) -> None:
    """A dotted line at each tick where a supervision step begins."""
    for step in steps:
        figure.add_vline(x=step, line={"color": "#999", "width": 1, "dash": "dot"})
