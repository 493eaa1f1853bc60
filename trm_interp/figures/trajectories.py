"""Paths of the latent state, solved and failed puzzles apart."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.style import FAILED, SOLVED, styled
from trm_interp.shapes import Bool, Float, Int


def trajectory_figure(
    paths: Float[np.ndarray, "puzzle tick pc"],
    explained: Float[np.ndarray, " pc"],
    loss: Float[np.ndarray, "puzzle step"],
    solved: Bool[np.ndarray, "puzzle step"],
    names: list[str],
    steps: Int[np.ndarray, " step"],
    title: str,
) -> go.Figure:
    """Left: z_L at every update, first two components. Right: loss at every step.

    `paths` are displacements from the first update; `explained` is the share of the pooled
    variance on each axis; `loss` in stablemax nats per cell. A dot ends each supervision step, a
    diamond is the last state. A puzzle counts as solved if it is solved at the last step; clicking
    the legend hides either kind.
    """
    figure = make_subplots(
        cols=2,
        rows=1,
        column_widths=[0.62, 0.38],
        subplot_titles=("displacement of z_L from its first update", "loss after each step"),
        horizontal_spacing=0.1,
    )
    n_ticks, n_steps = paths.shape[1], solved.shape[1]
    if n_ticks % n_steps:
        raise ValueError(f"{n_ticks} ticks are not whole steps of {n_steps}: keep all steps")
    per_step = n_ticks // n_steps
    ends = np.arange(per_step - 1, n_ticks, per_step)
    shown: set[bool] = set()
    for i, name in enumerate(names):
        ok = bool(solved[i, -1])
        colour, kind = (SOLVED, "solved") if ok else (FAILED, "failed")
        common = {"legendgroup": kind, "showlegend": False, "opacity": 0.75}
        figure.add_trace(
            go.Scatter(
                x=paths[i, :, 0],
                y=paths[i, :, 1],
                mode="lines",
                line={"color": colour, "width": 1},
                hoverinfo="skip",
                **common | {"opacity": 0.35},
            ),
            row=1,
            col=1,
        )
        state = ["solved" if s else "not solved" for s in solved[i]]
        figure.add_trace(
            go.Scatter(
                x=paths[i, ends, 0],
                y=paths[i, ends, 1],
                mode="markers",
                marker={
                    "color": colour,
                    "size": np.where(np.arange(n_steps) == n_steps - 1, 12, 5),
                    "symbol": ["circle"] * (n_steps - 1) + ["diamond"],
                },
                customdata=np.column_stack([steps + 1, loss[i], state]),
                hovertemplate=f"{name}<br>step %{{customdata[0]}}: %{{customdata[2]}}"
                "<br>loss %{customdata[1]:.3f}<extra></extra>",
                **common | {"showlegend": ok not in shown},
                name=kind,
            ),
            row=1,
            col=1,
        )
        shown.add(ok)
        figure.add_trace(
            go.Scatter(
                x=steps + 1,
                y=loss[i],
                mode="lines+markers",
                line={"color": colour, "width": 1},
                marker={"size": 4},
                hovertemplate=f"{name}<br>step %{{x}}: loss %{{y:.3f}}<extra></extra>",
                **common,
            ),
            row=1,
            col=2,
        )
    figure.update_xaxes(title=f"PC 1 ({explained[0]:.0%} of the variance)", row=1, col=1)
    figure.update_yaxes(title=f"PC 2 ({explained[1]:.0%})", row=1, col=1)
    figure.update_xaxes(title="supervision step (from 1)", row=1, col=2)
    figure.update_yaxes(title="stablemax loss, nats per cell", row=1, col=2, rangemode="tozero")
    return styled(figure, title)
