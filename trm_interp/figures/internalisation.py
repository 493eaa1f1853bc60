"""How far a model gets with few evaluations of its inner loop, and how near that is to rest."""

import itertools

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from trm_interp.figures.bands import AREA, OVER_PUZZLES, curve, explain, groups
from trm_interp.figures.style import SOLVED, SYMBOLS, styled

HEADINGS = ("puzzles solved", "distance from the fixed point", "puzzles with a fixed point")
SHARE = "share of puzzles"
DASH_OF = {"every": "solid", "last": "dash"}
LABEL = {"every": "every H-cycle", "last": "the last H-cycle only"}


def internalisation_figure(table: pd.DataFrame, latent: str, own: int, title: str) -> go.Figure:
    """Shares of solved puzzles, distances and shares of converged ones against the cap.

    table: rows of trained (optimizer steps; -1 where there is one checkpoint), where, cap, and the
    columns solved, distance, converged, the first two with _low and _high.
    """
    figure = make_subplots(rows=1, cols=3, subplot_titles=HEADINGS, horizontal_spacing=0.08)
    steps = sorted(table["trained"].unique())
    shades = [i / max(len(steps) - 1, 1) for i in range(len(steps))]
    scale = [str(colour) for colour in sample_colorscale("Viridis", shades)]
    colours = dict(zip(steps, [SOLVED] if len(steps) == 1 else scale, strict=True))
    symbols = dict(zip(steps, itertools.cycle(SYMBOLS))) if len(steps) > 1 else {}
    for (trained, where), rows in groups(table, "trained", "where"):
        label = LABEL[where] if len(steps) == 1 else f"step {trained}, {LABEL[where]}"
        cap = rows["cap"].to_numpy()
        for column, name in enumerate(("solved", "distance", "converged"), start=1):
            ends = (name, f"{name}_low", f"{name}_high")
            mean, low, high = (rows[end if end in rows else name].to_numpy(float) for end in ends)
            curve(
                figure,
                cap,
                (mean, low, high),
                colours[trained],
                label,
                column == 1,
                column=column,
                dash=DASH_OF[where],
                over="cap",
                symbol=symbols.get(trained, ""),
            )
    line = {"color": "#999", "width": 1, "dash": "dot"}
    for column in (1, 2, 3):
        figure.update_xaxes(title=f"evaluations of {latent} an H-cycle, at most", row=1, col=column)
        figure.add_vline(x=own, line=line, row=1, col=column)  # type: ignore[arg-type]
    explain(figure, "the model's own number", mode="lines", line=line)
    explain(figure, OVER_PUZZLES, **AREA)
    figure.update_yaxes(title=SHARE, range=[-0.02, 1.02], row=1, col=1)
    figure.update_yaxes(title="relative distance (median)", row=1, col=2)
    figure.update_yaxes(title=SHARE, range=[-0.02, 1.02], row=1, col=3)
    subtitle = "dotted: the model's own number; bands: 95 % intervals over puzzles"
    caption = (
        f"{HEADINGS[0].capitalize()}, {HEADINGS[1]} and {HEADINGS[2]}, over the largest number of "
        f"evaluations of {latent} an H-cycle. Dotted: the model's own number; bands: 95 % "
        "intervals over puzzles."
    )
    return styled(figure, title, subtitle, caption).update_layout(height=480)
