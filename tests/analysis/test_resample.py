"""Intervals of means over few puzzles."""

import numpy as np

from trm_interp.analysis.resample import mean_of_few, mean_with_bounds


def test_the_interval_of_a_mean_over_four_holds_it():
    """In 95 % of cases; the bootstrap's in 80 % or less."""
    rng, trials = np.random.default_rng(0), 400
    of_student = of_bootstrap = 0
    for seed in range(trials):
        values = rng.standard_normal(4)
        one = mean_of_few(values)
        assert one.low is not None and one.high is not None
        of_student += one.low <= 0 <= one.high
        _, low, high = mean_with_bounds(values, seed)
        of_bootstrap += low <= 0 <= high
    # a standard error of 0.95 is sqrt(0.95 * 0.05 / 400) = 0.011
    assert 0.92 <= of_student / trials <= 0.98
    assert of_bootstrap / trials < 0.85


def test_one_puzzle_has_a_mean_and_none_has_not():
    one, none = mean_of_few(np.array([2.0])), mean_of_few(np.array([]))
    assert (one.value, one.low, one.high) == (2.0, None, None)
    assert (none.value, none.low, none.high) == (None, None, None)
