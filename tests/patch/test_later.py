"""Fates of patched runs some steps later, beside what `settling` says of the same runs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_copier import squares, toy_copier

from trm_interp import patch
from trm_interp.analysis.settling import FATES, fate_of, period
from trm_interp.core.models.registry import build, config_class
from trm_interp.patch.later import Later
from trm_interp.studies.rollouts import short_runs
from trm_interp.studies.trace_later import became, other_fate

STEPS, LATER = 2, 6


def test_fates_are_those_of_settling():
    """Some runs of a toy with random maps are at rest within a tolerance between their drifts."""
    config = config_class("toy")(cells=9, vocab=5, d_model=6)
    model = build(config, torch.Generator().manual_seed(1)).eval()
    inputs, labels = (torch.from_numpy(part) for part in (squares().inputs, squares().labels))
    base = patch.record(model, inputs, labels, STEPS)
    x = base.x

    def begin(rows: slice) -> Any:
        return model.initial_state(x[rows]), x[rows]

    subject: Any = SimpleNamespace(model=model, labels=labels, begin=begin, device=model.device)
    subject.batches = lambda: [slice(0, len(x))]
    short = short_runs(subject, STEPS + LATER, lambda done: None)
    back = np.moveaxis(short.back, 0, -1)[:, : (LATER - 4) * 2]
    drift = np.sort(back[:, 0].max(0))
    tolerance = float((drift[5] + drift[6]) / 2)
    cell = patch.Cell("step.1.h.1.hook_slow")
    effects = patch.apply(base, lambda z: z, [cell, cell], later=LATER, tolerance=tolerance)
    assert isinstance(effects.later, Later) and effects.later.fate.shape == (2, len(x))
    fates = np.array(FATES)[effects.later.fate[0].numpy()]
    assert (fates == fate_of(period(back, tolerance))).all() and len(set(fates)) == 2
    assert (effects.later.exact.numpy() == short.solved[:, -1]).all()
    assert patch.apply(base, lambda z: z, [cell]).later is None


def test_too_few_later_steps():
    model = toy_copier()
    inputs, labels = (torch.from_numpy(part) for part in (squares().inputs, squares().labels))
    base = patch.record(model, inputs, labels, STEPS)
    with pytest.raises(ValueError, match="later must be 0 or at least 5, got 4"):
        patch.apply(base, lambda z: z, [patch.Cell("step.1.h.1.hook_slow")], later=4)


def test_what_runs_become():
    """A solved run is solved, whatever it does; what has no number is nobody's."""
    fate, exact = np.array([[0.0, 1.0, np.nan]]), np.array([[1.0, 0.0, np.nan]])
    assert became(fate, exact).tolist() == [["solved", "cycling", ""]]
    kept = {"fate/ruin": fate, "exact/ruin": exact}
    kept |= {"fate/unchanged/ruin": np.zeros((1, 3)), "exact/unchanged/ruin": np.ones((1, 3))}
    np.testing.assert_array_equal(other_fate("ruin", kept), [[0, 1, np.nan]])
    assert other_fate("rescue", kept) is None
