"""Figures of settling and stability hold the numbers that they were given."""

import numpy as np
import pandas as pd

from trm_interp.figures.dynamics import (
    drift_histogram,
    eigenvalue_figure,
    exponent_against_drift,
    exponent_figure,
    fate_figure,
    recurrence_figure,
    same_phase_figure,
)
from trm_interp.figures.style import FAILED, SOLVED

OUTCOMES = ["solved", "solved", "failed"]


def test_drift_counts_every_run_and_marks_the_threshold():
    numbers = pd.DataFrame({"outcome": OUTCOMES, "log_drift": [-6.0, -5.0, -1.0]})
    figure = drift_histogram(numbers, -3.0, "a title")
    *bars, line = figure.data
    assert [trace.name for trace in bars] == ["solved (n = 2)", "failed (n = 1)"]
    assert [list(trace.x) for trace in bars] == [[-6, -5], [-1]]
    assert [trace.marker.color for trace in bars] == [SOLVED, FAILED]
    assert line.line.dash == figure.layout.shapes[0].line.dash and "Otsu" in line.name
    assert [shape.x0 for shape in figure.layout.shapes] == [-3]
    assert not drift_histogram(numbers, np.nan, "no threshold").layout.shapes


def band(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({**columns, "mean": [2.0, 3.0], "low": [1.0, 2.0], "high": [3.0, 4.0]})


def test_curves_have_their_bands():
    drift = pd.concat(
        band(state=state, outcome=outcome, steps_done=[1, 2])
        for state in ("z_H", "z_L")
        for outcome in ("solved", "failed")
    )
    figure = same_phase_figure(drift, "a title")
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.fill is None]
    assert [trace.name for trace in lines] == ["solved", "failed"] * 2
    assert [trace.showlegend for trace in lines] == [True, True, False, False]
    assert all(list(trace.y) == [2, 3] for trace in lines)
    figure = recurrence_figure(band(outcome="failed", lag=[1, 2]), "a title")
    area, line, key = figure.data
    assert key.name == "95 % interval over puzzles"
    assert list(area.y) == [3, 4, 2, 1] and list(line.x) == [1, 2] and line.line.color == FAILED


def test_fates_are_stacked_shares():
    numbers = pd.DataFrame(
        {
            "steps": [16, 16, 64, 64],
            "became": ["settled", "wandering"] * 2,
            "share": [0.25, 0.75, 1.0, 0.0],
            "low": 0.0,
            "high": 1.0,
            "n": 4,
        }
    )
    settled, wandering = fate_figure(numbers, "a title").data
    assert (settled.name, list(settled.x), list(settled.y)) == ("at rest", ["16", "64"], [0.25, 1])
    assert list(wandering.y) == [0.75, 0]


def test_exponents_and_eigenvalues():
    runs = pd.DataFrame({"outcome": OUTCOMES, "puzzle": [0, 3, 5]})
    spectrum = exponent_figure(runs.assign(index=1, exponent=[0.1, 0.2, 0.3]), "a title")
    assert [list(trace.y) for trace in spectrum.data] == [[0.1, 0.2], [0.3]]
    points = exponent_against_drift(
        runs.assign(late_drift=[1e-6, 1e-3, 0.1], lambda_1=[-0.1, 0.0, 0.1]), "a title"
    )
    assert list(points.data[1].x) == [0.1] and points.data[0].customdata.ravel().tolist() == [0, 3]
    circle, *kinds = eigenvalue_figure(runs.assign(real=[0.5, 1.0, 0.0], imag=0.5), "a title").data
    np.testing.assert_allclose(np.hypot(circle.x, circle.y), 1)
    assert [list(trace.x) for trace in kinds] == [[0.5, 1], [0]]
