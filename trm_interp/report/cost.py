"""What a command would compute, write and take: counted from its options, timed on one batch.

Nothing of the command is run. Counted is what grows with puzzles, starts and steps: runs of the
network. What comes once, such as a figure or a fit, is named and not counted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.flops import step_flops
from trm_interp.core.infer import run_batch
from trm_interp.core.losses import stablemax_cross_entropy
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.registry import model_class
from trm_interp.recording.positions import kept_positions
from trm_interp.recording.schema import estimate_bytes, size_text
from trm_interp.recording.sites import sites_of
from trm_interp.report.sweep.estimates import duration
from trm_interp.report.sweep.table import Line
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted, parse_indices
from trm_interp.subjects.opening import load_puzzles, open_both, open_device
from trm_interp.subjects.training import identifiers_of, model_config
from trm_interp.tasks.base import PuzzleSet

REPEATS = 3
MOST_TIMED = 512  # runs of the batch that is timed


@dataclass(frozen=True)
class Work:
    """`steps`: supervision steps in all, of single puzzles. `limits`: what is not in them, or why
    they are a bound. `size`: bytes on disk, None where they are not known."""

    steps: int
    limits: str = ""
    size: int | None = None
    training: bool = False


@dataclass(frozen=True)
class Cost:
    """What a command line comes to; times are seconds.

    `rate`: FLOP/s, of `timed` puzzles at once on `device`, or given. `batch_seconds`: of one
    supervision step of these, None where the rate was given.
    """

    command: str
    device: str
    work: Work
    flops: float
    evaluations: int
    rate: float
    timed: int
    batch_seconds: float | None

    @property
    def seconds(self) -> float:
        return self.flops / self.rate

    def to_json(self) -> dict[str, Any]:
        """What `trm-interp cost --json` prints."""
        return {
            "command": self.command,
            "device": self.device,
            "supervision_steps": self.work.steps,
            "evaluations": self.evaluations,
            "flops": self.flops,
            "bytes": self.work.size,
            "seconds": self.seconds,
            "flops_per_s": self.rate,
            "timed_puzzles": self.timed,
            "timed_seconds": self.batch_seconds,
            "not_counted": self.work.limits,
        }


def cost(line: Line, tflops: float | None = None, tell: Callable[[str], None] = print) -> Cost:
    """What a command line would take. UserError for a command whose work is not counted here.

    `tflops`: 1e12 FLOP/s of the machine that it is for, where that is not this one.
    """
    settings = line.settings
    device = open_device(settings.device) if line.command in COUNTED or _trains(line) else None
    if device is None:
        raise UserError(
            f"cost counts {', '.join([*COUNTED, 'train'])}; {line.command} is not among them "
            "(figures --plan and sweep --dry-run know others)"
        )
    if _trains(line):
        model, work, at_once = _of_training(settings, device)
    else:
        checkpoint, puzzles = open_both(
            settings.ckpt, settings.puzzles, device, settings.limit, settings.skip_bad, tell
        )
        model, work = checkpoint.model, COUNTED[line.command](settings, checkpoint, puzzles)
        at_once = settings.batch_size
    flops = float(work.steps) * step_flops(model.config, work.training)
    timed, seconds = min(at_once, MOST_TIMED), None
    if tflops is not None:
        rate = tflops * 1e12
    else:
        of = settings.training if work.training else settings
        dtype = getattr(torch, getattr(of, "dtype", "float32"))
        seconds = _timed(model, timed, dtype, device, work.training)
        rate = flops / work.steps * timed / seconds
    per_step = model.config.schedule.evaluations
    where = device.type if tflops is None else "the one that was named"
    return Cost(line.command, where, work, flops, work.steps * per_step, rate, timed, seconds)


def _trains(line: Line) -> bool:
    return line.command == "train"


def _timed(
    model: RecursiveModel, n: int, dtype: torch.dtype, device: torch.device, training: bool
) -> float:
    """Seconds of a supervision step of n puzzles at once, the fastest of a few, as it comes."""
    generator = torch.Generator().manual_seed(0)
    shape = (n, model.config.cells)
    tokens = torch.randint(1, model.config.vocab, shape, generator=generator).to(device)
    step = _train_step if training else _plain_step
    seconds = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        step(model, tokens, dtype)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _plain_step(model: RecursiveModel, tokens: Tensor, dtype: torch.dtype) -> None:
    run_batch(model, tokens, tokens, 1, dtype=dtype)


@torch.enable_grad()
def _train_step(model: RecursiveModel, tokens: Tensor, dtype: torch.dtype) -> None:
    x = model.embed(tokens, dtype)
    state, _ = model.advance(model.initial_state(x), x, grad_cycles=1)
    logits = model.readout(getattr(state, model.answer)).logits
    stablemax_cross_entropy(logits, tokens).mean().backward()
    model.zero_grad()


# What a command computes, by its options


def _of_steps(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Work:
    return Work(len(puzzles) * settings.steps)


def _of_collect(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Work:
    model, steps = checkpoint.model.config, settings.kept_steps
    positions = kept_positions(settings.positions, puzzles, model.prefix)
    try:
        sites = sites_of(model, settings.sites, steps[-1] + 1)
        arrays = [site.select(steps, positions) for site in sites]
    except ValueError as error:
        raise UserError(str(error)) from None
    size = estimate_bytes(arrays, len(puzzles))
    return Work(len(puzzles) * (steps[-1] + 1), "writing the states", size)


def _of_search(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Work:
    how = settings.search
    ends_early = how.stop != "never"
    limits = "a bound: trajectories that end early cost less" if ends_early else ""
    return Work(len(puzzles) * how.k * how.steps, limits)


def _of_basins(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Work:
    chosen = parse_indices(settings.index, "index")
    n = min(settings.n_puzzles, len(puzzles)) if chosen is None else len(chosen)
    paths = 1 + min(settings.shown, settings.starts) if settings.shown else 0
    each = 1 + settings.starts + settings.slice**2 + paths  # 1: the model's own start
    runs = n * each + (len(puzzles) if chosen is None else 0)
    return Work(runs * settings.steps, "maps, planes' colours and tests, once a puzzle")


def _of_settling(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Work:
    long = min(settings.long_limit, len(puzzles)) * settings.long
    return Work(len(puzzles) * settings.steps + long)


def _of_training(run: Any, device: torch.device) -> tuple[RecursiveModel, Work, int]:
    config, puzzles = run.training, load_puzzles(run.train, run.skip_bad)
    if config.budget is not None:
        raise UserError("cost of train: give --train-steps; a --budget is its own cost")
    sizes = {"cells": puzzles.task.cells, "vocab": puzzles.task.vocab}
    known = {**identifiers_of(run.architecture, puzzles), **dict(run.model), **sizes}
    shape = model_config(run.architecture, known, run.preset)
    model = model_class(shape)(shape).to(device).train()
    limits = "validation, the optimizer, compiling (which saves time); a bound with --curriculum"
    return model, Work(config.steps * config.batch_size, limits, None, True), config.batch_size


Count = Callable[[Any, Checkpoint, PuzzleSet], Work]
COUNTED: dict[str, Count] = {
    "eval": _of_steps,
    "outcomes": _of_steps,
    "losses": _of_steps,
    "collect": _of_collect,
    "settling": _of_settling,
    "search": _of_search,
    "basins": _of_basins,
}


def lines(found: Cost) -> list[str]:
    """What `trm-interp cost` prints."""
    work = found.work
    on_disk = "not known beforehand" if work.size is None else size_text(work.size)
    measured = (
        f"at the {found.rate / 1e12:.3g} TFLOP/s that were given"
        if found.batch_seconds is None
        else f"at the speed of {counted(found.timed, 'puzzle')} at once on this machine's "
        f"{found.device}, {found.rate / 1e12:.3g} TFLOP/s"
    )
    return [
        f"{found.command}: {work.steps} supervision steps of a puzzle, "
        f"{found.evaluations} network evaluations",
        f"arithmetic: {found.flops:.3g} FLOP{' with gradients' if work.training else ''}",
        f"on disk: {on_disk}",
        f"time: about {duration(found.seconds)} {measured}",
        *([f"not counted: {work.limits}"] if work.limits else []),
    ]
