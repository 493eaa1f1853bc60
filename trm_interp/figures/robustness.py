"""How large a noise ends survive: shares that return over its size, and what goes with it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.analysis.estimates import Estimate
from trm_interp.figures.bands import AREA, OVER_PUZZLES, by_outcome, curve, explain, groups
from trm_interp.figures.style import COLOUR, SYMBOL, styled

RANDOM, LEADING = "random", "leading"  # kinds of directions, as in files
HEADINGS = {"answer": "same answer", "state": "same state", "solved": "solved"}
KINDS = {RANDOM: "random directions", LEADING: "leading eigenvectors"}
DASHES = {RANDOM: "solid", LEADING: "dot"}
NOISE = "RMS of the noise"
AXES = {
    "q_halt": "halting logit at the end",
    "lambda_1": "leading exponent, nats an evaluation",
    "starts_answer": "share of random starts that end there",
    "starts_state": "share of random starts that end there",
}
OPEN = {"below": "triangle-down-open", "above": "triangle-up-open"}  # bounded by the grid alone


def return_figure(table: pd.DataFrame, title: str) -> go.Figure:
    """Shares of pushes that come back over the size of the noise: a panel a measure, a colour an
    outcome, a dash a kind of direction.

    table: rows of outcome, measure, directions, epsilon, mean, low, high, n.
    """
    measures = [name for name in HEADINGS if name in set(table["measure"])]
    figure = make_subplots(
        rows=1,
        cols=len(measures),
        shared_yaxes=True,
        subplot_titles=[HEADINGS[name] for name in measures],
        horizontal_spacing=0.04,
    )
    for (outcome, measure, kind), rows in groups(table, "outcome", "measure", "directions"):
        curve(
            figure,
            rows["epsilon"].to_numpy(float),
            tuple(rows[name].to_numpy(float) for name in ("mean", "low", "high")),  # type: ignore[arg-type]
            COLOUR[outcome],
            f"{outcome} ends (n = {rows['n'].iloc[0]}), {KINDS[kind]}",
            measure == measures[0],
            column=measures.index(measure) + 1,
            dash=DASHES[kind],
            over=NOISE,
        )
    explain(figure, OVER_PUZZLES, **AREA)
    figure.update_xaxes(title=NOISE, type="log", tickvals=ticks(table["epsilon"].to_numpy(float)))
    figure.update_yaxes(range=[-0.02, 1.02])
    figure.update_yaxes(title="share of pushes", col=1)
    caption = (
        "Ends of runs pushed by noise, over its RMS: share of the pushes after which the run comes "
        "to the same answer as without, to the same state, and to a solution. Bands: 95 % "
        "bootstrap intervals over puzzles."
    )
    figure = styled(figure, title, caption=caption)
    return figure.update_layout(height=520, legend={"orientation": "h", "y": -0.2})


def ticks(epsilons: np.ndarray) -> list[float]:
    """At most six of the epsilons, for an axis.

    >>> ticks(np.array([0.1, 0.2, 0.1])), ticks(np.arange(1.0, 9.0))
    ([0.1, 0.2], [2.0, 4.0, 6.0, 8.0])
    """
    values = np.unique(epsilons)
    apart = -(-len(values) // 6)
    return values[::-1][::apart][::-1].tolist()


def related_figure(
    table: pd.DataFrame,
    columns: Sequence[str],
    epsilons: Sequence[float],
    correlations: Mapping[tuple[str, str], Estimate],
    title: str,
) -> go.Figure:
    """epsilon_50 of the answer basin in random directions against other numbers of the ends.

    table: rows of outcome, puzzle, epsilon_50_answer_random, bounded_answer_random and `columns`.
    epsilons: all that were tried. correlations: by column and "all". Values that are only bounded
    are open triangles at the edge.
    """
    side = f"bounded_answer_{RANDOM}"

    def heading(name: str) -> str:
        of = correlations.get((name, "all"))
        return "" if of is None else f"rank correlation {of.text('+.2f')}"

    figure = make_subplots(
        rows=1,
        cols=len(columns),
        shared_yaxes=True,
        subplot_titles=[heading(name) for name in columns],
        horizontal_spacing=0.04,
    )
    for column, name in enumerate(columns, 1):
        for outcome, rows in by_outcome(table):
            figure.add_trace(_ends(rows, outcome, name), row=1, col=column)
        figure.update_xaxes(title=AXES[name], row=1, col=column)
    for outcome, rows in by_outcome(table):
        marker = {"symbol": SYMBOL[outcome], "size": 8, "color": COLOUR[outcome]}
        explain(figure, f"{outcome} (n = {len(rows)})", mode="markers", marker=marker)
    for bounded, symbol in OPEN.items():
        if bounded in set(table[side]):
            marker = {"symbol": symbol, "size": 9, "color": "#555"}
            explain(figure, f"{bounded} the grid", mode="markers", marker=marker)
    least = float(table[f"epsilon_50_answer_{RANDOM}"].to_numpy(float).min())
    edges = np.log10([least / 1.3, max(epsilons) * 1.3])
    marks = ticks(np.array(epsilons, np.float64))
    figure.update_yaxes(type="log", tickvals=marks, range=edges.tolist())
    figure.update_yaxes(title="RMS that half of the pushes survive", col=1)
    caption = (
        f"RMS of the noise that half of the random pushes of {len(table)} ends survive, by the "
        f"answer, against {', '.join(AXES[name] for name in columns)}; a point an end. Triangles: "
        "beyond the sizes that were tried. Intervals are over puzzles."
    )
    figure = styled(figure, title, caption=caption)
    return figure.update_layout(height=520, legend={"orientation": "h", "y": -0.2})


def _ends(rows: pd.DataFrame, outcome: str, name: str) -> go.Scatter:
    """A point an end: its epsilon_50 against the number of a column."""
    symbols = [OPEN.get(str(of), SYMBOL[outcome]) for of in rows[f"bounded_answer_{RANDOM}"]]
    return go.Scatter(
        x=rows[name],
        y=rows[f"epsilon_50_answer_{RANDOM}"],
        mode="markers",
        marker={"color": COLOUR[outcome], "symbol": symbols, "size": 8, "opacity": 0.7},
        customdata=rows[["puzzle"]].to_numpy(),
        legendgroup=f"{outcome} (n = {len(rows)})",  # hidden with that entry
        showlegend=False,
        hovertemplate="puzzle %{customdata[0]} (from 0): %{x:.3g}, %{y:.3g}<extra></extra>",
    )
