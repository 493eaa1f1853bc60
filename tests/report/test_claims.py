"""The rules by which claims are judged, on numbers made for them."""

from typing import Any

import pytest

from trm_interp.report.claims import CLAIMS, claims_table
from trm_interp.report.verdicts import VERDICTS
from trm_interp.runtime.errors import UserError


def judged(name: str, found: dict[str, Any]) -> dict[str, Any]:
    table = claims_table(found)
    assert set(table["verdict"]) <= set(VERDICTS) and len(table) == len(CLAIMS)
    return table.set_index("id").loc[name].to_dict()


def test_nothing_measured_gives_no_verdict():
    table = claims_table({})
    assert set(table["verdict"]) == {"not measured"}
    assert table.set_index("id")["why"]["C1"] == "needs wide and deep, settling"


@pytest.mark.parametrize(
    "known",
    [{}, {"steps": "many"}, {"steps": 3, "exact": [1]}, {"steps": None}, {"steps": 0}],
)
def test_a_summary_that_lies_is_one_line(known: dict[str, Any]):
    with pytest.raises(UserError, match="summary of table1, claim T1: not what the command"):
        claims_table({"table1": known})


def outcomes(exact: list[float], half: float) -> dict[str, Any]:
    return {
        "steps": len(exact),
        "n": 100,
        "exact": exact,
        "exact_low": [share - half for share in exact],
        "exact_high": [share + half for share in exact],
        "ever": exact,
        "lost_in_all": 0,
    }


@pytest.mark.parametrize(
    ("exact", "verdict"),
    [
        ([0.16, 0.54, 0.65, 0.70, 0.75], "reproduced"),
        ([0.40, 0.78, 0.80, 0.82, 0.84], "reproduced in part"),  # it rises, elsewhere
        ([0.70, 0.70, 0.70, 0.70, 0.70], "refuted"),
    ],
)
def test_t1(exact: list[float], verdict: str):
    assert judged("T1", {"table1": outcomes(exact, 0.02)})["verdict"] == verdict


@pytest.mark.parametrize(
    ("best", "verdict"),
    # plain 0.75 [0.70, 0.80]; half of the gap to 1 is 0.875
    [(0.90, "reproduced"), (0.84, "reproduced in part"), (0.75, "refuted")],
)
def test_t2(best: float, verdict: str):
    found = {
        "n": 200, "steps": 5, "k": 50, "sigma": 1.0, "target": "z_H", "baseline": [0.75] * 5,
        "baseline_high": [0.80] * 5, "best_q": [best] * 5, "best_q_low": [best - 0.03] * 5,
        "best_q_high": [best + 0.03] * 5, "pass_at_k": [0.99] * 5,
    }  # fmt: skip
    assert judged("T2", {"table2": found})["verdict"] == verdict


def settling(settled: int, solved: int = 20, failed: int = 100) -> dict[str, Any]:
    drift = {"median": 0.1, "low": 0.05, "high": 0.2}
    return {
        "n": 100 + failed,
        "steps": 16,
        "tolerance": 1e-3,
        "solved": 100,
        "failed": failed,
        "settled_by_solved": [],
        "fates": {"solved": {"settled": solved}, "failed": {"settled": settled}},
        "late_drift": {"solved": drift, "failed": drift},
        "auc_of_drift_for_failure": {"auc": 0.9, "low": 0.8, "high": 0.95},
        "long": {
            "horizons": [16, 64],
            "dynamics": {"failed": {"settled": settled, "wandering": failed - settled}},
            "escaped": {"hits": 3, "n": 20},
        },
    }


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
    settled: int, solved: int, failed: int, paper: str, draft: str
):
    found = {"settling": settling(settled, solved, failed)}
    assert judged("F2", found)["verdict"] == paper
    assert judged("W1", found)["verdict"] == draft
    assert f"{settled} of {failed} failed" in judged("F2", found)["ours"]


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
    recurring: tuple[int, int], transient: float | None, verdict: str
):
    def said(n: int, solved: int, failed: int) -> dict[str, Any]:
        median = {f"transient_{o}": transient for o in ("solved", "failed")}
        median |= {f"drift_{o}": 0.5 for o in ("solved", "failed")}
        return {"n": n, "median": median, "recurring_solved": solved, "recurring_failed": failed}

    found = {"most_active": said(10, *recurring), "alive": 900, "solved": 8, "failed": 8}
    found |= {"recurring_solved": 900, "recurring_failed": 900}  # all others do
    assert judged("F1", {"fig1": found})["verdict"] == verdict


@pytest.mark.parametrize(
    ("random", "verdict"), [(4, "reproduced"), (1, "reproduced in part"), (0, "refuted")]
)
def test_a_plane_through_both_outcomes_does_not_count_as_clusters(random: int, verdict: str):
    found = {
        "puzzles_looked_at": [{"solved": 0.5, "n": 1000}] * 4,
        "clustered_by_steps": {"all directions": [random, 4], "plane": [4, 4]},
        "solved_where_own_start_fails": [0.5, 0.0],
    }
    assert judged("F3", {"fig3": found})["verdict"] == verdict


@pytest.mark.parametrize(
    ("wide", "deep", "verdict"),
    [(0.9, 0.7, "reproduced"), (0.8, 0.79, "reproduced in part"), (0.6, 0.9, "refuted")],
)
def test_breadth_against_depth(wide: float, deep: float, verdict: str):
    def share(value: float) -> dict[str, float]:
        return {"best_q": value, "best_q_low": value - 0.05, "best_q_high": value + 0.05}

    breadth = {"evaluations": 5376, "n": 40, "of": "16 runs", "breadth": share(wide)}
    found = {"breadth": breadth | {"depth": share(deep)}, "settling": settling(1)}
    row = judged("C1", found)
    assert row["verdict"] == verdict and "3 of 20 failed runs" in row["why"]


def test_a_plateau_at_the_published_level_is_looked_for_in_every_convention():
    def losses(level: float) -> dict[str, Any]:
        values = {"first": 1.0, "early": 0.01, "level": level, "slope": 0.0}
        return {
            name: {"value": v, "low": v - 0.001, "high": v + 0.001} for name, v in values.items()
        }

    found: dict[str, Any] = {
        "n": 100,
        "solved": 80,
        "cycles": 48,
        "solved_after_cycle_10": 0.9,
        "solved_loss": {"stablemax, cells": losses(0.0)},
        "failed_loss": {"stablemax, cells": losses(0.9), "softmax, sum": losses(11.5)},
    }
    row = judged("F4", {"fig4": found})
    assert row["verdict"] == "reproduced" and "that of softmax, sum" in row["why"]
    found["failed_loss"].pop("softmax, sum")
    row = judged("F4", {"fig4": found})
    assert row["verdict"] == "reproduced in part" and "fits no convention" in row["why"]


def test_closer_failures_refute_the_divergence():
    auc = {"auc": 0.1, "low": 0.05, "high": 0.2}
    over = {
        "auc": {"0": auc, "50": auc, "-1": auc},
        "failed_late_slope": {"value": 0.0, "low": -1e-5, "high": 1e-5},
    }
    row = judged("F5", {"fig5": {"n": 9, "over_puzzles": over, "same_puzzle": {}}})
    assert row["verdict"] == "refuted" and "0.10 at update 50" in row["ours"]
    alike = {"auc": 0.9, "low": 0.85, "high": 0.95}
    same = {"auc": {"0": auc, "50": alike, "-1": alike}, "puzzles": [3, 4]}
    row = judged("F5", {"fig5": {"n": 9, "over_puzzles": over, "same_puzzle": same}})
    assert row["verdict"] == "reproduced in part" and "do leave their own puzzle's" in row["why"]
    row = judged("F5", {"fig5": {"n": 9, "over_puzzles": {}, "same_puzzle": same}})
    assert row["verdict"] == "not measured"
