"""Loss recovered in the loop: a model that runs on an SAE's reconstructions of its own states."""

from collections.abc import Callable, Mapping, Sequence
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
from trm_interp.recording.site_reader import SiteReader, run_clock, spell
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shapes import Bool, Float
from trm_interp.sae.applied import AppliedSAE, Progress, model_of
from trm_interp.sae.results import EVERY_TICK, InTheLoop, LoopedRun, Spliced, at_tick
from trm_interp.sae.settings import EvalSAEConfig

Edit = Callable[[Tensor], Tensor]  # [batch, pos, d_model], and the same back
Edits = Mapping[str, Edit]  # by hook point


def hook_name(site: str, tick: Tick) -> str:
    """Hook point of a site at a tick: of the state that it writes, or of a place inside.

    >>> hook_name("z_L", Tick(0, 1, 2, "z_L"))
    'step.0.h.1.l.2.hook_z_L'
    >>> hook_name("blocks.0.hook_resid_mid", Tick(0, 1, 6, "z_H", ends_cycle=True))
    'step.0.h.1.blocks.0.hook_resid_mid'
    """
    return tick.hook if site == tick.writes else f"{tick.name}.{site}"


@contextmanager
def editing(model: HookedModel, edits: Edits):
    """While the block runs, what is written at each of these hook points is replaced."""

    def hook_of(edit: Edit) -> Callable[[Tensor, Any], Tensor]:
        return lambda value, hook: edit(value)

    hooks: list[Any] = [(name, hook_of(edit)) for name, edit in edits.items()]
    with model.hooks(fwd_hooks=hooks):
        yield


class Place(NamedTuple):
    """A site that is spliced, and at which ticks. `mean_row` [d_model]: what an ablation to the
    mean writes. `static` [puzzle, pos, d_model]: what is taken from the running state before it is
    coded and given back behind, for an SAE of within-puzzle residuals: the mean of the *recorded*
    run, since that of a running one is known at its end only."""

    site: str
    ticks: Sequence[Tick]
    mean_row: Float[Tensor, " d_model"]
    static: Float[Tensor, "puzzle pos d_model"] | None = None

    @property
    def hooks(self) -> list[str]:
        return [hook_name(self.site, tick) for tick in self.ticks]

    def of(self, puzzles: slice) -> Float[Tensor, "puzzle pos d_model"] | float:
        """The static part of a batch, 0 where there is none."""
        return 0.0 if self.static is None else self.static[puzzles]


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

    def run(self, edits: Callable[[slice], Edits] = lambda puzzles: {}) -> Outcome:
        """Every puzzle from the model's own start; `edits`: of a batch of the puzzles."""
        parts = []
        for first in range(0, len(self.inputs), self.batch_size):
            part = slice(first, first + self.batch_size)
            with editing(self.model, edits(part)):
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
    places: Sequence[Place],
    codes: Mapping[str, Edit],
    seed: int = 0,
    clean: Outcome | None = None,
    progress: Progress = quiet,
    read_at: int | None = None,
) -> Spliced:
    """Splice in what each code gives back, zero, and the mean row, at all these places together;
    and a clean run. `codes`: by name, "sae" among them.

    Exact and cell accuracy and loss are read after supervision step `read_at` (default the last),
    with intervals over puzzles; `by_step` has means of all steps.
    """
    read_at = loop.n_steps - 1 if read_at is None else read_at
    kinds: dict[str, Callable[[Place, slice], Edit]] = {
        "zero": lambda place, puzzles: torch.zeros_like,
        "mean": _to_mean,
        **{name: partial(_coded, code) for name, code in codes.items()},
    }
    runs = {"clean": clean or loop.run()}
    for done, (name, kind) in enumerate(kinds.items()):
        progress(done, len(kinds))
        runs[name] = loop.run(partial(_edits, kind, places))
    progress(len(kinds), len(kinds))
    lost = {name: run.loss[:, read_at] for name, run in runs.items()}
    recovered = {
        name: loss_recovered(lost["clean"], lost[name], lost["zero"], seed) for name in codes
    }
    return Spliced(
        ticks=len({tick for place in places for tick in place.ticks}),
        read_at=read_at,
        runs={name: _summary(run, read_at, seed) for name, run in runs.items()},
        recovered_over_zero=recovered.pop("sae"),
        recovered_over_mean=loss_recovered(lost["clean"], lost["sae"], lost["mean"], seed),
        recovered_by=recovered or None,
    )


def _edits(
    kind: Callable[[Place, slice], Edit], places: Sequence[Place], puzzles: slice
) -> dict[str, Edit]:
    """One kind of edit at every hook point, for a batch of puzzles."""
    return {name: edit for place in places for name, edit in _at(place, kind(place, puzzles))}


def _at(place: Place, edit: Edit) -> list[tuple[str, Edit]]:
    return [(name, edit) for name in place.hooks]


def _coded(code: Edit, place: Place, puzzles: slice) -> Edit:
    static = place.of(puzzles)
    return lambda x: (code(x.float() - static) + static).to(x.dtype)


def _to_mean(place: Place, puzzles: slice) -> Edit:
    row = place.mean_row + place.of(puzzles)
    return lambda x: row.to(x).expand_as(x)


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
    site_means: Float[Tensor, "site d_model"],
    config: EvalSAEConfig,
    baselines: Mapping[str, Edit],
    progress: Progress = quiet,
) -> InTheLoop:
    """In the loop at every tick at which the SAE was trained, at all sites together, and at one
    tick if asked, where the baselines are left out.

    One tick is read after its own supervision step: the recursion soon forgets what was done to it
    once. UserError for a tick of the run that writes none of the sites, and for rows that no run
    has.
    """
    check_spliceable(applied)
    alone = None if config.tick is None else tick_of(applied, config.tick)
    loop, mismatch = open_loop(applied, config.ckpt, config.force_mismatch, config.batch_size)

    @torch.no_grad()
    def reconstruct(x: Tensor) -> Tensor:
        return applied.sae(x)

    places = [
        Place(reader.site, reader.ticks, mean, static_parts(applied, reader))
        for reader, mean in zip(applied.readers, site_means, strict=True)
    ]
    codes, seed, clean = {"sae": reconstruct}, config.seed, loop.run()
    every = in_the_loop(loop, places, {**codes, **baselines}, seed, clean, progress)
    spliced = {EVERY_TICK: every}
    if config.tick is not None and alone is not None:
        there = [place._replace(ticks=[alone]) for place in places if alone in place.ticks]
        spliced[at_tick(config.tick)] = in_the_loop(
            loop, there, codes, seed, clean, progress, alone.step
        )
    return InTheLoop(mismatch=mismatch, spliced=spliced)


def check_spliceable(applied: AppliedSAE) -> None:
    """UserError where a running state cannot be turned into the rows that the SAE was trained on:
    shuffled ticks, and residuals where the mean of some positions was not recorded."""
    view, model = applied.reader.view, applied.store.model
    if view.shuffle is not None:
        raise UserError(
            f"{applied.path} was trained on shuffled ticks, which no run has: it cannot be spliced "
            "in (sae-eval --no-loop measures it)"
        )
    if view.centre == "puzzle" and len(applied.store.positions) < model.prefix + model.cells:
        raise UserError(
            f"{applied.path} takes each puzzle's mean away, which {applied.store.path} holds for "
            "some positions only: record all, or measure with sae-eval --no-loop"
        )


def static_parts(
    applied: AppliedSAE, reader: SiteReader
) -> Float[Tensor, "puzzle pos d_model"] | None:
    """What the SAE's view takes from every row of a puzzle; None where it takes nothing."""
    if reader.view.centre == "rows":
        return None
    parts = np.stack([reader.static(int(puzzle)) for puzzle in applied.puzzles])
    return torch.from_numpy(parts).to(applied.device)


def tick_of(applied: AppliedSAE, index: int) -> Tick:
    """The tick with this index in the run. UserError where none of the sites is read there."""
    indices = sorted({i for reader in applied.readers for i in reader.indices})
    if index not in indices:
        raise UserError(f"{applied.site} is not read at tick {index}; it is at {spell(indices)}")
    return run_clock(applied.store)[index]
