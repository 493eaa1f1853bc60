"""What a test-time search finds: shares by step, noise, breadth and depth, calibration, escapes."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import BAR, DASHES, DOTTED, explain
from trm_interp.figures.style import FAILED, PALETTE, SOLVED, SYMBOLS, literal, styled

INTERVALS = "95 % interval over puzzles"
NAMES = {
    "baseline": "one plain run",
    "best_q": "best by Q",
    "vote": "majority vote",
    "vote_q": "vote by Q",
    "pass_at_k": "any of K (pass@K)",
}


def shares_figure(table: pd.DataFrame, title: str) -> go.Figure:
    """Share of puzzles answered rightly after every step, one panel a search.

    table: rows of search, step (from 0) and for each of NAMES its share, `_low` and `_high`.
    """
    searches = list(dict.fromkeys(table["search"]))
    headings = [literal(search) for search in searches]
    figure = make_subplots(rows=1, cols=len(searches), subplot_titles=headings, shared_yaxes=True)
    for col, search in enumerate(searches, start=1):
        rows = _of(table, search=search)
        for i, (name, label) in enumerate(NAMES.items()):
            curve = _with_bars(rows, "step", name, label, i, shift=1)
            curve.update(legendgroup=name, showlegend=col == 1)
            figure.add_trace(curve, row=1, col=col)
    figure.update_xaxes(title="supervision step (from 1)")
    figure.update_yaxes(title="share of puzzles solved", row=1, col=1)
    explain(figure, INTERVALS, **BAR)
    of = f" of {table['n'].to_numpy().max()}" if "n" in table else ""
    caption = f"Share{of} puzzles answered rightly after every supervision step, by how an answer "
    caption += f"is chosen; bars: {INTERVALS}."
    return styled(figure, title, caption=caption)


def ablation_figure(table: pd.DataFrame, title: str) -> go.Figure:
    """Failed puzzles that best-Q recovers (above) and solved ones that it keeps, over sigma.

    table: rows of kind (a column of panels), target, sigma, recovered, kept with `_low`, `_high`.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    names = ("recovered", "kept")
    figure = make_subplots(
        rows=2,
        cols=len(kinds),
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[literal(kind) for kind in kinds],
        vertical_spacing=0.08,
    )
    targets = list(dict.fromkeys(table["target"]))
    in_legend: set[str] = set()
    for col, kind in enumerate(kinds, start=1):
        for i, target in enumerate(targets):
            rows = _of(table, kind=kind, target=target)
            if not len(rows):
                continue
            for row, name in enumerate(names, start=1):
                curve = _with_bars(rows, "sigma", name, f"noise on {target}", i)
                curve.update(legendgroup=target, showlegend=target not in in_legend)
                in_legend.add(target)
                figure.add_trace(curve, row=row, col=col)
        figure.update_xaxes(title="sigma", row=2, col=col)
        if (table.loc[table["kind"] == kind, "sigma"] > 0).all():  # a log axis has no place for 0
            figure.update_xaxes(type="log", col=col)
    figure.update_yaxes(title="failed puzzles recovered", row=1, col=1)
    figure.update_yaxes(title="solved puzzles kept", row=2, col=1)
    explain(figure, INTERVALS, **BAR)
    caption = "Failed puzzles that the best answer by Q recovers (above) and solved ones that it "
    caption += f"keeps (below), over the noise's sigma; bars: {INTERVALS}."
    return styled(figure, title, caption=caption)


def breadth_depth_figure(table: pd.DataFrame, title: str) -> go.Figure:
    """Failed puzzles solved over network evaluations: one deep run, or K shorter noisy ones.

    table: rows of curve, evaluations and, for best_q and pass_at_k, share, `_low`, `_high`.
    """
    panels = ("best_q", "pass_at_k")
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, subplot_titles=[NAMES[name] for name in panels]
    )
    for i, curve in enumerate(dict.fromkeys(table["curve"])):
        rows = _of(table, curve=curve)
        for col, name in enumerate(panels, start=1):
            line = _with_bars(rows, "evaluations", name, str(curve), i)
            line.update(legendgroup=str(curve), showlegend=col == 1)
            figure.add_trace(line, row=1, col=col)
    figure.update_xaxes(title="network evaluations a puzzle", type="log")
    figure.update_yaxes(title="share solved of puzzles that fail plainly", row=1, col=1)
    explain(figure, INTERVALS, **BAR)
    caption = "Share solved of puzzles that a plain run fails, over network evaluations: one deep "
    caption += f"run, or several shorter noisy ones; bars: {INTERVALS}."
    return styled(figure, title, caption=caption)


def calibration_figure(table: pd.DataFrame, title: str) -> go.Figure:
    """Share of answers that are right over the confidence that the halting head states.

    table: rows of search, confidence (bin mean of sigmoid(q)), right, right_low, right_high, n.
    """
    figure = go.Figure()
    for i, search in enumerate(dict.fromkeys(table["search"])):
        rows = _of(table, search=search)
        figure.add_trace(_with_bars(rows, "confidence", "right", str(search), i))
    diagonal = go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line=DOTTED, name="calibrated")
    figure.add_trace(diagonal)
    figure.update_xaxes(title="sigmoid(q)", range=[0, 1])
    figure.update_yaxes(title="share of answers that are right", range=[0, 1])
    explain(figure, INTERVALS, **BAR)
    n = int(table["n"].to_numpy().sum()) if "n" in table else 0
    caption = f"Share of {n} answers that are right over the confidence that the halting head "
    caption += f"gives them; bars: {INTERVALS}."
    return styled(figure, title, caption=caption)


def escape_figure(table: pd.DataFrame, rating: str, title: str) -> go.Figure:
    """How often a noisy trajectory solves a puzzle that fails plainly: distribution, and by rating.

    table: a row for each such puzzle, with escape (share of its noisy trajectories) and ratings.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1)
    bins = {"start": 0, "end": 1.05, "size": 0.05}
    figure.add_trace(
        go.Histogram(x=table["escape"], xbins=bins, marker_color=SOLVED, showlegend=False),
        row=1,
        col=1,
    )
    dots = go.Scatter(
        x=table[rating],
        y=table["escape"],
        mode="markers",
        marker={"color": FAILED, "size": 6, "opacity": 0.6},
        text=[f"line {line}" for line in table["line"]],
        showlegend=False,
    )
    figure.add_trace(dots, row=1, col=2)
    figure.update_xaxes(title="escape probability of a trajectory", row=1, col=1)
    figure.update_yaxes(title="puzzles", row=1, col=1)
    figure.update_xaxes(title=f"rating: {rating}", row=1, col=2)
    figure.update_yaxes(title="escape probability", range=[-0.02, 1.02], row=1, col=2)
    caption = (
        f"How often a noisy trajectory solves each of {len(table)} puzzles that fail plainly: "
    )
    caption += f"distribution (left), and by the rating {rating} (right)."
    return styled(figure, title, caption=caption)


def _of(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Rows with these values in these columns."""
    keep = np.ones(len(table), bool)
    for name, value in values.items():
        keep &= table[name].to_numpy() == value
    return table.iloc[np.flatnonzero(keep)]


def _with_bars(
    rows: pd.DataFrame, x: str, y: str, label: str, at: int, shift: int = 0
) -> go.Scatter:
    """A line with its intervals as error bars; `at`: which of several lines it is."""
    middle = np.asarray(rows[y], float)
    return go.Scatter(
        x=np.asarray(rows[x]) + shift,
        y=middle,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.asarray(rows[f"{y}_high"], float) - middle,
            "arrayminus": middle - np.asarray(rows[f"{y}_low"], float),
            "thickness": 1,
            "width": 2,
        },
        mode="lines+markers",
        line={
            "color": PALETTE[at % len(PALETTE)],
            "width": 1.5,
            "dash": DASHES[at % len(DASHES)],
        },
        marker={"size": 6, "symbol": SYMBOLS[at % len(SYMBOLS)]},
        name=literal(label),
    )
