"""TRM (arXiv 2510.04871): one small network, applied 336 times.

Shapes: `batch`, `pos` (prefix positions, then cells), `d_model`, `vocab`. The states z_H and z_L
have RMS 1 at every position, or over positions, depending on the last norm.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_interp.core.clock import Tick
from trm_interp.core.models.base import Readout, RecursiveModel, States
from trm_interp.core.models.layers import (
    Linear,
    Network,
    NetworkSites,
    at_least_float32,
    truncated_normal,
)
from trm_interp.core.models.tangents import network_tangent
from trm_interp.core.models.trm_config import TRMConfig
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.shapes import Float, Int


class State(NamedTuple):
    """What a TRM carries from one supervision step to the next, [batch, pos, d_model] each."""

    z_H: Tensor
    z_L: Tensor


class TRM(RecursiveModel):
    """A Tiny Recursive Model: embedding, one network, two read-outs.

    `embed` the puzzle once, take an `initial_state`, `advance` it by supervision steps, `readout`
    whenever wanted. The compute dtype is that of `embed`'s result; weights stay float32.
    """

    architecture = "trm"
    Config = TRMConfig
    State = State
    answer, latent = "z_H", "z_L"

    config: TRMConfig
    z_H_init: Tensor  # [d_model], start vectors, never trained
    z_L_init: Tensor

    def __init__(self, config: TRMConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if torch.get_default_device().type != "meta":
            require_memory(
                4 * config.n_weights,
                f"a model of {config.n_weights:.2g} weights",
                "a smaller d_model, expansion or n_layers",
            )
        self.config = config
        self.net = Network(config)
        self.token_embedding = nn.Parameter(torch.empty(config.vocab, config.d_model))
        self.prefix_embedding = nn.Parameter(torch.zeros(config.d_model)) if config.prefix else None
        self.lm_head = Linear(config.d_model, config.vocab)
        self.q_head = Linear(config.d_model, config.q_outputs, bias=True)
        self.register_buffer("z_H_init", torch.empty(config.d_model))
        self.register_buffer("z_L_init", torch.empty(config.d_model))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights as in the public code: truncated normals, a shut halting head."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters(generator)
        truncated_normal(self.token_embedding, 1 / math.sqrt(self.config.d_model), generator)
        truncated_normal(self.z_H_init, 1.0, generator)
        truncated_normal(self.z_L_init, 1.0, generator)
        self.q_head.weight.zero_()
        if self.q_head.bias is not None:
            self.q_head.bias.fill_(-5.0)

    def embed(
        self,
        tokens: Int[Tensor, "batch cell"],
        dtype: torch.dtype = torch.float32,
        identifiers: Tensor | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The injected input x = sqrt(d) [prefix, embedding of tokens], in the compute dtype."""
        scale = math.sqrt(self.config.d_model)
        x = F.embedding(tokens.long(), scale * self.token_embedding)
        if self.prefix_embedding is not None:  # only the first prefix position is not zero
            prefix = F.pad(scale * self.prefix_embedding[None], (0, 0, 0, self.config.prefix - 1))
            x = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
        return x.to(dtype)

    def initial_state(self, x: Float[Tensor, "batch pos d_model"]) -> States:
        """The untrained start vectors at every position, in x's shape and dtype."""
        z_H, z_L = (init.to(x.dtype).expand_as(x) for init in (self.z_H_init, self.z_L_init))
        return State(z_H, z_L)

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_L reads z_H and the puzzle; z_H reads z_L alone."""
        if tick.writes == "z_L":
            return state.z_L, state.z_H + x
        return state.z_H, state.z_L

    def networks(self) -> list[nn.Module]:
        return [self.net]

    @classmethod
    def evaluation_points(
        cls, config: TRMConfig, state: str, point: type[nn.Module] = nn.Identity
    ) -> nn.Module:
        """`blocks.0.hook_resid_pre` and so on: five places in every block, for either state."""
        return NetworkSites(config, point)

    def readout(self, z_H: Float[Tensor, "batch pos d_model"], step: int = 0) -> Readout:
        """Logits over tokens at every cell, and the halting logit q_halt; at least float32.

        `step` only names the moment, for the recorder.
        """
        logits = at_least_float32(self.lm_head(z_H[:, self.config.prefix :]))
        return Readout(logits, at_least_float32(self.q_head(z_H[:, 0]))[:, 0])

    @torch.no_grad()
    def push(self, tick: Tick, state: States, tangents: States, x: Tensor) -> tuple[Tensor, Tensor]:
        h, injection = self.operands(tick, state, x)
        return network_tangent(self.net, h + injection, tangents.z_L + tangents.z_H)

    @property
    def logit_weight(self) -> Tensor:
        return self.lm_head.weight

    @property
    def halting_is_trained(self) -> bool:
        return bool(self.q_head.weight[0].any())

    @classmethod
    def evaluation_flops(cls, config: TRMConfig) -> int:
        """One evaluation of one puzzle; norms and gates count as nothing.

        >>> TRM.evaluation_flops(TRMConfig())  # 2 x 2 blocks x 3 (512 x 1536 x 97 + 97 x 512 x 512)
        1220542464
        """
        n, d = config.positions, config.d_model
        channels = 3 * d * config.swiglu_width(d) * n
        if config.mixer == "attention":
            mixing = 4 * d * d * n + 2 * n * n * d
        else:
            mixing = 3 * n * config.swiglu_width(n) * d
        return 2 * config.n_layers * (channels + mixing)

    @classmethod
    def tensors_kept(cls, config: TRMConfig) -> int:
        return 4 * config.n_layers

    @classmethod
    def readout_flops(cls, config: TRMConfig) -> int:
        return 2 * config.cells * config.d_model * config.vocab
