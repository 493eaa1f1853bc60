"""Losses of answers: pure functions of logits and labels, per cell or per puzzle, never summed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_interp.core.devices import widened
from trm_interp.runtime.shapes import Bool, Float, Int

PAD = 0


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
