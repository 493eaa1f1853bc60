"""Figures of the page: curves of runs, their paths, the candidates of a cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.analysis.lens import decided, revisions
from trm_interp.explore.around import Around, Ends
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
AROUND = ("where runs end that go on near this state", "a plane through this state, by answer")
# solved, then other answers, the last one for all that are left
KINDS = (GREEN, VERMILLION, BLUE, ORANGE, PURPLE, SKY, "#8c6d31", GREY)
SHOWN_REVISIONS = 6
EYE = {"x": 1.9, "y": 1.9, "z": 1.2}  # so that titles of axes are inside
ROWS_NAMED = 8  # candidates that all have their name
LEGEND = 20  # letters of a name
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
                name=literal(_short(run.node.name)),
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
    figure.update_yaxes(
        type="log", exponentformat="power", dtick=_decades(runs, reading), row=2, col=2
    )
    figure.update_xaxes(range=[0, len(runs[0].moments) - 1])
    done = {"text": "evaluations done", "font": {"size": 11}, "standoff": 2}
    figure.update_xaxes(title=done, row=2)
    figure.update_annotations(font_size=12)
    if len(runs) > 1:
        legend = {"orientation": "h", "y": -0.1, "font": {"size": 10}, "tracegroupgap": 0}
        figure.update_layout(legend=legend | {"entrywidth": 0.32, "entrywidthmode": "fraction"})
    return _dressed(figure, dark, showlegend=len(runs) > 1)


def _decades(runs: Sequence[Run], reading: str) -> int | str:
    """Ticks of a logarithmic axis of speeds: powers of ten alone, where there are several."""
    speeds = np.concatenate([run.readings[reading].speed for run in runs])
    speeds = np.log10(speeds[speeds > 0])
    return 1 if len(speeds) and np.floor(speeds.max()) - np.ceil(speeds.min()) >= 1 else "D2"


def _short(name: str) -> str:
    """For a legend that leaves the figure its room."""
    return name if len(name) <= LEGEND else f"{name[: LEGEND - 1].rstrip()}…"


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
                customdata=moved.tolist(),  # a click gets no typed array
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
        few = {"nticks": 4, "tickfont": {"size": 9}}
        axes = {
            f"{n}axis": {"title": {"text": t}, **few} for n, t in zip("xyz", titles, strict=True)
        }
        figure.update_layout(scene={**axes, "aspectmode": "cube", "camera": {"eye": EYE}})
    else:
        figure.update_layout(xaxis_title=titles[0], yaxis_title=titles[1])
    return _dressed(figure, dark, showlegend=False)


def _board(run: Run, reading: str, moment: int, task: Task) -> str:
    """The board as lines of a hover label."""
    text = _lines(run.readings[reading].tokens[moment], task)
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
    every = {"dtick": 1, "tickfont": {"size": 9}} if len(seen) <= ROWS_NAMED else {}
    figure.update_yaxes(type="category", **every)
    return _dressed(figure, dark, showlegend=False)


def feature_course(
    runs: Sequence[Run],
    courses: Sequence[np.ndarray],
    cell: int | None,
    moment: int,
    dark: bool,
    task: Task,
) -> go.Figure:
    """Activation of a feature [moment, cell] over a run, of each: in the chosen cell, and the mean
    over the board (thin). The first shape is the line at `moment`."""
    figure = go.Figure()
    for at, (run, values) in enumerate(zip(runs, courses, strict=True)):
        means = {"mean of the board": values.mean(1)}
        lines = means if cell is None else {"the chosen cell": values[:, cell]} | means
        for name, y in lines.items():
            width = 2 if name == "the chosen cell" else 1
            figure.add_trace(
                go.Scatter(
                    x=np.arange(len(y)),
                    y=np.round(y, 4),
                    mode="lines",
                    line={"color": COLOURS[at], "dash": DASHES[at], "width": width, "shape": "hv"},
                    name=f"{literal(run.node.name)}, {name}",
                    hovertemplate="%{y:.3g} at %{x}",
                )
            )
    figure.update_layout(shapes=[_line("", moment, {"color": "#888", "width": 1.5})])
    figure.update_yaxes(title="activation", rangemode="tozero")
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


def around(run: Run, asked: Around, ends: Ends, dark: bool, task: Task) -> go.Figure:
    """Where runs end that go on near a state: places along the axes of the path, and an image of a
    plane through the state. A circle is solved, a cross is not; a colour is an answer, and all that
    is solved has the first one."""
    figure = make_subplots(rows=2, cols=1, subplot_titles=AROUND, vertical_spacing=0.16)
    kinds, names = _kinds(ends)
    random = np.isnan(ends.where).any(1)
    for kind, name in enumerate(names):
        chosen = np.flatnonzero(random & (kinds == kind))
        if (kinds == kind).any():  # in the legend also where it is in the plane alone
            marker = {"symbol": "circle" if name == "solved" else "x", "size": 8}
            figure.add_trace(
                go.Scatter(
                    x=ends.place[chosen, 0] if len(chosen) else [None],
                    y=ends.place[chosen, 1] if len(chosen) else [None],
                    mode="markers",
                    marker=marker | {"color": KINDS[kind], "line": {"width": 0.5}},
                    name=f"{name} ({len(chosen)})",
                    text=[_lines(ends.answer[i], task) for i in chosen],
                    hovertemplate="%{text}<extra></extra>",
                ),
                row=1,
                col=1,
            )
    place = run.answer.place
    for at, (name, symbol) in ((asked.at, ("this state", "diamond")), (-1, ("its end", "square"))):
        mark = {"symbol": f"{symbol}-open", "size": 13, "color": "#888", "line": {"width": 2}}
        x, y = ([place[at, i]] for i in (0, 1))
        figure.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=mark, name=name), 1, 1)
    if asked.side:
        _add_plane(figure, asked, ends.where[~random], kinds[~random], names)
    figure.update_layout(legend={"orientation": "h", "y": -0.17, "font": {"size": 11}})
    figure.update_annotations(font_size=12)
    return _dressed(figure, dark, showlegend=True)


def _kinds(ends: Ends) -> tuple[np.ndarray, list[str]]:
    """[run]: 0 for solved, then the other answers from the most frequent on; and their names."""
    failed = [g for g in np.unique(ends.group) if not ends.solved[ends.group == g].any()]
    number = {g: min(at + 1, len(KINDS) - 1) for at, g in enumerate(failed)}
    kinds = np.array([number.get(g, 0) for g in ends.group.tolist()])
    others = [f"answer {i}" for i in range(1, len(KINDS) - 1)]
    return kinds, ["solved", *others, "other answers"]


def _add_plane(
    figure: go.Figure, asked: Around, where: np.ndarray, kinds: np.ndarray, names: list[str]
) -> None:
    """The image of the plane; what is not computed yet is empty."""
    reach = 2 * asked.radius
    axis = np.linspace(-reach, reach, asked.side)
    image = np.full((asked.side, asked.side), np.nan)
    column, row = (
        np.rint((w + reach) / (2 * reach) * (asked.side - 1)).astype(int) for w in where.T
    )
    image[row, column] = kinds
    text = np.full(image.shape, "", object)
    text[row, column] = [names[kind] for kind in kinds]
    n = len(KINDS)
    scale = [[(i + part) / n, colour] for i, colour in enumerate(KINDS) for part in (0, 1)]
    figure.add_trace(
        go.Heatmap(
            z=image,
            x=axis,
            y=axis,
            zmin=-0.5,
            zmax=n - 0.5,
            colorscale=scale,
            showscale=False,
            text=text,
            hovertemplate="%{text} at (%{x:.2f}, %{y:.2f})<extra></extra>",
        ),
        row=2,
        col=1,
    )
    mark = {"symbol": "diamond-open", "size": 13, "color": "#222", "line": {"width": 2}}
    figure.add_trace(
        go.Scatter(x=[0], y=[0], mode="markers", marker=mark, showlegend=False, hoverinfo="skip"),
        row=2,
        col=1,
    )
    title = {"text": "toward the end of the run, RMS", "font": {"size": 11}, "standoff": 2}
    figure.update_xaxes(title=title, row=2, col=1)


def _lines(tokens: np.ndarray, task: Task) -> str:
    """A board as lines of a hover label."""
    return "<br>".join(literal(line).replace(" ", "&nbsp;") for line in task.lines(tokens))


def _dressed(figure: go.Figure, dark: bool, showlegend: bool) -> go.Figure:
    figure.update_layout(
        template="plotly_dark" if dark else "plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 40, "r": 8, "t": 22, "b": 30},
        font={"family": FONT, "size": 11},
        hoverlabel={"font": {"family": MONO}},
        # its own background would be half black on paper that is transparent
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#999", "activecolor": "#1f77b4"},
        showlegend=showlegend,
        uirevision="page",  # zoom and camera stay when runs are added
    )
    return figure
