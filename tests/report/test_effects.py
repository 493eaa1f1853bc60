"""Effects by hand, and the rule that makes a verdict of them."""

import numpy as np
import pytest

from trm_interp.report.effects import (
    About,
    auc_of,
    auc_of_strata,
    derived_effect,
    difference_effect,
    estimated_effect,
    mean_of,
    median_of,
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


def test_a_function_of_shares():
    one = derived_effect(ABOUT, [(90, 100), (50, 100)], lambda best, plain: best - plain, 100)
    plain = difference_effect(ABOUT, (90, 100), (50, 100))
    assert one.estimate == pytest.approx(0.4)
    assert (one.low, one.high) == (
        pytest.approx(plain.low, abs=0.03),
        pytest.approx(plain.high, abs=0.03),
    )


def test_draws_of_numbers_of_runs():
    rng = np.random.default_rng(0)
    failed, solved = rng.normal(1, 1, 40), rng.normal(0, 1, 60)
    values, positive = np.r_[failed, solved], np.arange(100) < 40
    for draw, estimate in (
        (mean_of(failed.tolist()), failed.mean()),
        (median_of(failed.tolist()), np.median(failed)),
        (auc_of(failed.tolist(), solved.tolist()), (failed[:, None] > solved).mean()),
        (
            auc_of_strata(values.tolist(), positive.tolist(), [0] * 100),
            (failed[:, None] > solved).mean(),
        ),
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
