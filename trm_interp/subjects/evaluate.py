"""What a checkpoint answers to puzzles, after every supervision step."""

from collections.abc import Callable

import numpy as np
import torch

from trm_interp.core.infer import Readouts, iter_run
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.ranks import Ranks
from trm_interp.tasks.base import PuzzleSet


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
        inputs, labels, identifiers = puzzles.subset(np.concatenate(mine)).tensors
        sizes = (steps, batch_size)
        for part in iter_run(model, inputs, labels, *sizes, dtype=dtype, identifiers=identifiers):
            parts.append(part)
            progress(min(size * sum(map(len, parts)), len(puzzles)), len(puzzles))
    everyone = ranks.objects(parts) if ranks else [parts]
    return Readouts.cat([everyone[i % size][i // size] for i in range(len(batches))])
