"""Verdicts of the causal studies, from numbers made by hand."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trm_interp.analysis.estimates import ByOutcome, Estimate, Median, Share
from trm_interp.report.causal import COMMITMENT, FAILURES, WHERE, of_failures, verdicts
from trm_interp.runtime.files import write_json
from trm_interp.studies.fates import Became
from trm_interp.studies.trace import Result
from trm_interp.studies.trace_measures import Sealing

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
    of: dict[str, Any] = {"ckpt": "c", "checkpoint_sha256": "0", "puzzles": "p", "data_sha256": {}}
    of |= {"n": 40, "batch_size": 8, "device": "cpu", "settings": {}, "tried": 80, "always": 0}
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
