"""Outcomes, distance to the successes, and the loss of every cycle."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from trm_interp.figures.bands import DASHES, STEPS, Band, curve, groups, step_lines, where
from trm_interp.figures.style import COLOUR, DASH, FAILED, SOLVED, styled

THIN = 40  # single puzzles of either outcome that are drawn
RED, GREEN = "#d62728", "#2ca02c"


def outcomes_figure(table: pd.DataFrame, calibration: pd.DataFrame, title: str) -> go.Figure:
    """Left: accuracy at each step, ever solved by it, lost again. Right: is the halting head right?

    table: `outcome_table`; calibration: `calibration_table`. Bands and bars are 95 % Wilson
    intervals.
    """
    figure = make_subplots(cols=2, rows=1, subplot_titles=("by supervision step", "halting head"))
    step = table["step"].to_numpy() + 1
    for name, label, colour, dash in (
        ("exact", "solved at the step", SOLVED, "solid"),
        ("ever", "solved at it or before", GREEN, "dot"),  # on top: the curves may be equal
        ("unsolved", "lost again, of those<br>solved one step before", RED, "dash"),
    ):
        curve(figure, step, _band(table, name), colour, label, True, dash=dash, over="step")
    figure.add_trace(
        go.Scatter(
            x=calibration["confidence"],
            y=calibration["solved"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": calibration["high"] - calibration["solved"],
                "arrayminus": calibration["solved"] - calibration["low"],
            },
            mode="markers",
            marker={"color": "#333", "size": 6},
            customdata=calibration["n"],
            hovertemplate="confidence %{x:.3f}: %{y:.3f} solved, n = %{customdata}<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=2,
    )
    figure.add_shape(
        type="line", x0=0, y0=0, x1=1, y1=1, line={"dash": "dot", "color": "#999"}, row=1, col=2
    )
    figure.update_xaxes(title="supervision step (from 1)", row=1, col=1)
    figure.update_yaxes(title="share of puzzles", range=[0, 1], row=1, col=1)
    figure.update_xaxes(title="confidence, sigmoid(q_halt)", range=[0, 1], row=1, col=2)
    figure.update_yaxes(title="share solved", range=[0, 1.02], row=1, col=2)
    return styled(figure, title)


def divergence_figure(
    bands: pd.DataFrame, auc: pd.DataFrame, steps: Iterable[int], title: str, tick: str
) -> go.Figure:
    """Above: distance to the success centroid by outcome. Below: does it tell the outcome?

    bands: outcome, tick, mean, low, high, n; auc: tick, auc, low, high; `steps`: ticks at which a
    supervision step begins; `tick`: title of the axis of ticks.
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.06
    )
    for (outcome,), rows in groups(bands, "outcome"):
        name = f"{outcome} (n = {rows['n'].iloc[0]})"
        x = rows["tick"].to_numpy()
        curve(figure, x, _band(rows), COLOUR[outcome], name, True, dash=DASH[outcome])
    x = auc["tick"].to_numpy()
    curve(figure, x, _band(auc, "auc"), "#333", "AUC of the distance for failing", True, row=2)
    figure.add_hline(y=0.5, line={"color": "#999", "dash": "dot"}, row=2, col=1)  # type: ignore[arg-type]
    step_lines(figure, steps)
    figure.update_yaxes(title="RMS distance", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="AUC", range=[0, 1], row=2, col=1)
    figure.update_xaxes(title=tick, row=2, col=1)
    return styled(figure, title, STEPS)


def losses_figure(
    losses: dict[str, np.ndarray], bands: pd.DataFrame, solved: np.ndarray, title: str
) -> go.Figure:
    """Loss after every H-cycle, one convention at a time (menu): means with bands, thin traces.

    losses: [puzzle, cycle] by convention. bands: convention, outcome, cycle (from 1), mean, low,
    high, n, unit. At most THIN single puzzles of either outcome are drawn.
    """
    figure = make_subplots()
    owners: list[str] = []
    names = list(losses)
    longest = max(int(solved.sum()), int((~solved).sum()))
    thin = f"thin lines: the first {THIN} puzzles of an outcome" if longest > THIN else ""
    for name in names:
        for (outcome,), rows in groups(where(bands, bands["convention"] == name), "outcome"):
            inside = solved if outcome == "solved" else ~solved
            x = rows["cycle"].to_numpy()
            label = f"{outcome} (n = {rows['n'].iloc[0]})"
            before = len(figure.data)
            colour, dash = COLOUR[outcome], DASH[outcome]
            figure.add_trace(_thin(x, losses[name][inside][:THIN], colour, label))
            curve(figure, x, _band(rows), colour, label, True, dash=dash, over="cycle")
            owners += [name] * (len(figure.data) - before)
    for trace, owner in zip(figure.data, owners, strict=True):
        trace.visible = owner == names[0]
    units = dict(zip(bands["convention"], bands["unit"], strict=True))
    figure.update_layout(
        updatemenus=[
            {
                "buttons": [
                    {
                        "label": name,
                        "method": "update",
                        "args": [
                            {"visible": [owner == name for owner in owners]},
                            {"yaxis.title.text": units[name]},
                        ],
                    }
                    for name in names
                ],
                "x": 1,
                "xanchor": "right",
                "y": 1.14,
            }
        ]
    )
    figure.update_xaxes(title="H-cycle (from 1)")
    figure.update_yaxes(title=units[names[0]], rangemode="tozero")
    return styled(figure, title, thin)


def solve_step_figure(table: pd.DataFrame, unit: str, title: str) -> go.Figure:
    """Mean loss after every H-cycle, by when a puzzle is first solved.

    table: group, n, cycle (from 1), mean, low, high.
    """
    figure = make_subplots()
    parts = list(groups(table, "group"))
    for at, ((group,), rows) in enumerate(parts):
        share = at / max(1, len(parts) - 1)
        colour = FAILED if group == "never" else sample_colorscale("Viridis", [0.9 * share])[0]
        dash = DASH["failed"] if group == "never" else DASHES[at % len(DASHES)]
        name, x = f"{group} (n = {rows['n'].iloc[0]})", rows["cycle"].to_numpy()
        curve(figure, x, _band(rows), str(colour), name, True, dash=dash, over="cycle")
    figure.update_xaxes(title="H-cycle (from 1)")
    figure.update_yaxes(title=unit, rangemode="tozero")
    figure.update_layout(legend_title_text="first solved at")
    return styled(figure, title)


def _band(rows: pd.DataFrame, name: str = "mean") -> Band:
    low, high = ("low", "high") if name in ("mean", "auc") else (f"{name}_low", f"{name}_high")
    return rows[name].to_numpy(), rows[low].to_numpy(), rows[high].to_numpy()


def _thin(x: np.ndarray, lines: np.ndarray, colour: str, group: str) -> go.Scatter:
    """Many lines as one trace, broken by gaps."""
    gap = np.full((len(lines), 1), np.nan)
    return go.Scatter(
        x=np.tile(np.append(x, np.nan), len(lines)),
        y=np.concatenate([lines, gap], axis=1).ravel(),
        mode="lines",
        line={"color": colour, "width": 0.5},
        opacity=0.35,
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
    )
