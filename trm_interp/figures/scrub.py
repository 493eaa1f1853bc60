"""One puzzle, cycle by cycle: the board, the loss and the place in PC space, under one slider."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.style import FAILED, SOLVED, styled
from trm_interp.runtime.shapes import Float, Int
from trm_interp.tasks.sudoku.grid import conflicts, from_tokens, shape_of

GIVEN, RIGHT, WRONG, CLASH = 0, 1, 2, 3  # what a cell of the board is
SHADES = ["#e6e6e6", "#cfe3f3", "#f7d4d4", "#e57373"]


def cell_kinds(
    board: Int[np.ndarray, " cell"],
    inputs: Int[np.ndarray, " cell"],
    labels: Int[np.ndarray, " cell"],
) -> Int[np.ndarray, " cell"]:
    """Of tokens: a given, a right or a wrong guess, or a wrong one that also breaks a rule."""
    wrong = board != labels
    clash = conflicts(from_tokens(board)) & wrong
    kinds = np.where(wrong, np.where(clash, CLASH, WRONG), RIGHT)
    return np.where((inputs > 1) & ~wrong, GIVEN, kinds)


def scrub_figure(
    boards: Int[np.ndarray, "cycle cell"],
    inputs: Int[np.ndarray, " cell"],
    labels: Int[np.ndarray, " cell"],
    loss: Float[np.ndarray, " cycle"],
    path: Float[np.ndarray, "tick pc"],
    explained: Float[np.ndarray, " pc"],
    title: str,
) -> go.Figure:
    """Board, loss and path of one puzzle; the slider and the buttons go through the H-cycles.

    boards, inputs, labels: tokens. loss: stablemax nats per cell after every H-cycle. path: every
    update of a state in PC space, a whole number of updates a cycle. On the board: grey is given,
    blue right, pale red wrong, red wrong and against the rules.
    """
    cycles = len(boards)
    if len(path) % cycles:
        raise ValueError(f"{len(path)} updates are not whole cycles of {cycles}")
    per_cycle = len(path) // cycles
    side = shape_of(len(inputs)).side
    figure = make_subplots(
        rows=1,
        cols=3,
        column_widths=[0.34, 0.3, 0.36],
        subplot_titles=("board", "loss, nats per cell", "place in PC space"),
    )
    cycle = np.arange(1, cycles + 1)
    thin = {"mode": "lines", "line": {"color": "#bbb", "width": 1}, "hoverinfo": "skip"}
    dot = {"mode": "markers", "marker": {"color": SOLVED, "size": 11}}

    def moment(at: int) -> list[go.Heatmap | go.Scatter]:
        """What changes from cycle to cycle."""
        kinds = cell_kinds(boards[at], inputs, labels).reshape(side, side)
        digits = from_tokens(boards[at]).reshape(side, side).astype(str)
        done = bool((boards[at] == labels).all())
        marker = {"color": SOLVED if done else FAILED, "size": 11}
        here = path[(at + 1) * per_cycle - 1]
        so_far = path[: (at + 1) * per_cycle]
        return [
            go.Heatmap(
                z=kinds,
                text=digits,
                texttemplate="%{text}",
                zmin=0,
                zmax=len(SHADES) - 1,
                colorscale=[[i / (len(SHADES) - 1), shade] for i, shade in enumerate(SHADES)],
                showscale=False,
                xgap=1,
                ygap=1,
                hoverinfo="skip",
            ),
            go.Scatter(x=[cycle[at]], y=[loss[at]], **dot | {"marker": marker}),
            go.Scatter(x=so_far[:, 0], y=so_far[:, 1], mode="lines", line={"color": "#555"}),
            go.Scatter(x=here[:1], y=here[1:2], **dot | {"marker": marker}),
        ]

    board, loss_dot, so_far, here = moment(0)
    figure.add_trace(board, row=1, col=1)
    figure.add_trace(go.Scatter(x=cycle, y=loss, **thin), row=1, col=2)
    figure.add_trace(loss_dot, row=1, col=2)
    figure.add_trace(go.Scatter(x=path[:, 0], y=path[:, 1], **thin), row=1, col=3)
    figure.add_trace(so_far, row=1, col=3)
    figure.add_trace(here, row=1, col=3)
    changing = [0, 2, 4, 5]
    figure.frames = [
        go.Frame(data=moment(at), traces=changing, name=str(at + 1)) for at in range(cycles)
    ]
    quick = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate"}
    figure.update_layout(
        showlegend=False,
        sliders=[
            {
                "currentvalue": {"prefix": "H-cycle "},
                "pad": {"t": 45},
                "steps": [
                    {"label": str(at), "method": "animate", "args": [[str(at)], quick]}
                    for at in cycle
                ],
            }
        ],
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "x": 0,
                "y": -0.28,
                "buttons": [
                    {
                        "label": "play",
                        "method": "animate",
                        "args": [None, {"frame": {"duration": 250}, "fromcurrent": True}],
                    },
                    {"label": "pause", "method": "animate", "args": [[None], quick]},
                ],
            }
        ],
    )
    square = {"showticklabels": False, "showgrid": False, "zeroline": False}
    figure.update_xaxes(**square, row=1, col=1)
    figure.update_yaxes(**square, autorange="reversed", scaleanchor="x", scaleratio=1, row=1, col=1)
    figure.update_xaxes(title="H-cycle (from 1)", row=1, col=2)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    figure.update_xaxes(title=f"PC 1 ({explained[0]:.0%})", row=1, col=3)
    figure.update_yaxes(title=f"PC 2 ({explained[1]:.0%})", row=1, col=3)
    return styled(figure, title)
