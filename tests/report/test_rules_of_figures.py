"""The rules of claims about features, basins, losses and distances, on edited results."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trm_interp.analysis.estimates import Estimate, Number
from trm_interp.report.claims import effects_of
from trm_interp.report.evidence import Evidence
from trm_interp.runtime.artifacts import artifact
from trm_interp.sae.results import Baseline, FeaturesSummary, RunsOfFeatures
from trm_interp.studies.basins import ClusterTest
from trm_interp.studies.divergence import RunDistances
from trm_interp.studies.losses import LossCurve, PuzzleLosses

Judge = Callable[..., dict[str, Any]]


def runs(
    recurs: Sequence[Number], may: Sequence[Number] | None = None, length: Number = 50.0
) -> RunsOfFeatures:
    """Shares a run of the most active features, and their median transient."""
    lengths = [length] * len(recurs)
    return RunsOfFeatures(
        recurs=list(recurs), may_recur=list(recurs if may is None else may), transient=lengths
    )


def with_runs(evidence: Evidence, **changed: Any) -> FeaturesSummary:
    """Features with a test for recurrence on planted runs."""
    assert evidence.fig1 and evidence.fig1.recurrence_test
    return replace(evidence.fig1, recurrence_test=replace(evidence.fig1.recurrence_test, **changed))


ALL, HALF, NONE = [0.9] * 12, [0.9, 0.1] * 6, [0.1] * 12


@pytest.mark.parametrize(
    ("solved", "failed", "verdict"),
    [
        (runs(ALL), runs(ALL), "reproduced"),
        (runs(ALL), runs(HALF), "reproduced in part"),
        (runs(HALF), runs(HALF), "inconclusive"),
        (runs(NONE, may=ALL), runs(NONE, may=HALF), "inconclusive"),  # no evidence against it
        (runs(NONE), runs(NONE), "contradicted"),  # peaks too low for a period
        (runs(ALL), runs(NONE), "mixed"),
        (runs([0.9, 0.9]), runs([0.9, None]), "inconclusive"),  # of two runs
    ],
)
def test_f1_is_about_the_runs_in_which_most_features_recur(
    evidence: Evidence,
    judged: Judge,
    solved: RunsOfFeatures,
    failed: RunsOfFeatures,
    verdict: str,
):
    features = with_runs(evidence, solved=solved, failed=failed)
    assert judged("F1", fig1=features)["verdict"] == verdict
    others = {"alive": 900, "recurring_solved": 900, "recurring_failed": 900}  # all of them do
    assert judged("F1", fig1=replace(features, **others))["verdict"] == verdict


@pytest.mark.parametrize(
    ("length", "verdict"),
    [(50.0, "reproduced"), (13.0, "contradicted"), (200.0, "contradicted"), (0.0, "contradicted")],
)
def test_a_transient_has_a_row_of_its_own(
    evidence: Evidence, judged: Judge, length: float, verdict: str
):
    """It makes no recurrence in part: 13 evaluations alone once did."""
    still = runs(NONE, may=ALL, length=length)
    features = with_runs(evidence, solved=still, failed=still)
    assert judged("F1b", fig1=features)["verdict"] == verdict
    assert judged("F1", fig1=features)["verdict"] == "inconclusive"


def test_features_of_an_earlier_null_are_not_judged(judged: Judge):
    """The files that ship, for one."""
    file = artifact("features-sudoku6") / "features" / "summary.json"
    raw = json.loads(file.read_text())
    raw.pop("recurrence_test", None)
    earlier = FeaturesSummary.from_json(raw)
    row = judged("F1", fig1=earlier)
    assert row["verdict"] == "not measured" and "run `features` again" in row["why"]
    assert judged("F1b", fig1=earlier)["verdict"] == "not measured"


def test_few_cycles_cannot_tell_recurrence(evidence: Evidence, judged: Judge):
    nothing = runs([None] * 12)
    short = with_runs(evidence, h_cycles=6, solved=nothing, failed=nothing)
    row = judged("F1", fig1=short)
    assert row["verdict"] == "not testable here" and "6 H-cycles" in row["why"]


def cluster_tests(where: str, label: str, values: list[float]) -> list[ClusterTest]:
    counts = {"n": 100, "p": 0.5, "clustered": False, "chance": -0.01}
    return [
        ClusterTest(where=where, label=label, puzzle=i, value=value, **counts)
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("solved", "steps", "verdict"),
    [
        ([0.2, 0.3, 0.2, 0.1], [0.2, 0.1, 0.3, 0.2], "reproduced"),
        ([0.2, 0.3, 0.2, 0.1], [0.1, -0.1, 0.1, -0.12], "reproduced in part"),
        ([0.1, -0.1, 0.1, -0.12], [0.1, -0.1, 0.1, -0.12], "inconclusive"),
        ([-0.2, -0.3, -0.2, -0.1], [0.1, -0.1, 0.1, -0.12], "contradicted"),
        # all resamples of these four have a mean above 0, but t(3 degrees of freedom) is 2.0
        ([0.2, 0.01, 0.02, 0.2], [0.2, 0.01, 0.02, 0.2], "inconclusive"),
    ],
)
def test_solved_starts_and_their_steps_cluster_apart(
    evidence: Evidence, judged: Judge, solved: list[float], steps: list[float], verdict: str
):
    """A plane through both outcomes does not count, nor do two axes of noise."""
    assert evidence.fig3
    tests = [
        *cluster_tests("all directions", "solved", solved),
        *cluster_tests("all directions", "steps of the solved", steps),
        *cluster_tests("plane", "solved", [0.9] * 4),
        *cluster_tests("plane", "steps of the solved", [-0.9] * 4),
        *cluster_tests("two axes", "solved", [-0.9] * 4),
    ]
    basins = replace(evidence.fig3, tests=tests, clustered_by_steps=None)
    row = judged("F3", fig3=basins)
    assert row["verdict"] == verdict and "all directions, solved: 0 of 4" in row["why"]


def test_steps_mixed_with_unsolved_starts_are_not_judged(evidence: Evidence, judged: Judge):
    assert evidence.fig3
    basins = replace(evidence.fig3, tests=None, clustered_by_steps={"all directions": (4, 4)})
    assert judged("F3", fig3=basins)["verdict"] == "not measured"


def about(value: float, half: float = 1e-3) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def losses(left: float = 0.0, fall: float = 0.0, late_change: float = 0.0) -> LossCurve:
    names = ("first", "early", "last", "level", "slope")
    curve = LossCurve(**dict.fromkeys(names, about(0.5)))
    return replace(curve, left=about(left), fall=about(fall), late_change=about(late_change))


@pytest.mark.parametrize(
    ("left", "fall", "late_change", "verdict"),
    [
        (0.01, 0.3, 0.01, "reproduced"),
        (0.01, 0.0, 0.01, "reproduced in part"),  # the failures' loss does not fall first
        (0.01, -0.3, 0.01, "mixed"),  # it rises
        (0.1, 0.0, 0.1, "inconclusive"),
        (0.5, -0.3, 0.5, "contradicted"),
    ],
)
def test_losses_are_judged_in_both_conventions(
    evidence: Evidence,
    judged: Judge,
    left: float,
    fall: float,
    late_change: float,
    verdict: str,
):
    """A level of 11-12 is of another grid: no verdict depends on it."""
    assert evidence.fig4
    good, bad = losses(left=left), losses(fall=fall, late_change=late_change)
    real = replace(evidence.fig4, n=100, solved=80, cycles=48)

    def both(one: LossCurve) -> dict[str, LossCurve]:
        return {"stablemax, cells": one, "softmax, cells": one, "softmax, sum": losses()}

    row = judged("F4", fig4=replace(real, solved_loss=both(good), failed_loss=both(bad)))
    assert row["verdict"] == verdict and "11-12 is not testable here" in row["why"]
    assert "stablemax: solved" in row["ours"] and "softmax: solved" in row["ours"]
    softmax = both(good) | {"softmax, cells": losses(left=0.5)}
    row = judged("F4", fig4=replace(real, solved_loss=softmax, failed_loss=both(bad)))
    assert row["verdict"] != "reproduced"  # stablemax alone is not enough


def test_the_floor_of_stablemax_is_not_part_of_the_descent(evidence: Evidence, judged: Judge):
    """From 0.61 to 0.09 at cycle 10, and there for good: all of the descent, though more than a
    tenth of the start is left."""
    n = 20
    puzzles = PuzzleLosses(
        first=[0.61] * n,
        after_fall=[0.4] * n,
        early=[0.09] * n,
        last=[0.09] * n,
        level=[0.09] * n,
        late_change=[0.0] * n,
    )
    left = puzzles.estimate("left", seed=0)
    assert left.value == pytest.approx(0) and left.high == pytest.approx(0)
    fall = puzzles.estimate("fall", seed=0).value
    assert fall == pytest.approx(0.21 / 0.61) and puzzles.draws("fall", 0).shape == (1000,)


def test_losses_without_what_the_rule_needs_are_not_judged(evidence: Evidence, judged: Judge):
    assert evidence.fig4
    names = ("first", "early", "last", "level", "slope")
    earlier = {"stablemax, cells": LossCurve(**dict.fromkeys(names, about(0.5)))}
    good = {"stablemax, cells": losses()}
    real = replace(evidence.fig4, n=100, solved=80, solved_loss=good, failed_loss=good)
    one_cycle = replace(losses(), slope=Estimate(value=None, low=None, high=None))
    for changed, why in (
        ({"failed_loss": None}, "one outcome only"),
        ({"solved": 97}, "fewer than 5 runs"),
        ({"failed_loss": {"stablemax, cells": one_cycle}}, "too few H-cycles"),
        ({"failed_loss": earlier, "solved_loss": earlier}, "of an earlier version"),
    ):
        row = judged("F4", fig4=replace(real, **changed))
        assert row["verdict"] == "not measured" and why in row["why"]


def starts_of(aucs: Sequence[float], slopes: Sequence[float], n: int = 20) -> RunDistances:
    """Failed and solved starts, `n` of either for each puzzle, with these AUCs and slopes."""
    far, failed, late, puzzle = [], [], [], []
    for i, (auc, slope) in enumerate(zip(aucs, slopes, strict=True)):
        farther = round(auc * n)  # failed starts that are beyond all solved ones; the rest before
        far += [2.0] * farther + [0.0] * (n - farther) + [1.0] * n
        failed += [True] * n + [False] * n
        late += [slope] * n + [9.0] * n
        puzzle += [i] * 2 * n
    return RunDistances(
        failed=failed, at_paper_tick=far, at_last=far, late_slope=late, puzzle=puzzle
    )


@pytest.mark.parametrize(
    ("aucs", "slopes", "verdict"),
    [
        ([1.0, 1.0, 0.9, 0.9], [1e-3, 2e-3, 1e-3, 2e-3], "reproduced"),
        ([1.0, 1.0, 0.9, 0.9], [1e-3, -1e-3, 2e-3, -2e-3], "reproduced in part"),
        # 80 starts of either outcome are clear of 0.5, two of four puzzles are not
        ([1.0, 1.0, 0.4, 0.4], [1e-3, -1e-3, 2e-3, -2e-3], "inconclusive"),
        ([0.1, 0.2, 0.1, 0.2], [1e-3, -1e-3, 2e-3, -2e-3], "contradicted"),
        ([1.0], [1e-3], "not measured"),
    ],
)
def test_f5b_is_judged_over_puzzles_not_over_their_starts(
    evidence: Evidence,
    judged: Judge,
    aucs: list[float],
    slopes: list[float],
    verdict: str,
):
    assert evidence.fig5 and evidence.fig5.same_puzzle and evidence.fig5.same_puzzle.compared
    same = evidence.fig5.same_puzzle
    assert same.compared
    compared = replace(same.compared, runs=starts_of(aucs, slopes))
    control = replace(same, puzzles=list(range(len(aucs))), compared=compared)
    fig5 = replace(evidence.fig5, same_puzzle=control)
    assert judged("F5b", fig5=fig5)["verdict"] == verdict
    effects = [one for one in effects_of(replace(evidence, fig5=fig5)) if one.claim == "F5b"]
    for one in effects:
        assert one.n == len(aucs) and one.estimate is not None
    if effects:
        early, last, slope = (one.estimate for one in effects)
        assert early == last == pytest.approx(np.mean(aucs))
        assert slope == pytest.approx(np.mean(slopes))


def test_divergence_over_puzzles_and_within_one_are_two_claims(evidence: Evidence, judged: Judge):
    real = evidence.fig5
    assert real and real.over_puzzles and real.same_puzzle and real.same_puzzle.compared
    over, control, starts = real.over_puzzles, real.same_puzzle, real.same_puzzle.compared

    def with_auc(one: Any, early: float, last: float, slope: float) -> Any:
        first, middle, end = one.auc.items()
        values = {middle[0]: (middle[1], early), end[0]: (end[1], last)}
        edited = {
            name: replace(at, auc=auc, low=auc - 0.05, high=auc + 0.05)
            for name, (at, auc) in values.items()
        }
        late = about(slope, 1e-5)
        return replace(one, auc=dict([first]) | edited, failed_late_slope=late)

    def verdicts(over_puzzles: Any, within: Any) -> tuple[str, str]:
        same = replace(control, compared=replace(within, runs=None))  # of an earlier version
        fig5 = replace(real, over_puzzles=over_puzzles, same_puzzle=same)
        return judged("F5", fig5=fig5)["verdict"], judged("F5b", fig5=fig5)["verdict"]

    closer, farther = with_auc(over, 0.1, 0.1, 0.0), with_auc(over, 0.9, 0.9, 1e-3)
    same = with_auc(starts, 0.9, 0.9, 0.0)
    assert verdicts(closer, same) == ("contradicted", "reproduced in part")
    assert verdicts(farther, with_auc(starts, 0.1, 0.1, 0.0)) == ("reproduced", "contradicted")
    late = with_auc(over, 0.2, 1.0, 1e-3)  # nearer at update 50, far away at the end
    assert verdicts(late, with_auc(starts, 0.5, 0.5, 0.0)) == ("mixed", "inconclusive")
    row = judged("F5", fig5=replace(real, over_puzzles=closer))
    assert "0.10 at update 50" in row["ours"]
    assert judged("F5", fig5=replace(real, over_puzzles=None))["verdict"] == "not measured"
    assert judged("F5b", fig5=replace(real, same_puzzle=None))["verdict"] == "not measured"


@pytest.mark.parametrize(("fvu", "dead"), [(0.08, 0.05), (0.4, 0.05), (0.08, 0.9)])
def test_s1_has_no_verdict_whatever_the_numbers(
    evidence: Evidence, judged: Judge, fvu: float, dead: float
):
    """The paper states no quality: an aim of our own decides nothing."""
    assert evidence.sae
    sae = replace(evidence.sae, fvu=fvu, fvu_low=fvu - 0.01, fvu_high=fvu + 0.01, dead=dead)
    sae = replace(sae, exact={"clean": 0.75, "sae": 0.5})
    row = judged("S1", sae=sae)
    assert row["verdict"] == "not testable here" and "states no quality" in row["why"]
    assert f"FVU {fvu:.3f}" in row["ours"] and "exact 0.75 -> 0.50 spliced in" in row["ours"]
    effects = effects_of(replace(evidence, sae=sae))
    assert not [one for one in effects if one.claim == "S1"]


def beside(less: float, active: float = 61) -> Baseline:
    """PCA with 0.05 of the variance unexplained, the SAE so much worse."""
    fvu = Estimate(value=0.05, low=0.04, high=0.06)
    sae_less = Estimate(value=less, low=less - 0.01, high=less + 0.01)
    return Baseline(active=active, bits=8 * active, fvu=fvu, sae_less=sae_less)


@pytest.mark.parametrize(
    ("less", "in_bits", "verdict"),
    [
        (-0.05, -0.02, "reproduced"),
        (-0.05, 0.0, "reproduced in part"),
        (-0.05, 0.02, "mixed"),
        (0.05, 0.08, "contradicted"),
        (0.0, 0.0, "inconclusive"),
    ],
)
def test_s1b_compares_with_pca(
    evidence: Evidence, judged: Judge, less: float, in_bits: float, verdict: str
):
    assert evidence.sae
    codes = {"pca": beside(less), "pca-bits": beside(in_bits, 96), "k-means": beside(-0.3, 1)}
    exact = {"clean": 0.75, "sae": 0.5, "pca": 0.7}
    sae = replace(evidence.sae, baselines=codes, exact=exact)
    row = judged("S1b", sae=sae)
    assert row["verdict"] == verdict
    assert "as many numbers a row, 61: 0.050" in row["ours"]
    assert "pca 0.050, exact 0.75 -> 0.70 spliced in" in row["why"] and "k-means" in row["why"]
    names = [one.name for one in effects_of(replace(evidence, sae=sae)) if one.claim == "S1b"]
    assert names == [
        f"FVU less that of PCA with as many {what} a row" for what in ("numbers", "bits")
    ]
    assert judged("S1b", sae=replace(sae, baselines=None))["verdict"] == "not measured"


def test_what_is_measured_is_what_s1_is_judged_by(evidence: Evidence, judged: Judge):
    """Of a real `sae-eval`, whose default has the baselines."""
    sae = evidence.sae
    assert sae and sae.baselines and sae.exact
    assert {"pca", "pca-bits"} <= sae.baselines.keys() and {"clean", "sae", "pca"} <= {*sae.exact}
    less = sae.baselines["pca"].sae_less.value
    fvu, pca = sae.fvu, sae.baselines["pca"].fvu.value
    assert less is not None and fvu is not None and pca is not None
    assert less == pytest.approx(fvu - pca)
    assert judged("S1b")["verdict"] in ("contradicted", "mixed", "inconclusive", "reproduced")
