"""Layers that the architectures share.

Shapes: `batch`, `pos` (prefix positions, then cells), `d_model`. Weights are float32 and are cast
to the dtype of the input, which is the compute dtype.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_interp.core.models.config import BlockConfig
from trm_interp.runtime.shapes import Float

STD_OF_UNIT_NORMAL_CUT_AT_2 = 0.8796256610342398


@torch.no_grad()
def truncated_normal(tensor: Tensor, std: float, generator: torch.Generator | None = None) -> None:
    """Fill with a normal cut at two standard deviations; `std` is that of what remains."""
    if tensor.is_meta:  # a shape alone
        return
    std /= STD_OF_UNIT_NORMAL_CUT_AT_2
    nn.init.trunc_normal_(tensor, 0.0, std, -2 * std, 2 * std, generator=generator)


def at_least_float32(x: Tensor) -> Tensor:
    """float32, or float64 where the whole run is (for derivatives, fixed points, exponents)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(x: Tensor, dim: int, eps: float, may_overwrite: bool = False) -> Tensor:
    """x over its root mean square along `dim`, in at least float32; no learned scale.

    `may_overwrite`: nobody else reads x, so that without a gradient it may hold the result.
    """
    wide = at_least_float32(x)
    scale = torch.rsqrt(wide.square().mean(dim, keepdim=True) + eps)
    if not torch.is_grad_enabled() and (may_overwrite or wide is not x):
        return wide.mul_(scale).to(x.dtype)
    return (wide * scale).to(x.dtype)


def aligned_rows(weight: Float[Tensor, "n_out n_in"]) -> Float[Tensor, "n_out n_in"]:
    """The same values, rows beginning at multiples of 8 elements.

    That is 16 bytes in bfloat16, which the fast matrix products of a GPU need; 81 cells and their
    prefix give rows of odd length.
    """
    n_in = weight.shape[1]
    return F.pad(weight, (0, -n_in % 8))[:, :n_in] if n_in % 8 else weight


def from_the_left(
    weight: Float[Tensor, "n_out n_in"], x: Float[Tensor, "*batch n_in channel"]
) -> Float[Tensor, "*batch n_out channel"]:
    """The matrix product with every sample; `x` has at least one batch axis.

    The weight is expanded, not copied. `torch.matmul` would fold the batch into the channels, which
    copies transposes of input and output.
    """
    samples = x.flatten(0, -3)
    if weight.is_cuda:  # on a CPU alignment changes nothing and the copy costs 4 %
        weight = aligned_rows(weight)
    product = torch.bmm(weight.expand(samples.shape[0], -1, -1), samples)
    return product.unflatten(0, x.shape[:-2])


class Linear(nn.Module):
    """Bias-free unless asked; float32 weights, cast to the input's dtype.

    Weights are truncated normal with standard deviation 1 / sqrt(fan-in) after the cut.
    """

    held: Tensor | None = None  # the weight as `weights_held` has cast it

    def __init__(self, n_in: int, n_out: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        truncated_normal(self.weight, 1 / math.sqrt(self.weight.shape[1]), generator)

    def weight_in(self, dtype: torch.dtype) -> Float[Tensor, "n_out n_in"]:
        """The weight in the compute dtype."""
        held = self.held
        return held if held is not None and held.dtype == dtype else self.weight.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight_in(x.dtype), bias)

    def over_positions(
        self, x: Float[Tensor, "*batch n_in channel"]
    ) -> Float[Tensor, "*batch n_out channel"]:
        """The same map along positions, not channels."""
        return from_the_left(self.weight_in(x.dtype), x)


@contextmanager
def weights_held(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Cast the weights of all `Linear` once, not at every evaluation inside the block.

    For runs without a gradient, in which no weight changes; the bits are the same. Takes memory for
    a copy of the weights unless `dtype` is theirs.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Linear)]
    layers = [layer for layer in layers if layer.weight.dtype != dtype]
    for layer in layers:
        layer.held = layer.weight.detach().to(dtype)
    try:
        yield
    finally:
        for layer in layers:
            layer.held = None


class SwiGLU(nn.Module):
    """down(silu(gate) * value), along channels (dim -1) or positions (dim -2).

    The normalised form, down(sigmoid(gate) * RMSNorm(gate * value)), is what Muon needs.
    """

    fused: Callable[..., Tensor] | None = None
    """A `fused_mixer.FusedMixer` that computes it where it maps positions; chosen by training."""

    def __init__(self, n: int, config: BlockConfig, dim: int) -> None:
        super().__init__()
        width = config.swiglu_width(n)
        self.gate_up = Linear(n, 2 * width)
        self.down = Linear(width, n)
        self.dim, self.normalised, self.eps = dim, config.normalised_swiglu, config.norm_eps

    def forward(self, x: Tensor) -> Tensor:
        along_channels = self.dim == -1
        if self.fused is not None and not along_channels:
            eps = self.eps if self.normalised else None
            return self.fused(x, self.gate_up.weight, self.down.weight, eps)
        wide = self.gate_up(x) if along_channels else self.gate_up.over_positions(x)
        gate, value = wide.chunk(2, dim=self.dim)
        if self.normalised:
            hidden = torch.sigmoid(gate) * rms_norm(gate * value, self.dim, self.eps, True)
        else:
            hidden = F.silu(gate)
            hidden = hidden * value if torch.is_grad_enabled() else hidden.mul_(value)
        return self.down(hidden) if along_channels else self.down.over_positions(hidden)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention [batch, head, pos, d_head], not causal, in the dtype of its inputs.

    On a CPU the bfloat16 gradient of PyTorch's fused attention takes 2 to 5 times as long as
    through float32 (`experiments/bench.py --only inference`), so there it goes that way.
    """
    dtype = query.dtype
    if dtype == torch.bfloat16 and query.device.type == "cpu" and torch.is_grad_enabled():
        query, key, value = query.float(), key.float(), value.float()
    return F.scaled_dot_product_attention(query, key, value).to(dtype)


class Attention(nn.Module):
    """Multi-head self-attention over all positions, not causal.

    With rotary positions, unless the model learns an embedding of positions.
    """

    cos: Tensor  # [pos, d_head]
    sin: Tensor

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = Linear(config.d_model, 3 * config.d_model)
        self.out = Linear(config.d_model, config.d_model)
        self.rotary = not config.learns_positions
        if not self.rotary:
            return
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
        if self.rotary:
            query, key = self._rotate(query), self._rotate(key)
        mixed = attend(query, key, value)
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

    def __init__(self, config: BlockConfig) -> None:
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
        h = at.hook_resid_mid(rms_norm(h + mixed, self.mixer_norm_dim, self.eps, True))
        out = at.hook_mlp_out(self.mlp(h))
        return at.hook_resid_post(rms_norm(h + out, -1, self.eps, True))


class NetworkSites(nn.Module):
    """The places inside one evaluation of a `Network`, block by block."""

    blocks: nn.ModuleList

    def __init__(self, config: BlockConfig, point: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            BlockSites(config.mixer_site, point) for _ in range(config.n_layers)
        )


class Network(nn.Module):
    """f(h, injection): blocks over the sum of both."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))

    def forward(self, h: Tensor, injection: Tensor, points: Any = None) -> Tensor:
        """`points`: `NetworkSites`, or any module with such `blocks`, where somebody listens."""
        h = h + injection
        for i, block in enumerate(self.blocks):
            h = block(h, None if points is None else points.blocks[i])
        return h
