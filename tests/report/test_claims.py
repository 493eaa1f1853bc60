"""The rules by which claims are judged, on real results, whose numbers are edited to turn them."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from trm_interp.analysis.estimates import ByOutcome, Estimate
from trm_interp.analysis.outcomes import wilson
from trm_interp.report.claims import CLAIMS, claims_table
from trm_interp.report.evidence import Evidence, SolvedShare
from trm_interp.report.plan import Plan
from trm_interp.report.verdicts import VERDICTS
from trm_interp.runtime.errors import UserError
from trm_interp.search.results import Curve
from trm_interp.studies.losses import LossCurve
from trm_interp.studies.outcomes import ENDS, SHARES, OutcomesResult
from trm_interp.studies.settling import Fates, SettlingResult

Judge = Callable[..., dict[str, Any]]


@pytest.fixture
def judged(evidence: Evidence) -> Judge:
    """The row of a claim, with some results replaced."""

    def judge(name: str, **results: Any) -> dict[str, Any]:
        table = claims_table(replace(evidence, **results))
        assert set(table["verdict"]) <= set(VERDICTS) and len(table) == len(CLAIMS)
        return table.set_index("id").loc[name].to_dict()

    return judge


def test_every_rule_judges_real_results(evidence: Evidence):
    table = claims_table(evidence).set_index("id")
    assert all(getattr(evidence, one.name) is not None for one in fields(Evidence))
    assert list(table.index) == [claim.id for claim in CLAIMS]
    assert "not measured" not in set(table["verdict"])
    words = table[["ours", "interval", "why"]].to_numpy()
    assert all(map(len, words[:, 0])) and all(map(len, words[:, 2]))
    text = " ".join(words.ravel())
    assert "None" not in text and "nan" not in text


def test_nothing_measured_gives_no_verdict():
    table = claims_table(Evidence())
    assert set(table["verdict"]) == {"not measured"}
    assert table.set_index("id")["why"]["C1"] == "needs wide and deep, settling"


def test_a_claim_needs_all_of_its_results(judged: Judge):
    row = judged("C1", settling=None)
    assert (row["verdict"], row["why"]) == ("not measured", "needs settling")


def test_a_summary_is_the_json_of_its_result(plan: Plan):
    """Every file holds what its type says, no more and no less, and comes back the same."""
    results = plan.results()
    studied = [job for job in plan.jobs if job.done == "summary.json" and job.name != "fig1"]
    assert len(studied) == 7
    for job in studied:
        written = json.loads((job.out / job.done).read_text())
        result = results[job.name]
        assert result.to_json() == written, job.name
        assert type(result).from_json(written) == result, job.name


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"steps": "many"}, "steps: Expected `int`, got `str`"),
        ({"steps": None}, "steps: Expected `int`, got `null`"),
        ({"exact": [1.0]}, "not one share for each of 16 steps"),
        ({"steps": 0}, "not one share for each of 0 steps"),
        ({"q_halt_tells_solved": {"auc": 1}}, "q_halt_tells_solved: Object missing required"),
    ],
)
def test_a_summary_that_lies_is_one_line(
    plan: Plan, changed: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
):
    """With the file, the field and the next step."""
    job = next(job for job in plan.jobs if job.name == "table1")
    file = job.out / job.done
    kept = file.read_text()
    monkeypatch.setattr(type(job), "is_done", lambda self, identity: True)
    try:
        file.write_text(json.dumps(json.loads(kept) | changed))
        with pytest.raises(UserError) as error:
            plan.results()
    finally:
        file.write_text(kept)
    text = str(error.value)
    assert text.startswith(f"{file}: ") and field in text and "\n" not in text
    assert text.endswith(f"delete {job.out} and run the same command again")


def test_a_summary_without_a_field_is_one_line():
    with pytest.raises(UserError, match="OutcomesResult: its content: Object missing required"):
        OutcomesResult.from_json({})


# by claim


def outcomes(real: OutcomesResult, exact: list[float], half: float) -> OutcomesResult:
    """The same puzzles, solved at other steps; `half` the width of every interval."""
    curves = {
        f"{name}{end}": [share + off for share in exact]
        for name in SHARES
        for end, off in zip(ENDS, (0.0, -half, half), strict=True)
    }
    return replace(real, steps=len(exact), **curves)


@pytest.mark.parametrize(
    ("exact", "verdict"),
    [
        ([0.16, 0.54, 0.65, 0.70, 0.75], "reproduced"),
        ([0.40, 0.78, 0.80, 0.82, 0.84], "reproduced in part"),  # it rises, elsewhere
        ([0.70, 0.70, 0.70, 0.70, 0.70], "refuted"),
    ],
)
def test_t1(evidence: Evidence, judged: Judge, exact: list[float], verdict: str):
    assert evidence.table1
    row = judged("T1", table1=outcomes(evidence.table1, exact, 0.02))
    assert row["verdict"] == verdict


@pytest.mark.parametrize(
    ("best", "verdict"),
    # plain 0.75 [0.70, 0.80]; half of the gap to 1 is 0.875
    [(0.90, "reproduced"), (0.84, "reproduced in part"), (0.75, "refuted")],
)
def test_t2(evidence: Evidence, judged: Judge, best: float, verdict: str):
    assert evidence.table2 and evidence.table2.steps == 5
    search = replace(
        evidence.table2,
        baseline=Curve(share=[0.75] * 5, low=[0.70] * 5, high=[0.80] * 5),
        best_q=Curve(share=[best] * 5, low=[best - 0.03] * 5, high=[best + 0.03] * 5),
    )
    assert judged("T2", table2=search)["verdict"] == verdict


def settling(real: SettlingResult, settled: int, solved: int, failed: int) -> SettlingResult:
    """So many of `failed` failed runs settled, and `solved` of 100 solved ones."""
    fates = ByOutcome(
        solved=Fates(settled=solved, cycling=0, wandering=100 - solved),
        failed=Fates(settled=settled, cycling=0, wandering=failed - settled),
    )
    return replace(real, n=100 + failed, solved=100, failed=failed, fates=fates)


@pytest.mark.parametrize(
    ("settled", "solved", "failed", "paper", "draft"),
    [  # 95 % Wilson bounds: 75 of 100 [0.66, 0.82], 1 of 100 [0, 0.05], 55 of 100 from 0.45
        (75, 20, 100, "reproduced", "refuted"),
        (75, 70, 100, "reproduced in part", "refuted"),  # successes settle as well
        (55, 20, 100, "reproduced in part", "reproduced in part"),
        (25, 20, 100, "reproduced in part", "reproduced in part"),
        (1, 20, 100, "refuted", "reproduced"),
        (0, 20, 20, "reproduced in part", "reproduced in part"),  # up to 0.16: too few to say
        (0, 20, 4, "not measured", "not measured"),
    ],
)
def test_settling_decides_between_the_paper_and_the_draft(
    evidence: Evidence,
    judged: Judge,
    settled: int,
    solved: int,
    failed: int,
    paper: str,
    draft: str,
):
    assert evidence.settling
    edited = settling(evidence.settling, settled, solved, failed)
    assert judged("F2", settling=edited)["verdict"] == paper
    assert judged("W1", settling=edited)["verdict"] == draft
    row = judged("F2", settling=edited)
    assert f"{settled} of {failed} failed" in row["ours"]
    low, high = wilson(settled, failed)
    assert f"[{low:.3f}, {high:.3f}]" in row["interval"]


@pytest.mark.parametrize(
    ("recurring", "transient", "verdict"),
    [
        ((6, 6), 50.0, "reproduced"),
        ((6, 5), 50.0, "reproduced in part"),
        ((6, 6), 150.0, "reproduced in part"),
        ((5, 5), None, "refuted"),
    ],
)
def test_f1_is_about_the_most_active_features(
    evidence: Evidence,
    judged: Judge,
    recurring: tuple[int, int],
    transient: float | None,
    verdict: str,
):
    assert evidence.fig1 and evidence.fig1.most_active.n == 10
    top = evidence.fig1.most_active
    median = replace(top.median, transient_solved=transient, transient_failed=transient)
    solved, failed = recurring
    top = replace(top, median=median, recurring_solved=solved, recurring_failed=failed)
    others = {"alive": 900, "recurring_solved": 900, "recurring_failed": 900}  # all of them do
    features = replace(evidence.fig1, most_active=top, **others)
    assert judged("F1", fig1=features)["verdict"] == verdict


@pytest.mark.parametrize(
    ("clustered", "verdict"),
    [
        ({"all directions": (4, 4), "plane": (0, 4)}, "reproduced"),
        ({"all directions": (1, 4), "plane": (4, 4)}, "reproduced in part"),
        ({"all directions": (0, 4), "plane": (4, 4)}, "refuted"),
        ({"plane": (4, 4)}, "untestable as stated"),
    ],
)
def test_a_plane_through_both_outcomes_does_not_count_as_clusters(
    evidence: Evidence, judged: Judge, clustered: dict[str, tuple[int, int]], verdict: str
):
    assert evidence.fig3
    basins = replace(evidence.fig3, clustered_by_steps=clustered)
    assert judged("F3", fig3=basins)["verdict"] == verdict


@pytest.mark.parametrize(
    ("wide", "deep", "verdict"),
    [(0.9, 0.7, "reproduced"), (0.8, 0.79, "reproduced in part"), (0.6, 0.9, "refuted")],
)
def test_breadth_against_depth(
    evidence: Evidence, judged: Judge, wide: float, deep: float, verdict: str
):
    def end(share: float) -> SolvedShare:
        return SolvedShare(share=share, low=share - 0.05, high=share + 0.05)

    assert evidence.breadth and evidence.settling and evidence.settling.long
    searches = replace(evidence.breadth, breadth=end(wide), depth=end(deep))
    row = judged("C1", breadth=searches)
    escaped = evidence.settling.long.escaped
    assert row["verdict"] == verdict
    assert f"{escaped.hits} of {escaped.n} failed runs" in row["why"]


def losses(level: float, slope: float = 0.0, early: float = 0.01) -> LossCurve:
    def about(value: float) -> Estimate:
        return Estimate(value=value, low=value - 1e-3, high=value + 1e-3)

    steady = Estimate(value=slope, low=slope - 1e-5, high=slope + 1e-5)
    middle = {"first": about(1.0), "early": about(early), "last": about(level)}
    return LossCurve(**middle, level=about(level), slope=steady)


def test_a_plateau_at_the_published_level_is_looked_for_in_every_convention(
    evidence: Evidence, judged: Judge
):
    assert evidence.fig4 and evidence.fig4.failed_loss
    good, flat = {"stablemax, cells": losses(0.0)}, {"stablemax, cells": losses(0.9)}
    real = replace(evidence.fig4, n=100, solved=80, cycles=48, solved_loss=good)
    row = judged("F4", fig4=replace(real, failed_loss=flat | {"softmax, sum": losses(11.5)}))
    assert row["verdict"] == "reproduced" and "that of softmax, sum" in row["why"]
    row = judged("F4", fig4=replace(real, failed_loss=flat))
    assert row["verdict"] == "reproduced in part" and "fits no convention" in row["why"]
    slow = {"stablemax, cells": losses(0.5, early=0.5)}
    rises = {"stablemax, cells": losses(0.9, slope=0.01)}
    row = judged("F4", fig4=replace(real, solved_loss=slow, failed_loss=rises))
    assert row["verdict"] == "refuted" and "plateau not flat" in row["why"]
    for few in ({"failed_loss": None}, {"solved": 97}):
        assert judged("F4", fig4=replace(real, **few))["verdict"] == "not measured"
    one_cycle = replace(losses(0.9), slope=Estimate(value=None, low=None, high=None))
    row = judged("F4", fig4=replace(real, failed_loss={"stablemax, cells": one_cycle}))
    assert row["verdict"] == "not measured" and "too few H-cycles" in row["why"]


def test_closer_failures_refute_the_divergence(evidence: Evidence, judged: Judge):
    real = evidence.fig5
    assert real and real.over_puzzles and real.same_puzzle and real.same_puzzle.compared
    over, starts = real.over_puzzles, real.same_puzzle.compared

    def auc(one: Any, value: float) -> Any:
        edited = {
            name: replace(at, auc=value, low=value - 0.05, high=value + 0.05)
            for name, at in one.auc.items()
        }
        return replace(one, auc=edited)

    level = Estimate(value=0.0, low=-1e-5, high=1e-5)
    closer = replace(auc(over, 0.1), failed_late_slope=level)
    same = replace(real.same_puzzle, compared=auc(starts, 0.1))
    row = judged("F5", fig5=replace(real, over_puzzles=closer, same_puzzle=same))
    assert row["verdict"] == "refuted" and "0.10 at update 50" in row["ours"]
    same = replace(real.same_puzzle, compared=auc(starts, 0.9))
    row = judged("F5", fig5=replace(real, over_puzzles=closer, same_puzzle=same))
    assert row["verdict"] == "reproduced in part" and "do leave their own puzzle's" in row["why"]
    leaving = Estimate(value=1e-3, low=5e-4, high=2e-3)
    farther = replace(auc(over, 0.9), failed_late_slope=leaving)
    assert judged("F5", fig5=replace(real, over_puzzles=farther))["verdict"] == "reproduced"
    assert judged("F5", fig5=replace(real, over_puzzles=None))["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("fvu_high", "dead", "verdict"),
    [
        (0.09, 0.05, "reproduced"),
        (0.11, 0.05, "reproduced in part"),
        (0.09, 0.2, "reproduced in part"),
    ],
)
def test_s1(evidence: Evidence, judged: Judge, fvu_high: float, dead: float, verdict: str):
    assert evidence.sae
    sae = replace(evidence.sae, fvu_high=fvu_high, dead=dead)
    assert judged("S1", sae=sae)["verdict"] == verdict


@pytest.mark.parametrize(
    ("failed_low", "auc_low", "verdict"),
    [
        (0.01, 0.8, "reproduced"),
        (-0.01, 0.8, "reproduced in part"),
        (0.01, 0.4, "reproduced in part"),
        (-0.01, 0.4, "refuted"),
        (-0.01, None, "not measured"),
    ],
)
def test_w2(
    evidence: Evidence, judged: Judge, failed_low: float, auc_low: float | None, verdict: str
):
    assert evidence.stability
    real = evidence.stability.lambda_1
    auc = replace(real.auc_for_failure, low=auc_low, auc=None if auc_low is None else 0.9)
    leading = replace(real, failed=replace(real.failed, low=failed_low), auc_for_failure=auc)
    stability = replace(evidence.stability, lambda_1=leading)
    assert judged("W2", stability=stability)["verdict"] == verdict
