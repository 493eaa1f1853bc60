"""Figures of the page: curves of runs, their paths, the candidates of a cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.analysis.lens import decided, revisions
from trm_interp.explore.runs import Run
from trm_interp.figures.style import (
    BLUE,
    FONT,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    literal,
)
from trm_interp.tasks.base import Task

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY, "#8c6d31")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
PANELS = ("loss, nats per cell", "cells right", "halting logit", "speed, RMS per evaluation")
SHOWN_REVISIONS = 6
EYE = {"x": 1.6, "y": 1.6, "z": 1.1}  # so that titles of axes are inside
SEEN = 0.01  # probability from which a token is a candidate on the figure
MONO = "ui-monospace, Menlo, Consolas, monospace"


def curves(runs: Sequence[Run], reading: str, moment: int, dark: bool) -> go.Figure:
    """Loss, cells right, q_halt and speed at every moment, a line at `moment`.

    The first four shapes are those lines, which the browser moves.
    """
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=PANELS, horizontal_spacing=0.13, vertical_spacing=0.2
    )
    for at, run in enumerate(runs):
        of = run.readings[reading]
        x = np.arange(len(of.loss))
        values = (of.loss, run.right(reading), run.q_halt, np.where(of.speed > 0, of.speed, np.nan))
        for panel, y in enumerate(values):
            line = go.Scattergl if len(x) > 5000 else go.Scatter
            trace = line(
                x=x,
                y=np.round(y, 5),
                mode="lines",
                line={"color": COLOURS[at], "dash": DASHES[at], "width": 1.6, "shape": "hv"},
                name=literal(run.node.name),
                legendgroup=str(at),
                showlegend=panel == 0,
                hovertemplate="%{y:.4g} at %{x}",
            )
            figure.add_trace(trace, row=panel // 2 + 1, col=panel % 2 + 1)
    axes = ["", "2", "3", "4"]
    shapes = [_line(axis, moment, {"color": "#888", "width": 1.5}) for axis in axes]
    for at, run in enumerate(runs):
        if run.node.edit is not None:
            dotted = {"color": COLOURS[at], "width": 1, "dash": "dot"}
            shapes += [_line(axis, run.node.edit.at, dotted) for axis in axes]
    figure.update_layout(shapes=shapes, hovermode="closest")
    figure.update_yaxes(type="log", row=2, col=2)
    figure.update_xaxes(range=[0, len(runs[0].moments) - 1])
    figure.update_annotations(font_size=12)
    if len(runs) > 1:
        figure.update_layout(legend={"orientation": "h", "y": -0.1, "font": {"size": 11}})
    return _dressed(figure, dark, showlegend=len(runs) > 1)


def _line(axis: str, at: int, line: dict[str, Any]) -> dict[str, Any]:
    where = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
    return {"type": "line", "x0": at, "x1": at, **where, "line": line}


def paths(
    runs: Sequence[Run], reading: str, moment: int, dimensions: int, dark: bool, task: Task
) -> go.Figure:
    """Where a state goes along principal axes of the plain run, from its start.

    Two traces a run: its path, whose points show the board, and the dot at `moment`, which the
    browser moves.
    """
    kind, names = (go.Scatter3d, "xyz") if dimensions == 3 else (go.Scatter, "xy")
    figure = go.Figure()
    for at, run in enumerate(runs):
        of = run.readings[reading]
        moved = np.flatnonzero(np.r_[True, (np.diff(of.place, axis=0) != 0).any(1)])
        here = {name: of.place[moved, i] for i, name in enumerate(names)}
        now = {name: [of.place[moment, i]] for i, name in enumerate(names)}
        colour = COLOURS[at]
        figure.add_trace(
            kind(
                **here,
                mode="lines+markers",
                line={"color": colour, "width": 1.5 if dimensions == 2 else 3},
                marker={"size": 3 if dimensions == 2 else 2, "color": colour},
                customdata=moved,
                text=[_board(run, reading, int(m), task) for m in moved],
                hovertemplate="%{text}<extra></extra>",
                name=literal(run.node.name),
            )
        )
        symbol = ("circle", "x", "diamond", "square")[at % 4]
        dot = {"size": 11 if dimensions == 2 else 6, "color": colour, "symbol": symbol}
        dot["line"] = {"width": 1.5, "color": "#ffffff" if dark else "#222222"}
        figure.add_trace(kind(**now, mode="markers", marker=dot, hoverinfo="skip"))
    share = runs[0].axes[reading].explained
    titles = [f"PC {i + 1} ({share[i]:.0%})" for i in range(dimensions)]
    if dimensions == 3:
        axes = {f"{n}axis": {"title": {"text": t}} for n, t in zip("xyz", titles, strict=True)}
        figure.update_layout(scene={**axes, "aspectmode": "cube", "camera": {"eye": EYE}})
    else:
        figure.update_layout(xaxis_title=titles[0], yaxis_title=titles[1])
    return _dressed(figure, dark, showlegend=False)


def _board(run: Run, reading: str, moment: int, task: Task) -> str:
    """The board as lines of a hover label."""
    lines = task.lines(run.readings[reading].tokens[moment])
    text = "<br>".join(literal(line).replace(" ", "&nbsp;") for line in lines)
    return f"{literal(run.node.name)}<br>{run.moments[moment].label}<br>{text}"


def candidates(run: Run, reading: str, cell: int, moment: int, dark: bool, task: Task) -> go.Figure:
    """Probability of each token in a cell at every moment; tokens that never come up are left out.

    The first shape is the line at `moment`.
    """
    probability = run.readings[reading].probability[:, cell].astype(np.float32)
    seen = np.flatnonzero((probability > SEEN).any(0))
    names = [literal(task.tokens[token]) for token in seen]
    figure = go.Figure(
        go.Heatmap(
            z=probability[:, seen].T.round(3),
            y=names,
            zmin=0,
            zmax=1,
            colorscale="Cividis",
            showscale=False,
            hovertemplate="%{y} at %{x}: %{z:.1%}<extra></extra>",
        )
    )
    line = {"color": VERMILLION, "width": 2}
    figure.update_layout(shapes=[_line("", moment, line)])
    figure.update_yaxes(type="category")
    return _dressed(figure, dark, showlegend=False)


def course(run: Run, reading: str, cell: int, task: Task) -> str:
    """When a cell was decided and revised, in words."""
    guesses = run.readings[reading].tokens[:, cell][:, None]
    since, changes = int(decided(guesses)[0]), int(revisions(guesses)[0])
    row, column = divmod(cell, task.grid[1])
    names = task.tokens
    final = names[int(guesses[-1, 0])]
    text = f"row {row + 1}, column {column + 1}: {final} "
    if not changes:
        return text + "from the start on, never revised"
    when = np.flatnonzero(guesses[1:, 0] != guesses[:-1, 0]) + 1
    steps = [f"{names[int(guesses[m - 1, 0])]} → {names[int(guesses[m, 0])]} at {m}" for m in when]
    shown = ", ".join(steps[-SHOWN_REVISIONS:])
    more = "..., " if len(steps) > SHOWN_REVISIONS else ""
    times = "once" if changes == 1 else f"{changes} times"
    return f"{text}since {run.moments[since].label}; revised {times}: {more}{shown}"


def _dressed(figure: go.Figure, dark: bool, showlegend: bool) -> go.Figure:
    figure.update_layout(
        template="plotly_dark" if dark else "plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 40, "r": 8, "t": 22, "b": 30},
        font={"family": FONT, "size": 11},
        hoverlabel={"font": {"family": MONO}},
        showlegend=showlegend,
        uirevision="page",  # zoom and camera stay when runs are added
    )
    return figure
