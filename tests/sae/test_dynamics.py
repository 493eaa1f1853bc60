"""Which features recur over puzzles: planted runs, false discoveries, shares a run."""

import numpy as np
import pytest

from trm_interp.analysis.recurrence import recurrence
from trm_interp.sae.dynamics import Dynamics

RNG = np.random.default_rng(0)
CYCLE, TICKS = 7, 336
T = np.arange(TICKS)


def dynamics(recurs: np.ndarray, **others: np.ndarray) -> Dynamics:
    nothing = np.full(recurs.shape, np.nan)
    names = ("transient", "recurrence", "period", "drift", "may_recur")
    return Dynamics(
        **{name: others.get(name, nothing) for name in names}, recurs=recurs, h_cycles=24
    )


def test_runs_are_pooled_by_hand():
    recurs = np.array([[1.0, 0, 1, 0], [1, 0, np.nan, np.nan], [0, 0, np.nan, 0]])
    chosen, alive = np.ones(3, bool), np.array([True, True, True, True])
    share, p, q = dynamics(recurs).pooled(chosen, alive)
    np.testing.assert_allclose(share, [2 / 3, 0, 1, 0])
    # at least 2 of 3 with probability 0.05 each: 3 * 0.05^2 * 0.95 + 0.05^3
    np.testing.assert_allclose(p, [0.00725, 1, np.nan, 1])  # one run alone is no test
    np.testing.assert_allclose(q, [3 * 0.00725, 1, np.nan, 1])
    _, _, of_two = dynamics(recurs).pooled(chosen, np.array([True, True, False, False]))
    np.testing.assert_allclose(of_two[:2], [2 * 0.00725, 1])
    nobody = dynamics(recurs).pooled(np.zeros(3, bool), alive)
    assert all(np.isnan(one).all() for one in nobody)


def of_series(series: np.ndarray) -> Dynamics:
    """Of series [puzzle, feature, tick]."""
    return dynamics(recurrence(series, CYCLE).recurs.astype(float))


def random_walks(kinds: int, puzzles: int, features: int) -> np.ndarray:
    """Features that mix a few random walks of their run, with a little noise of their own."""
    walks = np.cumsum(RNG.standard_normal((puzzles, kinds, TICKS)), axis=-1)
    mixed = np.einsum("pkt,kf->pft", walks, RNG.standard_normal((kinds, features)))
    return mixed + RNG.standard_normal(mixed.shape)


@pytest.mark.parametrize("kinds", [1, 40])
def test_features_without_a_period_are_seldom_discovered(kinds: int):
    """In 40 models of 40 features and 8 puzzles each, features dependent or nearly independent."""
    with_any = 0
    for _ in range(40):
        measured = of_series(random_walks(kinds, puzzles=8, features=40))
        _, _, q = measured.pooled(np.ones(8, bool), np.ones(40, bool))
        with_any += bool((q <= 0.05).any())
    assert with_any <= 5  # of 40 at 5 %: more with probability 0.014


def test_features_with_a_period_are_discovered_among_others():
    series = random_walks(3, puzzles=8, features=40)
    phases = RNG.uniform(0, 2 * np.pi, (8, 10, 1))
    series[:, :10] = np.cos(2 * np.pi * T / 21 + phases) + 0.7 * RNG.standard_normal((8, 10, TICKS))
    series[1:, 20] = series[1:, 21]  # one run, however periodic, is not enough
    series[0, 20] = np.cos(2 * np.pi * T / 21)
    share, _, q = of_series(series).pooled(np.ones(8, bool), np.ones(40, bool))
    assert (share[:10] >= 0.75).all() and (q[:10] <= 0.05).all()
    assert (q[10:] > 0.05).all()


def test_shares_a_run():
    recurs = np.array([[1.0, 0, 1], [np.nan, 0, 1], [np.nan] * 3])
    transient = np.array([[7.0, 21, 70], [np.nan, 14, 28], [np.nan] * 3])
    measured = dynamics(recurs, may_recur=np.maximum(recurs, 0.5), transient=transient)
    outcomes = {"solved": np.array([True, True, False]), "failed": np.array([False, False, True])}
    test = measured.test(outcomes, top=np.array([0, 1]), draws=99)
    assert (test.null, test.draws, test.h_cycles) == ("aperiodic", 99, 24)
    assert test.solved.recurs == [0.5, 0] and test.solved.may_recur == [0.75, 0.5]
    assert test.solved.transient == [14, 14]  # medians of 7 and 21, and of 14
    assert test.failed.recurs == [None] and test.failed.transient == [None]
