"""Paths of a state, solved and failed puzzles apart."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import explain, where
from trm_interp.figures.style import COLOUR, SYMBOL, literal, styled
from trm_interp.runtime.limits import counted
from trm_interp.runtime.shapes import Bool, Float, Int

KINDS = {True: "solved", False: "failed"}  # by `solved_at_end`
SMALL, LARGE = 4, 11  # points where a step ends, and where the run does
MONOSPACE = {"font": {"family": "monospace"}}  # of the boards that points show


def trajectory_figure(
    paths: Float[np.ndarray, "puzzle tick pc"],
    explained: Float[np.ndarray, " pc"],
    loss: Float[np.ndarray, "puzzle step"],
    solved: Bool[np.ndarray, "puzzle step"],
    names: list[str],
    steps: Int[np.ndarray, " step"],
    title: str,
    state: str = "the state",
) -> go.Figure:
    """Left: a state at every update, first two components. Right: loss at every step.

    `paths` are displacements of `state` from its first update; `explained` is the share of the
    pooled variance on each axis; `loss` in stablemax nats per cell. A point ends each supervision
    step, the last one is large. A puzzle counts as solved if it is solved at the last step;
    clicking the legend hides either kind.
    """
    n_ticks, n_steps = paths.shape[1], solved.shape[1]
    if n_ticks % n_steps:
        raise ValueError(f"{n_ticks} ticks are not whole steps of {n_steps}: keep all steps")
    figure = make_subplots(
        cols=2,
        rows=1,
        column_widths=[0.62, 0.38],
        subplot_titles=(f"displacement of {state} from its first update", "loss after each step"),
        horizontal_spacing=0.1,
    )
    shown: set[bool] = set()
    for i, name in enumerate(names):
        ok = bool(solved[i, -1])
        path, ends, losses = _run_traces(paths[i], loss[i], solved[i], steps + 1, literal(name))
        ends.showlegend = ok not in shown
        shown.add(ok)
        figure.add_trace(path, row=1, col=1)
        figure.add_trace(ends, row=1, col=1)
        figure.add_trace(losses, row=1, col=2)
    figure.update_xaxes(title=f"PC 1 ({explained[0]:.0%} of the variance)", row=1, col=1)
    figure.update_yaxes(title=f"PC 2 ({explained[1]:.0%})", row=1, col=1)
    figure.update_xaxes(title="supervision step (from 1)", row=1, col=2)
    figure.update_yaxes(title="stablemax loss, nats per cell", row=1, col=2, rangemode="tozero")
    _explain_points(figure, relative=False)
    caption = (
        f"Left: displacement of {state} from its first update along two principal axes of all "
        f"updates, {counted(len(names), 'puzzle')}. Right: the loss after each supervision step."
    )
    return styled(figure, title, caption=caption)


def _run_traces(
    path: np.ndarray, loss: np.ndarray, solved: np.ndarray, steps: np.ndarray, name: str
) -> tuple[go.Scatter, go.Scatter, go.Scatter]:
    """One run of `trajectory_figure`: its path, the ends of its steps, and its losses."""
    n_steps = len(steps)
    kind = KINDS[bool(solved[-1])]
    colour, symbol = COLOUR[kind], SYMBOL[kind]
    common = {"legendgroup": kind, "showlegend": False}
    thin = {"color": colour, "width": 1}
    line = go.Scatter(
        x=path[:, 0],
        y=path[:, 1],
        mode="lines",
        line=thin,
        hoverinfo="skip",
        opacity=0.35,
        **common,
    )
    ends = path[len(path) // n_steps - 1 :: len(path) // n_steps]
    outcome = ["solved" if ok else "not solved" for ok in solved]
    dots = go.Scatter(
        x=ends[:, 0],
        y=ends[:, 1],
        mode="markers",
        marker={
            "color": colour,
            "size": np.where(np.arange(n_steps) == n_steps - 1, LARGE, SMALL),
            "symbol": symbol,
        },
        customdata=np.column_stack([steps, loss, outcome]),
        hovertemplate=f"{name}<br>step %{{customdata[0]}}: %{{customdata[2]}}"
        "<br>loss %{customdata[1]:.3f}<extra></extra>",
        opacity=0.75,
        name=kind,
        **common,
    )
    losses = go.Scatter(
        x=steps,
        y=loss,
        mode="lines+markers",
        line=thin,
        marker={"size": 4, "symbol": symbol},
        hovertemplate=f"{name}<br>step %{{x}}: loss %{{y:.3f}}<extra></extra>",
        opacity=0.75,
        **common,
    )
    return line, dots, losses


def path_figure(
    paths: Float[np.ndarray, "puzzle tick pc"],
    points: pd.DataFrame,
    explained: Float[np.ndarray, " pc"],
    title: str,
    per_step: int,
    dimensions: int = 2,
    columns: int | None = None,
    relative: bool = True,
) -> go.Figure:
    """Every update of the drawn puzzles as lines, the end of each step as a point with its board.

    In two dimensions solved puzzles are on the left and failed ones on the right, on equal axes; in
    three they are in one space.

    points: puzzle, line, step (from 0), pc1 .., solved, solved_at_end, loss, wrong, board (text
    of one line), for the puzzles of `paths` in that order. A puzzle counts as solved if it is at
    the last step; the legend hides either kind. `explained`: share of the pool's variance on each
    axis.
    `columns`: characters of the board in a row of the grid; without them it stays one line.
    `relative`: whether paths begin at 0, the puzzle's first state.
    """
    at_end = points.groupby("puzzle", sort=False)["solved_at_end"].first().to_numpy()
    there = {ok: f"{kind} (n = {(at_end == ok).sum()})" for ok, kind in KINDS.items()}
    there = {ok: name for ok, name in there.items() if (at_end == ok).any()}
    figure = go.Figure()
    if dimensions == 2:
        sides = {"shared_xaxes": "all", "shared_yaxes": "all", "horizontal_spacing": 0.06}
        figure = make_subplots(1, len(there), subplot_titles=list(there.values()), **sides)
    for column, (ok, name) in enumerate(there.items(), start=1):
        rows = where(points, points["solved_at_end"] == ok)
        chosen = paths[at_end == ok]
        gap = np.full((len(chosen), 1, paths.shape[2]), np.nan)
        broken = np.concatenate([chosen, gap], axis=1).reshape(-1, paths.shape[2])
        kind = KINDS[ok]
        line, dots = _kind_traces(broken, rows, kind, dimensions, columns)
        place: dict[str, Any] = {"row": 1, "col": column} if dimensions == 2 else {}
        figure.add_trace(line.update(legendgroup=kind, showlegend=False), **place)
        figure.add_trace(dots.update(legendgroup=kind, name=name, showlegend=False), **place)
        figure.add_trace(_sign_of(kind, name, dimensions), **place)
    titles = [f"PC {i + 1} ({explained[i]:.0%})" for i in range(dimensions)]
    if dimensions == 3:
        scene = {f"{axis}axis": {"title": titles[i]} for i, axis in enumerate("xyz")}
        whole = {"eye": {"x": 1.5, "y": 1.5, "z": 0.9}, "center": {"x": 0, "y": 0, "z": -0.15}}
        figure.update_layout(scene=scene | {"camera": whole})  # with the axes' titles in sight
    else:
        figure.update_xaxes(title=titles[0])
        figure.update_yaxes(title=titles[1], col=1)
        _explain_points(figure, relative)
    figure.update_layout(hoverlabel=MONOSPACE)
    subtitle = f"a point ends a supervision step ({per_step} updates); the last one is large"
    begin = " from the puzzle's first state" if relative else ""
    n_solved, n = int(at_end.sum()), len(at_end)
    caption = (
        f"Paths of {n_solved} puzzles that are solved{_at('left', dimensions)} and {n - n_solved} "
        f"that are not{_at('right', dimensions)}{begin}, along principal axes of all recorded "
        "puzzles and updates (share of their variance). Lines go through every update; a point "
        f"ends a supervision step of {per_step} updates, the large one the run."
    )
    return styled(figure, title, subtitle if dimensions == 3 else "", caption)


def _sign_of(kind: str, name: str, dimensions: int) -> Any:
    """The entry of an outcome in the legend, larger than its points."""
    kind_of, places = (go.Scatter3d, "xyz") if dimensions == 3 else (go.Scatter, "xy")
    return kind_of(
        **{axis: [None] for axis in places},
        mode="lines+markers",
        line={"color": COLOUR[kind], "width": 1},
        marker={"color": COLOUR[kind], "symbol": SYMBOL[kind], "size": 8},
        name=name,
        legendgroup=kind,
    )


def _at(side: str, dimensions: int) -> str:
    return f" ({side})" if dimensions == 2 else ""


def _explain_points(figure: go.Figure, relative: bool) -> None:
    grey = "#777"
    explain(figure, "every update", mode="lines", line={"color": grey, "width": 1})
    ends = {"a supervision step ends (small)": SMALL, "the run ends (large)": LARGE}
    for text, size in ends.items():
        marker = {"color": grey, "size": size}
        explain(figure, text, mode="markers", marker=marker)
    if relative:
        first = {"color": "black", "size": 11, "symbol": "star"}
        for column in range(1, len(figure.layout.annotations) + 1):
            trace = go.Scatter(
                x=[0],
                y=[0],
                mode="markers",
                marker=first,
                name="the first state",
                legendgroup="first",
                showlegend=column == 1,
                hoverinfo="name",
            )
            figure.add_trace(trace, row=1, col=column)


def _kind_traces(
    broken: np.ndarray, rows: pd.DataFrame, kind: str, dimensions: int, columns: int | None
) -> tuple[Any, Any]:
    """All paths of one outcome as a line with gaps, and the ends of their steps."""
    kind_of = go.Scatter3d if dimensions == 3 else go.Scatter
    axes = "xyz"[:dimensions]
    last = (rows["step"] == rows["step"].max()).to_numpy()
    line = kind_of(
        **{axis: broken[:, i] for i, axis in enumerate(axes)},
        mode="lines",
        line={"color": COLOUR[kind], "width": 1},
        opacity=0.35,
        hoverinfo="skip",
    )
    dots = kind_of(
        **{axis: rows[f"pc{i + 1}"] for i, axis in enumerate(axes)},
        mode="markers",
        marker={
            "color": COLOUR[kind],
            "size": np.where(last, LARGE, SMALL) * (0.5 if dimensions == 3 else 1.0),
            "symbol": SYMBOL[kind],
        },
        text=[_hover(row, columns) for row in rows.to_dict("records")],
        hovertemplate="%{text}<extra></extra>",
    )
    return line, dots


def umap_figure(points: pd.DataFrame, title: str, columns: int | None = None) -> go.Figure:
    """The steps' states by outcome, at umap1 and umap2; the rest as for `path_figure`."""
    figure = go.Figure()
    for ok, kind in KINDS.items():
        rows = where(points, points["solved_at_end"] == ok)
        if not len(rows):
            continue
        figure.add_trace(
            go.Scatter(
                x=rows["umap1"],
                y=rows["umap2"],
                mode="markers",
                marker={
                    "color": COLOUR[kind],
                    "symbol": SYMBOL[kind],
                    "size": 3 + 5 * (1 + rows["step"]) / (1 + points["step"].max()),
                },
                text=[_hover(row, columns) for row in rows.to_dict("records")],
                hovertemplate="%{text}<extra></extra>",
                legendgroup=kind,
                name=kind,
                showlegend=False,
            )
        )
        name = f"{kind} (n = {rows['puzzle'].nunique()})"
        figure.add_trace(_sign_of(kind, name, dimensions=2).update(mode="markers"))
    figure.update_xaxes(title="UMAP 1 (size of a point: its step)")
    figure.update_yaxes(title="UMAP 2")
    figure.update_layout(hoverlabel=MONOSPACE)
    caption = (
        f"UMAP of the state of {points['puzzle'].nunique()} puzzles after every supervision step, "
        "by whether a puzzle is solved at the last step; larger points are of later steps."
    )
    return styled(figure, title, caption=caption)


def _hover(row: dict[str, Any], columns: int | None) -> str:
    """What a point shows: which puzzle and step (from 1), and the board of that moment."""
    lines = [row["board"]]
    if columns:
        lines = [" ".join(lines[0][i : i + columns]) for i in range(0, len(lines[0]), columns)]
    state = "solved" if row["solved"] else f"{row['wrong']} cells wrong"
    head = f"puzzle of line {row['line']}, step {row['step'] + 1}: {state}, loss {row['loss']:.3f}"
    return "<br>".join([head, *map(literal, lines)])
