"""Accuracy of a checkpoint at every supervision step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.outcomes import outcome_table
from trm_interp.core.compiling import compile_networks
from trm_interp.core.infer import Readouts, iter_run
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.ranks import Ranks
from trm_interp.runtime.limits import require_memory
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.subjects.settings import EvalConfig
from trm_interp.tasks.base import PuzzleSet

# of the table
COLUMNS = tuple(outcome_table(np.zeros((1, 1), bool)).columns)


def evaluate(
    config: EvalConfig,
    tell: Callable[[str], None] = print,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of `outcome_table`, and the same as lists over steps with what was evaluated.

    The processes of a torchrun share the batches; all of them get the whole table.
    """
    device = open_device(config.device)
    ranks = Ranks(device)
    if ranks.rank:
        tell, progress = (lambda line: None), (lambda done, of: None)
    checkpoint, puzzles = open_both(
        config.ckpt, config.puzzles, device, config.limit, config.skip_bad, tell
    )
    n, cells = len(puzzles), puzzles.task.cells
    answers = n * config.steps * (cells + 9)  # grids, two numbers and a flag
    require_memory(2 * answers, f"{config.steps} steps of {n} puzzles", "lower --steps or --limit")
    if config.compile:
        compile_networks(checkpoint.model.networks(), tell=tell)
    try:
        read = solve(
            checkpoint.model,
            puzzles,
            config.steps,
            config.batch_size,
            getattr(torch, config.dtype),
            progress,
            ranks,
        )
    finally:
        ranks.close()
    table = outcome_table(read.solved.numpy())
    summary = {
        "ckpt": str(checkpoint.path),
        "checkpoint_sha256": checkpoint.sha256,
        "puzzles": puzzles.source,
        "dtype": config.dtype,
        "device": device.type,
        **summarise(table, read, puzzles),
    }
    return table, summary


def summarise(table: pd.DataFrame, read: Readouts, puzzles: PuzzleSet) -> dict[str, Any]:
    """The outcome table as lists over steps, with which puzzles they are of."""
    return {
        "n": len(puzzles),
        "data_sha256": dict(puzzles.sha256),
        "exact_at_step": table["exact"].tolist(),
        "exact_low": table["exact_low"].tolist(),
        "exact_high": table["exact_high"].tolist(),
        "ever_solved_by": table["ever"].tolist(),
        "unsolved_at_step": [None if pd.isna(v) else v for v in table["unsolved"]],
        "halted": float((read.halt_step >= 0).double().mean()),
    }


def solve(
    model: RecursiveModel,
    puzzles: PuzzleSet,
    steps: int = 16,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] = lambda done, of: None,
    ranks: Ranks | None = None,
) -> Readouts:
    """Read-outs of every puzzle, in file order, telling `progress` after each batch.

    With several processes every batch is of one of them in turn, so that batches are the same.
    """
    rank, size = (ranks.rank, ranks.size) if ranks else (0, 1)
    batches = [slice(i, i + batch_size) for i in range(0, len(puzzles), batch_size)]
    rows = np.arange(len(puzzles))
    mine = [rows[batch] for batch in batches[rank::size]]
    parts: list[Readouts] = []
    progress(0, len(puzzles))
    if mine:
        own = puzzles.subset(np.concatenate(mine))
        inputs, labels = torch.from_numpy(own.inputs), torch.from_numpy(own.labels)
        for part in iter_run(model, inputs, labels, steps, batch_size, dtype=dtype):
            parts.append(part)
            progress(min(size * sum(map(len, parts)), len(puzzles)), len(puzzles))
    everyone = ranks.objects(parts) if ranks else [parts]
    return Readouts.cat([everyone[i % size][i // size] for i in range(len(batches))])
