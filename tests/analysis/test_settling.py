"""Drift, bimodality, periods: by hand, against closed forms and against linear programming."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from trm_interp.analysis.bimodality import dip, dip_test, mixture, otsu
from trm_interp.analysis.control import auc_within, partial_rank_correlation, partial_with_bounds
from trm_interp.analysis.resample import median_with_bounds
from trm_interp.analysis.settling import (
    Past,
    displacement,
    fate_of,
    late_drift,
    log_drift,
    period,
)
from trm_interp.analysis.settling_tables import settled_by_solved

RNG = np.random.default_rng(0)


def distances_of(states: torch.Tensor, depth: int, window: int) -> np.ndarray:
    """[moment, lag, run] of the last `window` of states [tick, run, dim], as the parts do it."""
    past, distances = Past(depth), []
    for z in states:
        distances.append(past.distances(z))
        past.add(z)
    return torch.stack(distances[-window:]).numpy()


def test_displacement_by_hand():
    # (0, 0) -> (3, 4): sqrt((9 + 16) / 2); two ticks on, back at the start
    states = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(displacement(states), torch.tensor([12.5, 12.5]).sqrt())
    assert displacement(states, lag=2).tolist() == [0.0]


def test_the_past_says_what_displacement_does():
    states = torch.randn(9, 3, 5, generator=torch.Generator().manual_seed(0))
    distances = distances_of(states, depth=4, window=9)
    for lag in range(1, 5):
        assert np.isnan(distances[:lag, lag - 1]).all()
        np.testing.assert_allclose(distances[lag:, lag - 1], displacement(states, lag), rtol=1e-6)
    past = Past(4)
    for z in states[:-1]:
        past.add(z)
    kept = past.rows(torch.tensor([True, False, True])).distances(states[-1, ::2], lags=2)
    np.testing.assert_allclose(kept, distances[-1, :2, ::2])


def orbit(name: str, n: int = 60) -> torch.Tensor:
    """States [tick, 1, 1] of maps whose attractors are known."""
    maps = {
        "fixed": lambda z: z.cos(),  # to 0.739
        "period 2": lambda z: 3.2 * z * (1 - z),  # the logistic map's stable 2-cycle
        "period 4": lambda z: 3.5 * z * (1 - z),
        "chaos": lambda z: 4 * z * (1 - z),
    }
    z, states = torch.full((1, 1), 0.3, dtype=torch.float64), []
    for _ in range(400):
        z = maps[name](z)
        states.append(z)
    return torch.stack(states[-n:])


@pytest.mark.parametrize(
    ("name", "expected"), [("fixed", 1), ("period 2", 2), ("period 4", 4), ("chaos", 0)]
)
def test_period_of_known_maps(name: str, expected: int):
    periods = period(distances_of(orbit(name), depth=16, window=8), 1e-6)
    assert periods.tolist() == [expected]
    fate = {0: "wandering", 1: "settled"}.get(expected, "cycling")
    assert fate_of(periods).tolist() == [fate]


def test_a_two_cycle_in_closed_form():
    # r z (1 - z) has the 2-cycle ((r + 1) +- sqrt((r - 3)(r + 1))) / (2 r): at r = 3.2 its points
    # are sqrt(0.2 * 4.2) / 3.2 = 0.2864 apart, and that is the distance at odd lags
    distances = distances_of(orbit("period 2"), depth=4, window=3)[..., 0]
    np.testing.assert_allclose(distances, [[0.84**0.5 / 3.2, 0] * 2] * 3, atol=1e-9)


def test_a_period_longer_than_the_lags_is_not_found():
    assert period(distances_of(orbit("period 4"), depth=3, window=8), 1e-6).tolist() == [0]


def test_drift_on_a_log_scale():
    drift = late_drift(np.array([[5.0, 0, 0, 0, 0], [5.0, 4, 0, 4, 0]]))
    assert drift.tolist() == [0, 2] and log_drift(drift).tolist() == [-8, np.log10(2)]


def test_two_by_two_table():
    # solved: 3 settle of 4; failed: 1 of 6. Wilson 95 % of 3 / 4: 0.3006 to 0.9544
    settled = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0], bool)
    table = settled_by_solved(settled, np.arange(10) < 4).set_index(["outcome", "settled"])
    assert table["n"].to_list() == [3, 1, 1, 5]
    row = table.loc[("solved", True)]
    assert (row["of_outcome"], row["of_settling"]) == (0.75, 0.75)
    assert row["of_outcome_low"] == pytest.approx(0.3006, abs=1e-4)
    assert row["of_outcome_high"] == pytest.approx(0.9544, abs=1e-4)
    assert table.loc[("failed", False), "of_outcome"] == 5 / 6
    assert np.isnan(settled_by_solved(settled, np.ones(10, bool))["of_outcome"].iloc[-1])


# bimodality


def test_otsu_by_hand_and_for_known_shapes():
    # 0 0 0 | 3 3: means 0 and 3, between-class variance (3/5)(2/5) 9 = 2.16 = all of it
    assert otsu(np.array([3.0, 0, 0, 3, 0])) == (1.5, pytest.approx(1))
    threshold, share = otsu(np.linspace(0, 1, 1001))
    assert threshold == pytest.approx(0.5, abs=1e-3) and share == pytest.approx(0.75, abs=1e-3)
    assert otsu(RNG.standard_normal(20_000))[1] == pytest.approx(2 / np.pi, abs=0.01)
    assert np.isnan(otsu(np.ones(4))).all()


def dip_by_linear_programming(values: np.ndarray) -> float:
    """Smallest D such that a distribution convex before a mode and concave after is within D.

    Unknown: its value at each point, and just before each (they may differ at the mode alone).
    """
    x, counts = np.unique(values, return_counts=True)
    m, upper = len(x), np.cumsum(counts) / len(values)
    lower = upper - counts / len(values)
    best = np.inf
    for mode in range(m):
        # variables: left limits l_0..l_mode, right values r_mode..r_{m-1}, D
        size = m + 2
        rows, limits = [], []

        def at_most(terms: dict[int, float], limit: float, rows=rows, limits=limits, size=size):
            row = np.zeros(size)
            for place, weight in terms.items():
                row[place] += weight
            rows.append(row)
            limits.append(limit)

        left = {i: i for i in range(mode + 1)}
        right = {i: i + 1 for i in range(mode, m)}
        for side in (left, right):
            for i, v in side.items():
                if side is left or i > mode:
                    at_most({v: 1, size - 1: -1}, lower[i])
                if side is right or i < mode:
                    at_most({v: -1, size - 1: -1}, -upper[i])
            places = sorted(side)
            for i, j in pairwise(places):
                at_most({side[i]: 1, side[j]: -1}, 0)
            for i, j, k in zip(places, places[1:], places[2:], strict=False):
                near, far = 1 / (x[j] - x[i]), 1 / (x[k] - x[j])
                sign = 1 if side is left else -1  # slopes rise before the mode, fall after
                at_most(
                    {side[i]: -sign * near, side[j]: sign * (near + far), side[k]: -sign * far}, 0
                )
        at_most({left[mode]: 1, right[mode]: -1}, 0)
        cost = np.zeros(size)
        cost[-1] = 1
        done = linprog(cost, np.array(rows), limits, bounds=[(0, 1)] * size, method="highs")
        best = min(best, done.fun)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_dip_is_the_distance_to_the_nearest_unimodal_distribution(seed: int):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0, 1, 7), rng.normal(4, 1, rng.integers(2, 9))])
    if seed % 2:
        values = values.round()  # ties
    expected = max(dip_by_linear_programming(values), 1 / (2 * len(values)))
    assert dip(values) == pytest.approx(expected, abs=1e-7)


def test_dip_in_closed_form():
    # evenly spaced: the least there is, 1 / (2 n); two heaps of half each: 1/4
    assert dip(np.arange(50.0)) == pytest.approx(0.01)
    assert dip(np.repeat([0.0, 1.0], 30)) == pytest.approx(0.25)
    values = RNG.standard_normal(60)
    assert dip(3 * values - 7) == pytest.approx(dip(values)) == pytest.approx(dip(-values))


def test_p_of_the_dip():
    heaps = np.concatenate([RNG.normal(0, 1, 40), RNG.normal(8, 1, 40)])
    assert dip_test(heaps, seed=0, times=99)["p"] == 0.01
    normal = RNG.standard_normal(80)
    one = dip_test(normal, seed=0, times=99)
    assert one["p"] > 0.2 and one == dip_test(normal, seed=0, times=99)


def test_a_mixture_finds_planted_heaps():
    heaps = np.concatenate([RNG.normal(-6, 0.5, 150), RNG.normal(-1, 0.5, 50)])
    fitted = mixture(heaps, seed=0)
    assert fitted["low"] == pytest.approx(-6, abs=0.2) and fitted["high"] == pytest.approx(
        -1, abs=0.3
    )
    assert fitted["share_low"] == pytest.approx(0.75, abs=0.02)
    assert fitted["gap"] == pytest.approx(10, rel=0.15)  # sqrt(2) 5 / sqrt(0.25 + 0.25) = 10
    assert fitted["bic_gain"] > 100 and mixture(RNG.standard_normal(200), seed=0)["bic_gain"] < 10


# what is left once something else is controlled for


def test_a_correlation_that_another_number_explains():
    shared = RNG.standard_normal(400)
    x, y = shared + 0.3 * RNG.standard_normal(400), shared + 0.3 * RNG.standard_normal(400)
    alone = partial_rank_correlation(x, y, np.zeros((400, 0)))
    assert alone > 0.85 and abs(partial_rank_correlation(x, y, shared[:, None])) < 0.15
    assert np.isnan(partial_rank_correlation(x, y, x[:, None]))
    bound = partial_with_bounds(x, shared, y[:, None], seed=0, times=50)
    assert 0 < bound["low"] < bound["value"] < bound["high"] < 1


def test_partial_correlation_in_closed_form():
    # ranks with correlations r_xy, r_xz, r_yz: (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2))
    x, y, z = (RNG.permutation(40).astype(float) for _ in range(3))
    (_, xy, xz), (_, _, yz), _ = np.corrcoef([x, y, z])
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_rank_correlation(x, y, z[:, None]) == pytest.approx(expected)


def test_auc_within_strata_by_hand():
    # stratum 0: failed 1, 4 against solved 2, 3: 2 of 4 pairs; stratum 1: 9 above 8: 1 of 1
    values = np.array([1.0, 4, 2, 3, 9, 8, 0, 0, 0, 0, 0, 0])
    failed = np.array([1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0], bool)
    strata = np.array([0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7])
    estimate = auc_within(values, failed, strata, seed=0)
    assert (estimate["auc"], estimate["pairs"]) == (3 / 5, 5)
    assert estimate["low"] <= 0.6 <= estimate["high"]
    assert np.isnan(auc_within(values, failed & (strata < 2), strata, 0)["auc"])  # 3 failed


def test_median_with_bounds_counts_like_numpy():
    values = RNG.standard_normal(11)
    rng_like = median_with_bounds(values, seed=0)
    assert rng_like["median"] == np.median(values)
    assert rng_like["low"] < rng_like["median"] < rng_like["high"] and rng_like["n"] == 11
    assert np.isnan(median_with_bounds(values[:0], seed=0)["median"])
