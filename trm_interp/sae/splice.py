"""Loss recovered in the loop: a model that runs on an SAE's reconstructions of its own states."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.outcomes import share_with_bounds
from trm_interp.analysis.resample import LEAST, bounds, mean_with_bounds, resamples
from trm_interp.core.clock import Tick
from trm_interp.core.infer import Readouts, identifiers_for, run_batch
from trm_interp.core.losses import PAD
from trm_interp.core.models.base import RecursiveModel
from trm_interp.recording.hooks import HookedModel
from trm_interp.recording.site_reader import run_clock, spell
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shapes import Bool, Float
from trm_interp.sae.applied import AppliedSAE, Progress, model_of
from trm_interp.sae.results import EVERY_TICK, InTheLoop, LoopedRun, Spliced, at_tick

Edit = Callable[[Tensor], Tensor]  # [batch, pos, d_model], and the same back


def hook_name(site: str, tick: Tick) -> str:
    """Hook point of a site at a tick: of the state that it writes, or of a place inside.

    >>> hook_name("z_L", Tick(0, 1, 2, "z_L"))
    'step.0.h.1.l.2.hook_z_L'
    >>> hook_name("blocks.0.hook_resid_mid", Tick(0, 1, 6, "z_H", ends_cycle=True))
    'step.0.h.1.blocks.0.hook_resid_mid'
    """
    return tick.hook if site == tick.writes else f"{tick.name}.{site}"


@contextmanager
def editing(model: HookedModel, names: Sequence[str], edit: Edit | None):
    """While the block runs, `edit` replaces what is written at each of these hook points."""

    def replace(value: Tensor, hook: Any) -> Tensor:
        return value if edit is None else edit(value)

    hooks: list[Any] = [] if edit is None else [(name, replace) for name in names]
    with model.hooks(fwd_hooks=hooks):
        yield


class Outcome(NamedTuple):
    """Per puzzle and supervision step: solved, share of cells right, stablemax nats per cell."""

    exact: Bool[np.ndarray, "puzzle step"]
    cells: Float[np.ndarray, "puzzle step"]
    loss: Float[np.ndarray, "puzzle step"]


class Loop:
    """Runs the puzzles of an applied SAE through the checkpoint, clean or edited."""

    def __init__(
        self,
        model: RecursiveModel,
        inputs: Tensor,
        labels: Tensor,
        n_steps: int,
        batch_size: int,
        identifiers: Tensor | None = None,
    ) -> None:
        self.model = HookedModel.of(model, n_steps)
        self.inputs, self.labels = inputs, labels
        self.identifiers = identifiers_for(model.config, identifiers, len(inputs))
        self.n_steps, self.batch_size = n_steps, min(batch_size, len(inputs))

    def run(self, names: Sequence[str] = (), edit: Edit | None = None) -> Outcome:
        """Every puzzle from the model's own start."""
        parts = []
        with editing(self.model, names, edit):
            for first in range(0, len(self.inputs), self.batch_size):
                part = slice(first, first + self.batch_size)
                inputs, labels = self.inputs[part], self.labels[part]
                own = None if self.identifiers is None else self.identifiers[part]
                read = run_batch(self.model, inputs, labels, self.n_steps, identifiers=own)
                parts.append(read)
        read = Readouts.cat(parts)
        labelled = self.labels[:, None] != PAD
        right = ((read.tokens == self.labels[:, None]) & labelled).sum(-1) / labelled.sum(-1)
        return Outcome(read.solved.numpy(), right.double().numpy(), read.loss.double().numpy())


def open_loop(
    applied: AppliedSAE, ckpt: str | None, force: bool, batch_size: int
) -> tuple[Loop, str | None]:
    """The store's checkpoint on the puzzles that are looked at; and what `force` let pass."""
    checkpoint, wrong = model_of(applied, ckpt, force)
    inputs, labels, own = applied.store.tensors(applied.puzzles)
    n_steps = applied.store.n_steps
    return Loop(checkpoint.model, inputs, labels, n_steps, batch_size, own), wrong


def loss_recovered(
    clean: Float[np.ndarray, " puzzle"],
    spliced: Float[np.ndarray, " puzzle"],
    ablated: Float[np.ndarray, " puzzle"],
    seed: int = 0,
) -> Estimate:
    """1 - (spliced - clean) / (ablated - clean) of mean losses, bootstrap interval over puzzles.

    1: as good as the state itself; 0: no better than the ablation. NaN where the interval of what
    the ablation costs reaches down to nothing.
    """
    counts = resamples(len(clean), seed)

    def share(lost: Any, at_stake: Any) -> Any:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(at_stake > 0, 1 - lost / at_stake, np.nan)

    lost, at_stake = spliced - clean, ablated - clean
    low, high = bounds(share(counts @ lost, counts @ at_stake))
    if len(clean) < LEAST:
        low = high = np.nan
    value = float(share(lost.sum(), at_stake.sum()))
    if np.isnan(value) or bounds(counts @ at_stake)[0] <= 0:
        value = low = high = np.nan
    return Estimate(value=value, low=float(low), high=float(high))


def in_the_loop(
    loop: Loop,
    site: str,
    ticks: Sequence[Tick],
    reconstruct: Edit,
    mean_row: Float[Tensor, " d_model"],
    seed: int = 0,
    clean: Outcome | None = None,
    progress: Progress = quiet,
    read_at: int | None = None,
) -> Spliced:
    """Splice in the reconstruction, zero, and the mean row at these ticks; and a clean run.

    Exact and cell accuracy and loss are read after supervision step `read_at` (default the last),
    with intervals over puzzles; `by_step` has means of all steps.
    """
    read_at = loop.n_steps - 1 if read_at is None else read_at
    names = [hook_name(site, tick) for tick in ticks]
    edits: dict[str, Edit] = {
        "sae": lambda x: reconstruct(x.float()).to(x.dtype),
        "zero": torch.zeros_like,
        "mean": lambda x: mean_row.to(x).expand_as(x),
    }
    clean = clean or loop.run()
    runs = {"clean": clean}
    for done, (name, edit) in enumerate(edits.items()):
        progress(done, len(edits))
        runs[name] = loop.run(names, edit)
    progress(len(edits), len(edits))
    lost = {name: run.loss[:, read_at] for name, run in runs.items()}
    return Spliced(
        ticks=len(ticks),
        read_at=read_at,
        runs={name: _summary(run, read_at, seed) for name, run in runs.items()},
        recovered_over_zero=loss_recovered(lost["clean"], lost["sae"], lost["zero"], seed),
        recovered_over_mean=loss_recovered(lost["clean"], lost["sae"], lost["mean"], seed),
    )


def estimates(values: dict[str, np.ndarray], seed: int) -> dict[str, Estimate]:
    """Means over puzzles with their intervals, Wilson's for shares (bool), else the bootstrap's.

    `values`: [puzzle] by name.
    """
    result = {}
    for name, numbers in values.items():
        if numbers.dtype == bool:
            share = share_with_bounds(numbers)
            mean, low, high = (share[key] for key in ("share", "low", "high"))
        else:
            mean, low, high = mean_with_bounds(numbers.astype(float), seed)
        result[name] = Estimate(value=float(mean), low=float(low), high=float(high))
    return result


def _summary(run: Outcome, read_at: int, seed: int) -> LoopedRun:
    of_steps = run._asdict()
    at_read = {name: values[:, read_at] for name, values in of_steps.items()}
    by_step = {name: values.mean(0).tolist() for name, values in of_steps.items()}
    return LoopedRun(by_step=by_step, **estimates(at_read, seed))


def splice(
    applied: AppliedSAE,
    mean_row: Tensor,
    ckpt: str | None,
    tick: int | None,
    batch_size: int,
    seed: int,
    force: bool = False,
    progress: Progress = quiet,
) -> InTheLoop:
    """In the loop at every tick at which the SAE was trained, and at one tick if asked.

    One tick is read after its own supervision step: the recursion soon forgets what was done to it
    once. UserError for a tick of the run that does not write the site.
    """
    alone = None if tick is None else tick_of(applied, tick)
    loop, mismatch = open_loop(applied, ckpt, force, batch_size)

    @torch.no_grad()
    def reconstruct(x: Tensor) -> Tensor:
        return applied.sae(x)

    measured = partial(in_the_loop, loop, applied.site)
    rest = (reconstruct, mean_row, seed, loop.run(), progress)
    spliced = {EVERY_TICK: measured(applied.reader.ticks, *rest)}
    if tick is not None and alone is not None:
        spliced[at_tick(tick)] = measured([alone], *rest, read_at=alone.step)
    return InTheLoop(mismatch=mismatch, spliced=spliced)


def tick_of(applied: AppliedSAE, index: int) -> Tick:
    """The tick with this index in the run. UserError where the site is not read there."""
    if index not in applied.reader.indices:
        raise UserError(
            f"{applied.site} is not read at tick {index}; it is at {spell(applied.reader.indices)}"
        )
    return run_clock(applied.store)[index]
