"""Figures of patches and of what is taken out: their axes."""

import pandas as pd

from trm_interp.figures.trace import sealed_figure, trace_figure
from trm_interp.figures.used import used_figure

BOUNDS = {"flipped_low": 0.1, "flipped_high": 0.9}


def patched(**more: str) -> pd.DataFrame:
    """Three moments, between which a wide axis would mark halves."""
    rows = {"direction": "rescue", "site": "z_H", "moment": [0, 1, 2], "flipped": 0.5}
    return pd.DataFrame(rows | BOUNDS | more)


def test_moments_are_marked_at_whole_steps():
    for figure in (
        trace_figure(patched(group="all"), "flipped", 4, "a title"),
        sealed_figure(patched(donor="the solved run"), 4, "a title"),
    ):
        assert (figure.layout.xaxis.tick0, figure.layout.xaxis.dtick) == (0, 1)


def test_states_are_compared_on_one_scale():
    rows = {"label": "wrong", "what": "probes", "dims": 2, "loss": [1.0, 9.0]}
    table = pd.DataFrame(
        {"moment": 1, "site": ["z_H", "z_L"], "loss_low": 0, "loss_high": 9} | rows
    )
    figure = used_figure(table, ["wrong"], {"probes": []}, "set to their mean", "a title")
    second = figure.layout["yaxis2"]
    assert second.matches == "y" and not second.showticklabels
