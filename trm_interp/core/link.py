"""A small map from one model's states to another's, position by position."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_interp.runtime.shapes import Float


class Link(nn.Module):
    """W3 h + W2 gelu(W1 norm(h)): a residual link between frozen models, with biases.

    `norm` is a LayerNorm; source: RecursiveMAS. Weights begin as normals of variance 1 / n_in,
    those of W2 at 0, so that an untrained link is a random linear map.
    """

    def __init__(
        self, d_from: int, d_to: int, hidden: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_from)
        self.straight = nn.Linear(d_from, d_to)
        self.inner = nn.Linear(d_from, hidden)
        self.outer = nn.Linear(hidden, d_to)
        for layer in (self.straight, self.inner):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(d_from), generator=generator)
        nn.init.zeros_(self.outer.weight)
        for layer in (self.straight, self.inner, self.outer):
            nn.init.zeros_(layer.bias)

    def forward(self, h: Float[Tensor, "*pos d_from"]) -> Float[Tensor, "*pos d_to"]:
        return self.straight(h) + self.outer(F.gelu(self.inner(self.norm(h))))
