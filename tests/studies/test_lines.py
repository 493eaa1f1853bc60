"""What studies say of their results: no finding where nothing was compared."""

from types import SimpleNamespace

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
