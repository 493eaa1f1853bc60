"""The gradient of one supervision step of all slots, at once or in parts that need less memory."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trm_interp.core.losses import StepLosses
from trm_interp.core.models.base import Readout, RecursiveModel, States
from trm_interp.core.training.graphs import Phase
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import Slots


class Stepped(NamedTuple):
    """What one supervision step came to, for every slot; nothing carries gradient."""

    states: States
    halts: Tensor  # bool [slot], whether the model would stop here
    losses: StepLosses
    measures: dict[str, Tensor]  # float [slot], the model's `measures` by name


def backward_in_parts(
    model: RecursiveModel,
    forward: nn.Module | Callable[..., tuple[States, Readout]],
    slots: Slots,
    phase: Phase,
    config: TrainConfig,
    parts: int,
    processes: int,
) -> Stepped:
    """Add the batch's gradient to the weights'. `forward` is the model's, alone or inside DDP."""
    places = torch.arange(len(slots.index), device=slots.index.device).chunk(parts)
    dtype = getattr(torch, config.dtype)
    stepped: list[Stepped] = []
    for i, at in enumerate(places):
        if isinstance(forward, DistributedDataParallel):
            forward.require_backward_grad_sync = i == len(places) - 1
        part = slots if len(places) == 1 else slots.rows(at)
        keys = part.keys(config.seed) if model.draws_noise else None
        state, readout = forward(
            part.states, part.inputs, dtype, phase.cycles, part.identifiers, keys
        )
        reads_ahead = model.reads_ahead
        losses = model.losses(
            readout,
            part.labels,
            kind=config.loss,
            smoothing=config.smoothing,
            last=part.steps + 1 >= phase.n_sup,
            following=_following(model, state, part, dtype, phase) if reads_ahead else None,
        )
        total = losses.answer + config.halt_weight * losses.halt
        for term in losses.further.values():
            total = total + term
        if config.early_weight != 1:
            total = total * step_weights(part.steps, phase.n_sup, config.early_weight)
        # DDP averages over processes: the sum over the global batch, divided by its size
        (total.sum() * processes / config.batch_size).backward()
        stepped.append(_detached(state, model.halts(readout), losses, model.measured(readout)))
    return stepped[0] if len(stepped) == 1 else _joined(stepped)


def step_weights(done: Tensor, n_sup: int, first: float) -> Tensor:
    """[slot] float32: the weight of a supervision step's loss, after `done` of them (int64 [slot]).

    `first` at the first step and 1 at the last of `n_sup`, geometric between.

    >>> step_weights(torch.arange(3), 3, 4.0).tolist()
    [4.0, 2.0, 1.0]
    """
    left = 1 - done.float() / max(n_sup - 1, 1)
    return first ** left.clamp(0, 1)


@torch.no_grad()
def _following(
    model: RecursiveModel, state: States, part: Slots, dtype: torch.dtype, phase: Phase
) -> Readout:
    """What would be read one supervision step later. The model itself, for DDP to count once."""
    detached = type(state)(*(z.detach() for z in state))
    return model(detached, part.inputs, dtype, phase.cycles, part.identifiers)[1]


def _detached(
    state: States, halts: Tensor, losses: StepLosses, measures: dict[str, Tensor]
) -> Stepped:
    answer, halt, solved, further = losses
    kept = {name: term.detach() for name, term in further.items()}
    apart = StepLosses(answer.detach(), halt.detach(), solved, kept)
    measures = {name: of.detach() for name, of in measures.items()}
    return Stepped(type(state)(*(z.detach() for z in state)), halts.detach(), apart, measures)


def _joined(parts: list[Stepped]) -> Stepped:
    """Those of all slots, in order."""
    states = [part.states for part in parts]
    losses = [part.losses for part in parts]
    further = {name: torch.cat([of.further[name] for of in losses]) for name in losses[0].further}
    return Stepped(
        type(states[0])(*map(torch.cat, zip(*states, strict=True))),
        torch.cat([part.halts for part in parts]),
        StepLosses(
            torch.cat([of.answer for of in losses]),
            torch.cat([of.halt for of in losses]),
            torch.cat([of.solved for of in losses]),
            further,
        ),
        {name: torch.cat([part.measures[name] for part in parts]) for name in parts[0].measures},
    )
