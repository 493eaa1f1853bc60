"""Verdicts over subjects, of planted effects: equal signs, opposite ones, none, few models."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from trm_interp.figures.latex import escaped
from trm_interp.report.claims import CLAIMS
from trm_interp.report.compare_tables import ClaimOver, draws_of, over_subjects
from trm_interp.report.effects import NOT_MEASURED, NOT_TESTABLE, About, Effect, share_effect
from trm_interp.report.verdicts import Judged, judged, not_measured

CLAIM = CLAIMS[0]


class Planted(NamedTuple):
    """What of a subject decides about verdicts."""

    name: str
    run: str
    judged: list[tuple[Any, Judged]]


def effect(mean: float, name: str = "difference", width: float = 0.2, n: int = 400) -> Effect:
    """Above 0 as claimed, with an interval of `width` to either side."""
    draws = np.random.default_rng(n).normal(mean, width / 1.96, 1000)
    about = About(CLAIM.id, name, null=0.0, claimed=1)
    return about.effect(mean, mean - width, mean + width, n, draws)


def over(*subjects: list[Effect], runs: str = "abcdefgh", verdict: str = "") -> ClaimOver:
    rows: list[Any] = [
        Planted(f"s{i}", runs[i], [(CLAIM, judged("", "", 1, "", effects, verdict))])
        for i, effects in enumerate(subjects)
    ]
    (claim,) = over_subjects(rows)
    return claim


def test_equal_signs_reproduce_or_contradict():
    assert over([effect(0.5)], [effect(0.9)]).text == "reproduced (over 2 checkpoints)"
    assert over(*[[effect(-0.5)]] * 3).text == "contradicted (over 3 checkpoints)"


def test_opposite_signs_are_mixed():
    claim = over([effect(0.5)], [effect(-0.5)], [effect(0.7)])
    assert claim.text == "mixed (over 3 checkpoints)" and claim.effects[0].side is None


@pytest.mark.parametrize("means", [(0.0, 0.0), (0.1, -0.1), (0.5, 0.05), (0.5, -0.05)])
def test_where_some_are_not_clear_the_verdict_is_open(means: tuple[float, ...]):
    claim = over(*([effect(mean)] for mean in means))
    assert claim.text == "inconclusive (over 2 checkpoints)"


def test_many_that_are_hardly_clear_are_clear_together():
    """0.15 +- 0.2 each: ten of them have a mean of 0.15 +- 0.07."""
    one = [effect(0.15)]
    assert over(one).effects[0].side == 0
    assert over(*[one] * 8).text == "reproduced (over 8 checkpoints)"


def test_effects_of_a_claim_go_together_as_those_of_one_subject():
    both = [effect(0.5), effect(0.0, "other")]
    assert over(both, both).verdict == "reproduced in part"
    against = [effect(0.5), effect(-0.5, "other")]
    assert over(against, against).verdict == "mixed"


def test_an_effect_that_is_undefined_everywhere_reproduces_nothing():
    undefined = About(CLAIM.id, "other", 0.0, 1).effect(None, None, None, 0)
    both = [effect(0.5), undefined]
    claim = over(both, both)
    assert claim.verdict == "reproduced in part" and len(claim.effects) == 1


def test_one_training_run_is_one_model():
    claim = over([effect(0.5)], [effect(0.9)], [effect(0.7)], runs="aaa")
    assert claim.text == "on this model only" and claim.effects[0].effect.low is None
    claim = over([effect(0.5)], [effect(0.9)], [effect(0.7)], runs="aab")
    assert claim.text.endswith("(over 2 checkpoints)")
    assert claim.effects[0].effect.estimate == pytest.approx((0.7 + 0.7) / 2)


def test_an_effect_of_one_model_of_several_agrees_with_nothing():
    """Of two effects one is undefined on the second checkpoint: reproduced once for both."""
    undefined = About(CLAIM.id, "other", 0.0, 1).effect(None, None, None, 0)
    claim = over([effect(0.5), effect(0.5, "other")], [effect(0.9), undefined])
    assert claim.text == "reproduced in part (over 2 checkpoints)"
    both, single = claim.effects
    assert (both.side_in_words, single.side_in_words) == ("as claimed", "one model only")
    # two subjects of one run that contradict each other are no two models either
    mixed = [effect(0.5), effect(-0.5, "other")]
    runs = over([effect(0.5), effect(0.5, "other")], mixed, [effect(0.9), undefined], runs="aab")
    assert runs.text == "reproduced in part (over 2 checkpoints)"


def test_where_a_claim_cannot_be_tested_it_is_left_to_the_others():
    """One architecture has too few H-cycles, say."""
    tested, other = [effect(0.5)], judged("", "", 1, "", [], NOT_TESTABLE)
    rows: list[Any] = [
        Planted("one", "a", [(CLAIM, judged("", "", 1, "", tested))]),
        Planted("two", "b", [(CLAIM, other)]),
        Planted("three", "c", [(CLAIM, judged("", "", 1, "", tested))]),
    ]
    (claim,) = over_subjects(rows)
    assert claim.text == "reproduced (over 2 checkpoints)"
    (claim,) = over_subjects(rows[:2])
    assert claim.text == "on this model only"


def test_subjects_without_the_claim_do_not_count():
    rows: list[Any] = [
        Planted("one", "a", [(CLAIM, judged("", "", 1, "", [effect(0.5)]))]),
        Planted("two", "b", [(CLAIM, not_measured("too few"))]),
        Planted("three", "c", []),
    ]
    (claim,) = over_subjects(rows)
    assert claim.text == "on this model only"
    (nothing,) = over_subjects(rows[1:])
    assert nothing.text == NOT_MEASURED


def test_a_rule_that_does_not_go_by_effects_alone_is_kept():
    one = [effect(0.5)]
    claim = over(one, one, verdict=NOT_TESTABLE)
    assert claim.text == "not testable here (over 2 checkpoints)"


def test_a_share_of_none_is_as_wide_as_its_interval():
    """0 of 20: every binomial replicate is 0, Wilson's bound 0.16."""
    none = share_effect(About("F2", "at rest", 0.5, 1), 0, 20)
    assert np.ptp(none.draws) == 0
    drawn = draws_of(none, seed=1)
    assert drawn.min() == pytest.approx(0, abs=1e-9)
    assert np.quantile(drawn, 0.975) == pytest.approx(none.high, abs=0.03)
    half = share_effect(About("F2", "at rest", 0.5, 1), 10, 20)
    assert set(draws_of(half, seed=1)) <= set(half.draws)


def test_signs_of_latex():
    assert escaped("a_b & 5 % {x} < ~") == (r"a\_b \& 5 \% \{x\} \textless{} \textasciitilde{}")
