"""What commands compute, by their options: supervision steps of puzzles, or rows of an SAE."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trm_interp.analysis.fixed_points import HALVINGS, KRYLOV, NEWTON_STEPS
from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.flops import step_flops
from trm_interp.core.infer import run_batch
from trm_interp.core.losses import stablemax_cross_entropy
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.registry import model_class
from trm_interp.recording.positions import kept_positions
from trm_interp.recording.schema import estimate_bytes
from trm_interp.recording.sites import sites_of
from trm_interp.report.sweep.table import Line
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import parse_indices
from trm_interp.studies.subject import Subject
from trm_interp.studies.trace import steps_of_a_pair
from trm_interp.subjects.opening import load_puzzles, open_both, open_device
from trm_interp.subjects.training import identifiers_of, model_config
from trm_interp.tasks.base import PuzzleSet

STEPS, ROWS = "supervision steps of a puzzle", "rows of activations"
Tell = Callable[[str], None]
Step = Callable[[int], object]  # computes so many of a unit at once


@dataclass(frozen=True)
class Work:
    """`amount` of a `unit` that takes so many `flops` and network `evaluations` each. `begin`: what
    makes the function that computes some of them at once, which the command does `at_once`.
    `limits`: what is not in it, or why it is a bound. `size`: bytes on disk, None where they are
    not known. `gradients`: whether there is a backward pass.
    """

    amount: int
    flops: float
    begin: Callable[[], Step]
    at_once: int
    device: torch.device
    evaluations: int = 0
    unit: str = STEPS
    limits: str = ""
    size: int | None = None
    gradients: bool = False


@dataclass(frozen=True)
class Runs:
    """`steps`: supervision steps in all, of single puzzles; the rest as in `Work`."""

    steps: float
    limits: str = ""
    size: int | None = None


def work_of(line: Line, tell: Tell) -> Work:
    """What a command line computes. UserError for a command whose work is not counted here."""
    if line.command == "train":
        return _of_training(line.settings)
    if line.command == "train-sae":
        return _of_sae(line.settings, tell)
    if line.command not in COUNTED:
        raise UserError(
            f"cost counts {', '.join([*COUNTED, 'train', 'train-sae'])}; {line.command} is not "
            "among them (figures --plan and sweep --dry-run know others)"
        )
    settings = line.settings
    device = open_device(settings.device)
    checkpoint, puzzles = open_both(
        settings.ckpt, settings.puzzles, device, settings.limit, settings.skip_bad, tell
    )
    model, runs = checkpoint.model, COUNTED[line.command](settings, checkpoint, puzzles)
    dtype = getattr(torch, getattr(settings, "dtype", "float32"))
    return Work(
        math.ceil(runs.steps),
        step_flops(model.config),
        lambda: _supervision_step(model, dtype),
        settings.batch_size,
        device,
        evaluations=model.config.schedule.evaluations,
        limits=runs.limits,
        size=runs.size,
    )


# What a command computes, by its options


def _of_steps(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Runs:
    return Runs(len(puzzles) * settings.steps)


def _of_collect(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Runs:
    model, steps = checkpoint.model.config, settings.kept_steps
    positions = kept_positions(settings.positions, puzzles, model.prefix)
    try:
        sites = sites_of(model, settings.sites, steps[-1] + 1)
        arrays = [site.select(steps, positions) for site in sites]
    except ValueError as error:
        raise UserError(str(error)) from None
    size = estimate_bytes(arrays, len(puzzles))
    return Runs(len(puzzles) * (steps[-1] + 1), "writing the states", size)


def _of_search(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Runs:
    how = settings.search
    ends_early = how.stop != "never"
    limits = "a bound: trajectories that end early cost less" if ends_early else ""
    return Runs(len(puzzles) * how.k * how.steps, limits)


def _of_basins(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Runs:
    chosen = parse_indices(settings.index, "index")
    n = min(settings.n_puzzles, len(puzzles)) if chosen is None else len(chosen)
    paths = 1 + min(settings.shown, settings.starts) if settings.shown else 0
    each = 1 + settings.starts + settings.slice**2 + paths  # 1: the model's own start
    runs = n * each + (len(puzzles) if chosen is None else 0)
    return Runs(runs * settings.steps, "maps, planes' colours and tests, once a puzzle")


def _of_settling(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Runs:
    long = min(settings.long_limit, len(puzzles)) * settings.long
    return Runs(len(puzzles) * settings.steps + long)


def _of_stability(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Runs:
    """Tangents go through the products of an evaluation as states do; a Newton step takes
    `KRYLOV` of them, with the state each, and some states alone."""
    n, model = len(puzzles), checkpoint.model.config
    sample = min(settings.sample, n)
    steps = settings.steps * (n + sample * (1 + settings.k))
    if not (ends := min(settings.fixed, sample)):
        return Runs(steps)
    cycles = ends * (1 + NEWTON_STEPS * (2 * KRYLOV + 1 + HALVINGS))
    limits = (
        f"fixed points near {ends} ends, at most {math.ceil(cycles / model.h_cycles)} supervision "
        "steps in float64, and eigenvalues of those that are found (--fixed 0 leaves them out)"
    )
    return Runs(steps, limits)


def _of_trace(settings: Any, checkpoint: Checkpoint, puzzles: PuzzleSet) -> Runs:
    subject = Subject(checkpoint, puzzles, checkpoint.model.device, settings.batch_size)
    pairs = min(settings.pairs, len(puzzles))
    looked_among = len(puzzles) * settings.starts * settings.steps
    steps = looked_among + pairs * steps_of_a_pair(subject, settings)
    return Runs(steps, f"a bound: fewer than {pairs} pairs may be found")


def _of_training(run: Any) -> Work:
    config, puzzles = run.training, load_puzzles(run.train, run.skip_bad)
    device = open_device(run.device)
    if config.budget is not None:
        raise UserError("cost of train: give --train-steps; a --budget is its own cost")
    sizes = {"cells": puzzles.task.cells, "vocab": puzzles.task.vocab}
    known = {**identifiers_of(run.architecture, puzzles), **dict(run.model), **sizes}
    shape = model_config(run.architecture, known, run.preset)
    dtype = getattr(torch, config.dtype)
    return Work(
        config.steps * config.batch_size,
        step_flops(shape, training=True),
        lambda: _training_step(model_class(shape)(shape).to(device).train(), dtype),
        config.batch_size,
        device,
        evaluations=shape.schedule.evaluations,
        limits="validation, the optimizer, compiling (which saves time); a bound with --curriculum",
        gradients=True,
    )


def _of_sae(settings: Any, tell: Tell) -> Work:
    """Needs sae-lens, whose import takes seconds."""
    from trm_interp.sae.pool import open_pool
    from trm_interp.sae.work import folder_bytes, row_flops, timed_step

    device = open_device(settings.device)
    ticks = parse_indices(settings.ticks, "ticks")
    mixed = settings.mixed_checkpoints
    with open_pool(settings.stores, settings.sites, ticks, mixed=mixed, tell=tell) as pool:
        d_model = pool.d_model
    return Work(
        settings.max_steps * settings.batch_size,
        row_flops(settings, d_model),
        lambda: timed_step(settings, d_model, device),
        settings.batch_size,
        device,
        unit=ROWS,
        limits="reading the stores, held-out rows, dead features (resampling, auxiliary losses)",
        size=folder_bytes(settings, d_model),
        gradients=True,
    )


COUNTED: dict[str, Callable[[Any, Checkpoint, PuzzleSet], Runs]] = {
    "eval": _of_steps,
    "outcomes": _of_steps,
    "losses": _of_steps,
    "collect": _of_collect,
    "settling": _of_settling,
    "stability": _of_stability,
    "search": _of_search,
    "basins": _of_basins,
    "trace": _of_trace,
}

# What is timed


def _supervision_step(model: RecursiveModel, dtype: torch.dtype) -> Step:
    def step(n: int) -> None:
        tokens = _tokens(model, n)
        run_batch(model, tokens, tokens, 1, dtype=dtype)

    return step


def _training_step(model: RecursiveModel, dtype: torch.dtype) -> Step:
    @torch.enable_grad()
    def step(n: int) -> None:
        tokens = _tokens(model, n)
        x = model.embed(tokens, dtype)
        state, _ = model.advance(model.initial_state(x), x, grad_cycles=1)
        logits = model.readout(getattr(state, model.answer)).logits
        stablemax_cross_entropy(logits, tokens).mean().backward()
        model.zero_grad()

    return step


def _tokens(model: RecursiveModel, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (n, model.config.cells)
    return torch.randint(1, model.config.vocab, shape, generator=generator).to(model.device)
