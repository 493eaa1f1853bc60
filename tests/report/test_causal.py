"""Verdicts of the causal studies, from numbers made by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trm_interp.analysis.estimates import ByOutcome, Estimate, Median, Share
from trm_interp.report.causal import (
    COMMITMENT,
    FAILURES,
    RELATED,
    ROBUST,
    WHERE,
    of_failures,
    verdicts,
)
from trm_interp.runtime.files import write_json
from trm_interp.sae.results import CircuitOf, CircuitsSummary
from trm_interp.studies.ablated import FEATURES, PROBE
from trm_interp.studies.fates import Became
from trm_interp.studies.robustness import BASINS, Fifty, OfEnds, Related, RobustnessResult
from trm_interp.studies.trace import Result
from trm_interp.studies.trace_measures import Sealing
from trm_interp.studies.used import Ablated, UsedResult

OF: dict[str, Any] = {
    "ckpt": "c",
    "checkpoint_sha256": "0",
    "puzzles": "p",
    "data_sha256": {},
    "n": 40,
}
OF |= {"batch_size": 8, "device": "cpu", "settings": {}}
NONE = Estimate(value=None, low=None, high=None)
MEDIAN = Median(median=None, low=None, high=None, n=0)


def share(hits: int, n: int, low: float, high: float) -> Share:
    return Share(share=hits / n, low=low, high=high, hits=hits, n=n)


def sealing(rescued: Share) -> Sealing:
    return Sealing(
        rescued=rescued,
        ruined=rescued,
        last_rescue=MEDIAN,
        last_ruin=MEDIAN,
        by_rating=NONE,
        donors={},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """z_H rescues 19 of 20 pairs after step 1 and 2 of 20 after step 9, z_L 3 and 2."""
    of: dict[str, Any] = OF | {"tried": 80, "always": 0}
    of |= {"never": 0, "pairs": 20, "dropped": 0, "moments": [0.0, 1.0, 9.0], "cells": 1}
    ends = [
        Became(steps=8, became=name, **vars(share(hits, 20, 0.0, 1.0)))
        for name, hits in (("solved", 2), ("settled", 15), ("cycling", 0), ("wandering", 3))
    ]
    result = Result(
        **of,
        exact=1,
        rating=None,
        agreement={},
        sealed={
            "z_H": sealing(share(19, 20, 0.76, 0.99)),
            "z_L": sealing(share(4, 20, 0.08, 0.42)),
        },
        strongest=[],
        unpatched=ByOutcome(solved=ends, failed=ends),
    )
    (tmp_path / "trace").mkdir()
    write_json(tmp_path / "trace" / "summary.json", result.to_json())
    rows = [("z_H", 0.0, 20), ("z_H", 1.0, 19), ("z_H", 9.0, 2), ("z_L", 1.0, 3), ("z_L", 9.0, 2)]
    table = pd.DataFrame(rows, columns=["site", "moment", "flipped"])
    table = table.assign(flipped=table["flipped"] / 20, n=20, donor="the pair's")
    both = pd.concat([table.assign(direction=of) for of in ("rescue", "ruin")])
    both.to_csv(tmp_path / "trace" / "sealed.csv", index=False)
    return tmp_path


def test_verdicts(folder: Path):
    table = verdicts(folder)
    by_question = dict(iter(table.groupby("question")))
    commitment = by_question[COMMITMENT].set_index("what")
    assert (
        commitment["verdict"].tolist()
        == ["the fate is sealed on the way"] * 2 + ["no moment is shown to seal it"] * 2
    )
    first = commitment.loc["z_H of the solved run after step 1 rescues"]
    assert (first["value"], first["n"]) == (0.95, 20)
    assert set(by_question[WHERE]["verdict"]) == {"in z_H"}
    failures = by_question[FAILURES].set_index("what")
    assert failures["value"].to_dict() == {
        "failed runs 8 steps later: solved": 0.1,
        "failed runs 8 steps later: settled": 0.75,
        "failed runs 8 steps later: cycling": 0.0,
        "failed runs 8 steps later: wandering": 0.15,
    }
    assert set(failures["verdict"]) == {"most are wrong"}


@pytest.mark.parametrize(
    ("hits", "verdict"),
    [  # solved, settled, cycling, wandering; Wilson's lower bound of 14 of 20 is .48, of 15 .53
        ((15, 2, 2, 1), "most are unfinished"),
        ((14, 6, 0, 0), "nothing is shown of most"),
        ((1, 8, 7, 4), "most are wrong"),
        ((0, 0, 0, 20), "most are neither, and wander"),
        ((0, 0, 0, 0), "nothing is shown of most"),
    ],
)
def test_what_failures_are(hits: tuple[int, ...], verdict: str):
    n, ends = sum(hits), ("solved", "settled", "cycling", "wandering")
    each = [
        Became(steps=8, became=name, share=None, low=None, high=None, hits=of, n=n)
        for name, of in zip(ends, hits, strict=True)
    ]
    assert of_failures(each) == verdict


def test_without_any_part(tmp_path: Path):
    assert verdicts(tmp_path).empty


def fifty(middle: float, low: float, high: float, above: int) -> dict[str, dict[str, Fifty]]:
    median = Median(median=middle, low=low, high=high, n=12)
    return {basin: {"random": Fifty(median=median, below=0, above=above)} for basin in BASINS}


def ends(of: dict[str, dict[str, Fifty]]) -> OfEnds:
    return OfEnds(n=12, at_rest=share(12, 12, 0.7, 1.0), lambda_1=MEDIAN, epsilon_50=of)


@pytest.mark.parametrize(
    ("failed", "verdict"),
    [
        ((3.0, 2.5, 3.5), "solved ends lie in wider basins"),
        ((4.5, 2.5, 5.0), "no difference is shown"),
    ],
)
def test_verdicts_of_robustness(tmp_path: Path, failed: tuple[float, float, float], verdict: str):
    related = [
        Related(basin=BASINS[0], to=to, ends="all", n=24, correlation=Estimate(**number))
        for to, number in (
            ("q_halt", {"value": 0.6, "low": 0.3, "high": 0.8}),
            ("lambda_1", {"value": -0.4, "low": -0.7, "high": -0.1}),
            ("starts_answer", {"value": 0.2, "low": -0.1, "high": 0.4}),
        )
    ]
    result = RobustnessResult(
        **OF,
        sample=24,
        epsilons=[1.0, 5.0],
        ends=ByOutcome(solved=ends(fifty(5.0, 4.8, 5.0, 9)), failed=ends(fifty(*failed, 0))),
        related=related,
    )
    write_json(tmp_path / "robustness" / "summary.json", result.to_json())
    by_question = dict(iter(verdicts(tmp_path).groupby("question")))
    assert set(by_question[ROBUST]["verdict"]) == {verdict}
    what = f"epsilon_50 of solved ends, by the {BASINS[0]}, 9 of them beyond the sizes tried"
    assert by_question[ROBUST].set_index("what").loc[what, "value"] == 5.0
    assert by_question[RELATED]["verdict"].tolist() == [
        "rises with it",
        "falls with it",
        "nothing is shown",
    ]


def test_verdicts_of_features(tmp_path: Path):
    """Of a run of `used` with an SAE its features alone; edges by Wilson's interval of a half."""
    number = Estimate(value=0.1, low=0.05, high=0.2)
    one = Ablated(
        **{"moment": 1, "site": "z_L", "label": "solution", "what": PROBE, "dims": 1},
        **dict.fromkeys(("auc", "moved", "exact", "cells", "loss"), number),
        beyond={"random": number},
    )
    result = UsedResult(
        **OF,
        **{"n_train": 20, "n_test": 20, "solved": 20, "loss": 0.0, "seen_by_sae": 3},
        ablated=[one, replace(one, what=FEATURES, beyond={"other": NONE})],
    )
    write_json(tmp_path / "used-sae" / "summary.json", result.to_json())
    edges: dict[str, Any] = {
        "n": 9,
        "n_solved": 9,
        "edges": 60,
        "clear": 50,
        "strongest": 60,
        "to_itself": 0,
    }
    circuits = CircuitsSummary(
        **{"sae": "s", "site": "z_L", "n_puzzles": 9, "n_trained_on": 9, "n_solved": 9},
        **{"ticks": 336, "store_sha256": "0", "checkpoint_sha256": "0", "mismatch": None},
        **{"d_in": 96, "d_sae": 768, "arch": "topk", "gated_variant": None, "lag": 7},
        **{"model_mismatch": None, "steps": 16, "features": [1], "source_ticks": [5]},
        tolerance=1e-3,
        fates={
            "settled": CircuitOf(**edges, checked=8, confirmed=8, agreement=number),
            "wandering": CircuitOf(**edges, checked=8, confirmed=5),
        },
    )
    write_json(tmp_path / "circuits" / "summary.json", circuits.to_json())
    table = verdicts(tmp_path).set_index("what")["verdict"].to_dict()
    assert table == {
        f"loss without {FEATURES} of solution in z_L after step 1": "not shown to be used",
        "strongest edges of settled runs that hold beyond every matched feature": "most hold",
        "rank correlation of weight and loss in settled runs": "they agree in order",
        "strongest edges of wandering runs that hold beyond every matched feature": "not shown",
    }
