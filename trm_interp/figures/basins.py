"""Figure 3 of the seed paper: starts by where they end, as points and as images of a plane."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from trm_interp.figures.bands import explain
from trm_interp.figures.style import GREEN, SYMBOL, styled
from trm_interp.runtime.shapes import Float

UNSOLVED, MARK = "black", GREEN
# of the model's own start, and of where it ends
OWN = {"start": "diamond", "end": "square"}
# of the states that span a plane of starts, by how their names begin
CORNERS = {"own start": OWN["start"], "solved end": "circle", "failed end": "x"}
OTHER_CORNER = "cross"
HALO = ", ".join(f"{x}px {y}px 2px white" for x in (-1, 1) for y in (-1, 1))  # on dark images
DISTANCE = "RMS distance"
HEADING_OF_ENDS = "answer at the end (white: solved, else a colour an answer)"
# from the first step to the last, on white and beside black
SCALE = [[0, "#5c01a6"], [0.25, "#9c179e"], [0.5, "#cc4778"], [0.75, "#ed7953"], [1, "#fdb42f"]]
EDGE = {"line": {"color": "white", "width": 1}}  # of signs on images
ANSWERS = [*qualitative.Set3, *qualitative.Pastel]  # the marks of corners show on all of them


def basin_figure(
    numbers: pd.DataFrame,
    explained: Mapping[int, Float[np.ndarray, "2"]],
    headings: Mapping[int, str],
    steps: int,
    kind: str,
    title: str,
) -> go.Figure:
    """Points in the plane of two principal axes, a panel a puzzle, coloured by the step from which
    the run stays solved; a black cross where it is not solved at the last one. An open diamond
    marks the model's own start, an open square where it ends, with how many other starts end in the
    same state: their points may all lie inside the square.

    numbers: rows of puzzle, start (0: the model's own), radius, solved_from (-1: not), answer,
    state, x, y. `explained`: share of the variance of each axis, by puzzle. `kind`: "start" or
    "end", of which states it is.
    """
    figure = panels(list(headings.values()))
    for panel, puzzle in enumerate(headings):
        rows = numbers.query(f"puzzle == {puzzle}")
        kinds = {"not solved": "solved_from < 0", "solved": "solved_from >= 0"}
        for name, chosen in ((name, rows.query(which)) for name, which in kinds.items()):
            marker = {"size": 5, "opacity": 0.8}
            if name == "solved":
                marker |= {"color": chosen["solved_from"] + 1, "coloraxis": "coloraxis"}
            else:
                marker |= {"color": UNSOLVED, "symbol": SYMBOL["failed"]}
            columns = [chosen[name] for name in ("start", "radius", "answer")]
            add(
                figure,
                panel,
                go.Scatter(
                    x=chosen["x"],
                    y=chosen["y"],
                    mode="markers",
                    marker=marker,
                    customdata=np.column_stack([*columns, chosen["solved_from"] + 1]),
                    hovertemplate="start %{customdata[0]}, radius %{customdata[1]:.2g}<br>"
                    f"{name} (from step %{{customdata[3]}}), answer %{{customdata[2]}}"
                    "<extra></extra>",
                    name=name,
                    showlegend=False,
                ),
            )
        add(figure, panel, _own_mark(rows, kind))
        row, column = place(panel)
        first, second = explained[puzzle]
        figure.update_xaxes(title=f"PC 1 of the {kind}s ({first:.1%})", row=row, col=column)
        figure.update_yaxes(title=f"PC 2 ({second:.1%})", row=row, col=column)
    _explain_outcomes(figure)
    sign = {"symbol": f"{OWN[kind]}-open", "size": 14, "color": MARK, "line": {"width": 2}}
    explain(figure, f"the model's own {kind}", mode="markers", marker=sign)
    what = "Starts" if kind == "start" else "Where runs end"
    caption = (
        f"{what} of {len(headings)} puzzles along two principal axes, {_per_panel(numbers)} a "
        "panel, coloured by the supervision step from which a run stays solved (black crosses: not "
        f"solved). The open {OWN[kind]} marks the model's own {kind}."
    )
    caption += _shared_ends(numbers, headings) if kind == "end" else ""
    return finish(figure, steps, len(headings), title, caption)


def _shared_ends(numbers: pd.DataFrame, headings: Iterable[int]) -> str:
    """How many starts end where the model's own does, in a sentence."""
    pairs = [_others_there(numbers.query(f"puzzle == {puzzle}")) for puzzle in headings]
    shared = ", ".join(f"{others} of {n}" for others, n in pairs)
    return f" Other starts that end in the same state, by puzzle: {shared}."


def _per_panel(numbers: pd.DataFrame) -> str:
    """How many starts a puzzle has."""
    sizes = sorted(set(numbers.groupby("puzzle")["start"].nunique()))
    return f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _explain_outcomes(figure: go.Figure) -> None:
    """Signs of the legend for points."""
    middle = {"size": 7, "color": SCALE[2][1]}
    explain(figure, "solved (colour: from which step)", mode="markers", marker=middle)
    cross = {"size": 7, "color": UNSOLVED, "symbol": SYMBOL["failed"]}
    explain(figure, "not solved", mode="markers", marker=cross)


def slice_figure(
    numbers: pd.DataFrame,
    corners: pd.DataFrame,
    headings: Mapping[int, str],
    steps: int,
    title: str,
) -> go.Figure:
    """Images of a plane of starts, a panel a puzzle; colours as in `basin_figure`.

    numbers: rows of puzzle, x, y (RMS distance from the plane's origin), solved_from, answer, in
    whole squares. corners: puzzle, corner (its name), x, y of the three states that span it.
    """
    figure = panels(list(headings.values()))
    for panel, puzzle in enumerate(headings):
        rows = numbers.query(f"puzzle == {puzzle}")
        steps_from, answer = (_image(rows, name) for name in ("solved_from", "answer"))
        x, y = np.unique(rows["x"]), np.unique(rows["y"])
        failed = np.where(steps_from < 0, 0.0, np.nan)
        black = [[0, UNSOLVED], [1, UNSOLVED]]
        common = {"x": x, "y": y, "customdata": answer}
        answer_line = "<br>answer %{customdata}<extra></extra>"
        add(
            figure,
            panel,
            go.Heatmap(
                z=failed,
                colorscale=black,
                showscale=False,
                **common,
                hovertemplate="unsolved" + answer_line,
            ),
        )
        add(
            figure,
            panel,
            go.Heatmap(
                z=np.where(steps_from < 0, np.nan, steps_from + 1.0),
                coloraxis="coloraxis",
                hovertemplate="solved from step %{z}" + answer_line,
                **common,
            ),
        )
        add(figure, panel, _corner_marks(corners.query(f"puzzle == {puzzle}")))
        square_axes(figure, panel)
    black = {"symbol": "square", "size": 10, "color": UNSOLVED}
    explain(figure, "not solved", mode="markers", marker=black)
    _explain_corners(figure, corners)
    caption = (
        f"Planes of starts of {len(headings)} puzzles through three states (green), coloured by "
        "the supervision step from which a run stays solved; black: not solved. "
        f"{len(numbers) // len(headings)} starts a panel."
    )
    return finish(figure, steps, len(headings), title, caption)


def slice_movie(numbers: pd.DataFrame, corners: pd.DataFrame, steps: int, title: str) -> go.Figure:
    """One plane of starts over the steps (slider): left, how many cells of the answer are wrong
    now; right, where each start ends: white where it is solved, else a colour an answer, the most
    frequent ones first.

    numbers: rows of x, y, solved_from, answer and wrong_0, wrong_1, ... (0: solved) in a whole
    square; corners as in `slice_figure`.
    """
    images = [_image(numbers, f"wrong_{step}") for step in range(steps)]
    figure = make_subplots(
        cols=2, rows=1, subplot_titles=("wrong cells after the step", HEADING_OF_ENDS)
    )
    now, ends = _wrong_now(numbers, images), _answers_at_the_end(numbers)
    for column, trace in enumerate((now, ends), start=1):
        figure.add_trace(trace, row=1, col=column)
    for column in (1, 2):
        figure.add_trace(_corner_marks(corners), row=1, col=column)
        figure.update_xaxes(title=DISTANCE, constrain="domain", row=1, col=column)
        anchor = f"x{column}" if column > 1 else "x"
        figure.update_yaxes(scaleanchor=anchor, constrain="domain", row=1, col=column)
    figure.update_yaxes(title=DISTANCE, row=1, col=1)
    figure.frames = [
        go.Frame(data=[go.Heatmap(z=image)], traces=[0], name=f"step {step + 1}")
        for step, image in enumerate(images)
    ]
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}
    moments = [
        {"label": frame.name, "method": "animate", "args": [[frame.name], jump]}
        for frame in figure.frames
    ]
    _explain_corners(figure, corners)
    figure.update_layout(
        sliders=[{"currentvalue": {"prefix": "after supervision "}, "steps": moments}],
    )
    caption = (
        f"A plane of {len(numbers)} starts of a puzzle through three states (green). Left: cells "
        "that are wrong after a step. Right: where each start ends, white where it is solved, else "
        "a colour an answer."
    )
    return styled(figure, title, caption=caption).update_layout(margin={"b": 110})


def _wrong_now(numbers: pd.DataFrame, images: list[np.ndarray]) -> go.Heatmap:
    """How many cells are wrong after the first step, on a scale for all steps."""
    return go.Heatmap(
        z=images[0],
        x=np.unique(numbers["x"]),
        y=np.unique(numbers["y"]),
        zmin=0,
        zmax=max(1, *(int(image.max()) for image in images)),
        colorscale="Viridis",
        colorbar={"title": "wrong cells", "x": 0.46},
        hovertemplate="%{z} cells wrong<extra></extra>",
    )


def _answers_at_the_end(numbers: pd.DataFrame) -> go.Heatmap:
    """White where the answer is right, else a colour an answer."""
    answer = np.where(_image(numbers, "solved_from") < 0, _image(numbers, "answer"), -1)
    colours = ["white", *ANSWERS]
    n = len(colours)
    return go.Heatmap(
        z=np.clip(answer, -1, len(ANSWERS) - 1),
        x=np.unique(numbers["x"]),
        y=np.unique(numbers["y"]),
        zmin=-1.5,
        zmax=len(ANSWERS) - 0.5,
        colorscale=[[(i + at) / n, colour] for i, colour in enumerate(colours) for at in (0, 1)],
        showscale=False,
        customdata=np.where(answer < 0, "solved", answer.astype(str)),
        hovertemplate="answer: %{customdata}<extra></extra>",
    )


def _image(rows: pd.DataFrame, name: str) -> np.ndarray:
    values = np.asarray(rows.sort_values(["y", "x"])[name])
    return values.reshape(len(np.unique(rows["y"])), -1)


def _own_mark(rows: pd.DataFrame, kind: str) -> go.Scatter:
    """An open sign around the model's own start or its end, so that what lies there is seen."""
    own = rows.query("start == 0")
    text = f"own {kind}"
    if kind == "end":
        others, n = _others_there(rows)
        text = f"own end and {others} of {n} others"
    ring = {"symbol": f"{OWN[kind]}-open", "size": 16, "line": {"width": 2}}
    is_right = own["x"].iloc[0] > (rows["x"].min() + rows["x"].max()) / 2
    mark = _marks(own, [text], [text], ring)
    return mark.update(textposition="top left" if is_right else "top right")


def _others_there(rows: pd.DataFrame) -> tuple[int, int]:
    """How many other starts of a puzzle end in the state that the model's own ends in; and of how
    many."""
    own = rows.query("start == 0")["state"].iloc[0]
    return int((rows["state"] == own).sum()) - 1, len(rows) - 1


def _corner_marks(corners: pd.DataFrame) -> go.Scatter:
    """Signs on an image, where no points can lie under them."""
    names = list(corners["corner"])
    signs = {"symbol": [CORNERS.get(_kind_of(name), OTHER_CORNER) for name in names]}
    return _marks(corners, [_kind_of(name) for name in names], names, signs | EDGE)


def _kind_of(corner: str) -> str:
    """Of the states that span a plane, without its number.

    >>> _kind_of("solved end of start 2")
    'solved end'
    """
    return corner.split(" of ")[0]


def _explain_corners(figure: go.Figure, corners: pd.DataFrame) -> None:
    for kind in dict.fromkeys(map(_kind_of, corners["corner"])):
        sign = {"symbol": CORNERS.get(kind, OTHER_CORNER), "size": 9, "color": MARK, **EDGE}
        explain(figure, kind, mode="markers", marker=sign)


def _marks(
    places: pd.DataFrame, text: list[str], hover: list[str], marker: dict[str, Any]
) -> go.Scatter:
    return go.Scatter(
        x=places["x"],
        y=places["y"],
        mode="markers+text",
        text=text,
        hovertext=hover,
        hoverinfo="text",
        textposition="top center",
        textfont={"color": MARK, "shadow": HALO},
        marker={"size": 9, "color": MARK, **marker},
        showlegend=False,
    )


def panels(headings: list[str]) -> go.Figure:
    columns = min(2, len(headings))
    rows = -(-len(headings) // columns)
    return make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=headings,
        horizontal_spacing=0.12,
        vertical_spacing=0.3 / (rows + 1),
    )


def place(panel: int) -> tuple[int, int]:
    return panel // 2 + 1, panel % 2 + 1


def add(figure: go.Figure, panel: int, trace: go.Scatter | go.Heatmap) -> None:
    row, column = place(panel)
    figure.add_trace(trace, row=row, col=column)


def square_axes(figure: go.Figure, panel: int) -> None:
    row, column = place(panel)
    axis = "x" if panel == 0 else f"x{panel + 1}"
    figure.update_xaxes(title=DISTANCE, constrain="domain", row=row, col=column)
    figure.update_yaxes(scaleanchor=axis, constrain="domain", row=row, col=column)
    if column == 1:
        figure.update_yaxes(title=DISTANCE, row=row, col=column)


def finish(figure: go.Figure, steps: int, panels: int, title: str, caption: str) -> go.Figure:
    figure = styled(figure, title, caption=caption)
    figure.update_layout(
        height=120 + 440 * -(-panels // 2),
        coloraxis={
            "colorscale": SCALE,
            "cmin": 1,
            "cmax": max(steps, 2),
            "colorbar": {
                **{"title": "solved<br>from step", "len": 0.6, "y": 0, "yanchor": "bottom"},
                **{"tick0": 1, "dtick": -(-steps // 8)},
            },
        },
    )
    return figure
