"""Section `architectures` of bench.py: what each architecture costs beside a TRM of equal width."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trm_interp.core.checkpoints.folder import Checkpoint, load_checkpoint, save_checkpoint
from trm_interp.core.flops import step_flops
from trm_interp.core.infer import run_batch
from trm_interp.core.models.registry import DEFAULT, build, config_class, names
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.trainer import Trainer
from trm_interp.recording.collect import record_puzzles
from trm_interp.subjects.opening import test_puzzles
from trm_interp.subjects.settings import CollectConfig, default_checkpoint
from trm_interp.subjects.training import train_data
from trm_interp.tasks.base import PuzzleSet
from trm_interp.tasks.registry import load_puzzles

Numbers = dict[str, float]
Runs = dict[str, Callable[[], object]]
WIDTH: dict[str, object] = {"d_model": 64, "multiple": 32, "prefix": 0, "n_heads": 4}
VARIANTS: dict[str, dict[str, object]] = {  # of the default architecture
    "trm, separate networks": {"separate_networks": True},
    "trm, one-step gradient": {"one_step_gradient": True},
    "trm, attention": {"mixer": "attention"},
}


class Took(NamedTuple):
    """Median seconds, of the clock and of the processor: these count a busy machine less, and no
    waiting for the disk."""

    wall: float
    core: float


def architectures(repeats: int, batch: int = 64, steps: int = 16) -> dict[str, Numbers]:
    """Every architecture with the cycles and blocks of its paper, at the same width on 6x6 puzzles.

    `*_flops` and core seconds of a supervision step (inference) and of an optimizer step (training,
    float32), all over those of the TRM; recording every state to disk over plain inference, by
    both clocks.
    """
    puzzles = load_puzzles(test_puzzles(load_checkpoint(default_checkpoint())), limit=batch)
    shapes = {name: config_class(name) for name in names()}
    wanted: dict[str, tuple[Any, dict[str, object]]] = {
        **{name: (kind, WIDTH) for name, kind in shapes.items()},
        **{name: (shapes[DEFAULT], WIDTH | more) for name, more in VARIANTS.items()},
    }
    runs: Runs = {}
    configs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, settings) in wanted.items():
            config = kind(cells=puzzles.task.cells, vocab=puzzles.task.vocab, **settings)
            configs[name] = config
            model = build(config, torch.Generator().manual_seed(0)).eval()
            place = Path(folder) / name.replace(", ", "-")
            save_checkpoint(place / "model", model, {"task": puzzles.task.name})
            checkpoint = load_checkpoint(place / "model")
            runs |= _runs(name, checkpoint, puzzles, place, steps)
        took = _medians(runs, repeats)
    return {name: _numbers(name, configs, took) for name in configs}


def _runs(name: str, checkpoint: Checkpoint, puzzles: PuzzleSet, place: Path, steps: int) -> Runs:
    """Plain inference, the same with every state recorded, and an optimizer step."""
    inputs, labels, _ = puzzles.tensors
    collect = CollectConfig(
        out=place / "store", steps=str(steps), batch_size=len(puzzles), overwrite=True
    )
    settings = TrainConfig(batch_size=len(puzzles))
    trainer = Trainer(checkpoint.model.config, settings, train_data(puzzles, puzzles), place)
    return {
        f"{name}/plain": lambda: run_batch(checkpoint.model, inputs, labels, steps),
        f"{name}/recording": lambda: record_puzzles(
            checkpoint, puzzles, collect, {}, tell=lambda line: None
        ),
        f"{name}/training": trainer.step,
    }


def _medians(runs: Runs, repeats: int) -> dict[str, Took]:
    """Medians of each, taking turns so that a slow moment hits all of them."""
    seconds: dict[str, list[Took]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            wall, core = time.perf_counter(), time.process_time()
            run()
            if turn:  # the first warms up
                took = Took(time.perf_counter() - wall, time.process_time() - core)
                seconds[name].append(took)
    middle = statistics.median
    return {
        name: Took(middle(one.wall for one in each), middle(one.core for one in each))
        for name, each in seconds.items()
    }


def _numbers(name: str, configs: dict[str, Any], took: dict[str, Took]) -> Numbers:
    config, trm = configs[name], configs[DEFAULT]
    plain, recording, training = (
        took[f"{name}/{run}"] for run in ("plain", "recording", "training")
    )
    return {
        "weights_over_trm": config.n_weights / trm.n_weights,
        "inference_flops_over_trm": step_flops(config) / step_flops(trm),
        "inference_seconds_over_trm": plain.core / took[f"{DEFAULT}/plain"].core,
        "training_flops_over_trm": step_flops(config, True) / step_flops(trm, True),
        "training_seconds_over_trm": training.core / took[f"{DEFAULT}/training"].core,
        "training_steps_per_core_s": 1 / training.core,
        "recording_over_plain": recording.wall / plain.wall,
        "recording_over_plain_core": recording.core / plain.core,
    }
