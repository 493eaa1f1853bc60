"""Effects over models: planted ones are found, opposite ones are told, intervals cover."""

import numpy as np
import pytest

from trm_interp.analysis.many import common_side, level, over_models

TIMES = 400


def planted(
    means: np.ndarray, within: float, seed: int, n: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates of models with these means from n normal puzzles each, and bootstrap replicates."""
    rng = np.random.default_rng(seed)
    values = means[:, None] + within * rng.standard_normal((len(means), n))
    picks = rng.integers(n, size=(len(means), TIMES, n))
    draws = np.take_along_axis(values[:, None], picks, axis=2).mean(2)
    return values.mean(1), draws


def sides(means: list[float], seed: int) -> tuple[int | None, bool]:
    """The common side of planted effects, and whether their interval is clear of 0."""
    estimates, draws = planted(np.array(means), 1.0, seed)
    over = over_models(estimates, draws, np.arange(len(means)), seed)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    return common_side(estimates, low, high, 0.0), over.low > 0 or over.high < 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sign", [1, -1])
def test_effects_of_equal_sign_have_a_common_side(seed: int, sign: int):
    # a standard error is 1 / sqrt(60) = 0.13: the least effect is six of them from 0
    assert sides([sign * 0.8, sign * 1.0, sign * 1.5], seed) == (sign, True)


@pytest.mark.parametrize("seed", range(5))
def test_effects_of_opposite_sign_contradict_each_other(seed: int):
    assert sides([0.8, -0.8, 0.8], seed) == (None, False)


def test_no_effect_is_seldom_clear_of_nothing():
    seen = [sides([0.0, 0.0, 0.0], seed) for seed in range(100)]
    assert sum(side is not None and side != 0 and clear for side, clear in seen) <= 5


def test_two_models_are_clear_only_if_both_are():
    """The means 1.0 and 0.1 +- 0.13: their mean is far from 0, the second is not."""
    estimates, draws = planted(np.array([1.0, 0.1]), 1.0, seed=1)
    over = over_models(estimates, draws, np.array([0, 1]), seed=0)
    assert over.value == pytest.approx(estimates.mean()) and over.value > 0.4
    assert over.low < 0 < over.high and over.high < 1.6


@pytest.mark.parametrize(
    ("k", "between", "least"),
    [(10, 1.0, 0.92), (10, 0.1, 0.92), (5, 1.0, 0.88), (5, 0.0, 0.95), (3, 1.0, 0.72)],
)
def test_the_interval_covers_the_mean_of_a_two_level_normal(k: int, between: float, least: float):
    """Models vary by `between`, estimates by 1 / sqrt(60) = 0.13 about each of them.

    The range of k models covers the mean with chance 1 - 2^(1 - k): 0.75 for 3, 0.94 for 5.
    """
    inside, trials = 0, 300
    for trial in range(trials):
        rng = np.random.default_rng([trial, k])
        means = 0.3 + between * rng.standard_normal(k)
        estimates = means + rng.standard_normal(k) / np.sqrt(60)
        draws = estimates[:, None] + rng.standard_normal((k, TIMES)) / np.sqrt(60)
        over = over_models(estimates, draws, np.arange(k), trial, times=TIMES)
        inside += over.low <= 0.3 <= over.high
    assert inside / trials >= least


def test_subjects_of_one_model_are_one_observation():
    estimates = np.array([0.0, 0.0, 0.0, 1.0])
    over = over_models(estimates, estimates[:, None], np.array([7, 7, 7, 2]), seed=0)
    assert (over.value, over.k) == (0.5, 2)
    # each model is drawn twice, once or not at all, with chances 1/4, 1/2, 1/4
    values, counts = np.unique(over.replicates, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert counts / counts.sum() == pytest.approx([0.25, 0.5, 0.25], abs=0.06)


def test_one_model_has_no_interval():
    over = over_models(np.array([1.0, 3.0]), np.ones((2, 5)), np.array([4, 4]), seed=0)
    assert over.value == 2.0 and over.k == 1 and np.isnan([over.low, over.high]).all()


def test_the_quantile_is_that_of_student():
    # k = 5: t(4) at 97.5 % is 2.776, times sqrt(5 / 4) is 3.104, where a normal has 0.00095 beyond
    assert level(5) == pytest.approx(0.00095, abs=1e-5)


def test_an_estimate_on_the_null_is_on_no_side():
    at = np.array([0.5, 0.6])
    assert common_side(at, at - 0.2, at + 0.2, 0.5) == 0
