"""Edges between features through the recursion: attribution by Jacobian-vector products.

Feature i at tick t contributes (activation) x (decoder row) to a state. That contribution is pushed
forward along the run, as a tangent of all states, to the same phase of the next H-cycle; there its
product with the gradient of feature j's activation says how much of that activation is owed to
feature i, to first order. Where everything on the way is linear this is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.clock import Tick
from trm_interp.core.infer import embedded
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shapes import Float
from trm_interp.runtime.shards import divided, numbered, shard_ends
from trm_interp.sae.applied import AppliedSAE, Progress
from trm_interp.sae.splice import Place
from trm_interp.sae.steer import Change, edit_of


@dataclass(frozen=True)
class Through:
    """What edges are measured on. `ticks`: indices of the evaluations that they go from; `features`
    at both ends; `lag`: evaluations between the two, an H-cycle."""

    applied: AppliedSAE
    model: RecursiveModel
    place: Place
    features: list[int]
    ticks: list[int]
    n_steps: int
    batch_size: int

    @property
    def lag(self) -> int:
        return len(self.model.config.schedule.cycle)

    @property
    def cells(self) -> list[int]:
        """Positions of the board's cells."""
        config = self.model.config
        return list(range(config.prefix, config.prefix + config.cells))

    def coded(self, state: States, puzzles: slice) -> Tensor:
        """What the SAE encodes of the site, [puzzle, cell, d_model]."""
        static = self.place.of(puzzles)
        z = getattr(state, self.place.site).float() - static
        return z[:, self.cells]

    def encoded(self, state: States, puzzles: slice) -> Float[Tensor, "puzzle cell feature"]:
        """Activations of all features of the SAE."""
        return self.applied.sae.encode(self.coded(state, puzzles))

    def acts(self, state: States, puzzles: slice) -> Float[Tensor, "puzzle cell k"]:
        """Activations of the features that are looked at."""
        return self.encoded(state, puzzles)[..., self.features]

    def gradients(self, state: States, puzzles: slice) -> Float[Tensor, "k puzzle cell d_model"]:
        """Of every feature's activation with respect to the state of the same cell."""
        with torch.enable_grad():
            rows = self.coded(state, puzzles).detach().requires_grad_()
            acts = self.applied.sae.encode(rows)[..., self.features].sum((0, 1))
            grads = [torch.autograd.grad(one, rows, retain_graph=True)[0] for one in acts]
        return torch.stack(grads)

    def contributions(self, state: States, puzzles: slice) -> States:
        """Tangents [k, puzzle, pos, d_model] of all states: what each feature writes into the
        site at the cells."""
        acts = self.acts(state, puzzles)
        rows = self.applied.sae.W_dec.detach().float()[self.features]
        z = getattr(state, self.place.site)
        written = z.new_zeros(len(rows), *z.shape)
        written[:, :, self.cells] = torch.einsum("bck,kd->kbcd", acts, rows).to(z.dtype)
        none = torch.zeros_like(written)
        return type(state)(
            *(written if name == self.place.site else none for name in state._fields)
        )


class Edges(NamedTuple):
    """`weights`: mean over cells of the target's activation that is owed to the source, by puzzle,
    source tick, source and target. `levels`: mean activation over cells, by puzzle, tick (those of
    `at`) and feature. `moved`: RMS change of all states over the last supervision step. `density`,
    `mean_activation`: of every feature of the SAE at the source ticks, over puzzles and cells, the
    share where it fires and its mean activation."""

    weights: Float[np.ndarray, "puzzle tick k k"]
    levels: Float[np.ndarray, "puzzle at k"]
    at: list[int]
    moved: Float[np.ndarray, " puzzle"]
    density: Float[np.ndarray, "tick feature"]
    mean_activation: Float[np.ndarray, "tick feature"]


@torch.no_grad()
def edges(through: Through, progress: Progress = quiet) -> Edges:
    """All edges from the source ticks, of every puzzle, in one run of each with k tangents. A shard
    follows those of some puzzles, and ends here."""
    n = len(through.applied.puzzles)
    at = sorted({*through.ticks, *(tick + through.lag for tick in through.ticks)})
    batches = [slice(i, min(i + through.batch_size, n)) for i in range(0, n, through.batch_size)]

    def compute(i: int) -> Arrays:
        progress(batches[i].start, n)
        return _edges_of(through, at, batches[i])._asdict()

    names = numbered("edges", len(batches))
    parts = [_Part(**get()) for get in divided(names, compute)]
    shard_ends()
    progress(n, n)
    weights, levels, moved = (np.concatenate([part[i] for part in parts]) for i in range(3))
    density, mean = np.sum([part.usage for part in parts], 0) / (n * len(through.cells))
    return Edges(weights, levels, at, moved, density, mean)


class _Part(NamedTuple):
    """`Edges` of a batch of puzzles. `usage` [2, tick, feature]: over its puzzles and cells, how
    often every feature fires at the source ticks, and the sum of its activations."""

    weights: np.ndarray
    levels: np.ndarray
    moved: np.ndarray
    usage: np.ndarray


def _begin(through: Through, puzzles: slice) -> tuple[States, Tensor]:
    """The start and the embedded input of some puzzles."""
    inputs, _, own = through.applied.store.tensors(through.applied.puzzles[puzzles])
    x = embedded(through.model, inputs, identifiers=own)
    return through.model.initial_state(x), x


def _edges_of(through: Through, at: Sequence[int], puzzles: slice) -> _Part:
    model, lag = through.model, through.lag
    per_step = model.config.schedule.evaluations
    state, x = _begin(through, puzzles)
    going: dict[int, States] = {}  # tangents, by the tick that they started from
    weights: dict[int, Tensor] = {}
    levels, usage, before = [], {}, state
    for index, tick in enumerate(model.config.schedule.ticks(through.n_steps)):
        if index == (through.n_steps - 1) * per_step:
            before = state
        state, going = _push(model, tick, state, going, x)
        if index in at:
            every = through.encoded(state, puzzles)
            levels.append(every[..., through.features].mean(1))
            if index in through.ticks:
                usage[index] = torch.stack([(every > 0).float(), every.float()]).sum((1, 2))
        if (source := index - lag) in going:
            arrived = getattr(going.pop(source), through.place.site)[:, :, through.cells].float()
            gradients = through.gradients(state, puzzles)
            weights[source] = torch.einsum("kbcd,jbcd->bkj", arrived, gradients)
        if index in through.ticks:
            going[index] = through.contributions(state, puzzles)
    changes = [(a - b).float().square().mean((1, 2)) for a, b in zip(state, before, strict=True)]
    moved = torch.stack(changes).mean(0).sqrt()
    per_tick = torch.stack([weights[tick] for tick in through.ticks], 1) / len(through.cells)
    fired = torch.stack([usage[tick] for tick in through.ticks], 1)
    every_level = torch.stack(levels, 1)
    return _Part(*(of.cpu().numpy() for of in (per_tick, every_level, moved, fired)))


def _push(
    model: RecursiveModel, tick: Tick, state: States, going: dict[int, States], x: Tensor
) -> tuple[States, dict[int, States]]:
    """One evaluation, and all tangents that are on their way."""
    if not going:
        written = model.evaluate(tick, *model.operands(tick, state, x))
        return state._replace(**{tick.writes: written}), going
    joined = type(state)(*(torch.cat(of) for of in zip(*going.values(), strict=True)))
    written, image = model.push(tick, state, joined, x)
    images = image.chunk(len(going))
    moved = {
        source: tangents._replace(**{tick.writes: of})
        for (source, tangents), of in zip(going.items(), images, strict=True)
    }
    return state._replace(**{tick.writes: written}), moved


@torch.no_grad()
def ablated(
    through: Through, what: dict[int, list[int]], progress: Progress = quiet
) -> dict[int, Float[np.ndarray, "ablated puzzle k"]]:
    """What the features lose an H-cycle after others were set to 0 at all cells.

    `what`: features to ablate, one at a time, by the tick at which they are. The result, by tick:
    activation as it was less that after the ablation, mean over cells.
    """
    n = len(through.applied.puzzles)
    parts: dict[int, list[np.ndarray]] = {tick: [] for tick in what}
    for first in range(0, n, through.batch_size):
        puzzles = slice(first, min(first + through.batch_size, n))
        for tick, lost in _lost(through, what, puzzles).items():
            parts[tick].append(lost.cpu().numpy())
        progress(puzzles.stop, n)
    return {tick: np.concatenate(of, 1) for tick, of in parts.items()}


def _lost(through: Through, what: dict[int, list[int]], puzzles: slice) -> dict[int, Tensor]:
    model, sae = through.model, through.applied.sae
    clock = model.config.schedule.ticks(through.n_steps)
    rows = sae.W_dec.detach().float()
    static, site = through.place.of(puzzles), through.place.site
    state, x = _begin(through, puzzles)
    lost = {}
    for index, tick in enumerate(clock[: max(what) + 1]):
        written = model.evaluate(tick, *model.operands(tick, state, x))
        state = state._replace(**{tick.writes: written})
        if index not in what:
            continue
        ends = []
        for feature in [None, *what[index]]:  # first of the run as it is
            changed = state
            if feature is not None:
                ablation = Change(feature, "ablate", 0.0)
                edit = edit_of(sae.encode, rows, ablation, through.cells, static)
                changed = state._replace(**{site: edit(getattr(state, site))})
            for later in clock[index + 1 : index + 1 + through.lag]:
                written = model.evaluate(later, *model.operands(later, changed, x))
                changed = changed._replace(**{later.writes: written})
            ends.append(through.acts(changed, puzzles).mean(1))
        lost[index] = ends[0] - torch.stack(ends[1:])
    return lost
