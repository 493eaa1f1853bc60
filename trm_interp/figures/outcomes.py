"""Outcomes, distance to the successes, and the loss of every cycle."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from trm_interp.figures.bands import (
    AREA,
    BAR,
    DASHES,
    DOTTED,
    NARROW,
    OVER_PUZZLES,
    WIDE,
    Band,
    area,
    counts,
    curve,
    explain,
    groups,
    sign_of_area,
    step_lines,
    where,
)
from trm_interp.figures.paper_text import traces
from trm_interp.figures.style import COLOUR, DASH, FAILED, GREEN, SOLVED, styled

THIN = 40  # single puzzles of either outcome that are drawn
SINGLE = "single puzzle"
BELOW = " Below: AUC of the distance for failing with its 95 % interval; 0.5 is chance."
WILSON = "95 % Wilson interval"


def outcomes_figure(table: pd.DataFrame, calibration: pd.DataFrame, title: str) -> go.Figure:
    """Left: accuracy at each step, ever solved by it, lost again. Right: is the halting head right?

    table: `outcome_table`; calibration: `calibration_table`. Bands and bars are 95 % Wilson
    intervals.
    """
    titles = ("by supervision step", "halting head")
    figure = make_subplots(cols=2, rows=1, subplot_titles=titles, horizontal_spacing=0.15)
    step = table["step"].to_numpy() + 1
    for name, label, colour, dash in (
        ("exact", "solved at the step", SOLVED, "solid"),
        ("ever", "solved at it or before", GREEN, "dot"),  # on top: the curves may be equal
        ("lost_again", "lost again, of those solved one step before", FAILED, "dash"),
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
            name="answers of like confidence",
        ),
        row=1,
        col=2,
    )
    diagonal = {"mode": "lines", "line": DOTTED, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(x=[0, 1], y=[0, 1], name="calibrated", **diagonal), row=1, col=2)
    explain(figure, f"{WILSON} (left)", **AREA)
    explain(figure, f"{WILSON} (right)", **BAR)
    figure.update_xaxes(title="supervision step (from 1)", row=1, col=1)
    figure.update_yaxes(title="share of puzzles", range=[0, 1.02], row=1, col=1)
    figure.update_xaxes(title="confidence, sigmoid(q_halt)", range=[0, 1], row=1, col=2)
    figure.update_yaxes(title="share solved", range=[0, 1.02], row=1, col=2)
    n = int(calibration["n"].to_numpy().sum()) // len(table)  # each is a prediction at every step
    caption = (
        f"Left: share of {n} puzzles solved at each supervision step, "
        "solved at it or before, and lost again. Right: share of answers that are right over the "
        "confidence that the halting head gives them, at all steps. Bands and bars are 95 % "
        "Wilson intervals."
    )
    return styled(figure, title, caption=caption)


def divergence_figure(
    bands: pd.DataFrame,
    auc: pd.DataFrame,
    steps: Iterable[int],
    title: str,
    tick: str,
    centre: str = "the mean of other solved puzzles",
) -> go.Figure:
    """Above: distance to the success centroid by outcome. Below: does it tell the outcome?

    bands: outcome, update, mean, low, high, sd, n; auc: update, auc, low, high; `steps`: updates at
    which a supervision step begins; `tick`: title of the axis of updates; `centre`: what the
    distance is to, in words.
    """
    has_auc = bool(auc["auc"].notna().any())
    parts = {"row_heights": [0.65, 0.35], "vertical_spacing": 0.06} if has_auc else {}
    figure = make_subplots(rows=1 + has_auc, cols=1, shared_xaxes=True, **parts)
    for (outcome,), rows in groups(bands, "outcome"):
        name, colour = f"{outcome} (n = {rows['n'].iloc[0]})", COLOUR[outcome]
        x, mean, sd = (rows[column].to_numpy() for column in ("update", "mean", "sd"))
        area(figure, x, mean - sd, mean + sd, colour, name, opacity=WIDE)
        dash = DASH[outcome]
        curve(figure, x, _band(rows), colour, name, True, dash=dash, opacity=NARROW)
    explain(figure, "mean \u00b1 1 standard deviation of runs", **sign_of_area(WIDE))
    interval = f"95 % interval of the mean{' or AUC' if has_auc else ''}"
    explain(figure, interval, **sign_of_area(NARROW))
    if has_auc:
        _auc_panel(figure, auc)
    step_lines(figure, steps)
    # no distance is below 0, as a mean less a standard deviation may be
    figure.update_yaxes(title="RMS distance", range=[0, None], row=1, col=1)
    figure.update_xaxes(title=tick, row=1 + has_auc, col=1)
    caption = (
        f"RMS distance of runs to {centre} at the same update, {counts(bands)}: mean, one standard "
        "deviation of the runs on either side of it (wide band), and the 95 % "
        "bootstrap interval "
        f"of the mean (narrow band).{BELOW if has_auc else ''} Dotted lines: a supervision step "
        "begins."
    )
    return styled(figure, title, caption=caption)


def _auc_panel(figure: go.Figure, auc: pd.DataFrame) -> None:
    """The second row of `divergence_figure`."""
    tells, x = "AUC of the distance for failing", auc["update"].to_numpy()
    curve(figure, x, _band(auc, "auc"), "#333", tells, True, row=2, opacity=NARROW)
    chance = {"color": "#333", "width": 1, "dash": "dash"}
    figure.add_hline(y=0.5, line=chance, row=2, col=1)  # type: ignore[arg-type]
    explain(figure, "AUC by chance", mode="lines", line=chance)
    figure.update_yaxes(title="AUC", range=[0, 1], row=2, col=1)


def losses_figure(
    losses: dict[str, np.ndarray],
    bands: pd.DataFrame,
    solved: np.ndarray,
    title: str,
    steps: Iterable[int | float] = (),
) -> go.Figure:
    """Loss after every H-cycle, one convention at a time (menu): means with bands, thin traces.

    losses: [puzzle, cycle] by convention. bands: convention, outcome, h_cycles_done, mean, low,
    high, n, unit. At most THIN single puzzles of either outcome are drawn. `steps`: places on the
    axis of cycles at which a supervision step begins.
    """
    figure = make_subplots()
    owners: list[str] = []
    names = list(losses)
    longest = max(int(solved.sum()), int((~solved).sum()))
    single = f"{SINGLE}, the first {THIN} of an outcome" if longest > THIN else SINGLE
    for name in names:
        for (outcome,), rows in groups(where(bands, bands["convention"] == name), "outcome"):
            inside = solved if outcome == "solved" else ~solved
            x = rows["h_cycles_done"].to_numpy()
            label = f"{outcome} (n = {rows['n'].iloc[0]})"
            before = len(traces(figure))
            colour, dash = COLOUR[outcome], DASH[outcome]
            figure.add_trace(_thin(x, losses[name][inside][:THIN], colour, label))
            curve(figure, x, _band(rows), colour, label, True, dash=dash, over="H-cycle")
            traces(figure)[-1].line.width = 2.5  # tells the mean from single puzzles
            owners += [name] * (len(traces(figure)) - before)
    for trace, owner in zip(traces(figure), owners, strict=True):
        trace.visible = owner == names[0]
    explain(figure, f"mean with its {OVER_PUZZLES}", **AREA)
    explain(figure, single, mode="lines", line={"color": "#777", "width": 1})
    step_lines(figure, steps)
    units = dict(zip(bands["convention"], bands["unit"], strict=True))
    owners += [""] * (len(traces(figure)) - len(owners))
    figure.update_layout(updatemenus=[_convention_menu(owners, units)])
    figure.update_xaxes(title="H-cycle (from 1)")
    figure.update_yaxes(title=f"loss, {units[names[0]]}", rangemode="tozero")
    caption = (
        f"Loss after every H-cycle, {counts(bands)} puzzles: means with 95 % bootstrap intervals "
        f"over puzzles (bands), and single puzzles (thin lines{_at_most(longest)})."
    )
    caption += " Dotted lines: a supervision step begins." if steps else ""
    return styled(figure, title, caption=caption)


def _convention_menu(owners: list[str], units: dict[str, str]) -> dict[str, Any]:
    """Shows the traces of one convention (`owners`, "" for all of them) with its unit."""
    buttons = [
        {
            "label": name,
            "method": "update",
            "args": [
                {"visible": [owner in (name, "") for owner in owners]},
                {"yaxis.title.text": f"loss, {unit}"},
            ],
        }
        for name, unit in units.items()
    ]
    return {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.14}


def _at_most(longest: int) -> str:
    return f", the first {THIN} of an outcome" if longest > THIN else ""


def solve_step_figure(
    table: pd.DataFrame, unit: str, title: str, steps: Iterable[int | float] = ()
) -> go.Figure:
    """Mean loss after every H-cycle, by when a puzzle is first solved.

    table: group, n, h_cycles_done, mean, low, high. `steps`: as for `losses_figure`.
    """
    figure = make_subplots()
    parts = list(groups(table, "group"))
    for at, ((group,), rows) in enumerate(parts):
        share = at / max(1, len(parts) - 1)
        colour = FAILED if group == "never" else sample_colorscale("Viridis", [0.8 * share])[0]
        dash = DASH["failed"] if group == "never" else DASHES[at % len(DASHES)]
        name, x = f"{group} (n = {rows['n'].iloc[0]})", rows["h_cycles_done"].to_numpy()
        curve(figure, x, _band(rows), str(colour), name, True, dash=dash, over="H-cycle")
    figure.update_xaxes(title="H-cycle (from 1)")
    figure.update_yaxes(title=f"loss, {unit}", rangemode="tozero")
    figure.update_layout(legend_title_text="first solved at")
    explain(figure, OVER_PUZZLES, **AREA)
    step_lines(figure, steps)
    n = int(sum(rows["n"].iloc[0] for _, rows in parts))
    caption = (
        f"Mean loss of {n} puzzles after every H-cycle, by the supervision step at which a puzzle "
        "is first solved. Bands are 95 % bootstrap intervals over puzzles."
    )
    caption += " Dotted lines: a supervision step begins." if steps else ""
    return styled(figure, title, caption=caption)


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
        line={"color": colour, "width": 1},
        opacity=0.25,
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
    )
