"""Circuits of features over the ticks of a run, drawn as a graph."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import explain, groups
from trm_interp.figures.style import BLUE, GREY, VERMILLION, literal, styled

WIDEST, NARROWEST, LARGEST = 6.0, 0.6, 22.0  # lines and nodes, in pixels
SIGNS = {True: ("raises the target", BLUE), False: ("lowers the target", VERMILLION)}


def circuit_figure(
    edges: pd.DataFrame, levels: pd.DataFrame, runs: Mapping[str, int], title: str
) -> go.Figure:
    """A panel a fate: features from top to bottom, ticks from left to right, lines as wide as their
    weight.

    edges: rows of fate, source_tick, target_tick, source, target, weight, low, high. levels: rows
    of fate, tick, feature, activation. runs: how many of each fate.
    """
    fates = [fate for fate in runs if fate in set(levels["fate"])]
    figure = make_subplots(
        rows=len(fates),
        cols=1,
        shared_xaxes=True,
        subplot_titles=[f"{literal(fate)} runs (n = {runs[fate]})" for fate in fates],
        vertical_spacing=0.1,
    )
    features = sorted(set(levels["feature"]))
    place = {feature: i for i, feature in enumerate(features)}
    ticks = sorted(set(levels["tick"]))
    column = {tick: i for i, tick in enumerate(ticks)}  # apart alike, however far in time
    edges = edges.assign(
        x=[column[tick] for tick in edges["source_tick"]],
        to_x=[column[tick] for tick in edges["target_tick"]],
    )
    levels = levels.assign(x=[column[tick] for tick in levels["tick"]])
    largest = float(np.abs(edges["weight"].to_numpy()).max()) if len(edges) else 1.0
    for row, fate in enumerate(fates, 1):
        for (of,), rows in groups(edges.iloc[::-1], "fate"):
            if of == fate:
                _lines(figure, rows, place, largest, row)
        for (of,), rows in groups(levels, "fate"):
            if of == fate:
                _nodes(figure, rows, place, row)
    for name, colour in SIGNS.values():
        explain(figure, name, mode="lines", line={"color": colour, "width": 3})
    size = "mean activation (size)"
    explain(figure, size, mode="markers", marker={"color": GREY, "size": 12})
    figure.update_yaxes(
        tickvals=list(range(len(features))),
        ticktext=[f"feature {feature}" for feature in features],
        range=[len(features) - 0.5, -0.5],
    )
    shown = ticks[:: -(-len(ticks) // 24)]
    figure.update_xaxes(title="tick of the run (from 0)", row=len(fates), col=1)
    figure.update_xaxes(tickvals=[column[tick] for tick in shown], ticktext=shown)
    caption = (
        "The strongest edges between features over the ticks of a run, means over puzzles and "
        "cells: how much of the target's activation is owed to the source, to first order. Lines "
        "are as wide as the weight, nodes as large as the mean activation."
    )
    figure = styled(figure, title, "hover a line's middle for its weight and interval", caption)
    height = 160 + len(fates) * (120 + 26 * len(features))
    return figure.update_layout(height=height, margin={"l": 100})


def _lines(
    figure: go.Figure, rows: pd.DataFrame, place: Mapping[int, int], largest: float, row: int
) -> None:
    for edge in rows.to_dict("records"):
        colour = SIGNS[edge["weight"] > 0][1]
        share = abs(edge["weight"]) / largest
        x = [edge["x"], edge["to_x"]]
        y = [place[edge["source"]], place[edge["target"]]]
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="lines",
                line={"color": colour, "width": NARROWEST + share * (WIDEST - NARROWEST)},
                opacity=0.25 + 0.6 * share,
                hoverinfo="skip",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
    ends = rows[["source", "target", "source_tick", "target_tick", "weight", "low", "high"]]
    figure.add_trace(
        go.Scatter(
            x=(rows["x"] + rows["to_x"]) / 2,
            y=[
                (place[s] + place[t]) / 2
                for s, t in zip(rows["source"], rows["target"], strict=True)
            ],
            mode="markers",
            marker={"size": 9, "opacity": 0},
            customdata=ends.to_numpy(float),
            hovertemplate="feature %{customdata[0]:d} at tick %{customdata[2]:d} to feature "
            "%{customdata[1]:d} at tick %{customdata[3]:d}<br>%{customdata[4]:.3g} "
            "[%{customdata[5]:.3g}, %{customdata[6]:.3g}]<extra></extra>",
            showlegend=False,
        ),
        row=row,
        col=1,
    )


def _nodes(figure: go.Figure, rows: pd.DataFrame, place: Mapping[int, int], row: int) -> None:
    activation = rows["activation"].to_numpy(float)
    size = LARGEST * np.sqrt(activation / max(activation.max(), 1e-30))
    figure.add_trace(
        go.Scatter(
            x=rows["x"],
            y=[place[feature] for feature in rows["feature"]],
            mode="markers",
            marker={"size": size, "color": GREY, "opacity": 0.8, "line": {"width": 0}},
            customdata=np.stack([rows["feature"], activation, rows["tick"]], 1),
            hovertemplate="feature %{customdata[0]:d} after tick %{customdata[2]:d}: mean "
            "activation %{customdata[1]:.3g}<extra></extra>",
            showlegend=False,
        ),
        row=row,
        col=1,
    )
