"""The rules of claims about solved shares and where runs go, on edited results."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trm_interp.analysis.estimates import ByOutcome, Estimate, Share
from trm_interp.analysis.outcomes import share_with_bounds, wilson
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.analysis.variance import shares_with_bounds
from trm_interp.report.evidence import Evidence, SearchShares
from trm_interp.search.results import Curve
from trm_interp.studies.fates import Fates
from trm_interp.studies.origins import SETS, OriginsResult, texts_of
from trm_interp.studies.outcomes import ENDS, SHARES, OutcomesResult
from trm_interp.studies.settling import SettlingResult

Judge = Callable[..., dict[str, Any]]


def outcomes(real: OutcomesResult, exact: list[float], half: float) -> OutcomesResult:
    """The same puzzles, solved at other steps; `half` the width of every interval."""
    ever = np.maximum.accumulate(exact).tolist()
    curves = {
        f"{name}{end}": [share + off for share in (ever if name == "ever" else exact)]
        for name in SHARES
        for end, off in zip(ENDS, (0.0, -half, half), strict=True)
    }
    return replace(real, steps=len(exact), **curves)


@pytest.mark.parametrize(
    ("exact", "n", "verdict"),
    [
        ([0.16, 0.54, 0.65, 0.70, 0.75], 1000, "reproduced"),
        ([0.40, 0.78, 0.80, 0.82, 0.84], 1000, "reproduced"),  # elsewhere than published: no matter
        ([0.10, 0.20, 0.40, 0.60, 0.80], 1000, "mixed"),  # a quarter of the solved by step 2
        ([0.40, 0.50, 0.70, 0.90, 0.99], 200, "reproduced in part"),  # half of the solved
        ([0.70, 0.70, 0.70, 0.70, 0.70], 1000, "reproduced in part"),  # later steps add nothing
        ([0.70, 0.40, 0.30, 0.20, 0.10], 1000, "mixed"),
    ],
)
def test_t1(evidence: Evidence, judged: Judge, exact: list[float], n: int, verdict: str):
    assert evidence.table1
    real = replace(outcomes(evidence.table1, exact, 0.02), n=n)
    assert judged("T1", table1=real)["verdict"] == verdict


def search(evidence: Evidence, best: list[float], plain: list[float], n: int = 200) -> SearchShares:
    assert evidence.table2

    def curve(share: list[float]) -> Curve:
        spans = [wilson(round(n * one), n) for one in share]
        return Curve(share=share, low=[low for low, _ in spans], high=[high for _, high in spans])

    curves = {"baseline": curve(plain), "best_q": curve(best)}
    return replace(evidence.table2, n=n, steps=len(best), gained=None, **curves)


@pytest.mark.parametrize(
    ("best", "verdict"),
    # plain 0.75; half of the gap to 1 is 0.875, and a gain is told from 0 above about 0.08
    [
        (0.95, "reproduced"),
        (0.84, "reproduced in part"),
        (0.75, "contradicted"),  # closes nothing of the gap, and no less than half of it
        (0.60, "contradicted"),
    ],
)
def test_t2(evidence: Evidence, judged: Judge, best: float, verdict: str):
    shares = search(evidence, [best] * 5, [0.75] * 5)
    assert judged("T2", table2=shares)["verdict"] == verdict


@pytest.mark.parametrize(
    ("best", "n", "verdict"),
    [
        (0.16, 10_000, "reproduced"),
        (0.16, 100, "inconclusive"),
        (0.60, 200, "contradicted"),
    ],
)
def test_the_unchanged_first_step_of_table_2_is_judged(
    evidence: Evidence, judged: Judge, best: float, n: int, verdict: str
):
    shares = search(evidence, [best] + [0.9] * 4, [0.16] + [0.5] * 4, n)
    row = judged("T2b", table2=shares)
    assert row["verdict"] == verdict and f"gain {100 * (best - 0.16):+.1f}" in row["ours"]
    assert judged("T2", table2=shares)["verdict"] == "reproduced"
    assert "gain +40.0 / +40.0 / +40.0" in judged("T2", table2=shares)["ours"]


def settling(
    real: SettlingResult, solved: tuple[int, int], failed: tuple[int, int], n_failed: int
) -> SettlingResult:
    """So many of 100 solved and of `n_failed` failed runs at rest, within 0.001 RMS and by the
    draft's measure."""

    def fates(hits: int, n: int) -> Fates:
        return Fates(settled=hits, cycling=0, wandering=n - hits)

    def share(hits: int, n: int) -> Share:
        return Share.of(share_with_bounds(np.arange(n) < hits))

    return replace(
        real,
        fates=ByOutcome(solved=fates(solved[0], 100), failed=fates(failed[0], n_failed)),
        within_band=ByOutcome(solved=share(solved[1], 100), failed=share(failed[1], n_failed)),
        tolerance=1e-3,
        n=100 + n_failed,
        solved=100,
        failed=n_failed,
    )


@pytest.mark.parametrize(
    ("failed", "solved", "n_failed", "paper", "draft"),
    [  # 95 % Wilson bounds: 75 of 100 [0.66, 0.82], 55 of 100 [0.45, 0.64], 4 of 26 [0.06, 0.34]
        ((75, 80), (20, 20), 100, "reproduced", "contradicted"),
        ((75, 80), (75, 80), 100, "reproduced in part", "contradicted"),  # successes rest as well
        ((55, 55), (55, 55), 100, "inconclusive", "inconclusive"),
        ((25, 25), (90, 90), 100, "contradicted", "reproduced"),
        ((4, 4), (20, 20), 26, "contradicted", "reproduced"),
        ((4, 26), (85, 100), 26, "mixed", "mixed"),  # at rest within one band, not in the other
        ((2, 2), (2, 2), 4, "not measured", "not measured"),
    ],
)
def test_settling_decides_between_the_paper_and_the_draft(
    evidence: Evidence,
    judged: Judge,
    failed: tuple[int, int],
    solved: tuple[int, int],
    n_failed: int,
    paper: str,
    draft: str,
):
    assert evidence.settling
    edited = settling(evidence.settling, solved, failed, n_failed)
    assert judged("F2", settling=edited)["verdict"] == paper
    assert judged("W1", settling=edited)["verdict"] == draft
    row = judged("F2", settling=edited)
    measures = ("at rest within 0.001", "late drift within 0.083")
    for hits, measure in zip(failed, measures, strict=True):
        assert f"{measure} RMS" in row["ours"]
        assert f"{hits} of {n_failed} failed" in row["ours"]
        low, high = wilson(hits, n_failed)
        assert f"[{low:.3f}, {high:.3f}]" in row["interval"]


def test_rest_is_judged_at_the_own_tolerance_alone_where_a_file_has_no_other(
    evidence: Evidence, judged: Judge
):
    assert evidence.settling
    edited = replace(settling(evidence.settling, (20, 0), (75, 0), 100), within_band=None)
    row = judged("F2", settling=edited)
    assert row["verdict"] == "reproduced" and "0.083" not in row["ours"]


def origins(result: OriginsResult, solved: np.ndarray, deep: np.ndarray) -> OriginsResult:
    """The result of these outcomes, bool [puzzle, copy, start], and deep runs, bool [puzzle]."""
    shares = shares_with_bounds(solved.astype(np.float64), SETS, 0)
    gains = solved[:, 0].any(1).astype(int) - deep
    mean, low, high = map(float, mean_with_bounds(gains.astype(np.float64), 0))
    return replace(
        result,
        n=len(solved),
        shares={name: Estimate(**one) for name, one in shares.items()},
        gain=Estimate(value=mean, low=low, high=high),
        outcomes=texts_of(solved),
        gains=gains.tolist(),
    )


@pytest.mark.parametrize(
    ("decides", "depth_helps", "verdict"),
    [
        ("start", False, "reproduced"),
        ("start", True, "mixed"),
        ("puzzle", False, "contradicted"),
        ("both", False, "reproduced in part"),
    ],
)
def test_c1_by_what_decides_and_by_depth(
    evidence: Evidence, judged: Judge, decides: str, depth_helps: bool, verdict: str
):
    """Outcomes by the start of every puzzle and copy, by the puzzle, or by either, with 0.71^2 of
    the variance by the puzzle."""
    rng, shape = np.random.default_rng(0), (60, 4, 4)
    by_start, by_puzzle = rng.random(shape) < 0.5, rng.random((60, 1, 1)) < 0.5
    solved = {
        "start": by_start,
        "puzzle": np.broadcast_to(by_puzzle, shape),
        "both": np.where(rng.random(shape) < 0.29, by_start, by_puzzle),
    }[decides]
    deep = np.ones(60, bool) if depth_helps else solved[:, 0, 0]
    if decides == "puzzle":  # one deep run solves some more
        deep = deep | (np.arange(60) < 30)
    assert evidence.origins
    row = judged("C1", origins=origins(evidence.origins, solved, deep))
    assert row["verdict"] == verdict, row["why"]


@pytest.mark.parametrize(
    ("failed", "auc", "verdict"),
    [
        ((0.01, 0.05), (0.8, 0.95), "reproduced"),
        ((-0.01, 0.02), (0.8, 0.95), "reproduced in part"),
        ((0.01, 0.05), (0.4, 0.6), "reproduced in part"),
        ((-0.01, 0.02), (0.4, 0.6), "inconclusive"),  # nothing is told from nothing
        ((-0.06, -0.03), (0.45, 0.77), "contradicted"),
        ((-0.03, -0.01), (0.8, 0.95), "mixed"),
        ((-0.01, 0.02), None, "not measured"),
    ],
)
def test_w2(
    evidence: Evidence,
    judged: Judge,
    failed: tuple[float, float],
    auc: tuple[float, float] | None,
    verdict: str,
):
    assert evidence.stability
    real = evidence.stability.lambda_1
    bounds = {"low": auc[0], "high": auc[1], "auc": sum(auc) / 2} if auc else {"auc": None}
    tells = replace(real.auc_for_failure, **bounds)
    median = replace(real.failed, low=failed[0], high=failed[1], median=sum(failed) / 2)
    leading = replace(real, failed=median, auc_for_failure=tells)
    stability = replace(evidence.stability, lambda_1=leading)
    assert judged("W2", stability=stability)["verdict"] == verdict
