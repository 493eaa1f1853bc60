"""What a checkpoint answers to puzzles, after every supervision step."""

from collections.abc import Callable
from typing import Any

import torch

from trm_interp.core.infer import Readouts, iter_run
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.ranks import Ranks
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.shards import divided, numbered, shard_ends
from trm_interp.tasks.base import PuzzleSet


def solve(
    model: RecursiveModel,
    puzzles: PuzzleSet,
    steps: int = 16,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] = lambda done, of: None,
    ranks: Ranks | None = None,
    stage: str = "",
) -> Readouts:
    """Read-outs of every puzzle, in file order, telling `progress` after each batch.

    With several processes every batch is of one of them in turn, so that batches are the same.
    With the name of a `stage` a shard runs its own batches and ends; without, all of them.
    """
    rank, size = (ranks.rank, ranks.size) if ranks else (0, 1)
    batches = [slice(i, i + batch_size) for i in range(0, len(puzzles), batch_size)]
    mine = batches[rank::size]
    done = 0
    progress(0, len(puzzles))

    def compute(i: int) -> Arrays:
        nonlocal done
        inputs, labels, identifiers = puzzles.subset(mine[i]).tensors
        how = (steps, batch_size)
        (part,) = iter_run(model, inputs, labels, *how, dtype=dtype, identifiers=identifiers)
        done += len(part)
        progress(min(size * done, len(puzzles)), len(puzzles))
        return arrays_of(part)

    if not stage:
        parts = [readouts_of(compute(i)) for i in range(len(mine))]
    else:
        parts = [readouts_of(get()) for get in divided(numbered(stage, len(mine)), compute)]
        shard_ends()
    everyone = ranks.objects(parts) if ranks else [parts]
    return Readouts.cat([everyone[i % size][i // size] for i in range(len(batches))])


def arrays_of(read: Readouts) -> Arrays:
    """Read-outs as arrays by name, of those that are there."""
    return {name: of.numpy() for name, of in vars(read).items() if of is not None}


def readouts_of(arrays: Arrays) -> Readouts:
    """The other way round."""
    tensors: dict[str, Any] = {name: torch.from_numpy(of) for name, of in arrays.items()}
    return Readouts(**tensors)
