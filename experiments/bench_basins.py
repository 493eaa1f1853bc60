"""Section `basins` of bench.py: 1 000 starts of one puzzle against plain batched inference."""

from collections.abc import Callable
from pathlib import Path

import torch

Numbers = dict[str, float]
Medians = Callable[[dict[str, Callable[[], object]], int], Numbers]
STARTS, BATCH = 1000, 125
STEPS = 4  # of 16 in use: what starts cost once weighs four times as much here


def basins(repeats: int, medians: Medians) -> Numbers:
    """Everything between a seed and answers with last states, against `run_batch` of as many
    different puzzles at the same batch; z_H by one shared vector, and both states by position."""
    from trm_interp.core.infer import run_batch
    from trm_interp.studies.settings import BasinsConfig
    from trm_interp.studies.start_runs import run_starts
    from trm_interp.studies.starts import Starts
    from trm_interp.studies.subject import open_subject

    settings = {"out": Path("-"), "limit": STARTS, "steps": STEPS, "batch_size": BATCH}
    shared = BasinsConfig(**settings, starts=STARTS - 1)  # and the model's own
    apart = BasinsConfig(**settings, starts=STARTS - 1, target="both", shared=False)
    subject = open_subject(shared, print)

    def plain() -> None:
        for rows in subject.batches():
            run_batch(subject.model, subject.inputs[rows], subject.labels[rows], STEPS)

    def starts(config: BasinsConfig) -> Callable[[], object]:
        return lambda: run_starts(Starts(subject, 0, config.target), config)

    took = medians({"plain": plain, "shared": starts(shared), "apart": starts(apart)}, repeats)
    return {
        "starts_over_plain_z_H_shared": took["plain"] / took["shared"],
        "starts_over_plain_both_per_position": took["plain"] / took["apart"],
        "plain_puzzle_steps_per_s": STARTS * STEPS / took["plain"],
        "threads": float(torch.get_num_threads()),
    }
