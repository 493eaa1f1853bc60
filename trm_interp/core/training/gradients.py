"""The gradient of one supervision step of all slots, at once or in parts that need less memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trm_interp.core.models.base import States
from trm_interp.core.training.losses import StepLosses, step_losses
from trm_interp.core.training.settings import TrainConfig
from trm_interp.core.training.slots import Slots


def backward_in_parts(
    forward: nn.Module | Callable[..., tuple[States, Tensor, Tensor]],
    slots: Slots,
    cycles: tuple[int, int],
    config: TrainConfig,
    parts: int,
    processes: int,
) -> tuple[States, Tensor, StepLosses]:
    """Add the batch's gradient to the weights': states, q_halt and losses of all slots."""
    by_part: list[list[Tensor]] = []
    State = type(slots.states)
    places = torch.arange(len(slots.index), device=slots.index.device).chunk(parts)
    dtype = getattr(torch, config.dtype)
    for i, at in enumerate(places):
        whole = len(places) == 1
        if isinstance(forward, DistributedDataParallel):
            forward.require_backward_grad_sync = i == len(places) - 1
        start = slots.states if whole else State(*(z[at] for z in slots.states))
        inputs, labels = (x if whole else x[at] for x in (slots.inputs, slots.labels))
        state, logits, q_halt = forward(start, inputs, dtype, cycles)
        losses = step_losses(logits, q_halt, labels, config.loss, config.smoothing)
        total = (losses.answer + config.halt_weight * losses.halt).sum()
        # DDP averages over processes: the sum over the global batch, divided by its size
        (total * processes / config.batch_size).backward()
        by_part.append([x.detach() for x in (*state, q_halt, *losses)])
    *states, q_halt, answer, halt, solved = (
        torch.cat(pieces) if len(pieces) > 1 else pieces[0]  # type: ignore[reportGeneralTypeIssues]
        for pieces in zip(*by_part, strict=True)
    )
    return State(*states), q_halt, StepLosses(answer, halt, solved)
