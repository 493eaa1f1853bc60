"""TRM (arXiv 2510.04871): one small network, applied 336 times.

Shapes: `batch`, `pos` (prefix positions, then cells), `d_model`, `vocab`. The states z_H and z_L
have RMS 1 at every position, or over positions, depending on the last norm.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_interp.core.clock import Tick, schedule
from trm_interp.core.config import TRMConfig
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.shapes import Float, Int

STD_OF_UNIT_NORMAL_CUT_AT_2 = 0.8796256610342398


class State(NamedTuple):
    """What a TRM carries from one supervision step to the next, [batch, pos, d_model] each."""

    z_H: Tensor
    z_L: Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """float32, or float64 where the whole run is (for derivatives, fixed points, exponents)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(x: Tensor, dim: int, eps: float) -> Tensor:
    """x over its root mean square along `dim`, in at least float32; no learned scale."""
    wide = at_least_float32(x)
    return (wide * torch.rsqrt(wide.square().mean(dim, keepdim=True) + eps)).to(x.dtype)


def from_the_left(
    weight: Float[Tensor, "n_out n_in"], x: Float[Tensor, "*batch n_in channel"]
) -> Float[Tensor, "*batch n_out channel"]:
    """The matrix product with every sample; `x` has at least one batch axis.

    The weight is expanded, not copied. `torch.matmul` would fold the batch into the channels, which
    copies transposes of input and output.
    """
    samples = x.flatten(0, -3)
    product = torch.bmm(weight.expand(samples.shape[0], -1, -1), samples)
    return product.unflatten(0, x.shape[:-2])


class Linear(nn.Module):
    """Bias-free unless asked; float32 weights, cast to the input's dtype.

    Weights are truncated normal with standard deviation 1 / sqrt(fan-in) after the cut.
    """

    def __init__(self, n_in: int, n_out: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)

    def over_positions(
        self, x: Float[Tensor, "*batch n_in channel"]
    ) -> Float[Tensor, "*batch n_out channel"]:
        """The same map along positions, not channels."""
        return from_the_left(self.weight.to(x.dtype), x)


class SwiGLU(nn.Module):
    """down(silu(gate) * value), along channels (dim -1) or positions (dim -2).

    The normalised form, down(sigmoid(gate) * RMSNorm(gate * value)), is what Muon needs.
    """

    def __init__(self, n: int, config: TRMConfig, dim: int) -> None:
        super().__init__()
        width = config.swiglu_width(n)
        self.gate_up = Linear(n, 2 * width)
        self.down = Linear(width, n)
        self.dim, self.normalised, self.eps = dim, config.normalised_swiglu, config.norm_eps

    def forward(self, x: Tensor) -> Tensor:
        along_channels = self.dim == -1
        wide = self.gate_up(x) if along_channels else self.gate_up.over_positions(x)
        gate, value = wide.chunk(2, dim=self.dim)
        if self.normalised:
            hidden = torch.sigmoid(gate) * rms_norm(gate * value, self.dim, self.eps)
        else:
            hidden = F.silu(gate) * value
        return self.down(hidden) if along_channels else self.down.over_positions(hidden)


class Attention(nn.Module):
    """Multi-head self-attention over all positions, not causal, with rotary positions."""

    cos: Tensor  # [pos, d_head]
    sin: Tensor

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = Linear(config.d_model, 3 * config.d_model)
        self.out = Linear(config.d_model, config.d_model)
        d_head = config.d_model // config.n_heads
        rate = config.rope_base ** (-torch.arange(0, d_head, 2, dtype=torch.float32) / d_head)
        angle = torch.outer(torch.arange(config.positions, dtype=torch.float32), rate)
        angle = torch.cat([angle, angle], dim=-1)  # [pos, d_head]
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, pos, d_model = x.shape
        heads = self.qkv(x).view(batch, pos, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = heads  # [batch, head, pos, d_head]
        mixed = F.scaled_dot_product_attention(self._rotate(query), self._rotate(key), value)
        return self.out(mixed.transpose(1, 2).reshape(batch, pos, d_model))

    def _rotate(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        first, second = wide.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return (wide * self.cos + turned * self.sin).to(x.dtype)


class BlockSites(nn.Module):
    """The places inside a block that a recorder can listen at; identities here."""

    hook_resid_pre: nn.Module
    hook_resid_mid: nn.Module
    hook_mlp_out: nn.Module
    hook_resid_post: nn.Module

    def __init__(self, mixer_site: str, point: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.mixer_site = mixer_site
        for name in ("resid_pre", mixer_site[5:], "resid_mid", "mlp_out", "resid_post"):
            self.add_module(f"hook_{name}", point())

    def hook_mixer(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.mixer_site)(x)


class Block(nn.Module):
    """Post-norm: h = norm(h + mix(h)); h = norm(h + mlp(h)).

    The token-mixing variant takes its first norm over positions, as the public code does.
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        attention = config.mixer == "attention"
        self.mixer_norm_dim = -1 if attention else -2
        self.mixer = Attention(config) if attention else SwiGLU(config.positions, config, dim=-2)
        self.mlp = SwiGLU(config.d_model, config, dim=-1)
        self.sites = BlockSites(config.mixer_site)

    def forward(self, h: Tensor, sites: BlockSites | None = None) -> Tensor:
        at = self.sites if sites is None else sites
        h = at.hook_resid_pre(h)
        mixed = at.hook_mixer(self.mixer(h))
        h = at.hook_resid_mid(rms_norm(h + mixed, self.mixer_norm_dim, self.eps))
        out = at.hook_mlp_out(self.mlp(h))
        return at.hook_resid_post(rms_norm(h + out, -1, self.eps))


class Network(nn.Module):
    """f(h, injection): the 2-layer network that every tick evaluates."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))

    def forward(self, h: Tensor, injection: Tensor, sites: nn.ModuleList | None = None) -> Tensor:
        h = h + injection
        for i, block in enumerate(self.blocks):
            h = block(h, None if sites is None else sites[i])
        return h


class TRM(nn.Module):
    """A Tiny Recursive Model: embedding, one network, two read-outs.

    `embed` the puzzle once, take an `initial_state`, `advance` it by supervision steps, `readout`
    whenever wanted. The compute dtype is that of `embed`'s result; weights stay float32.
    """

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

        def fill(tensor: Tensor, std: float) -> None:
            std /= STD_OF_UNIT_NORMAL_CUT_AT_2
            nn.init.trunc_normal_(tensor, 0.0, std, -2 * std, 2 * std, generator=generator)

        for module in self.modules():
            if isinstance(module, Linear):
                fill(module.weight, 1 / math.sqrt(module.weight.shape[1]))
        fill(self.token_embedding, 1 / math.sqrt(self.config.d_model))
        fill(self.z_H_init, 1.0)
        fill(self.z_L_init, 1.0)
        self.q_head.weight.zero_()
        if self.q_head.bias is not None:
            self.q_head.bias.fill_(-5.0)

    def embed(
        self, tokens: Int[Tensor, "batch cell"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch pos d_model"]:
        """The injected input x = sqrt(d) [prefix, embedding of tokens], in the compute dtype."""
        scale = math.sqrt(self.config.d_model)
        x = F.embedding(tokens.long(), scale * self.token_embedding)
        if self.prefix_embedding is not None:  # only the first prefix position is not zero
            prefix = F.pad(scale * self.prefix_embedding[None], (0, 0, 0, self.config.prefix - 1))
            x = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
        return x.to(dtype)

    def initial_state(self, x: Float[Tensor, "batch pos d_model"]) -> State:
        """The untrained start vectors at every position, in x's shape and dtype."""
        z_H, z_L = (init.to(x.dtype).expand_as(x) for init in (self.z_H_init, self.z_L_init))
        return State(z_H, z_L)

    def evaluate(self, tick: Tick, h: Tensor, injection: Tensor) -> Tensor:
        """One network evaluation. The recorder overrides this to listen at `tick`."""
        return self.net(h, injection)

    def advance(
        self,
        state: State,
        x: Tensor,
        step: int = 0,
        grad_cycles: int | None = None,
        depth: tuple[int, int] | None = None,
    ) -> tuple[State, list[Tensor]]:
        """One supervision step: the new state, and z_H after each of its H-cycles.

        `step` only names the ticks. `grad_cycles` is how many of the last H-cycles may carry
        gradient: None all, 1 in training. `depth` is (H_cycles, L_cycles) where they are not the
        model's own. Nothing is detached here.
        """
        z_H, z_L = state
        per_cycle: list[Tensor] = []
        h_cycles, l_cycles = depth or (self.config.h_cycles, self.config.l_cycles)
        with_grad = h_cycles if grad_cycles is None else grad_cycles
        enabled = torch.is_grad_enabled()
        for tick in schedule(1, h_cycles, l_cycles):
            tick = tick._replace(step=step)
            last_cycles = tick.h_cycle >= h_cycles - with_grad
            with torch.set_grad_enabled(enabled and last_cycles):
                if tick.writes == "z_L":
                    z_L = self.evaluate(tick, z_L, z_H + x)
                else:
                    z_H = self.evaluate(tick, z_H, z_L)
                    per_cycle.append(z_H)
        return State(z_H, z_L), per_cycle

    def readout(
        self, z_H: Float[Tensor, "batch pos d_model"], step: int = 0
    ) -> tuple[Float[Tensor, "batch cell vocab"], Float[Tensor, " batch"]]:
        """Logits over tokens at every cell, and the halting logit q_halt; at least float32.

        `step` only names the moment, for the recorder.
        """
        logits = at_least_float32(self.lm_head(z_H[:, self.config.prefix :]))
        return logits, at_least_float32(self.q_head(z_H[:, 0]))[:, 0]

    def forward(
        self,
        state: State,
        tokens: Int[Tensor, "batch cell"],
        dtype: torch.dtype = torch.float32,
        depth: tuple[int, int] | None = None,
    ) -> tuple[State, Tensor, Tensor]:
        """One supervision step as trained: gradient through the last H-cycle only."""
        x = self.embed(tokens, dtype)
        state, _ = self.advance(state, x, grad_cycles=1, depth=depth)
        return state, *self.readout(state.z_H)
