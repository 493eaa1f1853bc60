"""Curves with bands over ticks: what figures over time share."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trm_interp.figures.style import literal

DASHES = ("solid", "dot", "dashdot", "longdash", "longdashdot")  # of lines of several kinds
PALE, WIDE, NARROW = 0.15, 0.12, 0.35  # opacity of a band; of one outside another, and inside
DOTTED = {"color": "#999", "width": 1, "dash": "1px,3px"}  # where a supervision step begins
STEPS = "a supervision step begins"  # what they mean
OVER_PUZZLES = "95 % interval over puzzles"  # what a band is
# signs of a legend's own entries: `explain`


def sign_of_area(opacity: float) -> dict[str, Any]:
    """Of bands of this opacity, in any colour."""
    marker = {"symbol": "square", "size": 12, "color": "#555", "opacity": opacity}
    return {"mode": "markers", "marker": marker}


AREA = sign_of_area(0.3)
BAR: dict[str, Any] = {
    "mode": "markers",
    "marker": {"symbol": "line-ns", "size": 12, "line": {"width": 1.5, "color": "#444"}},
}
BAR_ACROSS: dict[str, Any] = {
    "mode": "markers",
    "marker": {"symbol": "line-ew", "size": 12, "line": {"width": 1.5, "color": "#444"}},
}
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


def counts(table: pd.DataFrame, column: str = "n") -> str:
    """Of how many puzzles, or other runs, the curves of either outcome are.

    >>> counts(pd.DataFrame({"outcome": ["solved", "failed"], "n": [30, 10]}))
    '30 solved and 10 failed'
    """
    return " and ".join(
        f"{int(rows[column].iloc[0])} {outcome}" for outcome, rows in by_outcome(table)
    )


def where(table: pd.DataFrame, rows: Any) -> pd.DataFrame:
    """The rows of a mask (an array or a column): a table again, which type checkers do not see.

    >>> where(pd.DataFrame({"n": [3, 4]}), np.array([False, True]))["n"].tolist()
    [4]
    """
    return table[rows]  # type: ignore[return-value]


def whole_ticks(values: np.ndarray, most: int = 8) -> dict[str, Any]:
    """Settings of an axis of these values that is marked at whole numbers only, about `most`.

    >>> whole_ticks(np.array([0, 0.5, 2])), whole_ticks(np.arange(16))
    ({'tick0': 0, 'dtick': 1}, {'tick0': 0, 'dtick': 2})
    """
    span = float(np.ptp(values)) if len(values) else 0.0
    steps = (base * 10**power for power in range(9) for base in (1, 2, 5))
    return {"tick0": 0, "dtick": next(step for step in steps if span <= most * step)}


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
    opacity: float = PALE,
    symbol: str = "",
) -> None:
    """A line over its band of this opacity; both hide with the legend entry. `over`: what x counts.

    Where the bounds are NaN there is no band. `symbol` marks its points.
    """
    mean, low, high = band
    area(figure, x, low, high, colour, name, row, column, opacity)
    shown = literal(name)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            mode="lines+markers" if symbol else "lines",
            line={"color": colour, "width": 1.5, "dash": dash},
            marker={"symbol": symbol, "size": 6} if symbol else None,
            showlegend=in_legend,
            hovertemplate=f"{shown}<br>{over} %{{x}}: %{{y:.3g}}<extra></extra>",
            legendgroup=name,
            name=shown,
        ),
        row=row,
        col=column,
    )


def area(
    figure: go.Figure,
    x: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    name: str,
    row: int = 1,
    column: int = 1,
    opacity: float = PALE,
) -> None:
    """A band, which hides with the legend entry `name`; none where a bound is NaN."""
    there = np.isfinite(low) & np.isfinite(high)
    inside, low, high = x[there], low[there], high[there]
    figure.add_trace(
        go.Scatter(
            x=np.concatenate([inside, inside[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            mode="lines",  # of few points plotly would draw each
            fill="toself",
            fillcolor=colour,
            line={"width": 0},
            opacity=opacity,
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
            name=literal(name),
        ),
        row=row,
        col=column,
    )


def step_lines(figure: go.Figure, steps: Iterable[int | float]) -> None:
    """A dotted line at each tick where a supervision step begins, and its entry in the legend."""
    steps = list(steps)
    for step in steps:
        figure.add_vline(x=step, line=DOTTED)
    if steps:
        explain(figure, STEPS, mode="lines", line=DOTTED)


def explain(figure: go.Figure, text: str, **sign: Any) -> None:
    """An entry of the legend for a sign that many traces share: AREA, BAR, or a trace's mode with
    its line or marker."""
    own = {"name": text, "legendgroup": text, "hoverinfo": "skip", "showlegend": True}
    figure.add_trace(go.Scatter(x=[None], y=[None], **own, **sign))
