"""Figures of a search show the numbers that they were given, with their intervals."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from trm_interp.figures.search import (
    NAMES,
    ablation_figure,
    breadth_depth_figure,
    calibration_figure,
    escape_figure,
    shares_figure,
)


def table(names: tuple[str, ...], **columns: list) -> pd.DataFrame:
    """Columns as given, and for each name a share with an interval around it."""
    n = len(next(iter(columns.values())))
    rng = np.random.default_rng(0)
    shares = {name: rng.uniform(0.2, 0.8, n) for name in names}
    low = {f"{name}_low": share - 0.1 for name, share in shares.items()}
    high = {f"{name}_high": share + 0.2 for name, share in shares.items()}
    return pd.DataFrame({**columns, **shares, **low, **high})


def assert_shown(trace: go.Scatter, rows: pd.DataFrame, x: str, y: str, shift: int = 0) -> None:
    np.testing.assert_array_equal(trace.x, rows[x] + shift)
    np.testing.assert_array_equal(trace.y, rows[y])
    np.testing.assert_allclose(trace.error_y.array, 0.2)
    np.testing.assert_allclose(trace.error_y.arrayminus, 0.1)


def test_shares_by_step():
    rows = table(tuple(NAMES), search=["paper"] * 2 + ["ptrm"] * 2, step=[0, 1, 0, 1])
    figure = shares_figure(rows, "a title")
    assert len(figure.data) == 2 * len(NAMES) + 1 and figure.layout.title.text == "a title"
    for i, name in enumerate(NAMES):
        assert_shown(figure.data[i], rows[:2], "step", name, shift=1)  # steps count from 1
        assert_shown(figure.data[len(NAMES) + i], rows[2:], "step", name, shift=1)


def test_ablation_by_sigma():
    rows = table(
        ("recovered", "kept"),
        kind=["start"] * 4 + ["every"] * 2,
        target=["z_H", "z_H", "z_L", "z_L", "z_H", "z_H"],
        sigma=[0.1, 1.0] * 3,
    )
    figure = ablation_figure(rows, "")
    # panels of kind x (recovered, kept), a line for each target; "every" has no z_L
    drawn = [trace for trace in figure.data if trace.x[0] is not None]
    assert len(drawn) == 6
    assert_shown(drawn[0], rows[:2], "sigma", "recovered")
    assert_shown(drawn[1], rows[:2], "sigma", "kept")
    assert_shown(drawn[5], rows[4:], "sigma", "kept")


def test_breadth_and_depth_and_calibration():
    rows = table(("best_q", "pass_at_k"), curve=["deep"] * 2 + ["broad"], evaluations=[21, 42, 42])
    figure = breadth_depth_figure(rows, "")
    assert [trace.name for trace in figure.data] == [
        *("deep", "deep", "broad", "broad"),
        "95 % interval over puzzles",
    ]
    assert_shown(figure.data[1], rows[:2], "evaluations", "pass_at_k")
    rows = table(("right",), search=["paper"] * 3, confidence=[0.1, 0.5, 0.9])
    figure = calibration_figure(rows, "")
    assert_shown(figure.data[0], rows, "confidence", "right")
    assert (figure.data[1].x, figure.data[1].y) == ((0, 1), (0, 1))


@pytest.mark.parametrize("rating", ["waves", "effort"])
def test_escapes(rating: str):
    rows = pd.DataFrame({"line": [3, 7], "escape": [0.0, 1.0], "waves": [5, 6], "effort": [1, 9]})
    bars, dots = escape_figure(rows, rating, "").data
    assert list(bars.x) == [0.0, 1.0] and list(dots.x) == rows[rating].tolist()
    assert bars.xbins.end > 1 and list(dots.text) == ["line 3", "line 7"]


def test_sigma_0_is_drawn_and_other_sigmas_on_a_log_axis():
    bars = {
        f"{name}{end}": [0.5] * 3 for name in ("recovered", "kept") for end in ("", "_low", "_high")
    }
    kinds = {"kind": ["noise", "noise", "copies"], "target": ["a", "a", "none"]}
    table = pd.DataFrame({**kinds, "sigma": [0.1, 1.0, 0.0], **bars})
    layout = ablation_figure(table, "t").layout
    assert layout.xaxis.type == layout.xaxis3.type == "log"
    assert layout.xaxis2.type != "log" and layout.xaxis4.type != "log"
