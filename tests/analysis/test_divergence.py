"""Distances to a planted centroid, and what they tell of the outcome."""

import numpy as np
import pytest

from trm_interp.analysis.auc import auc_with_bounds
from trm_interp.analysis.divergence import auc_by_tick, bands, distance_to_successes, slopes


def test_leave_one_out_by_hand():
    # at one tick, one coordinate: solved runs at 0, 3 and 6, a failed one at 10.
    # the first is compared with (3 + 6) / 2 = 4.5, the second with 3, the third with 1.5;
    # the failed one with the mean of all three, 3
    states = np.array([0.0, 3.0, 6.0, 10.0]).reshape(4, 1, 1)
    solved = np.array([True, True, True, False])
    far = distance_to_successes(lambda: iter(states), solved)
    np.testing.assert_allclose(far[:, 0], [4.5, 0.0, 4.5, 7.0])


def test_rms_is_over_coordinates():
    # two coordinates, 3 and 4 away: sqrt((9 + 16) / 2)
    states = np.array([[[0.0, 0.0]], [[0.0, 0.0]], [[3.0, 4.0]]])
    far = distance_to_successes(lambda: iter(states), np.array([True, True, False]))
    np.testing.assert_allclose(far[2, 0], np.sqrt(12.5))


def test_a_planted_divergence_is_found_from_its_tick_on():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((60, 10, 50))
    solved = np.arange(60) < 40
    states[~solved, 4:] += 2.0
    far = distance_to_successes(lambda: iter(states), solved)
    auc = auc_by_tick(far, ~solved, seed=0)
    assert (auc["auc"][4:] == 1).all() and (auc["low"][:4] < 0.5).all()
    # without leaving one out, a member's distance would be too small by 1 - 1 / 40
    plain = np.sqrt(np.square(states[0] - states[solved].mean(0)).mean(-1))
    np.testing.assert_allclose(far[0] * (1 - 1 / 40), plain, rtol=1e-5)


def test_one_success_has_no_centroid_without_itself():
    with pytest.raises(ValueError, match="1 solved runs; a centroid that leaves one out needs 2"):
        distance_to_successes(lambda: iter(np.zeros((3, 2, 2))), np.array([True, False, False]))


def test_bands_by_hand():
    values = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 7.0]])
    table = bands(values, np.array([True, True, False]), seed=0)
    assert table["mean"].tolist() == [2.0, 2.0, 5.0, 7.0]
    assert table["outcome"].tolist() == ["solved"] * 2 + ["failed"] * 2
    assert table["n"].tolist() == [2, 2, 1, 1]
    solved = table[table["update"] == 0].iloc[0]
    assert (solved["low"], solved["high"]) == (1.0, 3.0)  # only draws of 1 and 3 are possible


def test_slope_of_a_line_with_symmetric_noise():
    # 2 x + 1 plus (1, -2, 1), which is orthogonal to x
    assert slopes(np.array([[2.0, 1.0, 6.0]])).tolist() == [2.0]


def test_auc_interval_covers_and_needs_both_kinds():
    rng = np.random.default_rng(1)
    # two normals one apart: AUC = Phi(1 / sqrt(2)) = 0.7602
    inside = 0
    for seed in range(40):
        values = np.concatenate([rng.normal(1, 1, 60), rng.normal(0, 1, 60)])
        estimate = auc_with_bounds(values, np.arange(120) < 60, seed, times=300)
        inside += estimate["low"] <= 0.7602 <= estimate["high"]
    assert inside >= 33  # 95 % of 40 is 38; 33 or fewer has a chance of 0.1 %
    assert np.isnan(auc_with_bounds(np.arange(9.0), np.arange(9) < 4, 0)["auc"])
    with pytest.raises(ValueError, match="1 values are not finite"):
        auc_with_bounds(np.array([np.nan, 1, 2]), np.array([True, False, True]), 0)
