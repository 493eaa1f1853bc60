"""Opening a store, and the checkpoint that it was recorded from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.subjects.opening import read_checkpoint, untrained


@contextmanager
def finished_puzzles(path: Path, tell: Callable[[str], None]) -> Iterator[Store]:
    """The store while the block runs. An unfinished one shows its finished puzzles, and says so
    through `tell`. UserError where it has none.
    """
    with Store(path, allow_incomplete=True) as store:
        if not store.complete:
            tell(f"{store.path} is unfinished: using its {store.n_puzzles} complete puzzles")
        if not store.n_puzzles:
            raise UserError(f"{store.path} holds no complete puzzle yet")
        yield store


def recorded_checkpoint(
    store: Store, ckpt: str | None, device: torch.device
) -> tuple[Checkpoint, str | None]:
    """The checkpoint `ckpt`, or the one where the store says that it was recorded from; and how its
    weights differ from the recorded ones, None where they are the same. Where those were random
    they are drawn again.

    UserError where neither names a checkpoint.
    """
    source = ckpt or store.checkpoint_path
    if not source:
        raise UserError(f"{store.path} does not say where its checkpoint is: give --ckpt")
    checkpoint = read_checkpoint(source, device, store.model.cells)
    if (seed := store.identity.random_weights) is not None:
        checkpoint = untrained(checkpoint, seed)
    recorded = store.checkpoint_sha256
    if checkpoint.sha256 == recorded:
        return checkpoint, None
    return checkpoint, (
        f"{checkpoint.path} has weights {checkpoint.sha256[:12]}, the store's {recorded[:12]}"
    )
