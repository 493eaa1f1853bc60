"""One puzzle, cycle by cycle: the board, the loss and the place in PC space, under one slider."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.style import FAILED, SOLVED, styled
from trm_interp.runtime.shapes import Bool, Float, Int

GIVEN, RIGHT, WRONG, CLASH = 0, 1, 2, 3  # kinds of cells
KINDS = ("given", "right", "wrong", "wrong, and breaks a rule")
SHADES = ["#e6e6e6", "#cfe3f3", "#f7d4d4", "#e57373"]
RULING = {"color": "#555", "width": 2}
AT_ONCE = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}
CHANGING = [0, 2, 4, 5]  # the traces that a frame replaces


def cell_kinds(
    right: Bool[np.ndarray, "*moment cell"],
    given: Bool[np.ndarray, " cell"],
    broken: Bool[np.ndarray, "*moment cell"],
) -> Int[np.ndarray, "*moment cell"]:
    """Of every cell: a given, a right or a wrong guess, or a wrong one that also breaks a rule.

    >>> right, given = np.array([True, True, False, False]), np.array([True, False, False, False])
    >>> cell_kinds(right, given, np.array([True, True, True, False])).tolist()
    [0, 1, 3, 2]
    """
    kinds = np.where(right, RIGHT, np.where(broken, CLASH, WRONG))
    return np.where(given & right, GIVEN, kinds)


def scrub_figure(
    glyphs: np.ndarray,
    kinds: Int[np.ndarray, "cycle cell"],
    grid: tuple[int, int],
    rulings: tuple[list[int], list[int]],
    loss: Float[np.ndarray, " cycle"],
    path: Float[np.ndarray, "tick pc"],
    explained: Float[np.ndarray, " pc"],
    title: str,
) -> go.Figure:
    """Board, loss and path of one puzzle; the slider and the buttons go through the H-cycles.

    glyphs: strings [cycle, cell] that stand in the cells; kinds: what the cells are (`cell_kinds`):
    grey is given, blue right, pale red wrong, red wrong and against the rules. grid: rows and
    columns of the board; rulings: those before which a heavy line is drawn. loss: stablemax nats
    per cell after every H-cycle. path: every update of a state in PC space, a whole number of
    updates a cycle.
    """
    cycles = len(kinds)
    if len(path) % cycles:
        raise ValueError(f"{len(path)} updates are not whole cycles of {cycles}")
    boards = [_board(*one, grid) for one in zip(glyphs, kinds, strict=True)]
    done = np.all(kinds <= RIGHT, axis=1)
    moments = [[boards[at], *_places(at, done[at], loss, path)] for at in range(cycles)]
    figure = make_subplots(
        rows=1,
        cols=3,
        column_widths=[0.34, 0.3, 0.36],
        horizontal_spacing=0.09,
        subplot_titles=("board", "loss, nats per cell", "place in PC space"),
    )
    thin = {"mode": "lines", "line": {"color": "#bbb", "width": 1}, "hoverinfo": "skip"}
    thin["showlegend"] = False
    board, loss_dot, so_far, here = moments[0]
    figure.add_trace(board, row=1, col=1)
    figure.add_trace(go.Scatter(x=np.arange(1, cycles + 1), y=loss, **thin), row=1, col=2)
    figure.add_trace(loss_dot, row=1, col=2)
    figure.add_trace(go.Scatter(x=path[:, 0], y=path[:, 1], **thin), row=1, col=3)
    figure.add_trace(so_far, row=1, col=3)
    figure.add_trace(here, row=1, col=3)
    _add_legend(figure)
    _dress_places(figure, explained)
    names = [str(at) for at in range(1, cycles + 1)]
    figure.frames = [
        go.Frame(data=moment, traces=CHANGING, name=name)
        for name, moment in zip(names, moments, strict=True)
    ]
    _add_controls(figure, names)
    _dress_board(figure, grid, rulings)
    caption = (
        "One puzzle. Left: its board (grey: given; blue: right; pale red: wrong; red: wrong and "
        "against the rules). Middle: loss after every H-cycle. Right: its state along two "
        "principal axes (share of the variance)."
    )
    lowest = {"orientation": "h", "x": 0, "y": 0.01, "yref": "container", "yanchor": "bottom"}
    lowest |= {"itemclick": False, "itemdoubleclick": False}
    return styled(figure, title, caption=caption).update_layout(legend=lowest, margin={"b": 190})


def _board(glyphs: np.ndarray, kinds: np.ndarray, grid: tuple[int, int]) -> go.Heatmap:
    last = len(SHADES) - 1
    return go.Heatmap(
        z=kinds.reshape(grid),
        text=glyphs.reshape(grid),
        texttemplate="%{text}",
        zmin=0,
        zmax=last,
        colorscale=[[i / last, shade] for i, shade in enumerate(SHADES)],
        showscale=False,
        xgap=1,
        ygap=1,
        hoverinfo="skip",
    )


def _places(at: int, done: bool, loss: np.ndarray, path: np.ndarray) -> list[go.Scatter]:
    """After cycle `at` (from 0): the dot on the loss, the path so far, and the dot at its end."""
    end = (at + 1) * (len(path) // len(loss))
    dot: dict[str, Any] = {"mode": "markers", "showlegend": False}
    dot["marker"] = {"color": SOLVED if done else FAILED, "size": 11}
    x, y = path[:end, 0], path[:end, 1]
    return [
        go.Scatter(x=[at + 1], y=[loss[at]], **dot),
        go.Scatter(x=x, y=y, mode="lines", line={"color": "#555"}, showlegend=False),
        go.Scatter(x=x[-1:], y=y[-1:], **dot),
    ]


def _add_legend(figure: go.Figure) -> None:
    """What the shades of cells and the colours of dots mean, below the board."""
    of_cells = [(name, shade, "square") for name, shade in zip(KINDS, SHADES, strict=True)]
    of_dots = [("not solved yet", FAILED, "circle"), ("solved", SOLVED, "circle")]
    for name, colour, symbol in [*of_cells, *of_dots]:
        marker = {"color": colour, "symbol": symbol, "size": 14 if symbol == "square" else 11}
        marker |= {"line": {"color": "#888", "width": 1}} if symbol == "square" else {}
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name), row=1, col=2
        )


def _add_controls(figure: go.Figure, frames: list[str]) -> None:
    """A slider over the frames, and buttons that play and pause."""
    jumps = [{"label": name, "method": "animate", "args": [[name], AT_ONCE]} for name in frames]
    play = [None, {"frame": {"duration": 250}, "fromcurrent": True}]
    buttons = [
        {"label": "play", "method": "animate", "args": play},
        {"label": "pause", "method": "animate", "args": [[None], AT_ONCE]},
    ]
    below: dict[str, Any] = {"y": -0.12, "yanchor": "top", "xanchor": "left"}
    place = below | {"type": "buttons", "direction": "left", "x": 0, "pad": {"t": 34}}
    slider = below | {"x": 0.19, "len": 0.81, "pad": {"t": 20}, "steps": jumps}
    figure.update_layout(
        sliders=[slider | {"currentvalue": {"prefix": "H-cycle "}}],
        updatemenus=[{**place, "buttons": buttons}],
    )


def _dress_places(figure: go.Figure, explained: Float[np.ndarray, " pc"]) -> None:
    """Axes of the loss and of the path."""
    figure.update_xaxes(title="H-cycle (from 1)", row=1, col=2)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    figure.update_xaxes(title=f"PC 1 ({explained[0]:.0%})", row=1, col=3)
    figure.update_yaxes(title=f"PC 2 ({explained[1]:.0%})", row=1, col=3)


def _dress_board(
    figure: go.Figure, grid: tuple[int, int], rulings: tuple[list[int], list[int]]
) -> None:
    """A square board, its first row on top, with its heavy lines."""
    plain: dict[str, Any] = {"showticklabels": False, "showgrid": False, "zeroline": False}
    plain |= {"constrain": "domain", "constraintoward": "top"}  # no room beside the cells
    figure.update_xaxes(**plain, row=1, col=1)
    figure.update_xaxes(constraintoward="left", row=1, col=1)
    figure.update_yaxes(**plain, autorange="reversed", scaleanchor="x", scaleratio=1, row=1, col=1)
    rows, columns = rulings
    for row in rows:
        at = {"x0": -0.5, "x1": grid[1] - 0.5, "y0": row - 0.5, "y1": row - 0.5}
        figure.add_shape(type="line", **at, line=RULING, row=1, col=1)
    for column in columns:
        at = {"x0": column - 0.5, "x1": column - 0.5, "y0": -0.5, "y1": grid[0] - 0.5}
        figure.add_shape(type="line", **at, line=RULING, row=1, col=1)
