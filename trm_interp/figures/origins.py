"""Where failures come from: shares of the variance, and breadth against depth."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import BAR_ACROSS, OVER_PUZZLES, explain
from trm_interp.figures.style import SOLVED, styled

HEADINGS = (
    "share of the variance of solved or not",
    "puzzles solved",
)


def origins_figure(origins: pd.DataFrame, solved: pd.DataFrame, title: str) -> go.Figure:
    """Points with 95 % intervals over puzzles.

    origins: rows of origin, value, low, high. solved: rows of way, share, low, high.
    """
    figure = make_subplots(rows=1, cols=2, subplot_titles=HEADINGS, horizontal_spacing=0.22)
    panels = ((origins, "origin", "value"), (solved, "way", "share"))
    for column, (table, name, value) in enumerate(panels, start=1):
        figure.add_trace(
            go.Scatter(
                x=table[value],
                y=table[name],
                mode="markers",
                marker={"color": SOLVED, "size": 10},
                error_x={
                    "type": "data",
                    "array": table["high"] - table[value],
                    "arrayminus": table[value] - table["low"],
                },
                showlegend=False,
            ),
            row=1,
            col=column,
        )
    none = {"color": "#888888", "dash": "dot", "width": 1}
    figure.add_vline(x=0, line=none, row=1, col=1)  # type: ignore[arg-type]
    explain(figure, OVER_PUZZLES, **BAR_ACROSS)
    explain(figure, "no variance", mode="lines", line=none)
    figure.update_xaxes(tickformat=".0%")
    figure.update_xaxes(range=[-0.02, 1.02], row=1, col=2)
    figure.update_yaxes(autorange="reversed")
    caption = (
        "Share of the variance of solved or not by where it comes from, and share of puzzles "
        "solved by ways of equal cost. Bars: 95 % intervals over puzzles."
    )
    bars = "bars: 95 % intervals over puzzles"
    return styled(figure, title, bars, caption).update_layout(height=420)
