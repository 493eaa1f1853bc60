"""Losses of one supervision step. Terms come back apart, per puzzle, never summed."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from trm_interp.core.losses import (
    is_solved,
    mean_over_cells,
    softmax_cross_entropy,
    stablemax_cross_entropy,
)
from trm_interp.runtime.shapes import Float, Int


class StepLosses(NamedTuple):
    """Per puzzle [batch]: `answer` (nats per cell), `halt` (nats), and whether it is solved now."""

    answer: Tensor
    halt: Tensor
    solved: Tensor


def step_losses(
    logits: Float[Tensor, "batch cell vocab"],
    q_halt: Float[Tensor, " batch"],
    labels: Int[Tensor, "batch cell"],
    kind: str = "stablemax",
    smoothing: float = 0.0,
) -> StepLosses:
    """The TRM losses (arXiv 2510.04871, figure 3): answer, and BCE of q_halt on "solved now".

    `kind` is "stablemax" (float64, as published) or "softmax". HRM's continue target is another
    loss and is not here.
    """
    if kind == "stablemax":
        per_cell = stablemax_cross_entropy(logits, labels)
    else:
        per_cell = softmax_cross_entropy(logits, labels, smoothing)
    solved = is_solved(logits.argmax(-1), labels)
    halt = F.binary_cross_entropy_with_logits(q_halt.float(), solved.float(), reduction="none")
    return StepLosses(mean_over_cells(per_cell, labels), halt, solved)
