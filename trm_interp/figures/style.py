"""One look for all figures, and the one way to write them."""

from pathlib import Path

import plotly.graph_objects as go

SOLVED, FAILED = "#1f77b4", "#d62728"
COLOUR = {"solved": SOLVED, "failed": FAILED}
FONT = "Helvetica, Arial, sans-serif"


def styled(figure: go.Figure, title: str) -> go.Figure:
    figure.update_layout(
        title={"text": title, "x": 0.02, "font": {"size": 17}},
        template="plotly_white",
        font={"family": FONT, "size": 13},
        legend={"groupclick": "togglegroup"},
        margin={"l": 60, "r": 20, "t": 90, "b": 60},
        height=640,
    )
    return figure


def write_html(figure: go.Figure, path: Path) -> Path:
    """An interactive page; plotly.js is written once beside it, so that it opens offline.

    Its sliders wait to be moved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(
        path, include_plotlyjs="directory", config={"displaylogo": False}, auto_play=False
    )
    return path
