"""What studies say of their results: no finding where nothing was compared."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trm_interp.studies import divergence, probes
from trm_interp.studies.probes import KINDS, POOLED, ProbeScore


def test_divergence_names_no_finding_where_outcomes_were_not_compared():
    empty = SimpleNamespace(auc=None)
    one = SimpleNamespace(
        n_solved=30, n_failed=2, first_apart=None, first_closer=None, auc={"0": empty, "9": empty}
    )
    (over_puzzles, over_starts) = divergence.lines(
        SimpleNamespace(over_puzzles=one, same_puzzle=None)  # type: ignore[arg-type]
    )
    assert over_puzzles == (
        "over puzzles (30 solved, 2 failed): too few runs of one outcome for a comparison"
    )
    assert over_starts.endswith("nothing to compare")


def test_the_best_probe_is_of_several_puzzles():
    """The largest of many AUCs over one puzzle each is chance: 0.99 of one, 0.7 of eight."""
    label, kind = next(iter(POOLED)), next(iter(KINDS))

    def at(i: int) -> dict:
        return {"cycle": i, "site": "z_H", "kind": kind, "tick": 21 * i, "label": label}

    scores = [
        ProbeScore(**at(i), auc=auc, low=auc, high=auc, n=n)
        for i, (auc, n) in enumerate([(0.5, 8), (0.99, 1), (0.7, 8), (0.6, 8)])
    ]
    result = SimpleNamespace(n_train=9, n_test=8, auc=scores)
    text = probes.lines(result)[1]  # type: ignore[arg-type]
    assert "0.700" in text and "0.990" not in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["settling", "--long", 0], "failed: median late drift "),
        (
            ["stability", "--exponents", 1, "--fixed", 1],
            "median leading exponent over all of the run: ",
        ),
        (["losses", "--steps", 2], "failed: first "),
    ],
)
def test_one_puzzle_has_no_interval(
    cli: Callable[..., Any], copier: Path, grids: Path, tmp_path: Path, words: Any, line: str
):
    """All resamples of one puzzle are equal, which is no precision."""
    one = ["--ckpt", copier, "--puzzles", grids, "--limit", 1, "--device", "cpu"]
    answer = cli(*words, *one, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    (printed,) = (text for text in answer.out.splitlines() if line in text)
    assert "[" not in printed and "nan" not in printed and "None" not in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    singles = [one for one in dictionaries(summary) if one.get("n", 1) == 1 and "low" in one]
    bootstrapped = [one for one in singles if "hits" not in one]  # shares have Wilson's
    assert bootstrapped and all(one["low"] is None is one["high"] for one in bootstrapped)


def dictionaries(value: Any) -> list[dict[str, Any]]:
    """All that are inside."""
    if isinstance(value, list):
        return [one for part in value for one in dictionaries(part)]
    inside = dictionaries(list(value.values())) if isinstance(value, dict) else []
    return [value, *inside] if isinstance(value, dict) else inside
