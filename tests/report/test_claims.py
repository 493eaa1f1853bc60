"""The rules by which claims are judged, on real results, whose numbers are edited to turn them."""

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from trm_interp.report.claims import CLAIMS, claims_table, effects_of, effects_table
from trm_interp.report.evidence import Evidence
from trm_interp.report.plan import Plan
from trm_interp.runtime.errors import UserError
from trm_interp.studies.outcomes import OutcomesResult

Judge = Callable[..., dict[str, Any]]


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
    assert table.set_index("id")["why"]["C1"] == "needs origins"


def test_a_claim_needs_all_of_its_results(judged: Judge):
    row = judged("W1", settling=None)
    assert (row["verdict"], row["why"]) == ("not measured", "needs settling")


def test_a_summary_is_the_json_of_its_result(plan: Plan):
    """Every file holds what its type says, no more and no less, and comes back the same."""
    results = plan.results()
    studied = [job for job in plan.jobs if job.done == "summary.json" and job.name != "fig1"]
    assert len(studied) == 8
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


def test_effects_are_those_that_the_claims_are_judged_by(evidence: Evidence):
    effects, table = effects_of(evidence), effects_table(evidence)
    assert len(table) == len(effects) > len(CLAIMS)
    claims = claims_table(evidence)
    without = claims["verdict"].isin(["not measured", "not testable here"])
    measured = claims.loc[~without, "id"]
    assert set(table["claim"]) == set(measured)
    assert len({(one.claim, one.name) for one in effects}) == len(effects)
    assert not (table["low"] > table["high"]).to_numpy().any()


def test_draws_are_replicates_of_the_estimate(evidence: Evidence):
    """Of results that hold what they need, their middle 95 % is about the interval."""
    drawn = {one.claim for one in effects_of(evidence) if len(one.draws)}
    assert drawn >= {"T1", "T2", "T2b", "F1", "F2", "W1", "C1"}
    for one in effects_of(evidence):
        if len(one.draws):
            assert one.draws.shape == (1000,) and one.estimate is not None
            assert np.nanmin(one.draws) <= one.estimate + 1e-9
            assert np.nanmax(one.draws) >= one.estimate - 1e-9
    again = effects_of(evidence)
    for one, other in zip(effects_of(evidence), again, strict=True):
        np.testing.assert_array_equal(one.draws, other.draws)
