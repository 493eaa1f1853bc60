"""Figure 3 of the seed paper: runs of a puzzle from many starts, on their way."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from trm_interp.figures.bands import explain, groups, where
from trm_interp.figures.basins import MARK, OWN, SCALE, UNSOLVED, add, finish, panels, place
from trm_interp.figures.style import SYMBOL
from trm_interp.runtime.shapes import Float

START = {"symbol": "circle-open", "size": 4, "color": "#888"}
SIZE = 6  # of the ends


def start_path_figure(
    paths: pd.DataFrame,
    explained: Mapping[int, Float[np.ndarray, "2"]],
    headings: Mapping[int, str],
    title: str,
    state: str = "the state",
) -> go.Figure:
    """Paths in the plane of two principal axes, a panel a puzzle: coloured by the step from which a
    run stays solved, black where it is not solved at the last one. The model's own start and where
    it ends have signs of their own.

    paths: rows of puzzle, start (0: the model's own), step (0: before the first), x, y, solved_from
    (-1: not solved). `explained`: share of the variance of each axis, by puzzle.
    """
    figure = panels(list(headings.values()))
    latest = int(paths["solved_from"].to_numpy().max(initial=0)) + 1
    for panel, puzzle in enumerate(headings):
        mine = where(paths, paths["puzzle"] == puzzle)
        for (since,), rows in groups(mine.sort_values("solved_from"), "solved_from"):
            colour = UNSOLVED if since < 0 else colour_of(int(since) + 1, latest)
            for trace in _traces(rows, colour, since < 0):
                add(figure, panel, trace)
        for trace in _own(where(mine, mine["start"] == 0)):
            add(figure, panel, trace)
        row, column = place(panel)
        first, second = explained[puzzle]
        figure.update_xaxes(title=f"PC 1 ({first:.0%})", row=row, col=column)
        figure.update_yaxes(title=f"PC 2 ({second:.0%})", row=row, col=column)
    _explain(figure)
    n = paths.groupby("puzzle")["start"].nunique().max() - 1 if len(paths) else 0
    caption = (
        f"Runs of {len(headings)} puzzles from {n} random starts and the model's own each: {state} "
        "before the first supervision step and after every one, along two principal axes of the "
        "states after the steps (share of their variance). Colour: the step from which a run stays "
        "solved; black: not solved. Open circles: starts; dots and crosses: ends of solved and "
        "unsolved runs; diamond and square: start and end of the model's own run."
    )
    return finish(figure, latest, len(headings), title, caption)


def colour_of(step: int, latest: int) -> str:
    """Of runs that stay solved from a step (from 1) on, where the last such step is `latest`.

    >>> colour_of(1, 16), colour_of(16, 16)
    ('rgb(92, 1, 166)', 'rgb(253, 180, 47)')
    """
    return str(sample_colorscale(SCALE, [(step - 1) / max(latest - 1, 1)])[0])


def _traces(rows: pd.DataFrame, colour: str, failed: bool) -> list[go.Scatter]:
    """Runs of one outcome: their lines, as one trace with gaps, their starts and their ends."""
    n = len(np.unique(rows["steps_done"].to_numpy()))
    at = rows.sort_values(["start", "steps_done"])[["x", "y"]].to_numpy().reshape(-1, n, 2)
    gaps = np.full((len(at), 1, 2), np.nan)
    broken = np.concatenate([at, gaps], axis=1).reshape(-1, 2)
    common: dict[str, Any] = {"showlegend": False, "hoverinfo": "skip"}
    line = {"color": colour, "width": 1}
    end = {"color": colour, "size": SIZE, "symbol": SYMBOL["failed" if failed else "solved"]}
    dots = {"mode": "markers", **common}
    return [
        go.Scatter(x=broken[:, 0], y=broken[:, 1], mode="lines", line=line, opacity=0.75, **common),
        go.Scatter(x=at[:, 0, 0], y=at[:, 0, 1], marker=START, **dots),
        go.Scatter(x=at[:, -1, 0], y=at[:, -1, 1], marker=end, **dots),
    ]


def _own(rows: pd.DataFrame) -> list[go.Scatter]:
    """Start and end of the model's own run."""
    ends = {"start": rows.iloc[[0]], "end": rows.iloc[[-1]]}
    return [
        go.Scatter(
            x=row["x"],
            y=row["y"],
            mode="markers",
            marker=own_sign(kind),
            name=f"the model's own {kind}",
            hoverinfo="name",
            showlegend=False,
        )
        for kind, row in ends.items()
    ]


def own_sign(kind: str) -> dict[str, Any]:
    """The model's own start or end, with a white edge."""
    return {"symbol": OWN[kind], "size": 12, "color": MARK, "line": {"color": "white", "width": 1}}


def _explain(figure: go.Figure) -> None:
    """The legend, and a point that no one sees for the scale of colours."""
    middle = SCALE[2][1]
    end = {"size": SIZE, "color": middle}
    line = {"color": middle, "width": 1}
    solved = "solved (colour: from which step), with its end"
    explain(figure, solved, mode="lines+markers", line=line, marker=end)
    cross = {"size": SIZE, "color": UNSOLVED, "symbol": SYMBOL["failed"]}
    black = {"color": UNSOLVED, "width": 1}
    explain(figure, "not solved, with its end", mode="lines+markers", line=black, marker=cross)
    explain(figure, "a start", mode="markers", marker=START)
    for kind in OWN:
        explain(figure, f"the model's own {kind}", mode="markers", marker=own_sign(kind))
    scale = {"color": [1], "coloraxis": "coloraxis", "opacity": 0}
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=scale, showlegend=False))
