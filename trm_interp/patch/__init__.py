"""Activation patching through time: put what one run holds into another, and read what follows.

Record two runs, say where, and rerun: any state or site at any evaluation, whole or at some
positions or along some directions; many such cells in one batch, each from the recorded state of
the evaluation at which it begins. Names are those of `recording.hooks`, and `start.hook_STATE` for
the states before the first evaluation.

>>> import torch, trm_interp
>>> from trm_interp import patch
>>> model = trm_interp.load_checkpoint("artifacts/trm-sudoku6").model
>>> puzzles = trm_interp.load_puzzles("artifacts/data/sudoku6/test.txt", limit=4)
>>> inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
>>> base = patch.record(model, inputs, labels, steps=2)
>>> other = patch.record(model, inputs.roll(1, 0), labels.roll(1, 0), steps=2)
>>> effects = patch.apply(base, other, [patch.Cell("step.0.h.2.hook_z_H")])
>>> effects.change("loss").shape  # cell, run
torch.Size([1, 4])

`docs/patching.md` has examples; `trm-interp trace` is the study that is made of this.
"""

from trm_interp.patch.attribution import attribute, final_loss
from trm_interp.patch.later import Later
from trm_interp.patch.pairs import Pairs, noisy_starts, pairs_among
from trm_interp.patch.patching import OUTCOMES, Cell, Effects, apply, grid
from trm_interp.patch.places import (
    last_hook,
    places,
    position_groups,
    positions_of,
    start_hook,
    state_hooks,
)
from trm_interp.patch.recorded import Recorded, record
from trm_interp.patch.sources import (
    Donor,
    Edit,
    Fixed,
    MappedBack,
    Mean,
    Noise,
    Source,
    Zero,
    moves_only,
)

__all__ = [
    "OUTCOMES",
    "Cell",
    "Donor",
    "Edit",
    "Effects",
    "Fixed",
    "Later",
    "MappedBack",
    "Mean",
    "Noise",
    "Pairs",
    "Recorded",
    "Source",
    "Zero",
    "apply",
    "attribute",
    "final_loss",
    "grid",
    "last_hook",
    "moves_only",
    "noisy_starts",
    "pairs_among",
    "places",
    "position_groups",
    "positions_of",
    "record",
    "start_hook",
    "state_hooks",
]
