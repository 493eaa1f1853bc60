"""Section `patching` of bench.py: what patches and attribution cost over plain inference."""

from collections.abc import Callable

import torch

from trm_interp import patch
from trm_interp.core.checkpoints.folder import load_checkpoint
from trm_interp.core.infer import run_batch
from trm_interp.subjects.opening import test_puzzles
from trm_interp.subjects.settings import default_checkpoint
from trm_interp.tasks.registry import load_puzzles

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
CELLS = 4  # patched together


def patching(repeats: int, medians: Medians, runs: int = 16, steps: int = 2) -> Numbers:
    """States patched at the start, so that each cell is a whole run, against `run_batch` of as many
    rows: `cells_over_plain` is the ratio of throughputs. `attribution_over_forward`: attribution of
    the states at all evaluations over a forward run of the same runs, which recorded nothing; the
    donor's values are kept, as `trace` keeps them.
    """
    checkpoint = load_checkpoint(default_checkpoint())
    model = checkpoint.model
    puzzles = load_puzzles(test_puzzles(checkpoint), limit=runs)
    inputs, labels = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.labels)
    many = (inputs.repeat(CELLS, 1), labels.repeat(CELLS, 1))
    base = patch.record(model, inputs, labels, steps)
    start = patch.noisy_starts(base.before[0], torch.arange(1, runs + 1), model.state_names)
    donor = patch.record(model, inputs, labels, steps, start=start)
    cells = [patch.Cell([patch.start_hook(state) for state in model.state_names])] * CELLS
    whole_run = {
        "plain": lambda: run_batch(model, *many, steps),
        "patched": lambda: patch.apply(base, donor, cells, batch_size=CELLS * runs),
        "forward": lambda: run_batch(model, inputs, labels, steps),
        "attribution": lambda: patch.attribute(base, donor),
    }
    took = medians(whole_run, repeats)
    return {
        "cells_per_s": CELLS * runs / took["patched"],
        "cells_over_plain": took["plain"] / took["patched"],
        "attribution_over_forward": took["attribution"] / took["forward"],
        "hook_points": len(patch.state_hooks(model, steps)),
    }
