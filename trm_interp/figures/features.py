"""Features over time: figure 1 of the seed paper, and the drift between equal phases."""

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from trm_interp.figures.bands import DASHES, STEPS, Band, curve, step_lines
from trm_interp.figures.style import COLOUR, DASH, styled

COLOURS = qualitative.Dark24


def activity_figure(numbers: pd.DataFrame, steps: list[int], title: str) -> go.Figure:
    """Mean activation of some features at every tick, solved puzzles above failed ones.

    numbers: rows of feature, outcome, tick, mean, low, high, n. Bands are 95 % bootstrap intervals
    over puzzles; a line at each tick of `steps`, where a supervision step begins.
    """
    counts = dict(zip(numbers["outcome"], numbers["n"], strict=True))
    outcomes = [name for name in ("solved", "failed") if name in counts]
    figure = make_subplots(
        rows=len(outcomes),
        cols=1,
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.08,
        subplot_titles=[f"{name} puzzles (n = {counts[name]})" for name in outcomes],
    )
    features = list(dict.fromkeys(numbers["feature"]))
    for feature, outcome in product(features, outcomes):
        rows = numbers.query("feature == @feature and outcome == @outcome")
        row = outcomes.index(outcome) + 1
        colour = COLOURS[features.index(feature) % len(COLOURS)]
        name = f"feature {feature}"
        band = (np.asarray(rows["mean"]), np.asarray(rows["low"]), np.asarray(rows["high"]))
        first = outcome == outcomes[0]
        dash = DASHES[features.index(feature) % len(DASHES)]
        curve(figure, np.asarray(rows["tick"]), band, colour, name, first, row, dash=dash)
    step_lines(figure, steps)
    figure.update_yaxes(title="mean activation", rangemode="tozero")
    figure.update_xaxes(title="network evaluation", row=len(outcomes), col=1)
    return styled(figure, title, STEPS)


def drift_figure(
    ticks: list[int], curves: dict[str, Band], steps: list[int], title: str
) -> go.Figure:
    """How far all activations move from a tick to the same phase one H-cycle later, by outcome.

    0: nothing but the schedule's own period is left.
    """
    figure = make_subplots(rows=1, cols=1)
    for name, band in curves.items():
        curve(figure, np.asarray(ticks), band, COLOUR[name], name, True, dash=DASH[name])
    step_lines(figure, steps)
    figure.update_yaxes(title="RMS change over RMS activation", rangemode="tozero")
    figure.update_xaxes(title="network evaluation")
    return styled(figure, title, STEPS)
