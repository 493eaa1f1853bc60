"""What the models have in common whose networks are stacks of attention or mixing blocks.

TRM, HRM and their relatives differ in states, schedule, operands, gradient rule and number of
networks; embedding, start vectors, read-outs, sites and operation counts are the same and stand
here. Shapes: `batch`, `pos` (prefix positions, then cells), `d_model`, `vocab`.
"""

import math
from functools import reduce
from operator import add
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_interp.core.clock import Schedule, Tick
from trm_interp.core.models.base import Readout, RecursiveModel, States
from trm_interp.core.models.config import BlockConfig
from trm_interp.core.models.layers import (
    Block,
    Linear,
    Network,
    NetworkSites,
    at_least_float32,
    truncated_normal,
)
from trm_interp.core.models.tangents import network_tangent
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.shapes import Float, Int


class BlockModel(RecursiveModel):
    """Embedding, one `layers.Network` or two, and two read-outs.

    With two networks `net` evaluates every state but the answer, which `net_H` evaluates. Start
    vectors are buffers `STATE_init`, never trained. The compute dtype is that of `embed`'s result;
    weights stay float32.
    """

    identifier_table = "prefix_embedding"

    config: Any  # a BlockConfig

    def __init__(self, config: BlockConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if torch.get_default_device().type != "meta":
            require_memory(
                4 * config.n_weights,
                f"a model of {config.n_weights:.2g} weights",
                "a smaller d_model, expansion or n_layers",
            )
        self.config = config
        self.net = Network(config)
        if config.separate_networks:
            self.net_H = Network(config)
        self.token_embedding = nn.Parameter(torch.empty(config.vocab, config.d_model))
        rows = (config.n_identifiers,) if config.n_identifiers else ()
        prefix = torch.empty(*rows, config.prefix_width)
        self.prefix_embedding = nn.Parameter(prefix) if config.prefix else None
        if config.learns_positions:
            self.position_embedding = nn.Parameter(torch.empty(config.positions, config.d_model))
        self.lm_head = Linear(config.d_model, config.vocab)
        self.q_head = Linear(config.d_model, config.q_outputs, bias=True)
        for state in self.state_names:
            self.register_buffer(f"{state}_init", torch.empty(config.d_model))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights as in the public code: truncated normals; prefix and halting head shut."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters(generator)
        std = 1 / math.sqrt(self.config.d_model)
        truncated_normal(self.token_embedding, std, generator)
        for state in self.state_names:
            truncated_normal(self.get_buffer(f"{state}_init"), 1.0, generator)
        if self.config.learns_positions:
            truncated_normal(self.position_embedding, std, generator)
        if self.prefix_embedding is not None:
            self.prefix_embedding.zero_()
        self.q_head.weight.zero_()
        if self.q_head.bias is not None:
            self.q_head.bias.fill_(-5.0)

    def embed(
        self,
        tokens: Int[Tensor, "batch cell"],
        dtype: torch.dtype = torch.float32,
        identifiers: Tensor | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The injected input x = sqrt(d) [prefix, embedding of tokens], in the compute dtype.

        With learned positions sqrt(1/2) (x + sqrt(d) embedding of positions).
        """
        scale = math.sqrt(self.config.d_model)
        x = F.embedding(tokens.long(), scale * self.token_embedding)
        if self.prefix_embedding is not None:
            x = torch.cat([self._prefix(len(x), scale, identifiers), x], dim=1)
        if self.config.learns_positions:
            x = math.sqrt(0.5) * (x + scale * self.position_embedding)
        return x.to(dtype)

    def _prefix(self, n_puzzles: int, scale: float, identifiers: Tensor | None) -> Tensor:
        """[batch, prefix, d_model]: each puzzle's embedding, zeros where it does not fill them."""
        table = self.prefix_embedding
        assert table is not None
        if table.ndim == 1:
            rows = table[None]
        elif identifiers is None:
            rows = table[:1]
        else:
            rows = F.embedding(identifiers, table)
        config = self.config
        filled = F.pad(scale * rows, (0, config.prefix * config.d_model - config.prefix_width))
        return filled.view(-1, config.prefix, config.d_model).expand(n_puzzles, -1, -1)

    def initial_state(self, x: Float[Tensor, "batch pos d_model"]) -> States:
        """The untrained start vectors at every position, in x's shape and dtype."""
        starts = (self.get_buffer(f"{state}_init") for state in self.state_names)
        return self.State(*(start.to(x.dtype).expand_as(x) for start in starts))

    def networks(self) -> list[nn.Module]:
        return [self.net, self.net_H] if self.config.separate_networks else [self.net]

    def network(self, tick: Tick) -> nn.Module:
        return self.net_H if self._is_of_net_H(tick) else self.net

    def mixers(self, tick: Tick) -> dict[str, nn.Module]:
        blocks = cast(Network, self.network(tick)).blocks
        return {
            f"blocks.{i}.hook_resid_pre": cast(Block, block).mixer for i, block in enumerate(blocks)
        }

    def _is_of_net_H(self, tick: Tick) -> bool:
        return self.config.separate_networks and tick.writes == self.answer

    @classmethod
    def evaluation_points(
        cls, config: BlockConfig, state: str, point: type[nn.Module] = nn.Identity
    ) -> nn.Module:
        """`blocks.0.hook_resid_pre` and so on: five places in every block, for every state."""
        return NetworkSites(config, point)

    def readout(self, answer: Float[Tensor, "batch pos d_model"], step: int = 0) -> Readout:
        """Logits over tokens at every cell, and the halting logits; at least float32.

        `step` only names the moment, for the recorder.
        """
        logits = at_least_float32(self.lm_head(answer[:, self.config.prefix :]))
        q = at_least_float32(self.q_head(answer[:, 0]))
        return Readout(logits, q[:, 0], q[:, 1] if self.has_q_continue else None)

    @torch.no_grad()
    def push(self, tick: Tick, state: States, tangents: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `RecursiveModel.push`: every evaluation reads the sum of all states, some with x."""
        h, injection = self.operands(tick, state, x)
        moved = reduce(add, tangents) if len(tangents) > 1 else tangents[0].clone()
        return network_tangent(self.network(tick), h + injection, moved)  # type: ignore[arg-type]

    @property
    def logit_weight(self) -> Tensor:
        return self.lm_head.weight

    @property
    def halting_is_trained(self) -> bool:
        return bool(self.q_head.weight.any(1)[: 2 if self.has_q_continue else 1].any())

    @classmethod
    def evaluation_flops(cls, config: BlockConfig, state: str) -> int:
        """One evaluation of one puzzle; norms and gates count as nothing.

        The same for every state: where there are two networks, they have equally many blocks.

        >>> from trm_interp.core.models.trm_config import TRMConfig
        >>> BlockModel.evaluation_flops(TRMConfig(), "z_H")
        1220542464

        which is 2 x 2 blocks x 3 (512 x 1536 x 97 + 97 x 512 x 512).
        """
        n, d = config.positions, config.d_model
        channels = 3 * d * config.swiglu_width(d) * n
        if config.mixer == "attention":
            mixing = 4 * d * d * n + 2 * n * n * d
        else:
            mixing = 3 * n * config.swiglu_width(n) * d
        return 2 * config.n_layers * (channels + mixing)

    @classmethod
    def tensors_kept(cls, config: BlockConfig) -> int:
        return 4 * config.n_layers

    @classmethod
    def readout_flops(cls, config: BlockConfig) -> int:
        return 2 * config.cells * config.d_model * config.vocab


class State(NamedTuple):
    """What TRM and HRM carry from one supervision step to the next, [batch, pos, d_model] each."""

    z_H: Tensor
    z_L: Tensor


class TwoStateModel(BlockModel):
    """A latent and an answer state, as TRM and HRM have them."""

    State = State
    answer, latent = "z_H", "z_L"

    z_H_init: Tensor  # [d_model], start vectors, never trained
    z_L_init: Tensor

    def operands(self, tick: Tick, state: States, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_L reads z_H and the puzzle; z_H reads z_L alone."""
        if tick.writes == "z_L":
            return state.z_L, state.z_H + x
        return state.z_H, state.z_L

    @classmethod
    def carries_gradient(
        cls, config: BlockConfig, tick: Tick, schedule: Schedule, grad_cycles: int
    ) -> bool:
        """All evaluations of the last H-cycles, or the last of each state in them."""
        is_late = tick.h_cycle >= schedule.h_cycles - grad_cycles
        return is_late and (schedule.is_last_write(tick) or not config.one_step_gradient)
