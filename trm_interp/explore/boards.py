"""Boards as figures: what the page shows of runs at a moment, to take away."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.explore.layers import Layer, effect_layer, feature_layer, probe_layer
from trm_interp.explore.runs import CHANGED, CONFLICT, GIVEN, WRONG, Run
from trm_interp.explore.session import Session
from trm_interp.figures.style import BLUE, FONT, ORANGE, PURPLE, VERMILLION, literal

COLUMNS = 4  # boards side by side
SIDE = 260  # pixels of a board
BOARD, GIVEN_SHADE, INK = "#ffffff", "#e4e4e0", "#1c1c1c"
MARKS = {  # what is said of a cell: where its mark stands, the mark
    "just changed": (CHANGED, 0.36, -0.36, {"symbol": "circle", "size": 5, "color": INK}),
    "wrong": (WRONG, -0.34, 0.34, {"symbol": "x", "size": 7, "color": VERMILLION}),
    "breaks a rule": (
        CONFLICT,
        0.0,
        0.0,
        {"symbol": "square-open", "color": VERMILLION, "line": {"width": 1.5}},
    ),
}


def layer_of(
    session: Session,
    runs: Sequence[Run],
    name: str,
    state: str,
    fact: str = "wrong",
    feature: int | None = None,
) -> Layer | None:
    """A heat layer by its name on the page; None for none. UserError where it cannot be shown."""
    if name == "none":
        return None
    if name == "probe":
        return probe_layer(session, runs, state, fact)
    if name == "effect":
        return effect_layer(session, runs, state)
    if name == "feature":
        return feature_layer(session, runs, feature)
    return Layer([getattr(run.readings[state], name) for run in runs], f"{name} of {state}")


def boards_figure(
    session: Session, runs: Sequence[Run], moment: int, state: str, layer: Layer | None = None
) -> go.Figure:
    """The board of every run at a moment, as the output head reads it from a state.

    Givens are shaded and bold; marks of `MARKS` and a triangle where a fork differs from the plain
    run; heat is blue, orange below 0, in full colour at its largest over all moments.
    """
    rows, columns = session.task.grid
    wide = min(len(runs), COLUMNS)
    high = -(-len(runs) // wide)
    figure = make_subplots(
        rows=high,
        cols=wide,
        subplot_titles=[_title(run, state, moment) for run in runs],
        horizontal_spacing=0.03,
        vertical_spacing=0.12,
    )
    most = max((float(np.abs(heat).max()) for heat in layer.heat), default=0) if layer else 0
    plain = runs[0].readings[state].tokens[moment]
    for at, run in enumerate(runs):
        heat = None if layer is None else layer.heat[at][moment] / max(most, 1e-12)
        place: Any = {"row": at // wide + 1, "col": at % wide + 1}
        differs = run.readings[state].tokens[moment] != plain
        for trace in _traces(session, run, moment, state, heat, differs, first=at == 0):
            figure.add_trace(trace, **place)
        _dress(figure, session, place)
    words = "" if layer is None else f"<br>heat: {layer.words}; full colour {most:.3g}"
    figure.update_layout(
        template="plotly_white",
        title={"text": literal(runs[0].moments[moment].label) + words, "font": {"size": 13}},
        width=wide * SIDE + 60,
        height=high * SIDE * rows // columns + 40 * high + 130,
        margin={"l": 20, "r": 20, "t": 90, "b": 40},
        font={"family": FONT},
        legend={"orientation": "h", "y": -0.02, "font": {"size": 11}},
    )
    figure.update_annotations(font_size=12)
    return figure


def _title(run: Run, state: str, moment: int) -> str:
    right, of = int(run.right(state)[moment]), int((run.labels[moment] != 0).sum())
    return f"{literal(run.node.name)}: {'solved' if right == of else f'{right} of {of} right'}"


def _traces(
    session: Session,
    run: Run,
    moment: int,
    state: str,
    heat: np.ndarray | None,
    differs: np.ndarray,
    first: bool,
) -> list[Any]:
    """Cells, what stands in them, and their marks."""
    task, tokens = session.task, run.readings[state].tokens[moment]
    flags = run.flags(state, task)[moment]
    y, x = np.divmod(np.arange(task.cells), task.grid[1])
    glyphs = task.glyphs(tokens)
    plain = [literal(glyph) for glyph in glyphs]
    given = flags & GIVEN > 0
    bold = [f"<b>{g}</b>" if is_given else g for g, is_given in zip(plain, given, strict=True)]
    values = np.where(flags & GIVEN, 1.0, 0.0) if heat is None else heat
    shades = [[0, BOARD], [1, GIVEN_SHADE]]
    if heat is not None:
        shades = [[0, ORANGE], [0.5, BOARD], [1, BLUE]]
    cells = go.Heatmap(
        z=values.reshape(task.grid),
        zmin=0 if heat is None else -1,
        zmax=1,
        colorscale=shades,
        showscale=False,
        xgap=1,
        ygap=1,
        hoverinfo="skip",
    )
    ink = [INK if heat is None or abs(v) < 0.7 else BOARD for v in values]
    text = {"size": max(9, 150 // max(task.grid)), "color": ink}
    traces: list[Any] = [cells]
    traces.append(go.Scatter(x=x, y=y, text=bold, mode="text", textfont=text, showlegend=False))
    marks: dict[str, Any] = {name: (flags & flag > 0, *of) for name, (flag, *of) in MARKS.items()}
    corner = {"symbol": "triangle-nw", "size": 9, "color": PURPLE}
    marks["differs from the plain run"] = (differs, -0.38, -0.38, corner)
    for name, (where, right, down, marker) in marks.items():
        marker = {"size": 170 // max(task.grid), **marker}
        at = np.flatnonzero(where)
        traces.append(
            go.Scatter(
                x=x[at] + right,
                y=y[at] + down,
                mode="markers",
                marker=marker,
                name=name,
                legendgroup=name,
                showlegend=first,
                hoverinfo="skip",
            )
        )
    return traces


def _dress(figure: go.Figure, session: Session, place: Any) -> None:
    """Square cells, the first row above, heavy lines."""
    rows, columns = session.task.grid
    hidden: dict[str, Any] = {"showticklabels": False, "showgrid": False, "zeroline": False}
    figure.update_xaxes(range=[-0.5, columns - 0.5], constrain="domain", **hidden, **place)
    figure.update_yaxes(range=[rows - 0.5, -0.5], scaleratio=1, **hidden, **place)
    axis = next(figure.select_yaxes(**place))
    axis.scaleanchor = axis.plotly_name.replace("yaxis", "x")
    heavy = session.task.rulings()
    line = {"color": "#333", "width": 2}
    for y in [0, *heavy[0], rows]:
        ends = {"x0": -0.5, "x1": columns - 0.5, "y0": y - 0.5, "y1": y - 0.5}
        figure.add_shape(type="line", line=line, **ends, **place)
    for x in [0, *heavy[1], columns]:
        ends = {"x0": x - 0.5, "x1": x - 0.5, "y0": -0.5, "y1": rows - 0.5}
        figure.add_shape(type="line", line=line, **ends, **place)
