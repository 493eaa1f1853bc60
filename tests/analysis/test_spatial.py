"""Moran's I and purity by hand, and what they say of shuffled and of planted labels."""

import numpy as np
import pytest

from trm_interp.analysis.spatial import against_shuffles, lattice, morans_i, nearest, purity

RNG = np.random.default_rng(0)


def test_morans_i_by_hand():
    # 1 1 0 0 in a row: deviations +-1/2, products 1/4, -1/4, 1/4, each pair twice: sum 1/2;
    # W = 6, n = 4, sum of squares 1: 4 / 6 * 1/2 / 1 = 1/3
    assert morans_i(np.array([1.0, 1, 0, 0]), lattice(1, 4)) == pytest.approx(1 / 3)
    # the 2 x 2 chessboard: four pairs of -1/4, twice: -2; W = 8, n = 4: 4 / 8 * -2 / 1 = -1
    assert morans_i(np.array([1.0, 0, 0, 1]), lattice(2, 2)) == pytest.approx(-1)


def test_its_mean_over_all_orders_is_1_over_1_minus_n():
    values = RNG.standard_normal(12)
    orders = np.stack([RNG.permutation(values) for _ in range(20_000)], axis=1)
    values = morans_i(orders, lattice(3, 4))
    assert values.mean() == pytest.approx(-1 / 11, abs=3 * values.std() / len(values) ** 0.5)


def test_a_lattice_links_edges_not_corners():
    weights = lattice(3, 3).toarray()
    assert weights[4].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert weights[0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(weights, weights.T)


def test_purity_by_hand():
    # on a line at 0, 1, 3, 10, two neighbours each: (1, 3), (0, 3), (1, 0), (3, 1)
    weights = nearest(np.array([[0.0], [1.0], [3.0], [10.0]]), k=2)
    labels = np.array([5, 5, 7, 7])
    # 1/2, 1/2, 0, 1/2
    assert purity(labels, weights) == pytest.approx(3 / 8)
    assert np.isnan(purity(np.ones(4, int), weights))


def test_planted_halves_pass_and_noise_passes_as_often_as_it_should():
    points = RNG.standard_normal((200, 2))
    weights = nearest(points, k=8)
    planted = against_shuffles(morans_i, (points[:, 0] > 0).astype(float), weights, seed=0)
    assert planted.value > 0.7 and planted.p == pytest.approx(1 / 1000)
    assert planted.chance == pytest.approx(-1 / 199, abs=0.01)
    p = [
        against_shuffles(purity, RNG.integers(0, 2, 200), weights, seed, times=39).p
        for seed in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.11


def test_what_groups_explain_does_not_count():
    # two far groups, one label each, except for coin flips inside: alike only within groups
    group = np.repeat([0, 1], 60)
    points = RNG.standard_normal((120, 2)) + 20 * group[:, None]
    labels = np.where(RNG.random(120) < 0.2, 1 - group, group)
    weights = nearest(points, k=6)
    assert against_shuffles(purity, labels, weights, seed=0).p < 0.01
    assert against_shuffles(purity, labels, weights, seed=0, groups=group).p > 0.05


def test_equal_labels_are_not_tested_and_too_many_neighbours_are_refused():
    assert np.isnan(against_shuffles(morans_i, np.ones(9), lattice(3, 3), seed=0).p)
    with pytest.raises(ValueError, match="4 points have at most 3 neighbours, asked for 4"):
        nearest(np.zeros((4, 2)), k=4)
