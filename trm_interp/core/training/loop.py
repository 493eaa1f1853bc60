"""The training loop: steps, rows, validations and saved states, in step over all processes."""

import time
from collections.abc import Callable
from typing import Any

import torch

from trm_interp.core.compiling import CompileStopped
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.files import append_row, keep_rows

METRICS_FILE = "metrics.jsonl"


def train(
    trainer: Trainer,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    save: Callable[[], None] | None = None,
    validate_last: bool = False,
) -> None:
    """Train until the run is finished, or until `should_stop`; the state is saved either way.

    A stop while a step or a validation compiles comes through as CompileStopped, after the save.

    Every row is a line of metrics.jsonl and, in the first process, given to `report`: training
    means since the last row (loss in nats per cell; `exact` of the slots that halted), or a
    validation. `save` replaces the trainer's own. A run that is stopped early ends with a
    validation only with `validate_last`. With `compile` the first step of a process, which
    compiles, counts for no time: a budget would lose its warm-up to it.
    """
    config, ranks = trainer.config, trainer.ranks
    metrics = trainer.out / METRICS_FILE
    writer = ranks.rank == 0
    if writer:
        trainer.out.mkdir(parents=True, exist_ok=True)
        keep_rows(metrics, trainer.rows)

    def emit(row: dict[str, Any]) -> None:
        trainer.rows += 1
        if writer:
            append_row(metrics, row)
            report(row)

    started, before = clock(), trainer.seconds
    last_logged = started, trainer.step_count
    saved_at = first = trainer.step_count

    (stop,) = ranks.most(float(should_stop()))
    try:
        while not stop and not trainer.finished():
            row = trainer.step()
            trainer.sums += torch.stack(
                [row[name].to(trainer.sums.dtype) for name in trainer.metrics]
            )
            trainer.summed_steps += 1
            now = clock()
            if config.compile and trainer.step_count == first + 1:
                started = now
            # processes agree on the time, or their learning rates and their last steps would differ
            trainer.seconds, stop = ranks.most(before + now - started, float(should_stop()))
            step = trainer.step_count
            if step % config.log_every == 0:
                rate = (step - last_logged[1]) / max(now - last_logged[0], 1e-9)
                trainer.check()
                emit(_summary(trainer) | {"steps_per_s": round(rate, 3)})
                last_logged = now, step
            if step % config.eval_every == 0:
                emit(trainer.validate())
            if step % config.save_every == 0:
                (save or trainer.save)()
                saved_at = step
        if (trainer.finished() or validate_last) and trainer.validated_at != trainer.step_count:
            emit(trainer.validate())
            saved_at = -1
    except CompileStopped:
        if ranks.size == 1:  # of several processes, others may be elsewhere
            (save or trainer.save)()
        raise
    if saved_at != trainer.step_count:
        (save or trainer.save)()
    elif (
        writer and trainer.best_weights and save is None
    ):  # a kill may have come between state and checkpoint
        trainer.export()


def _summary(trainer: Trainer) -> dict[str, Any]:
    """Means over the steps since the last row and over all processes; starts the next row."""
    sums, steps = trainer.ranks.total(trainer.sums), trainer.summed_steps
    trainer.sums, trainer.summed_steps = torch.zeros_like(sums), 0
    total = dict(zip(trainer.metrics, sums.tolist(), strict=True))
    puzzles = trainer.config.batch_size * steps
    halted = max(total["halted"], 1.0)
    scheduled = {"n_sup": trainer.phase.n_sup} if trainer.config.n_sup_warm else {}
    return {
        "step": trainer.step_count,
        "fraction": round(trainer.fraction(), 6),
        "seconds": round(trainer.seconds, 2),
        "loss": total["answer"] / puzzles,
        "halt_loss": total["halt"] / puzzles,
        **{f"{name}_loss": total[name] / puzzles for name in trainer.model.further_losses},
        "solved_now": total["solved"] / puzzles,
        "exact": total["halted_solved"] / halted,
        "mean_steps": total["halted_steps"] / halted,
        "grad_norm": total["grad_norm"] / steps,
        "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
        **scheduled,
    }
