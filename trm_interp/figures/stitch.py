"""How well a model goes on from another one's state, beside its controls."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import BAR_ACROSS, OVER_PUZZLES, explain
from trm_interp.figures.style import FAILED, SOLVED, styled

PANELS = (
    ("exact", "puzzles solved", ".0%"),
    ("cells", "cells right", ".0%"),
    ("loss", "nats per cell", ".2f"),
)


def stitch_figure(arms: pd.DataFrame, title: str) -> go.Figure:
    """A panel each for puzzles solved, cells right and the loss; a row an arm.

    arms: rows of arm, is_link and, of every measure, its value, NAME_low and NAME_high.
    """
    figure = make_subplots(
        rows=1,
        cols=len(PANELS),
        shared_yaxes=True,
        subplot_titles=[heading for _, heading, _ in PANELS],
        horizontal_spacing=0.05,
    )
    for kind, colour, symbol in ((True, FAILED, "diamond"), (False, SOLVED, "circle")):
        rows = arms.query("is_link == @kind")
        for column, (name, _, _) in enumerate(PANELS, start=1):
            figure.add_trace(
                go.Scatter(
                    x=rows[name],
                    y=rows["arm"],
                    mode="markers",
                    marker={"color": colour, "symbol": symbol, "size": 10},
                    error_x={
                        "type": "data",
                        "array": rows[f"{name}_high"] - rows[name],
                        "arrayminus": rows[name] - rows[f"{name}_low"],
                    },
                    name="the trained link" if kind else "controls and models alone",
                    legendgroup=str(kind),
                    showlegend=column == 1,
                ),
                row=1,
                col=column,
            )
    for column, (_, _, form) in enumerate(PANELS, start=1):
        figure.update_xaxes(tickformat=form, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(autorange="reversed", categoryarray=list(arms["arm"]))
    explain(figure, OVER_PUZZLES, **BAR_ACROSS)
    caption = (
        "Runs of one model that go on from another model's answer states through a trained link, "
        "beside controls and the models alone. Bars: 95 % intervals over puzzles."
    )
    figure = styled(figure, title, "bars: 95 % intervals over puzzles", caption)
    return figure.update_layout(height=460, legend={"orientation": "h", "y": -0.15})
