"""Checkpoints that a training run leaves: of the best average, and those kept along the way."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trm_interp.core.checkpoints.folder import CARD, save_checkpoint
from trm_interp.runtime.outputs import maker, mark

if TYPE_CHECKING:
    from trm_interp.core.training.trainer import Trainer

KEPT = "kept"  # folder of those kept along the way


def kept_folder(out: Path, step: int) -> Path:
    """Where the run in `out` keeps the checkpoint of an optimizer step.

    >>> kept_folder(Path("runs"), 250).as_posix()
    'runs/kept/step-000250'
    """
    return out / KEPT / f"step-{step:06d}"


def keep(trainer: "Trainer") -> None:
    """Keep the average weights of this step, where it is one of every `keep_every`.

    Called by all processes, for the state of that step once it is saved: a killed run goes on from
    the state and makes up for what is missing here, so no kept checkpoint is of steps that are
    taken again. One that is complete stays as it is.
    """
    step, every = trainer.step_count, trainer.config.keep_every
    if not every or not step or step % every:
        return
    seen = int(trainer.ranks.total(trainer.slots.draws.sum()))
    folder = kept_folder(trainer.out, step)
    if trainer.ranks.rank or (folder / CARD).exists():  # the card is written last
        return
    mark(folder.parent, maker(trainer.out) or "train")
    measured = {"step": step, "puzzles_seen": seen}
    export(trainer, folder, trainer.average.mean, measured)


def export(
    trainer: "Trainer", folder: Path, weights: list[Tensor], measured: dict[str, Any]
) -> None:
    """Write a checkpoint of these weights; its card says what is `measured`, then how the run was
    trained so far."""
    average, train = trainer.average.mean, trainer.training_card()
    trainer.average.mean = weights
    try:
        with trainer.average:
            save_checkpoint(folder, trainer.model, {**measured, **train})
    finally:
        trainer.average.mean = average
