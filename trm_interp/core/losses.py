"""Losses of answers and of halting: pure functions of read-outs and labels.

Per cell or per puzzle; terms come back apart, never summed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_interp.core.devices import widened
from trm_interp.runtime.shapes import Bool, Float, Int

PAD = 0


class StepLosses(NamedTuple):
    """Losses of one supervision step, per puzzle [batch].

    `answer` (nats per cell) and `halt` (nats) are weighted by the settings of training. `solved`:
    whether the puzzle is solved now. `further`: terms that an architecture adds, under the names
    of its `further_losses`; they are added as they are, so that a weight of theirs is a setting of
    the architecture.
    """

    answer: Tensor
    halt: Tensor
    solved: Tensor
    further: Mapping[str, Tensor] = MappingProxyType({})


def stablemax_log_prob(logits: Float[Tensor, "*run vocab"]) -> Float[Tensor, "*run vocab"]:
    """Log probabilities in float64, p = s / sum(s), s(x) = x + 1 for x >= 0, else 1 / (1 - x).

    Stablemax is from Prieto et al., arXiv 2501.04697. In float32 on a device without float64.
    """
    x = widened(logits)
    s = torch.where(x >= 0, x + 1, 1 / (1 - x.clamp(max=0)))
    return (s / s.sum(-1, keepdim=True)).log()


def stablemax_cross_entropy(
    logits: Float[Tensor, "*run vocab"], labels: Int[Tensor, "*run"]
) -> Float[Tensor, "*run"]:
    """Nats per cell, float64; 0 where the label is pad."""
    picked = stablemax_log_prob(logits).gather(-1, labels.long()[..., None])[..., 0]
    return torch.where(labels == PAD, 0.0, -picked)


def softmax_cross_entropy(
    logits: Float[Tensor, "*run vocab"], labels: Int[Tensor, "*run"], smoothing: float = 0.0
) -> Float[Tensor, "*run"]:
    """Nats per cell, float32; 0 where the label is pad. Label smoothing is uniform over tokens."""
    flat = F.cross_entropy(
        logits.float().flatten(0, -2),
        labels.long().flatten(),
        ignore_index=PAD,
        reduction="none",
        label_smoothing=smoothing,
    )
    return flat.view(labels.shape)


def mean_over_cells(
    per_cell: Float[Tensor, "*run cell"], labels: Int[Tensor, "*run cell"]
) -> Float[Tensor, "*run"]:
    """Mean over the cells that have a label, givens included."""
    return per_cell.sum(-1) / (labels != PAD).sum(-1).clamp(min=1)


def is_solved(
    tokens: Int[Tensor, "*run cell"], labels: Int[Tensor, "*run cell"]
) -> Bool[Tensor, "*run"]:
    """True where every labelled cell is right."""
    return ((tokens == labels) | (labels == PAD)).all(-1)


def answer_losses(
    logits: Float[Tensor, "batch cell vocab"],
    labels: Int[Tensor, "batch cell"],
    kind: str = "stablemax",
    smoothing: float = 0.0,
) -> tuple[Float[Tensor, " batch"], Bool[Tensor, " batch"]]:
    """Cross-entropy of the answer in nats per cell, and whether the puzzle is solved.

    `kind` is "stablemax" (float64, as published) or "softmax", which alone smooths labels.
    """
    if kind == "stablemax":
        per_cell = stablemax_cross_entropy(logits, labels)
    else:
        per_cell = softmax_cross_entropy(logits, labels, smoothing)
    return mean_over_cells(per_cell, labels), is_solved(logits.argmax(-1), labels)


def step_losses(
    logits: Float[Tensor, "batch cell vocab"],
    q_halt: Float[Tensor, " batch"],
    labels: Int[Tensor, "batch cell"],
    kind: str = "stablemax",
    smoothing: float = 0.0,
) -> StepLosses:
    """The TRM losses (arXiv 2510.04871, figure 3): answer, and BCE of q_halt on "solved now"."""
    answer, solved = answer_losses(logits, labels, kind, smoothing)
    halt = F.binary_cross_entropy_with_logits(q_halt.float(), solved.float(), reduction="none")
    return StepLosses(answer, halt, solved)
