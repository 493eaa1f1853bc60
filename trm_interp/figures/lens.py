"""The output head over time, and how well linear probes read the board from single cells."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trm_interp.figures.bands import (
    AREA,
    DASHES,
    OVER_PUZZLES,
    counts,
    curve,
    explain,
    groups,
    step_lines,
)
from trm_interp.figures.style import BLUE, FAILED, GREEN, GREY, ORANGE, SOLVED, styled

# of sites, in the table's order: solved and failed
PAIRS = (("solid", "dash"), ("dot", "dashdot"), ("longdash", "longdashdot"))
DASH_OF_INPUT = {"x": "dashdot", "board": "longdash"}  # of kinds without a site
KIND_COLOURS = {"state": BLUE, "shuffled": GREY, "x": GREEN, "board": ORANGE}


def lens_figure(
    numbers: pd.DataFrame, curves: Mapping[str, str], steps: list[int], title: str
) -> go.Figure:
    """A panel a curve, over network evaluations: a dash a site and outcome.

    numbers: rows of site, curve, outcome, tick, mean, low, high, n; bands are 95 % intervals over
    puzzles. `curves`: headings by name. Steps begin at the ticks of `steps`.
    """
    names = list(curves)
    pairs = dict(zip(numbers["site"].unique(), cycle(PAIRS), strict=False))
    figure = make_subplots(
        rows=-(-len(names) // 2),
        cols=2,
        shared_xaxes=True,
        subplot_titles=list(curves.values()),
        vertical_spacing=0.1,
    )
    for (name, site, outcome), rows in groups(numbers, "curve", "site", "outcome"):
        panel = names.index(name)
        band = (np.asarray(rows["mean"]), np.asarray(rows["low"]), np.asarray(rows["high"]))
        n = int(rows["n"].iloc[0])
        curve(
            figure,
            np.asarray(rows["tick"]),
            band,
            SOLVED if outcome == "solved" else FAILED,
            f"{site}, {outcome} (n = {n})",
            panel == 0,
            panel // 2 + 1,
            panel % 2 + 1,
            pairs[site][outcome == "failed"],
        )
    explain(figure, OVER_PUZZLES, **AREA)
    step_lines(figure, steps)
    figure.update_yaxes(range=[0, 1.02])
    figure.update_yaxes(title="share, mean over puzzles", col=1)
    figure.update_xaxes(title="network evaluation (from 0)", row=-(-len(names) // 2))
    caption = (
        f"The output head on recorded states, {counts(numbers)} puzzles, over network evaluations: "
        f"{'; '.join(curves.values())}. Bands are 95 % intervals over puzzles; dotted lines: a "
        "supervision step begins."
    )
    return styled(figure, title, caption=caption)


def _ticks(numbers: pd.DataFrame) -> list[int]:
    """1, 2, 5, 10, 20, ... as far as the network evaluations go."""
    last = int(numbers["tick"].to_numpy().max()) + 1 if len(numbers) else 1
    return [n * 10**i for i in range(len(str(last))) for n in (1, 2, 5) if n * 10**i <= last]


LEFT_OF_PROBES = {"candidates": "candidates left by the givens", "facts": "facts of the board"}


def probe_figure(numbers: pd.DataFrame, kinds: Mapping[str, str], title: str) -> go.Figure:
    """AUC over network evaluations (logarithmic): candidates or facts left, rule violations right.

    numbers: rows of label, site ("" for controls on the input), kind, tick, auc, low, high, n;
    `kinds`: what each kind is, in words. 0.5 is chance.
    """
    left = "facts" if "facts" in set(numbers["label"]) else "candidates"
    labels, dashes = (left, "violations"), _dashes(numbers)
    figure = make_subplots(
        cols=2,
        rows=1,
        shared_yaxes=True,
        subplot_titles=(LEFT_OF_PROBES[left], "conflicts of the current guess"),
    )
    in_legend: set[str] = set()
    for column, label in enumerate(labels, 1):
        chosen = numbers.query(f"label == '{label}'").dropna(subset=["auc"])
        for (site, kind), rows in groups(chosen, "site", "kind"):
            band = (np.asarray(rows["auc"]), np.asarray(rows["low"]), np.asarray(rows["high"]))
            name = f"{site}: {kinds[kind]}" if site else kinds[kind]
            at = np.asarray(rows["tick"]) + 1
            dash = dashes[site] if site else DASH_OF_INPUT.get(kind, "dash")
            colour = KIND_COLOURS[kind]
            curve(figure, at, band, colour, name, name not in in_legend, 1, column, dash)
            in_legend.add(name)
    chance = {"color": "#333", "width": 1, "dash": "dash"}
    figure.add_hline(y=0.5, line=chance)
    explain(figure, "chance", mode="lines", line=chance)
    explain(figure, OVER_PUZZLES, **AREA)
    figure.update_xaxes(title="network evaluation (from 1)", type="log", tickvals=_ticks(numbers))
    figure.update_yaxes(title="AUC within a puzzle", row=1, col=1)
    n = f"{numbers['n'].to_numpy().max()} " if "n" in numbers and len(numbers) else ""
    caption = (
        f"AUC of linear probes on {n}unseen puzzles over network evaluations: left {left}, "
        "right violated rules; lines of the input and of shuffled labels are controls. Bands are "
        "95 % intervals over puzzles; 0.5 is chance."
    )
    return styled(figure, title, caption=caption)


def _dashes(numbers: pd.DataFrame) -> dict[str, str]:
    """The dash of every site, in the order in which the table has them."""
    sites = [site for site in dict.fromkeys(numbers["site"]) if site]
    return dict(zip(sites, cycle(DASHES), strict=False))
