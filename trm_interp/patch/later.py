"""What becomes of runs some steps later: solved or not; at rest, cycling or wandering."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.settling import FATES, LAST, Past, fate_of, lags_of, period
from trm_interp.core.infer import read_answer
from trm_interp.core.joint import joined
from trm_interp.core.models.base import States
from trm_interp.patch.recorded import Recorded

FEWEST = LAST + 1  # further steps from which a fate can be read
TOLERANCE = 1e-3  # RMS within which a run has come back to a state


class Later(NamedTuple):
    """After some further supervision steps: `fate`, int [*, run], a place in
    `analysis.settling.FATES`, judged as `settling` does over the last of them; `exact` bool [*,
    run], every cell right."""

    fate: Tensor
    exact: Tensor


@torch.no_grad()
def later_of(
    runs: Recorded, state: States, x: Tensor, labels: Tensor, steps: int, tolerance: float
) -> Later:
    """Of the states [row, pos, d_model] after the last recorded step, which go on unchanged."""
    model, view = runs.model, runs.view
    h_cycles, per_step = model.config.schedule.h_cycles, runs.evaluations
    cycle = per_step // h_cycles
    first = runs.steps * per_step
    spans = [span for span in view.spans(runs.steps + steps) if span.first >= first]
    past, back = Past(lags_of(steps, h_cycles)), []
    past.add(joined(state))
    for span in spans:
        state = view.pass_through(span, state, x)
        done = span.first + len(span.ticks) - first
        if done % cycle == 0:
            z = joined(state)
            if done > (steps - LAST) * per_step:
                back.append(past.distances(z))
            past.add(z)
    lengths = period(torch.stack(back).cpu().numpy(), tolerance)
    fates = np.array([FATES.index(fate) for fate in fate_of(lengths)], np.int64)
    read = read_answer(model, model.answer_of(state), runs.steps + steps - 1, labels)
    return Later(torch.from_numpy(fates), read.solved)
