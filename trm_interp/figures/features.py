"""Features over time: figure 1 of the seed paper, and the drift between equal phases."""

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import (
    AREA,
    DASHES,
    OVER_PUZZLES,
    Band,
    by_outcome,
    counts,
    curve,
    explain,
    step_lines,
)
from trm_interp.figures.style import COLOUR, DASH, PALETTE, styled

TOTAL = "all features together"


def activity_figure(
    numbers: pd.DataFrame, steps: list[int], title: str, total: pd.DataFrame | None = None
) -> go.Figure:
    """Mean activation of some features at every tick, solved puzzles above failed ones, and below
    them the sum over all features.

    numbers: rows of feature, outcome, tick, mean, low, high, n; `total`: the same of the sum,
    without a feature; without it there is no such panel. Bands are 95 % bootstrap intervals over
    puzzles; a line at each tick of `steps`, where a supervision step begins.
    """
    sizes = dict(zip(numbers["outcome"], numbers["n"], strict=True))
    outcomes = [name for name in ("solved", "failed") if name in sizes]
    headings = [f"{name} puzzles (n = {sizes[name]})" for name in outcomes]
    headings += [] if total is None else [TOTAL]
    figure = make_subplots(
        rows=len(headings),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.08,
        subplot_titles=headings,
    )
    features = list(dict.fromkeys(numbers["feature"]))
    for feature, outcome in product(features, outcomes):
        rows = numbers.query("feature == @feature and outcome == @outcome")
        row = outcomes.index(outcome) + 1
        colour = PALETTE[features.index(feature) % len(PALETTE)]
        name = f"feature {feature}"
        first = outcome == outcomes[0]
        dash = DASHES[features.index(feature) % len(DASHES)]
        curve(figure, np.asarray(rows["tick"]), _band(rows), colour, name, first, row, dash=dash)
    figure.update_yaxes(title="mean activation", rangemode="tozero", matches="y")
    if total is not None:
        for outcome, rows in by_outcome(total):
            x, colour, dash = np.asarray(rows["tick"]), COLOUR[outcome], DASH[outcome]
            name = f"{TOTAL}, {outcome}"
            curve(figure, x, _band(rows), colour, name, True, len(headings), dash=dash)
        figure.update_yaxes(title="summed activation", matches=None, row=len(headings), col=1)
    explain(figure, OVER_PUZZLES, **AREA)
    step_lines(figure, steps)
    figure.update_xaxes(title="network evaluation (from 0)", row=len(headings), col=1)
    below = " Below: the sum over all features." if total is not None else ""
    caption = (
        f"Mean activation over positions of the {len(features)} most active SAE features at every "
        f"network evaluation, {counts(numbers)} puzzles.{below} Bands are 95 % bootstrap intervals "
        "over puzzles; dotted lines: a supervision step begins."
    )
    height = 640 if total is None else 900
    return styled(figure, title, caption=caption).update_layout(height=height)


def _band(rows: pd.DataFrame) -> Band:
    return np.asarray(rows["mean"]), np.asarray(rows["low"]), np.asarray(rows["high"])


def drift_figure(
    ticks: list[int],
    curves: dict[str, Band],
    steps: list[int],
    title: str,
    sizes: dict[str, int] | None = None,
) -> go.Figure:
    """How far all activations move from a tick to the same phase one H-cycle later, by outcome,
    of which `sizes` are the numbers of puzzles.

    0: nothing but the schedule's own period is left.
    """
    figure = make_subplots(rows=1, cols=1)
    for name, band in curves.items():
        curve(figure, np.asarray(ticks), band, COLOUR[name], name, True, dash=DASH[name])
    explain(figure, OVER_PUZZLES, **AREA)
    step_lines(figure, steps)
    figure.update_yaxes(title="RMS change over RMS activation", rangemode="tozero")
    figure.update_xaxes(title="network evaluation (from 0)")
    of = " and ".join(f"{n} {outcome}" for outcome, n in (sizes or {}).items())
    caption = (
        "RMS change of all SAE features from a network evaluation to that of the same phase one "
        f"H-cycle later, over their RMS{f', of {of} puzzles' if of else ''}. Bands are 95 % "
        "bootstrap intervals over puzzles; dotted lines: a supervision step begins."
    )
    return styled(figure, title, caption=caption)
