"""What comes first: AUC by tick, decisions, sign flips and false discoveries, by hand."""

import numpy as np
import pytest
import scipy.stats
from scipy.stats import rankdata

from trm_interp.analysis.auc import auc_of_ranks, auc_p
from trm_interp.analysis.resample import discoveries, mean_with_bounds, ratio_with_bounds, resamples
from trm_interp.sae.early import (
    lead,
    separation,
    sign_flip_p,
)

RNG = np.random.default_rng(0)


def test_auc_with_ties_by_hand():
    # positives 1, 2 against 0, 1, 1: pairs 1 + .5 + .5, 1 + 1 + 1 of 6
    values, positive = np.array([1.0, 2, 0, 1, 1]), np.array([1, 1, 0, 0, 0], bool)
    assert float(auc_of_ranks(rankdata(values), positive)) == 5 / 6
    assert np.isnan(auc_of_ranks(rankdata(values), np.ones(5, bool)))


def test_p_values_are_those_of_mann_and_whitney():
    values = RNG.integers(0, 6, (40, 5)).astype(float)  # many ties
    positive = np.arange(40) % 3 == 0
    ranks = rankdata(values, axis=0)
    ours = auc_p(ranks, positive)
    theirs = scipy.stats.mannwhitneyu(
        values[positive], values[~positive], method="asymptotic", use_continuity=False
    ).pvalue
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    constant = np.ones((40, 1))
    assert np.isnan(auc_p(constant, positive)[0])


def test_a_feature_that_tells_outcomes_apart_from_a_tick_on():
    solved = np.arange(60) % 2 == 0
    level = RNG.standard_normal((60, 10, 20)).astype(np.float32)
    level[~solved, 4:, 7] += 4
    separated = separation(level, solved, seed=0)
    assert separated.significant[4:, 7].all() and separated.significant[:, 7].argmax() == 4
    assert (separated.auc[4:, 7] > 0.9).all() and separated.auc.shape == (10, 20)
    others = np.delete(separated.significant, 7, axis=1)
    assert others.mean() < 0.01 and separated.by_chance <= 2


def test_false_discovery_rate_by_hand():
    # thresholds .05 k / 4 = .0125 .025 .0375 .05: .012 passes, .03 > .025, .035 < .0375 passes all
    assert discoveries(np.array([0.03, 0.012, 0.9, 0.035])).tolist() == [True, True, False, True]
    assert not discoveries(np.array([np.nan, 0.2])).any()
    assert discoveries(np.array([np.nan, 0.04])).tolist() == [False, True]  # one test, not two


def test_lead_compares_cells_of_one_step():
    # cells 0, 1 decided at step 1, cell 2 at step 2, cell 3 given; two features
    decided, asked = np.array([1, 1, 2, 0]), np.array([1, 1, 1, 0], bool)
    by_step = np.zeros((3, 4, 2))
    by_step[0, :, 0] = [3, 5, 1, 100]
    by_step[1, 2, 0] = 50  # nothing to compare with at step 1
    np.testing.assert_allclose(lead(by_step, decided, asked), [4 - 1, 0])
    assert np.isnan(lead(by_step, np.zeros(4, int), asked)).all()


def test_sign_flips():
    differences = np.stack([np.full(12, 0.5), RNG.standard_normal(12), np.zeros(12)], axis=1)
    differences = np.concatenate([differences, np.full((3, 3), np.nan)])
    p = sign_flip_p(differences, seed=0)
    assert p[0] == pytest.approx(2 / 2**12, abs=6e-4)  # all signs alike, either way
    assert p[1] > 0.05 and p[2] == 1
    assert np.isnan(sign_flip_p(differences[-3:], seed=0)).all()


def test_intervals_cover_and_follow_the_puzzles():
    assert (resamples(7, 0, 50).sum(1) == 7).all()
    covered = 0
    for seed in range(100):
        values = np.random.default_rng(seed).standard_normal((40, 1))
        _, low, high = mean_with_bounds(values, seed)
        covered += bool(low[0] <= 0 <= high[0])
    assert covered >= 86
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    mean, low, high = mean_with_bounds(values, 0)
    assert mean[0] == 2 and low[0] == 1 and high[0] == 3 and np.isnan([mean[1], low[1]]).all()
    ratio = ratio_with_bounds(np.array([1.0, 3]), np.array([2.0, 6]), 0)
    assert ratio == {"value": 0.5, "low": 0.5, "high": 0.5}
