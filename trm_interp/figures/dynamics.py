"""Do runs come to rest, are they stable: drift, fates, exponents, eigenvalues."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.analysis.settling import LEAST_DRIFT, in_words
from trm_interp.figures.bands import AREA, OVER_PUZZLES, by_outcome, counts, curve, explain, where
from trm_interp.figures.style import (
    COLOUR,
    DASH,
    GREY,
    ORANGE,
    PURPLE,
    SOLVED,
    SYMBOL,
    styled,
)

FATE_COLOURS = {
    "solved": SOLVED,
    "settled": GREY,
    "cycling": PURPLE,
    "wandering": ORANGE,
}
FATE_PATTERNS = {"solved": "", "settled": "/", "cycling": "x", "wandering": "."}
PATTERN = {"solved": "", "failed": "/"}  # of bars


def drift_histogram(
    numbers: pd.DataFrame, threshold: float, title: str, state: str = "the answer state"
) -> go.Figure:
    """Late drift of a state in every run, by outcome.

    numbers: rows of outcome, log_drift (log10 RMS a step). A line at the threshold that splits both
    outcomes together best (Otsu's).
    """
    figure = go.Figure()
    low, high = numbers["log_drift"].min(), numbers["log_drift"].max()
    bins = {"start": low, "end": high + 1e-9, "size": max((high - low) / 40, 1e-9)}
    for outcome, rows in by_outcome(numbers):
        figure.add_histogram(
            x=rows["log_drift"],
            xbins=bins,
            marker={
                "color": COLOUR[outcome],
                "pattern": {"shape": PATTERN[outcome], "fillmode": "overlay"},
            },
            opacity=0.6,
            name=f"{outcome} (n = {len(rows)})",
        )
    if np.isfinite(threshold):
        line = {"color": "#444", "dash": "dash", "width": 1.5}
        figure.add_vline(x=threshold, line=line)
        explain(figure, "splits all runs best (Otsu)", mode="lines", line=line)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title=f"log10 of the mean RMS change of {state} over the last steps")
    figure.update_yaxes(title="puzzles")
    line = " Dashed: the threshold that splits all runs best (Otsu's)."
    caption = f"Late drift of {_runs(numbers)} runs, a puzzle each."
    return styled(figure, title, caption=caption + (line if np.isfinite(threshold) else ""))


def same_phase_figure(numbers: pd.DataFrame, title: str) -> go.Figure:
    """Change of every state from one H-cycle's end to the next, by outcome.

    numbers: rows of state, outcome, steps_done, mean, low, high; geometric means over puzzles with
    95 % bootstrap bands.
    """
    states = list(dict.fromkeys(numbers["state"]))
    figure = make_subplots(
        rows=len(states),
        cols=1,
        shared_xaxes=True,
        subplot_titles=states,
        vertical_spacing=0.2 / len(states),
    )
    for row, state in enumerate(states, 1):  # noqa: B007 (pandas reads it)
        part = numbers.query("state == @state")
        _by_outcome(figure, part, "steps_done", row, "steps done")
    figure.update_yaxes(title="RMS change, same phase", type="log", exponentformat="power", dtick=1)
    figure.update_xaxes(title="supervision steps done, by H-cycle", row=len(states), col=1)
    explain(figure, OVER_PUZZLES, **AREA)
    caption = (
        "RMS change of every state from the end of one H-cycle to that of the next, by outcome: "
        f"geometric means over {_puzzles(numbers)}; bands are 95 % bootstrap intervals over them."
    )
    return styled(figure, title, caption=caption)


def recurrence_figure(numbers: pd.DataFrame, title: str) -> go.Figure:
    """Distance of the whole late state from itself some H-cycles before, by outcome.

    numbers: rows of outcome, lag, mean, low, high. A period shows as a dip at its multiples.
    """
    figure = make_subplots(rows=1, cols=1)
    _by_outcome(figure, numbers, "lag", 1, "lag")
    figure.update_yaxes(title="RMS distance", rangemode="tozero")
    figure.update_xaxes(title="H-cycles earlier")
    explain(figure, OVER_PUZZLES, **AREA)
    caption = (
        "RMS distance of the late state from itself some H-cycles before, by outcome: means over "
        f"{_puzzles(numbers)}; bands are 95 % bootstrap intervals over them."
    )
    return styled(figure, title, caption=caption)


def _runs(numbers: pd.DataFrame) -> str:
    """Rows of either outcome."""
    return " and ".join(f"{len(rows)} {outcome}" for outcome, rows in by_outcome(numbers))


def _puzzles(numbers: pd.DataFrame) -> str:
    """Of how many the curves are, where the table says it."""
    return f"{counts(numbers)} puzzles" if "n" in numbers else "puzzles"


def _by_outcome(figure: go.Figure, numbers: pd.DataFrame, x: str, row: int, moment: str) -> None:
    for outcome, rows in by_outcome(numbers):
        band = (np.asarray(rows["mean"]), np.asarray(rows["low"]), np.asarray(rows["high"]))
        at, colour, dash = np.asarray(rows[x]), COLOUR[outcome], DASH[outcome]
        curve(figure, at, band, colour, outcome, row == 1, row, dash=dash, over=moment)


def fate_figure(numbers: pd.DataFrame, title: str, subtitle: str = "") -> go.Figure:
    """What has become of the runs that had failed, as shares, at some numbers of steps.

    numbers: rows of steps, became, share, low, high, n; `became` as in FATE_COLOURS, bars add up
    to 1. `subtitle` says what a fate is.
    """
    figure = go.Figure()
    for fate, rows in numbers.groupby("became", sort=False):
        figure.add_bar(
            x=[f"{steps}" for steps in rows["steps"]],
            y=rows["share"],
            marker={
                "color": FATE_COLOURS[str(fate)],
                "pattern": {"shape": FATE_PATTERNS[str(fate)], "fillmode": "overlay"},
            },
            name=in_words(str(fate)),
            customdata=rows[["low", "high", "n"]].to_numpy(),
            hovertemplate=f"{in_words(str(fate))} at step %{{x}}: %{{y:.1%}} "
            "[%{customdata[0]:.1%}, %{customdata[1]:.1%}], n = %{customdata[2]}<extra></extra>",
        )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="supervision steps", type="category")
    figure.update_yaxes(title="share of the runs that had failed", range=[0, 1])
    n = int(numbers["n"].iloc[0]) if len(numbers) else 0
    caption = f"What has become of {n} runs that had failed, as shares, at some numbers of steps."
    caption += f" {subtitle[:1].upper()}{subtitle[1:]}." if subtitle else ""
    return styled(figure, title, subtitle, caption)


def exponent_figure(numbers: pd.DataFrame, title: str) -> go.Figure:
    """Leading exponents of every run, by outcome.

    numbers: rows of puzzle, outcome, index, exponent.
    """
    figure = go.Figure()
    for outcome, rows in by_outcome(numbers):
        figure.add_box(
            x=rows["index"],
            y=rows["exponent"],
            boxpoints="all",
            pointpos=0,
            jitter=0.5,
            marker={
                "color": COLOUR[outcome],
                "symbol": SYMBOL[outcome],
                "size": 4,
                "opacity": 0.6,
            },
            name=f"{outcome} (n = {rows['puzzle'].nunique()})",
        )
    figure.add_hline(y=0, line={"color": "#444", "width": 1})
    figure.update_layout(boxmode="group")
    figure.update_xaxes(title="exponent, from the leading one", dtick=1)
    figure.update_yaxes(title="nats per network evaluation")
    leading = where(numbers, numbers["index"] == numbers["index"].min())
    caption = (
        f"Leading Lyapunov exponents of {_runs(leading)} runs, a "
        "point a run. Boxes: quartiles and median; whiskers reach to the last run within 1.5 "
        "times the box."
    )
    return styled(figure, title, caption=caption)


def exponent_against_drift(
    numbers: pd.DataFrame, title: str, state: str = "the answer state"
) -> go.Figure:
    """Leading exponent against the drift of a state.

    numbers: rows of outcome, puzzle, late_drift, lambda_1. Drifts below LEAST_DRIFT, which a
    logarithmic axis may not show, are drawn there.
    """
    figure = go.Figure()
    for outcome, rows in by_outcome(numbers):
        figure.add_scatter(
            x=np.maximum(rows["late_drift"], LEAST_DRIFT),
            y=rows["lambda_1"],
            mode="markers",
            marker={
                "color": COLOUR[outcome],
                "symbol": SYMBOL[outcome],
                "size": 7,
                "opacity": 0.7,
            },
            customdata=rows[["puzzle"]].to_numpy(),
            name=f"{outcome} (n = {len(rows)})",
            hovertemplate="puzzle %{customdata[0]} (from 0)<br>drift %{x:.3g}, exponent %{y:.3g}"
            "<extra></extra>",
        )
    figure.add_hline(y=0, line={"color": "#444", "width": 1})
    drift = f"late drift of {state}, RMS a step"
    figure.update_xaxes(title=drift, type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(title="leading exponent, nats per network evaluation")
    caption = f"Leading Lyapunov exponent of {_runs(numbers)} runs over their late drift."
    return styled(figure, title, caption=caption)


def eigenvalue_figure(numbers: pd.DataFrame, title: str) -> go.Figure:
    """Leading eigenvalues of the H-cycle map at the fixed points, with the unit circle.

    numbers: rows of outcome (of the run that led there), puzzle, real, imag.
    """
    figure = go.Figure()
    turn = np.linspace(0, 2 * np.pi, 181)
    line = {"color": "#999", "width": 1}
    figure.add_scatter(
        x=np.cos(turn), y=np.sin(turn), mode="lines", line=line, name="modulus 1", hoverinfo="skip"
    )
    for outcome, rows in by_outcome(numbers):
        figure.add_scatter(
            x=rows["real"],
            y=rows["imag"],
            mode="markers",
            marker={
                "color": COLOUR[outcome],
                "symbol": SYMBOL[outcome],
                "size": 7,
                "opacity": 0.7,
            },
            customdata=rows[["puzzle"]].to_numpy(),
            name=f"from a {outcome} run",
            hovertemplate="puzzle %{customdata[0]} (from 0): %{x:.3f} + %{y:.3f} i<extra></extra>",
        )
    figure.update_xaxes(title="real part")
    figure.update_yaxes(title="imaginary part", scaleanchor="x")
    caption = (
        f"The {len(numbers)} leading eigenvalues of the H-cycle map at fixed points near where "
        "runs end, by the outcome of the run, with the unit circle."
    )
    return styled(figure, title, caption=caption)
