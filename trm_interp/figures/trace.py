"""What patches between solved and failed runs do: heat maps, when fates are sealed, by rating."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import AREA, DASHES, curve, explain, groups, whole_ticks
from trm_interp.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, literal, styled

HEADINGS = {"rescue": "solved into failed", "ruin": "failed into solved"}
MOMENT = "steps done when patched"
LEGEND = {"flipped": "share of pairs<br>that flip", "estimate": "change of loss<br>(nats per cell)"}
OVER_PAIRS = "95 % interval over pairs"
COLOURS = (BLUE, GREEN, ORANGE, GREY, VERMILLION)
JITTER = 0.12  # of moments, so that equal points are seen
ROW = 18  # pixels of the screen


def trace_figure(table: pd.DataFrame, value: str, pairs: int, title: str) -> go.Figure:
    """Two heat maps, a row a site and group of positions, over moments: rescue and ruin.

    table: rows of direction, site, group, moment, and `value` ("flipped", a share, or "estimate", a
    change of the loss) with _low and _high. Cells that were not measured are empty; a dot marks
    those whose interval does not hold 0.
    """
    shown = [name for name in HEADINGS if name in set(table["direction"])]
    figure = make_subplots(
        rows=1,
        cols=len(shown),
        shared_yaxes=True,
        subplot_titles=[HEADINGS[name] for name in shown],
        horizontal_spacing=0.04,
    )
    labels = list(dict.fromkeys(table["site"] + ", " + table["group"]))
    moments = np.unique(table["moment"].to_numpy(float))
    for column, direction in enumerate(shown, 1):
        rows = table.query(f"direction == '{direction}'")
        rows = rows.assign(label=rows["site"] + ", " + rows["group"])
        images = [
            rows.pivot(index="label", columns="moment", values=name).reindex(labels).to_numpy(float)
            for name in (value, f"{value}_low", f"{value}_high")
        ]
        for drawn in _panel(moments, [literal(label) for label in labels], *images):
            figure.add_trace(drawn, row=1, col=column)
    dot = {"size": 6, "color": "white", "line": {"width": 0.8, "color": "black"}}
    explain(figure, "the interval does not hold 0", mode="markers", marker=dot)
    figure.update_xaxes(title=MOMENT, **whole_ticks(moments))
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5])
    missing = bool(np.isnan(table[value].to_numpy(float)).any())
    how = "measured" if value == "flipped" else "estimated by attribution along the run"
    caption = (
        f"Patches between a solved and a failed run of one puzzle ({pairs} pairs), by site and "
        "group of positions over the moment: "
        f"{'; '.join(HEADINGS[name] for name in shown)}. "
        f"Colour: {LEGEND[value].replace('<br>', ' ')}, {how}. Dots: the {OVER_PAIRS} does not "
        "hold 0, without correction for the number of cells."
        + (" Empty cells were not measured." if missing else "")
    )
    figure = styled(figure, title, f"dots: the {OVER_PAIRS} does not hold 0", caption)
    return figure.update_layout(
        height=240 + ROW * len(labels),
        coloraxis=_scale(table[value].to_numpy(float), value),
        margin={"l": 140},
    )


def _panel(
    moments: np.ndarray, labels: list[str], z: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[go.Heatmap, go.Scatter]:
    """The image [label, moment], and dots where the interval does not hold 0."""
    heat = go.Heatmap(
        z=z,
        x=moments,
        y=labels,
        coloraxis="coloraxis",
        customdata=np.stack([low, high], -1),
        hovertemplate="%{y}<br>after step %{x}: %{z:.3g} "
        "[%{customdata[0]:.3g}, %{customdata[1]:.3g}]<extra></extra>",
    )
    row, moment = np.nonzero((low > 0) | (high < 0))
    dots = go.Scatter(
        x=moments[moment],
        y=[labels[i] for i in row],
        mode="markers",
        marker={"size": 4, "color": "white", "line": {"width": 0.8, "color": "black"}},
        hoverinfo="skip",
        showlegend=False,
    )
    return heat, dots


def _scale(values: np.ndarray, value: str) -> dict:
    there = np.abs(values[np.isfinite(values)])
    most = float(there.max()) if len(there) else 1.0
    bar = {"title": LEGEND[value], "len": 0.6, "y": 0, "yanchor": "bottom"}
    if value == "flipped":
        return {"colorscale": "Viridis", "cmin": 0, "cmax": 1, "colorbar": bar}
    most = most or 1.0
    return {"colorscale": "RdBu_r", "cmin": -most, "cmax": most, "colorbar": bar}


def sealed_figure(table: pd.DataFrame, pairs: int, title: str) -> go.Figure:
    """Shares of pairs that flip over moments: a panel a site and direction, a line a donor.

    table: rows of direction, site, donor, moment, flipped, flipped_low, flipped_high.
    """
    sites = list(dict.fromkeys(table["site"]))
    directions = [name for name in HEADINGS if name in set(table["direction"])]
    figure = make_subplots(
        rows=len(sites),
        cols=len(directions),
        shared_yaxes=True,
        shared_xaxes=True,
        subplot_titles=[f"{literal(s)}: {HEADINGS[d]}" for s in sites for d in directions],
        vertical_spacing=min(0.14, 0.6 / len(sites)),
        horizontal_spacing=0.06,
    )
    donors = list(dict.fromkeys(table["donor"]))
    in_legend: set[str] = set()
    there = table.dropna(subset=["flipped"])
    for (direction, site, donor), rows in groups(there, "direction", "site", "donor"):
        band = tuple(rows[name].to_numpy(float) for name in ("flipped", *ENDS))
        at = donors.index(donor)
        curve(
            figure,
            rows["moment"].to_numpy(float),
            band,  # type: ignore[arg-type]
            COLOURS[at % len(COLOURS)],
            donor,
            donor not in in_legend,
            sites.index(site) + 1,
            directions.index(direction) + 1,
            DASHES[at % len(DASHES)],
            over="after step",
        )
        in_legend.add(donor)
    explain(figure, OVER_PAIRS, **AREA)
    figure.update_yaxes(range=[-0.02, 1.02])
    figure.update_yaxes(title="share of pairs that flip", col=1)
    figure.update_xaxes(whole_ticks(there["moment"].to_numpy(float)))
    figure.update_xaxes(title=MOMENT, row=len(sites))
    caption = (
        f"Share of {pairs} pairs whose outcome flips when one state is replaced at all positions, "
        "over the moment, by whose state it is. Left: a state of a solved run is put into the "
        "failed one; right: the other way round. Bands: 95 % Wilson intervals over pairs."
    )
    styled(figure, title, "bands: 95 % intervals over pairs", caption)
    return figure.update_layout(height=150 + 280 * len(sites))


ENDS = ("flipped_low", "flipped_high")


def rating_figure(pairs: pd.DataFrame, sites: list[str], rating: str, title: str) -> go.Figure:
    """The last moment at which a pair is rescued against the rating, a colour a site.

    pairs: rows of rating and last_rescue_SITE, NaN where no moment rescues.
    """
    figure = go.Figure()
    for i, site in enumerate(sites):
        rows = pairs.dropna(subset=[f"last_rescue_{site}"])
        shift = (i - (len(sites) - 1) / 2) * JITTER
        figure.add_trace(
            go.Scatter(
                x=rows["rating"],
                y=rows[f"last_rescue_{site}"] + shift,
                mode="markers",
                marker={"color": COLOURS[i % len(COLOURS)], "size": 9, "symbol": i % 5},
                name=literal(f"{site} ({len(rows)} of {len(pairs)} pairs)"),
                hovertemplate="%{x:.3g}: step %{y:.1f}<extra></extra>",
            )
        )
    figure.update_xaxes(title=literal(rating))
    last = pairs[[f"last_rescue_{site}" for site in sites]].to_numpy(float)
    top = float(np.nanmax(last)) if np.isfinite(last).any() else 1.0
    figure.update_yaxes(title="steps done at the last rescue", range=[-0.5, top + 0.5])
    figure.update_yaxes(whole_ticks(np.array([0, top])))
    caption = (
        "The last moment, in supervision steps done, at which a state of the solved run rescues "
        f"the failed one, against {literal(rating)}; a point a pair, drawn slightly apart by state."
    )
    return styled(figure, title, caption=caption).update_layout(height=480)
