"""One look for all figures, and the one way to write them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

SOLVED, FAILED = "#1f77b4", "#d62728"
COLOUR = {"solved": SOLVED, "failed": FAILED}
FONT = "Helvetica, Arial, sans-serif"
Band = tuple[np.ndarray, np.ndarray, np.ndarray]  # mean, low, high


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
    """An interactive page; plotly.js is written once beside it, so that it opens offline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs="directory", config={"displaylogo": False})
    return path


def curve(
    figure: go.Figure,
    x: np.ndarray,
    band: Band,
    colour: str,
    name: str,
    in_legend: bool,
    row: int = 1,
    over: str = "evaluation",
) -> None:
    """A line over its band; both hide with the legend entry. `over`: what x counts."""
    mean, low, high = band
    common = {"legendgroup": name, "name": name}
    figure.add_trace(
        go.Scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=colour,
            line={"width": 0},
            opacity=0.15,
            hoverinfo="skip",
            showlegend=False,
            **common,
        ),
        row=row,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            mode="lines",
            line={"color": colour, "width": 1.5},
            showlegend=in_legend,
            hovertemplate=f"{name}<br>{over} %{{x}}: %{{y:.3f}}<extra></extra>",
            **common,
        ),
        row=row,
        col=1,
    )


def step_lines(figure: go.Figure, steps: Iterable[int]) -> None:
    """A dotted line where each supervision step begins."""
    for step in steps:
        figure.add_vline(x=step, line={"color": "#999", "width": 1, "dash": "dot"})
