"""Train a checkpoint from puzzle files: opens them, starts or resumes the run, reports it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trm_interp.core.checkpoints.folder import CARD, CONFIG, WEIGHTS
from trm_interp.core.compiling import stop_compiling
from trm_interp.core.models.config import ModelConfig
from trm_interp.core.models.registry import config_class, model_class
from trm_interp.core.training.exported import KEPT
from trm_interp.core.training.loop import METRICS_FILE, train
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import TrainData
from trm_interp.core.training.trainer import STATE_FILE, Trainer
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.outputs import holds_only
from trm_interp.runtime.progress import Meter, Update
from trm_interp.runtime.provenance import git_commit, versions
from trm_interp.runtime.runs import Run, Tell, quiet
from trm_interp.subjects.opening import load_puzzles, open_device
from trm_interp.subjects.presets import PRESETS
from trm_interp.subjects.settings import RunConfig
from trm_interp.tasks.base import PuzzleSet

Report = Callable[[dict[str, Any]], None]  # gets the rows of metrics.jsonl
RUN_FILES = (STATE_FILE, METRICS_FILE, CONFIG, WEIGHTS, CARD, f"{KEPT}/")


@dataclass(frozen=True)
class Trained:
    """What a run came to. `finished` is False where it was stopped early and can be resumed."""

    out: Path
    steps: int
    best: dict[str, Any]
    finished: bool


COMPILING = "compiling the training step, which takes minutes; times count from the next step"


def fit(
    run: RunConfig,
    model: dict[str, Any],
    config: TrainConfig,
    report: Report = lambda row: None,
    tell: Tell = print,
) -> Trained:
    """Train a model with these settings of its architecture; cells and vocab are the puzzles'."""
    device = open_device(run.device)
    training, validation = open_puzzles(run, tell)
    task = training.task
    embeddings = identifiers_of(run.architecture, training, validation)
    sizes = {"cells": task.cells, "vocab": task.vocab}
    shape = model_config(run.architecture, {**embeddings, **model, **sizes}, run.preset)
    if device.type == "cpu":
        require_memory(
            training_bytes(shape, config),
            f"training {shape.n_weights:.2g} weights on {config.batch_size} puzzles at once",
            "lower --batch-size or --d-model, or raise --micro-batches",
        )
    data = train_data(training, validation, config.easy_until > 0)
    provenance = {
        "task": task.name,
        "command": " ".join(["trm-interp", *sys.argv[1:]]),
        "data": {"train": dict(training.sha256), "validation": dict(validation.sha256)},
        "versions": versions(),
        "git_commit": git_commit(),
    }
    try:
        trainer = Trainer(shape, config, data, run.out, device, provenance)
    except ValueError as error:
        raise UserError(str(error)) from None
    trainer.tell = tell
    try:
        _train_in_folder(trainer, run, report)
    finally:
        trainer.forward = trainer.model  # DDP goes first: without its group it can wait for ever
        trainer.ranks.close()
    return Trained(run.out, trainer.step_count, trainer.best, trainer.finished())


def open_puzzles(run: RunConfig, tell: Callable[[str], None]) -> tuple[PuzzleSet, PuzzleSet]:
    """Training and validation puzzles. UserError where they are of two tasks, or share a class."""
    training = load_puzzles(run.train, run.skip_bad)
    validation = load_puzzles(run.val, run.skip_bad, run.val_limit)
    for puzzles in (training, validation):
        for line in puzzles.skipped:
            tell(f"skipped {puzzles.source} {line}")
    if training.task != validation.task:
        kind = "size" if training.task.family == validation.task.family else "task"
        raise UserError(f"{run.val}: puzzles of another {kind} than {run.train}")
    if leaked := copies(training, validation):
        raise UserError(
            f"{run.val}: {leaked} puzzles are symmetric copies of puzzles in {run.train}"
        )
    return training, validation


def identifiers_of(architecture: str, *sets: PuzzleSet) -> dict[str, int]:
    """How many puzzle identifiers a model has to know, where its architecture has a setting for it
    and the puzzles have some."""
    if "n_identifiers" not in {f.name for f in fields(config_class(architecture))}:  # type: ignore[arg-type]
        return {}
    given = [of for puzzles in sets if (of := puzzles.identifiers) is not None and len(of)]
    return {"n_identifiers": 1 + max(int(of.max()) for of in given)} if given else {}


def model_config(
    architecture: str, settings: dict[str, Any], preset: str | None = None
) -> ModelConfig:
    """The configuration of a model. UserError for what that architecture has no setting for, with
    the preset that it may come from."""
    kind = config_class(architecture)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in settings if name not in names]:
        of_preset = preset is not None and unknown[0] in PRESETS[preset]
        source = f"{unknown[0]} of --preset {preset}" if of_preset else unknown[0]
        raise UserError(f"{source} is no setting of {architecture}, which has {', '.join(names)}")
    try:
        return kind(**settings)
    except ValueError as error:
        raise UserError(str(error)) from None


def _train_in_folder(trainer: Trainer, run: RunConfig, report: Report) -> None:
    """Hold the run's folder, take over what is saved there, and train to the end or a stop."""
    with Run(
        run.out,
        "train",
        RUN_FILES,
        resume=run.resume,
        overwrite=run.overwrite,
        team=trainer.ranks,
        tell=trainer.tell,
        unmarked=_is_older_run,
        stops_at_steps=True,
        on_signal=stop_compiling,
    ) as output:
        has_state = trainer.ranks.all_see(run.out / STATE_FILE)
        if output.begun and has_state:
            trainer.resume()
            _tell_of_resuming(trainer, output)
        elif output.begun and (run.out / WEIGHTS).exists():  # saved after the state
            raise UserError(f"{run.out / STATE_FILE} is missing: nothing to resume from")
        elif run.resume:
            output.tell(f"{run.out}: nothing was saved yet: starting from the beginning")
        if trainer.config.compile and not trainer.finished():
            output.tell(COMPILING)
        train(trainer, report, output.should_stop)


def _tell_of_resuming(trainer: Trainer, output: Run) -> None:
    """Say that the run is complete, or from where it goes on and what changes from there."""
    if trainer.finished():
        output.tell_complete()
        return
    last = trainer.changes[-1] if trainer.changes else {}
    is_new = last.get("after_step") == trainer.step_count
    changed = [
        f"{name} {both[0]} -> {both[1]}"
        for name, both in last.items()
        if is_new and name != "after_step"
    ]
    with_changes = f" with {', '.join(changed)}" if changed else ""
    output.tell(f"resuming at optimizer step {trainer.step_count}{with_changes}")


def training_bytes(model: ModelConfig, config: TrainConfig) -> float:
    """Memory that a run takes at least: weights with gradient, two moments, average and best; the
    states in flight, and what waits for the backward pass."""
    kind = model_class(model)
    differentiated = kind.evaluations_with_gradient(model)
    waiting = kind.tensors_kept(model) * differentiated / config.micro_batches
    state = config.batch_size * model.positions * model.d_model
    return 6 * 4 * model.n_weights + state * (len(kind.State._fields) + waiting) * (
        2 if config.dtype == "bfloat16" else 4
    )


def _is_older_run(out: Path) -> bool:
    """Whether it holds a run from before there were markers: the state says whose it is.

    One that was killed before its first save holds nothing but metrics.
    """
    if holds_only(out, METRICS_FILE):
        return True
    if not ((out / METRICS_FILE).is_file() and (out / STATE_FILE).is_file()):
        return False
    try:
        state = torch.load(out / STATE_FILE, map_location="meta", weights_only=True, mmap=True)
        return {"slots", "average", "identity"} <= state.keys()
    except Exception:  # a damaged file makes torch raise many kinds
        return False


def train_data(training: PuzzleSet, validation: PuzzleSet, rated: bool = False) -> TrainData:
    """Both sets as tensors, with the symmetries of their task.

    `rated`: with the order from easy to hard by the task's main rating, where it has one.
    """
    own, val = training.tensors, validation.tensors
    return TrainData(
        inputs=own.inputs,
        labels=own.labels,
        val_inputs=val.inputs,
        val_labels=val.labels,
        augment=training.task.augment,
        identifiers=own.identifiers,
        val_identifiers=val.identifiers,
        easy_first=from_easy_to_hard(training) if rated else None,
    )


def from_easy_to_hard(puzzles: PuzzleSet) -> torch.Tensor | None:
    """int64 [puzzle]: the puzzles by the main rating of their task, equals in their order."""
    rating = puzzles.task.main_rating()
    if rating is None:
        return None
    rated = puzzles.task.rate(puzzles)[rating]
    return torch.from_numpy(np.argsort(rated, kind="stable"))


def copies(training: PuzzleSet, validation: PuzzleSet) -> int:
    """Classes of puzzles that a symmetry of the task carries from one set into the other.

    0 where the task cannot tell.
    """
    keys = [puzzles.task.class_keys(puzzles.inputs) for puzzles in (training, validation)]
    if keys[0] is None or keys[1] is None:
        return 0
    return len(np.intersect1d(keys[0], keys[1]))


def run(config: RunConfig, tell: Tell = print, progress: Update = quiet) -> Trained:
    """What `trm-interp train` does."""
    report = reporter(config.training, tell, progress)
    return fit(config, dict(config.model), config.training, report, tell)


def lines(trained: Trained) -> list[str]:
    """What `trm-interp train` prints."""
    at = trained.best.get("exact_at_step")
    score = f"best {at[-1]:.1%} exact of the validation puzzles" if at else "not validated yet"
    return [f"wrote {trained.out} after {trained.steps} optimizer steps, {score}"]


def reporter(config: TrainConfig, tell: Tell, progress: Update) -> Report:
    """What a run tells: progress with the loss, and a line for every validation."""
    of = config.steps if config.budget is None else round(60 * config.budget)

    def report(row: dict[str, Any]) -> None:
        if "val_exact" in row:
            curve = " ".join(f"{100 * share:.1f}" for share in row["val_exact"])
            tell(f"step {row['step']}: validation exact % by step {curve}")
            return
        if isinstance(progress, Meter):
            progress.share = row.get("work")
            progress.note = f"loss {row['loss']:.3f}, exact {row['exact']:.1%}"
        progress(row["step"] if config.budget is None else round(row["seconds"]), of)

    return report
