"""Accuracy tables and their intervals, by hand and against scipy's."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from trm_interp.analysis.outcomes import (
    by_rating,
    calibration_error,
    calibration_table,
    outcome_table,
    outcomes_by_rating,
    wilson,
    wilson_bounds,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (50, 100), (423, 500), (10, 10)])
def test_wilson_equals_scipy(successes: int, n: int):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_by_hand():
    # one standard deviation (z = 1), 1 of 2: centre (1/2 + 1/4) / (1 + 1/2) = 1/2,
    # half sqrt(1/4 / 2 + 1/16) * 1 / (3/2) = sqrt(3)/4 * 2/3 = 1 / (2 sqrt(3))
    half = 1 / (2 * math.sqrt(3))
    assert wilson(1, 2, level=math.erf(math.sqrt(0.5))) == pytest.approx(
        (0.5 - half, 0.5 + half), abs=1e-15
    )


def test_many_intervals_are_those_of_each_one():
    hits, n = np.array([0, 3, 7, 0, 2.5]), np.array([4, 4, 7, 0, 5])
    low, high = wilson_bounds(hits, n)
    each = [wilson(float(k), int(of)) for k, of in zip(hits, n, strict=True)]
    np.testing.assert_array_equal(np.stack([low, high], 1), each)
    assert low[0] == 0 and high[2] == 1 and np.isnan([low[3], high[3]]).all()


def test_wilson_of_nothing_is_unknown():
    assert all(math.isnan(bound) for bound in wilson(0, 0))


def test_wilson_is_symmetric_and_covers_the_share():
    for n in (1, 7, 300):
        for k in range(n + 1):
            low, high = wilson(k, n)
            assert 0 <= low <= k / n + 1e-12 and k / n - 1e-12 <= high <= 1
            assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_outcome_table_by_hand():
    solved = np.array(
        [
            [1, 1, 1],  # stays solved
            [0, 1, 0],  # lost at step 2
            [1, 0, 1],  # lost at step 1, found again at step 2
            [0, 0, 0],  # never
        ],
        bool,
    )
    table = outcome_table(solved)
    assert table["step"].tolist() == [0, 1, 2] and table["n"].tolist() == [4, 4, 4]
    assert table["exact"].tolist() == [2 / 4, 2 / 4, 2 / 4]
    assert table["ever"].tolist() == [2 / 4, 3 / 4, 3 / 4]
    # of rows 0 and 2, row 2 is lost at step 1; of rows 0 and 1, row 1 is lost at step 2
    assert math.isnan(table["lost_again"][0]) and table["lost_again"].tolist()[1:] == [1 / 2, 1 / 2]
    for name, counts in {"exact": [(2, 4)] * 3, "ever": [(2, 4), (3, 4), (3, 4)]}.items():
        bounds = list(zip(table[f"{name}_low"], table[f"{name}_high"], strict=True))
        assert bounds == [wilson(*count) for count in counts]
    assert (table["lost_again_low"][1], table["lost_again_high"][1]) == wilson(1, 2)


def test_ever_never_falls_and_is_at_least_exact():
    solved = np.random.default_rng(0).random((40, 9)) < 0.3
    table = outcome_table(solved)
    assert (np.diff(table["ever"]) >= 0).all()
    assert (table["ever"] >= table["exact"]).all()
    # the flow from one step to the next: kept + newly solved
    kept = table["exact"].shift(1) * (1 - table["lost_again"])
    new = (~solved[:, :-1] & solved[:, 1:]).mean(0)
    np.testing.assert_allclose((kept.to_numpy()[1:] + new), table["exact"].to_numpy()[1:])


def test_counts_must_be_booleans_of_puzzle_and_step():
    with pytest.raises(Exception, match="outcome_table"):
        outcome_table(np.zeros(3, bool))  # the shape hook of conftest


def test_calibration_by_hand():
    # confidences 0.5, 0.5 (logit 0), 0.9 (logit ln 9): solved 1 of 2 and 1 of 1
    q_halt = np.array([[0.0, 0.0, math.log(9)]])
    solved = np.array([[True, False, True]])
    table = calibration_table(q_halt, solved, bins=4)
    assert table[["from", "to", "n"]].to_numpy().tolist() == [[0.5, 0.75, 2], [0.75, 1.0, 1]]
    assert table["solved"].tolist() == [0.5, 1.0]
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.9])
    assert calibration_error(table) == pytest.approx((2 * 0.0 + 0.1) / 3)
    # two steps of one puzzle are one observation: half of 1
    assert table["puzzles"].tolist() == [1, 1]
    assert (table["low"][0], table["high"][0]) == wilson(0.5, 1)


def test_outcomes_by_rating_are_those_of_the_group():
    rating, solved = np.array([1.0, 1, 9, 9]), np.array([[0, 1], [1, 1], [0, 0], [1, 0]], bool)
    q_halt = np.where(solved, 30.0, -30.0)
    q_halt[3, 1] = 30.0  # sure and wrong, 1 of the 4 predictions of its group
    table = outcomes_by_rating(rating, solved, q_halt, groups=2)
    assert table[["from", "step"]].to_numpy().tolist() == [[1, 0], [1, 1], [9, 0], [9, 1]]
    assert table["exact"].tolist() == [0.5, 1.0, 0.5, 0.0]
    assert table["ever"].tolist() == [0.5, 1.0, 0.5, 0.5]
    assert table["lost_again"].dropna().tolist() == [0.0, 1.0]
    assert table["calibration_error"].tolist() == pytest.approx([0, 0, 0.25, 0.25])


def test_accuracy_by_rating_keeps_equal_ratings_together():
    table = by_rating(np.array([0.0, 0, 0, 0, 5, 6]), np.array([1, 1, 1, 0, 0, 0], bool), groups=3)
    assert table["n"].tolist() == [4, 2]
    assert table["exact"].tolist() == [0.75, 0.0]
    assert (table["low"][0], table["high"][0]) == wilson(3, 4)
