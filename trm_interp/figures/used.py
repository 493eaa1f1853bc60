"""What it costs to take out of a state what probes or features read there."""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import BAR, OVER_PUZZLES, explain, where
from trm_interp.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, literal, styled

COLOURS = (VERMILLION, GREY, ORANGE, GREEN, BLUE)
JITTER = 0.08  # of moments, so that equal points are seen


def used_figure(
    table: pd.DataFrame,
    kinds: Sequence[str],
    controls: Mapping[str, Sequence[str]],
    how: str,
    title: str,
) -> go.Figure:
    """Change of the loss over moments: a row a kind of labels, a column a state, a line for what is
    taken out and for each of its controls.

    table: rows of moment, site, label, what, dims, loss, loss_low, loss_high; a control is that of
    its label or, with label "", of all with as many dimensions.
    """
    sites = list(dict.fromkeys(table["site"]))
    figure = make_subplots(
        rows=max(len(kinds), 1),
        cols=len(sites),
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[f"{literal(kind)}, {literal(site)}" for kind in kinds for site in sites],
        vertical_spacing=min(0.1, 0.6 / max(len(kinds), 1)),
        horizontal_spacing=0.05,
    )
    order = [name for what, others in controls.items() for name in (what, *others)]
    in_legend: set[str] = set()
    for row, kind in enumerate(kinds, 1):
        for column, site in enumerate(sites, 1):
            there = where(table, table["site"] == site)
            for what in order:
                own = _of(there, kind, what, controls)
                if not len(own):
                    continue
                figure.add_trace(
                    _points(own, what, order, what not in in_legend), row=row, col=column
                )
                in_legend.add(what)
    explain(figure, OVER_PUZZLES, **BAR)
    figure.update_yaxes(exponentformat="power", zeroline=True)
    figure.update_xaxes(title="steps done when taken out", row=max(len(kinds), 1))
    moments = sorted(set(table["moment"]))
    figure.update_xaxes(tickvals=moments, range=[0.6 * moments[0], 1.3 * moments[-1]])
    figure.update_yaxes(title="change of loss", col=1)
    caption = (
        "Change of the loss at the end of the run (stablemax, nats per cell) when directions are "
        f"taken out of a state at asked cells ({how}), over the moment: those of linear probes of "
        "a kind of labels, of random controls of as many dimensions and of probes of shuffled "
        f"labels, on puzzles that no probe has seen. Bars: {OVER_PUZZLES}; points are drawn "
        "slightly apart."
    )
    styled(figure, title, f"bars: {OVER_PUZZLES}", caption)
    return figure.update_layout(height=160 + 230 * max(len(kinds), 1))


def _points(rows: pd.DataFrame, what: str, order: Sequence[str], in_legend: bool) -> go.Scatter:
    """The change of the loss over moments, each with its interval."""
    at = order.index(what)
    loss, low, high = (rows[name].to_numpy(float) for name in ("loss", "loss_low", "loss_high"))
    colour = COLOURS[at % len(COLOURS)]
    return go.Scatter(
        x=rows["moment"].to_numpy(float) * (1 + JITTER * (at - (len(order) - 1) / 2)),
        y=loss,
        error_y={"type": "data", "array": high - loss, "arrayminus": loss - low, "thickness": 1},
        mode="lines+markers",
        marker={"symbol": at, "size": 7, "color": colour},
        line={"color": colour, "width": 1},
        name=literal(what),
        legendgroup=what,
        showlegend=in_legend,
        hovertemplate=f"{literal(what)}: %{{y:.3g}}<extra></extra>",
    )


def _of(
    table: pd.DataFrame, kind: str, what: str, controls: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """The rows of what is taken out for a kind, or of its control."""
    own = where(table, (table["label"] == kind) & (table["what"] == what))
    if len(own):
        return own
    parent = next((name for name, others in controls.items() if what in others), "")
    of = where(table, (table["label"] == kind) & (table["what"] == parent))
    shared = where(table, (table["label"] == "") & (table["what"] == what))
    return of[["moment", "site", "dims"]].merge(shared, on=["moment", "site", "dims"])
