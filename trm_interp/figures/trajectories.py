"""Paths of the latent state, solved and failed puzzles apart."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import where
from trm_interp.figures.style import FAILED, SOLVED, literal, styled
from trm_interp.runtime.shapes import Bool, Float, Int


def trajectory_figure(
    paths: Float[np.ndarray, "puzzle tick pc"],
    explained: Float[np.ndarray, " pc"],
    loss: Float[np.ndarray, "puzzle step"],
    solved: Bool[np.ndarray, "puzzle step"],
    names: list[str],
    steps: Int[np.ndarray, " step"],
    title: str,
) -> go.Figure:
    """Left: z_L at every update, first two components. Right: loss at every step.

    `paths` are displacements from the first update; `explained` is the share of the pooled
    variance on each axis; `loss` in stablemax nats per cell. A dot ends each supervision step, a
    diamond is the last state. A puzzle counts as solved if it is solved at the last step; clicking
    the legend hides either kind.
    """
    figure = make_subplots(
        cols=2,
        rows=1,
        column_widths=[0.62, 0.38],
        subplot_titles=("displacement of z_L from its first update", "loss after each step"),
        horizontal_spacing=0.1,
    )
    n_ticks, n_steps = paths.shape[1], solved.shape[1]
    if n_ticks % n_steps:
        raise ValueError(f"{n_ticks} ticks are not whole steps of {n_steps}: keep all steps")
    per_step = n_ticks // n_steps
    ends = np.arange(per_step - 1, n_ticks, per_step)
    shown: set[bool] = set()
    for i, name in enumerate(names):
        ok = bool(solved[i, -1])
        colour, kind = (SOLVED, "solved") if ok else (FAILED, "failed")
        common = {"legendgroup": kind, "showlegend": False, "opacity": 0.75}
        figure.add_trace(
            go.Scatter(
                x=paths[i, :, 0],
                y=paths[i, :, 1],
                mode="lines",
                line={"color": colour, "width": 1},
                hoverinfo="skip",
                **common | {"opacity": 0.35},
            ),
            row=1,
            col=1,
        )
        state = ["solved" if s else "not solved" for s in solved[i]]
        figure.add_trace(
            go.Scatter(
                x=paths[i, ends, 0],
                y=paths[i, ends, 1],
                mode="markers",
                marker={
                    "color": colour,
                    "size": np.where(np.arange(n_steps) == n_steps - 1, 12, 5),
                    "symbol": ["circle"] * (n_steps - 1) + ["diamond"],
                },
                customdata=np.column_stack([steps + 1, loss[i], state]),
                hovertemplate=f"{literal(name)}<br>step %{{customdata[0]}}: %{{customdata[2]}}"
                "<br>loss %{customdata[1]:.3f}<extra></extra>",
                **common | {"showlegend": ok not in shown},
                name=kind,
            ),
            row=1,
            col=1,
        )
        shown.add(ok)
        figure.add_trace(
            go.Scatter(
                x=steps + 1,
                y=loss[i],
                mode="lines+markers",
                line={"color": colour, "width": 1},
                marker={"size": 4},
                hovertemplate=f"{literal(name)}<br>step %{{x}}: loss %{{y:.3f}}<extra></extra>",
                **common,
            ),
            row=1,
            col=2,
        )
    figure.update_xaxes(title=f"PC 1 ({explained[0]:.0%} of the variance)", row=1, col=1)
    figure.update_yaxes(title=f"PC 2 ({explained[1]:.0%})", row=1, col=1)
    figure.update_xaxes(title="supervision step (from 1)", row=1, col=2)
    figure.update_yaxes(title="stablemax loss, nats per cell", row=1, col=2, rangemode="tozero")
    return styled(figure, title)


def path_figure(
    paths: Float[np.ndarray, "puzzle tick pc"],
    points: pd.DataFrame,
    explained: Float[np.ndarray, " pc"],
    title: str,
    per_step: int,
    dimensions: int = 2,
) -> go.Figure:
    """Every update of the drawn puzzles as lines, the end of each step as a point with its board.

    points: puzzle, line, step, pc1 .., solved, solved_at_end, loss, wrong, board (one line of
    digits), for the puzzles of `paths` in that order. A puzzle counts as solved if it is at the
    last step; the legend hides either kind. `explained`: share of the pool's variance on each axis.
    """
    figure = go.Figure()
    kind_of = go.Scatter3d if dimensions == 3 else go.Scatter
    axes = "xyz"[:dimensions]
    at_end = points.groupby("puzzle", sort=False)["solved_at_end"].first().to_numpy()
    for ok, (kind, colour) in ((True, ("solved", SOLVED)), (False, ("failed", FAILED))):
        rows = where(points, points["solved_at_end"] == ok)
        if not len(rows):
            continue
        last = (rows["step"] == rows["step"].max()).to_numpy()
        gap = np.full((int((at_end == ok).sum()), 1, paths.shape[2]), np.nan)
        broken = np.concatenate([paths[at_end == ok], gap], axis=1).reshape(-1, paths.shape[2])
        name = f"{kind} (n = {len(gap)})"
        figure.add_trace(
            kind_of(
                **{axis: broken[:, i] for i, axis in enumerate(axes)},
                mode="lines",
                line={"color": colour, "width": 1},
                opacity=0.35,
                hoverinfo="skip",
                legendgroup=kind,
                showlegend=False,
            )
        )
        figure.add_trace(
            kind_of(
                **{axis: rows[f"pc{i + 1}"] for i, axis in enumerate(axes)},
                mode="markers",
                marker={
                    "color": colour,
                    "size": np.where(last, 11, 4) * (0.5 if dimensions == 3 else 1.0),
                    "symbol": np.where(last, "diamond", "circle"),
                },
                text=[_hover(row) for row in rows.to_dict("records")],
                hovertemplate="%{text}<extra></extra>",
                legendgroup=kind,
                name=name,
            )
        )
    titles = [f"PC {i + 1} ({explained[i]:.0%} of the variance)" for i in range(dimensions)]
    if dimensions == 3:
        scene = {f"{axis}axis": {"title": titles[i]} for i, axis in enumerate(axes)}
        whole = {"eye": {"x": 1.5, "y": 1.5, "z": 0.9}, "center": {"x": 0, "y": 0, "z": -0.15}}
        figure.update_layout(scene=scene | {"camera": whole})  # with the axes' titles in sight
    else:
        figure.update_xaxes(title=titles[0])
        figure.update_yaxes(title=titles[1])
    figure.update_layout(hoverlabel={"font": {"family": "monospace"}})
    subtitle = f"one point a supervision step ({per_step} updates), a diamond is the last one"
    return styled(figure, title, subtitle)


def umap_figure(points: pd.DataFrame, title: str) -> go.Figure:
    """The steps' states by outcome, at umap1 and umap2; columns as for `path_figure`."""
    figure = go.Figure()
    for ok, (kind, colour) in ((True, ("solved", SOLVED)), (False, ("failed", FAILED))):
        rows = where(points, points["solved_at_end"] == ok)
        if not len(rows):
            continue
        figure.add_trace(
            go.Scatter(
                x=rows["umap1"],
                y=rows["umap2"],
                mode="markers",
                marker={"color": colour, "size": 3 + 5 * rows["step"] / points["step"].max()},
                text=[_hover(row) for row in rows.to_dict("records")],
                hovertemplate="%{text}<extra></extra>",
                name=f"{kind} (n = {rows['puzzle'].nunique()})",
            )
        )
    figure.update_xaxes(title="UMAP 1 (size of a point: its step)")
    figure.update_yaxes(title="UMAP 2")
    figure.update_layout(hoverlabel={"font": {"family": "monospace"}})
    return styled(figure, title)


def _hover(row: dict[str, Any]) -> str:
    """What a point shows: which puzzle and step, and the board of that moment."""
    side = int(len(row["board"]) ** 0.5)
    board = [" ".join(row["board"][i : i + side]) for i in range(0, side * side, side)]
    state = "solved" if row["solved"] else f"{row['wrong']} cells wrong"
    head = f"puzzle of line {row['line']}, step {row['step']}: {state}, loss {row['loss']:.3f}"
    return "<br>".join([head, *board])
