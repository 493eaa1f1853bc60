"""Effects by hand, and the rule that makes a verdict of them."""

import numpy as np
import pytest

from trm_interp.report.effects import (
    About,
    Crossed,
    auc_of,
    closed_gap_effect,
    difference_effect,
    estimated_effect,
    mean_of,
    median_of,
    paired_effect,
    share_effect,
    verdict_of,
)

ABOUT = About("F2", "share", 0.5, 1)
ABOVE, BELOW, OPEN = (0.6, 0.9), (0.1, 0.4), (0.3, 0.7)


@pytest.mark.parametrize(
    ("spans", "verdict"),
    [
        ([ABOVE, ABOVE], "reproduced"),
        ([ABOVE, OPEN], "reproduced in part"),
        ([ABOVE, BELOW], "mixed"),
        ([ABOVE, BELOW, OPEN], "mixed"),
        ([BELOW, OPEN], "contradicted"),
        ([OPEN, OPEN], "inconclusive"),  # never contradicted by a null
        ([OPEN, (None, None)], "inconclusive"),
        ([(None, None)], "not measured"),
        ([], "not measured"),
    ],
)
def test_the_verdict_of_effects(spans: list[tuple[float, float]], verdict: str):
    effects = [ABOUT.effect(0.5, low, high, 9) for low, high in spans]
    assert verdict_of(effects) == verdict
    # the opposite claim turns sides, and only them
    turned = {"reproduced": "contradicted", "reproduced in part": "contradicted"}
    opposite = [About("W1", "share", 0.5, -1).effect(0.5, *span, 9) for span in spans]
    if verdict in turned:
        assert verdict_of(opposite) == turned[verdict]
    if verdict in ("mixed", "inconclusive", "not measured"):
        assert verdict_of(opposite) == verdict


def test_a_bound_on_the_null_is_not_clear_of_it():
    assert ABOUT.effect(0.7, 0.5, 0.9, 9).direction == 0
    assert ABOUT.effect(0.3, 0.1, 0.5, 9).direction == 0
    assert ABOUT.effect(0.3, float("nan"), float("nan"), 9).direction == 0


def test_a_share_by_hand():
    # Wilson 95 % of 30 / 39: 0.6166 to 0.8735; binomial spread sqrt(0.769 * 0.231 / 39) = 0.0675
    one = share_effect(ABOUT, 30, 39)
    assert (one.low, one.high) == (pytest.approx(0.6166, abs=1e-4), pytest.approx(0.8735, abs=1e-4))
    assert one.direction == 1 and one.draws.std() == pytest.approx(0.0675, rel=0.1)
    assert share_effect(ABOUT, 0, 0).estimate is None


def test_a_difference_of_shares():
    # Newcombe (1998), table II, method 10: 56 / 70 less 48 / 80 is 0.2000 [0.0524, 0.3339]
    one = difference_effect(ABOUT, (56, 70), (48, 80))
    numbers = (one.estimate, one.low, one.high)
    assert numbers == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    every = difference_effect(ABOUT, (39, 39), (217, 217))
    assert every.low is not None and every.low < 0 and every.estimate == 0
    assert difference_effect(ABOUT, (0, 0), (1, 2)).low is None


def test_runs_of_the_same_puzzles_are_paired():
    # independent outcomes have no correlation, and so the interval of two samples
    one = paired_effect(ABOUT, Crossed.of(56, 49, 70, gained=None))
    plain = difference_effect(ABOUT, (56, 70), (49, 70))
    numbers = (plain.estimate, plain.low, plain.high)
    assert (one.estimate, one.low, one.high) == pytest.approx(numbers)
    # where one run solves all that the other does, the interval is narrower
    assert plain.estimate and plain.high
    nested = paired_effect(ABOUT, Crossed.of(56, 49, 70, gained=7))
    assert nested.estimate == pytest.approx(0.1) and nested.high and nested.high < plain.high
    # by hand: spread of a mean of 1 for 7, 0 for 63 of 70 is sqrt(0.1 * 0.9 / 70) = 0.0359
    assert nested.draws.std() == pytest.approx(0.0359, rel=0.1)
    # the same grids: no difference, and an interval that is not empty
    same = paired_effect(ABOUT, Crossed.of(70, 70, 70, gained=0))
    assert same.estimate == 0 and same.low and same.high and same.low < 0 < same.high


def test_the_paired_interval_covers():
    rng, shares = np.random.default_rng(0), [0.6, 0.2, 0.05, 0.15]
    hits = 0
    for both, gained, lost, neither in rng.multinomial(60, shares, 500):
        one = paired_effect(ABOUT, Crossed(both, gained, lost, neither))
        assert one.low is not None and one.high is not None
        hits += one.low <= 0.15 <= one.high
    assert 0.92 <= hits / 500 <= 0.98


def test_the_gap_that_is_closed():
    one = closed_gap_effect(ABOUT, Crossed.of(90, 50, 100, gained=42))  # 2 of 50 are lost
    assert one.estimate == pytest.approx(40 / 50) and one.n == 50
    # spread of (42 - 2) / 50: about sqrt(42 * 0.16 ** 2 + 8 * 0.64 + 2 * 1.64 ** 2) / 50 = 0.07
    assert one.draws.std() == pytest.approx(0.066, rel=0.15)
    # where the plain run fails one puzzle, replicates without a failure have no such share
    few = closed_gap_effect(ABOUT, Crossed.of(100, 99, 100, gained=1))
    assert (few.estimate, few.low, few.high) == (1, 1, 1)
    few = closed_gap_effect(ABOUT, Crossed.of(99, 99, 100, gained=None))
    assert few.low is not None and few.low > -10 and np.isfinite(few.draws).all()
    assert closed_gap_effect(ABOUT, Crossed.of(99, 100, 100, gained=0)).low is None


def test_draws_of_numbers_of_runs():
    rng = np.random.default_rng(0)
    failed, solved = rng.normal(1, 1, 40), rng.normal(0, 1, 60)
    for draw, estimate in (
        (mean_of(failed.tolist()), failed.mean()),
        (median_of(failed.tolist()), np.median(failed)),
        (auc_of(failed.tolist(), solved.tolist()), (failed[:, None] > solved).mean()),
    ):
        one = estimated_effect(ABOUT, (float(estimate), 0.0, 1.0), 100, draw)
        assert one.draws.shape == (1000,)
        assert one.draws.mean() == pytest.approx(estimate, abs=0.1)
        assert 0.01 < one.draws.std() < 0.3
    assert mean_of(None) is None and auc_of([1.0], [0.0] * 9) is None
    assert not len(estimated_effect(ABOUT, (0.5, 0.4, 0.6), 9, None).draws)


def test_a_claim_is_above_or_below():
    with pytest.raises(ValueError, match="claimed must be 1 or -1, got 0"):
        About("F2", "share", 0.5, 0).effect(0.5, 0.4, 0.6, 9)
