"""How far a change of one cell reaches: over network evaluations, and through a mixer alone."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import AREA, DASHES, OVER_PUZZLES, curve, explain, groups, where
from trm_interp.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, literal, styled

COLOURS = (VERMILLION, BLUE, GREEN, ORANGE, GREY)
LEAST = 1e-8  # below which a logarithmic axis shows nothing
EVALUATIONS = "network evaluations since the change"


def spread_figure(
    table: pd.DataFrame, relations: Sequence[str], share: str, n: int, title: str
) -> go.Figure:
    """Influence over evaluations, a panel a site and a line a relation; on a logarithmic axis but
    for the site `share`.

    table: rows of site, evaluations_done, relation, influence, influence_low, influence_high.
    """
    sites = list(dict.fromkeys(table["site"]))
    figure = make_subplots(
        rows=len(sites),
        cols=1,
        shared_xaxes=True,
        subplot_titles=[literal(site) for site in sites],
        vertical_spacing=min(0.08, 0.6 / len(sites)),
    )
    in_legend: set[str] = set()
    there = where(table, table["influence"].notna())
    for (site, relation), rows in groups(there, "site", "relation"):
        at, row = relations.index(relation), sites.index(site) + 1
        names = ("influence", "influence_low", "influence_high")
        band = [rows[name].to_numpy(float) for name in names]
        if site != share:
            band = [np.maximum(of, LEAST) for of in band]
        curve(
            figure,
            rows["evaluations_done"].to_numpy(float),
            tuple(band),  # type: ignore[arg-type]
            COLOURS[at % len(COLOURS)],
            relation,
            relation not in in_legend,
            row,
            dash=DASHES[at // len(COLOURS) % len(DASHES)],
        )
        in_legend.add(relation)
    explain(figure, OVER_PUZZLES, **AREA)
    for row, site in enumerate(sites, 1):
        if site == share:
            figure.update_yaxes(title="share of cells", row=row)
        else:
            figure.update_yaxes(
                title="RMS change", type="log", exponentformat="power", dtick=1, row=row
            )
    figure.update_xaxes(title=EVALUATIONS, row=len(sites))
    caption = (
        f"How much cells of {n} puzzles differ from the plain run after one cell is changed, by "
        "their relation to it, over network evaluations: RMS over coordinates of the states, RMS "
        f"over tokens of the logits, and the share of guesses that differ. Bands: {OVER_PUZZLES}."
    )
    styled(figure, title, f"bands: {OVER_PUZZLES}", caption)
    return figure.update_layout(height=160 + 200 * len(sites))


def locality_figure(table: pd.DataFrame, n: int, title: str) -> go.Figure:
    """Influence on related cells over that on unrelated ones, over evaluations, a line a site.

    table: rows of site, evaluations_done, ratio, ratio_low, ratio_high.
    """
    figure = make_subplots(rows=1, cols=1)
    there = where(table, table["ratio"].notna())
    for i, ((site,), rows) in enumerate(groups(there, "site")):
        band = tuple(rows[name].to_numpy(float) for name in ("ratio", "ratio_low", "ratio_high"))
        curve(
            figure,
            rows["evaluations_done"].to_numpy(float),
            band,  # type: ignore[arg-type]
            COLOURS[i % len(COLOURS)],
            site,
            True,
            dash=DASHES[i % len(DASHES)],
        )
    explain(figure, OVER_PUZZLES, **AREA)
    figure.add_hline(y=1, line={"color": "#999", "width": 1, "dash": "dot"})
    figure.update_xaxes(title=EVALUATIONS)
    figure.update_yaxes(title="related cells over unrelated ones")
    caption = (
        "How much more cells that are related to the changed one differ from the plain run than "
        f"unrelated ones, as a ratio of means over {n} puzzles; 1 is no difference. Bands: "
        f"{OVER_PUZZLES}."
    )
    return styled(figure, title, f"bands: {OVER_PUZZLES}", caption).update_layout(height=420)


def mixer_figure(table: pd.DataFrame, n: int, title: str) -> go.Figure:
    """Gain of every mixer by relation, as bars.

    table: rows of mixer, relation, gain, gain_low, gain_high.
    """
    figure = go.Figure()
    for i, ((mixer,), rows) in enumerate(groups(where(table, table["gain"].notna()), "mixer")):
        gain, low, high = (rows[name].to_numpy(float) for name in ("gain", "gain_low", "gain_high"))
        figure.add_trace(
            go.Bar(
                x=[literal(name) for name in rows["relation"]],
                y=gain,
                error_y={"type": "data", "array": high - gain, "arrayminus": gain - low},
                marker={"color": COLOURS[i % len(COLOURS)]},
                name=literal(mixer),
                hovertemplate="%{x}: %{y:.3g}<extra></extra>",
            )
        )
    figure.update_xaxes(title="relation to the changed cell")
    figure.update_yaxes(title="RMS written over RMS read", rangemode="tozero")
    caption = (
        "RMS change that a token mixer alone writes at cells by their relation to the one at which "
        f"a small change is read, over the RMS of that, in the states of {n} puzzles; bars: "
        f"{OVER_PUZZLES}."
    )
    return styled(figure, title, f"bars: {OVER_PUZZLES}", caption).update_layout(height=420)
