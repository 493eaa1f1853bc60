"""The training loop: steps, rows, validations and saved states, in step over all processes."""

import time
from collections.abc import Callable
from typing import Any

import torch

from trm_interp.core.compiling import CompileStopped
from trm_interp.core.training.exported import keep
from trm_interp.core.training.optimizers import work_done
from trm_interp.core.training.trainer import Trainer
from trm_interp.runtime.files import append_row, keep_rows

METRICS_FILE = "metrics.jsonl"


def train(
    trainer: Trainer,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    save: Callable[[], None] | None = None,
    validate_last: Callable[[], bool] = lambda: False,
) -> None:
    """Train until the run is finished, or until `should_stop`; the state is saved either way.

    A stop while a step or a validation compiles comes through as CompileStopped, after the save.

    Every row is a line of metrics.jsonl and, in the first process, given to `report`: training
    means since the last row (loss in nats per cell; `exact` of the slots that halted), or a
    validation. `save` replaces the trainer's own. A run that is stopped early ends with a
    validation only where `validate_last` says so then, in all processes. With `compile` the first
    step of a process, which compiles, counts for no time: a budget would lose its warm-up to it.
    """
    loop = _Loop(trainer, report, should_stop, clock, save or trainer.save)
    try:
        loop.run()
        ends = trainer.finished() or trainer.ranks.all_say(validate_last())
        if ends and trainer.validated_at != trainer.step_count:
            loop.emit(trainer.validate())
            loop.saved_at = -1
    except CompileStopped:
        if trainer.ranks.size == 1:  # of several processes, others may be elsewhere
            loop.save()
        raise
    if loop.saved_at != trainer.step_count:
        loop.save()
    elif loop.is_writer and trainer.best_weights and save is None:
        trainer.export()  # a kill may have come between state and checkpoint


class _Loop:
    """One call of `train`: its clock, its rows, and the step whose state is saved."""

    def __init__(
        self,
        trainer: Trainer,
        report: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        clock: Callable[[], float],
        save: Callable[[], None],
    ) -> None:
        self.trainer, self.report, self.clock = trainer, report, clock
        self.should_stop, self._save = should_stop, save
        self.metrics = trainer.out / METRICS_FILE
        self.is_writer = trainer.ranks.rank == 0
        if self.is_writer:
            trainer.out.mkdir(parents=True, exist_ok=True)
            keep_rows(self.metrics, trainer.rows)
        self.started, self.seconds_before = clock(), trainer.seconds
        self.last_row = self.started, trainer.step_count
        self.saved_at = self.first = trainer.step_count

    def run(self) -> None:
        """Optimizer steps until the run is finished or has to stop."""
        config, trainer = self.trainer.config, self.trainer
        (stop,) = trainer.ranks.most(float(self.should_stop()))
        keep(trainer)  # a kill may have come between state and checkpoint
        while not stop and not trainer.finished():
            row = trainer.step()
            trainer.sums += torch.stack(
                [row[name].to(trainer.sums.dtype) for name in trainer.metrics]
            )
            trainer.summed_steps += 1
            now = self.clock()
            if config.compile and trainer.step_count == self.first + 1:
                self.started = now
            trainer.seconds = self.seconds_before + now - self.started
            # processes agree on the time, or their learning rates and their last steps would differ
            trainer.seconds, stop = trainer.ranks.most(trainer.seconds, float(self.should_stop()))
            if trainer.step_count % config.log_every == 0:
                self._summarise(now)
            if trainer.step_count % config.eval_every == 0:
                self.emit(trainer.validate())
            kept = config.keep_every and trainer.step_count % config.keep_every == 0
            if kept or trainer.step_count % config.save_every == 0:
                self.save()
                keep(trainer)

    def _summarise(self, now: float) -> None:
        """The row of the steps since the last one."""
        then, step = self.last_row
        rate = (self.trainer.step_count - step) / max(now - then, 1e-9)
        self.trainer.check()
        self.emit(_summary(self.trainer) | {"steps_per_s": round(rate, 3)})
        self.last_row = now, self.trainer.step_count

    def emit(self, row: dict[str, Any]) -> None:
        self.trainer.rows += 1
        if self.is_writer:
            append_row(self.metrics, row)
            self.report(row)

    def save(self) -> None:
        self._save()
        self.saved_at = self.trainer.step_count


def _summary(trainer: Trainer) -> dict[str, Any]:
    """Means over the steps since the last row and over all processes; starts the next row."""
    sums, steps = trainer.ranks.total(trainer.sums), trainer.summed_steps
    trainer.sums, trainer.summed_steps = torch.zeros_like(sums), 0
    total = dict(zip(trainer.metrics, sums.tolist(), strict=True))
    puzzles = trainer.config.batch_size * steps
    halted = max(total["halted"], 1.0)
    scheduled: dict[str, float] = {}
    if trainer.config.n_sup_warm:
        scheduled["n_sup"] = trainer.phase.n_sup
    if trainer.config.curriculum and trainer.config.budget is None:
        scheduled["work"] = round(_work(trainer), 6)
    return {
        "step": trainer.step_count,
        "fraction": round(trainer.fraction(), 6),
        "seconds": round(trainer.seconds, 2),
        "loss": total["answer"] / puzzles,
        "halt_loss": total["halt"] / puzzles,
        **{f"{name}_loss": total[name] / puzzles for name in trainer.model.further_losses},
        **{name: total[name] / puzzles for name in trainer.model.measures},
        "solved_now": total["solved"] / puzzles,
        "exact": total["halted_solved"] / halted,
        "mean_steps": total["halted_steps"] / halted,
        "grad_norm": total["grad_norm"] / steps,
        "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
        **scheduled,
    }


def _work(trainer: Trainer) -> float:
    """Share of the run's arithmetic that is done: deeper parts of a curriculum cost more."""
    config, flops = trainer.model.config, type(trainer.model).step_flops
    return work_done(
        trainer.config,
        trainer.fraction(),
        config.depth,
        lambda depth: flops(config, training=True, depth=depth),
    )
