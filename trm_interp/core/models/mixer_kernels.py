"""Triton kernels of the token mixer: forward, gradient of the input, gradients of the weights.

A program holds one tile, all positions of some channels of one sample, and walks through the
hidden rows, so that gate, value and hidden never reach the memory. The gradients compute them
again. Triton is imported when `load` is called; until then the kernels are plain functions.

RMSNorm over the hidden rows multiplies a column by one number, `scale`, which therefore commutes
with the product of `down`: down(sigmoid(g) RMSNorm(g v)) = scale * down(silu(g) v).

Weights come padded with zeros: `gate_up` [2, width, pos] and `down` [pos, width], `pos` a power of
two and `width` a multiple of the hidden rows of a tile. Sums are float32, and added in a fixed
order.
"""

from __future__ import annotations  # triton reads `constexpr` as a word

from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from trm_interp.runtime.errors import UserError

constexpr: TypeAlias = int  # of an argument that is compiled in; triton's own once it is loaded
tl: Any = None  # triton.language
HELPERS = ("tiles_of_weights", "tiles_of_backward", "backward_of_a_tile")
KERNELS = ("mix", "gradient_of_input", "gradients_of_weights")


class Tiles(NamedTuple):
    """What a program of a kernel holds at once; powers of two, at least 16."""

    channels: int
    hidden: int
    warps: int


class Plan(NamedTuple):
    """Tiles of each kernel. Those of `PLANS` were compiled for sm_90: they spill no registers."""

    forward: Tiles
    input: Tiles
    weights: Tiles

    @property
    def hidden(self) -> int:
        """What the padded number of hidden rows is a multiple of."""
        return max(tiles.hidden for tiles in self)


PLANS = (
    Plan(Tiles(64, 64, 8), Tiles(32, 64, 4), Tiles(64, 32, 8)),
    Plan(Tiles(64, 64, 4), Tiles(64, 32, 8), Tiles(64, 32, 8)),
)


def load() -> bool:
    """Import triton and make its kernels of the functions here; whether it only interprets them.

    UserError where triton is missing.
    """
    global tl
    if tl is None:
        try:
            triton, language = import_module("triton"), import_module("triton.language")
        except ImportError as error:
            raise UserError(f"the fused mixer needs triton, which is missing ({error})") from None
        tl = language
        globals()["constexpr"] = tl.constexpr
        for name in HELPERS + KERNELS:
            globals()[name] = triton.jit(globals()[name])
    return type(globals()["mix"]).__name__ == "InterpretedFunction"


def mix(
    x,
    gate_up,
    down,
    out,
    scale,
    n_pos,
    n_channels,
    n_hidden,
    padded,
    eps,
    POS: constexpr,
    CHANNELS: constexpr,
    HIDDEN: constexpr,
    NORMALISED: constexpr,
    OPERAND: constexpr,
):
    """out [sample, pos, channel] and, where NORMALISED, scale [sample, channel]."""
    sample = tl.program_id(0).to(tl.int64)
    pos = tl.arange(0, POS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pos < n_pos)[:, None] & (channel < n_channels)[None, :]
    at = sample * n_pos * n_channels + pos[:, None] * n_channels + channel[None, :]
    tile = tl.load(x + at, mask=inside, other=0.0).to(OPERAND)
    mixed = tl.full((POS, CHANNELS), 0.0, tl.float32)
    squares = tl.full((CHANNELS,), 0.0, tl.float32)
    for start in range(0, padded, HIDDEN):
        row = start + tl.arange(0, HIDDEN)
        of_gate, of_value, of_down = tiles_of_weights(gate_up, down, row, padded, POS, OPERAND)
        gate = tl.dot(of_gate, tile, input_precision="ieee")
        value = tl.dot(of_value, tile, input_precision="ieee")
        product = gate * value
        squares += tl.sum(product * product, 0)
        hidden = (product / (1.0 + tl.exp(-gate))).to(x.dtype.element_ty).to(OPERAND)
        mixed = tl.dot(of_down, hidden, mixed, input_precision="ieee")
    if NORMALISED:
        factor = 1.0 / tl.sqrt(squares / n_hidden + eps)
        mixed = mixed * factor[None, :]
        tl.store(scale + sample * n_channels + channel, factor, mask=channel < n_channels)
    tl.store(out + at, mixed.to(out.dtype.element_ty), mask=inside)


def backward_of_a_tile(tile, upstream, of_gate, of_value, of_down, factor, through):
    """Hidden rows and the gradients of gate and value, all [hidden, channel] in float32.

    `factor` and `through` [channel]: the scale of RMSNorm and what its gradient adds, times g v.
    """
    gate = tl.dot(of_gate, tile, input_precision="ieee")
    value = tl.dot(of_value, tile, input_precision="ieee")
    d_hidden = tl.dot(tl.trans(of_down), upstream, input_precision="ieee") * factor[None, :]
    opened = 1.0 / (1.0 + tl.exp(-gate))
    silu = gate * opened
    shared = through[None, :] * gate * value
    d_gate = d_hidden * value * (opened + silu * (1.0 - opened)) + shared * value
    d_value = d_hidden * silu + shared * gate
    return silu * value * factor[None, :], d_gate, d_value


def tiles_of_weights(gate_up, down, row, padded, POS: constexpr, OPERAND: constexpr):
    """What these hidden rows read and write: gate and value [hidden, pos], down [pos, hidden]."""
    pos = tl.arange(0, POS)
    place = gate_up + row[:, None] * POS + pos[None, :]
    of_down = tl.load(down + pos[:, None] * padded + row[None, :])
    of_value = tl.load(place + padded * POS)
    return tl.load(place).to(OPERAND), of_value.to(OPERAND), of_down.to(OPERAND)


def tiles_of_backward(
    x,
    out,
    scale,
    upstream,
    sample,
    column,
    n_pos,
    n_channels,
    n_hidden,
    POS: constexpr,
    CHANNELS: constexpr,
    NORMALISED: constexpr,
    OPERAND: constexpr,
):
    """Where a tile is, what is inside, its input and upstream gradient, `factor` and `through`."""
    pos = tl.arange(0, POS)
    channel = column * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pos < n_pos)[:, None] & (channel < n_channels)[None, :]
    at = sample * n_pos * n_channels + pos[:, None] * n_channels + channel[None, :]
    tile = tl.load(x + at, mask=inside, other=0.0).to(OPERAND)
    above = tl.load(upstream + at, mask=inside, other=0.0)
    factor = tl.full((CHANNELS,), 1.0, tl.float32)
    through = tl.full((CHANNELS,), 0.0, tl.float32)
    if NORMALISED:
        of_scale = scale + sample * n_channels + channel
        factor = tl.load(of_scale, mask=channel < n_channels, other=0.0)
        mixed = tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
        through = -factor * factor * tl.sum(above.to(tl.float32) * mixed, 0) / n_hidden
    return at, inside, tile, above.to(OPERAND), factor, through


def gradient_of_input(
    x,
    gate_up,
    down,
    out,
    scale,
    upstream,
    d_x,
    n_pos,
    n_channels,
    n_hidden,
    padded,
    POS: constexpr,
    CHANNELS: constexpr,
    HIDDEN: constexpr,
    NORMALISED: constexpr,
    OPERAND: constexpr,
):
    """d_x [sample, pos, channel]."""
    sample = tl.program_id(0).to(tl.int64)
    at, inside, tile, above, factor, through = tiles_of_backward(
        x,
        out,
        scale,
        upstream,
        sample,
        tl.program_id(1),
        n_pos,
        n_channels,
        n_hidden,
        POS,
        CHANNELS,
        NORMALISED,
        OPERAND,
    )
    gradient = tl.full((POS, CHANNELS), 0.0, tl.float32)
    for start in range(0, padded, HIDDEN):
        row = start + tl.arange(0, HIDDEN)
        of_gate, of_value, of_down = tiles_of_weights(gate_up, down, row, padded, POS, OPERAND)
        _, d_gate, d_value = backward_of_a_tile(
            tile, above, of_gate, of_value, of_down, factor, through
        )
        d_gate = d_gate.to(x.dtype.element_ty).to(OPERAND)
        d_value = d_value.to(x.dtype.element_ty).to(OPERAND)
        gradient = tl.dot(tl.trans(of_gate), d_gate, gradient, input_precision="ieee")
        gradient = tl.dot(tl.trans(of_value), d_value, gradient, input_precision="ieee")
    tl.store(d_x + at, gradient.to(d_x.dtype.element_ty), mask=inside)


def gradients_of_weights(
    x,
    gate_up,
    down,
    out,
    scale,
    upstream,
    parts,
    n_samples,
    n_pos,
    n_channels,
    n_hidden,
    padded,
    POS: constexpr,
    CHANNELS: constexpr,
    HIDDEN: constexpr,
    NORMALISED: constexpr,
    OPERAND: constexpr,
):
    """parts [share, 3, width, pos], float32: of gate, value and (transposed) down.

    A program has some hidden rows and every so many-th tile of samples and channels.
    """
    row = tl.program_id(0) * HIDDEN + tl.arange(0, HIDDEN)
    of_gate, of_value, of_down = tiles_of_weights(gate_up, down, row, padded, POS, OPERAND)
    sum_gate = tl.full((HIDDEN, POS), 0.0, tl.float32)
    sum_value = tl.full((HIDDEN, POS), 0.0, tl.float32)
    sum_down = tl.full((HIDDEN, POS), 0.0, tl.float32)
    columns = (n_channels + CHANNELS - 1) // CHANNELS
    for turn in range(tl.program_id(1), n_samples * columns, tl.num_programs(1)):
        sample = (turn // columns).to(tl.int64)
        _, _, tile, above, factor, through = tiles_of_backward(
            x,
            out,
            scale,
            upstream,
            sample,
            turn % columns,
            n_pos,
            n_channels,
            n_hidden,
            POS,
            CHANNELS,
            NORMALISED,
            OPERAND,
        )
        hidden, d_gate, d_value = backward_of_a_tile(
            tile, above, of_gate, of_value, of_down, factor, through
        )
        hidden = hidden.to(x.dtype.element_ty).to(OPERAND)
        d_gate = d_gate.to(x.dtype.element_ty).to(OPERAND)
        d_value = d_value.to(x.dtype.element_ty).to(OPERAND)
        sum_gate = tl.dot(d_gate, tl.trans(tile), sum_gate, input_precision="ieee")
        sum_value = tl.dot(d_value, tl.trans(tile), sum_value, input_precision="ieee")
        sum_down = tl.dot(hidden, tl.trans(above), sum_down, input_precision="ieee")
    share = parts + tl.program_id(1).to(tl.int64) * 3 * padded * POS
    to = share + row[:, None] * POS + tl.arange(0, POS)[None, :]
    tl.store(to, sum_gate)
    tl.store(to + padded * POS, sum_value)
    tl.store(to + 2 * padded * POS, sum_down)


# how they are launched


def forward(
    x: Tensor, gate_up: Tensor, down: Tensor, n_hidden: int, norm_eps: float | None, plan: Plan
) -> tuple[Tensor, Tensor]:
    """(out, scale) for x [sample, pos, channel]; scale is empty without `norm_eps`."""
    how, grid = _launch(x, gate_up, n_hidden, norm_eps, plan.forward)
    out = torch.empty_like(x)
    scale = x.new_empty(x.shape[0], 0 if norm_eps is None else x.shape[2], dtype=torch.float32)
    eps = norm_eps or 0.0
    _kernel("mix")[grid](x, gate_up, down, out, scale, *x.shape[1:], eps=eps, **how)
    return out, scale


def backward(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    out: Tensor,
    scale: Tensor,
    upstream: Tensor,
    n_hidden: int,
    norm_eps: float | None,
    plan: Plan,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gate_up and down, in their dtypes; sums over samples in float32."""
    read = (x, gate_up, down, out, scale, upstream)
    how, grid = _launch(x, gate_up, n_hidden, norm_eps, plan.input)
    d_x = torch.empty_like(x)
    _kernel("gradient_of_input")[grid](*read, d_x, *x.shape[1:], **how)
    how, grid = _launch(x, gate_up, n_hidden, norm_eps, plan.weights)
    _, padded, pos = gate_up.shape
    groups = padded // plan.weights.hidden
    shares = max(1, min(grid[0] * grid[1], _processors(x.device) // groups))
    parts = x.new_empty(shares, 3, padded, pos, dtype=torch.float32)
    _kernel("gradients_of_weights")[groups, shares](*read, parts, *x.shape, **how)
    total = parts.sum(0).to(gate_up.dtype)
    return d_x, total[:2].clone(), total[2].T.contiguous()


def _kernel(name: str) -> Any:
    return globals()[name]


def _launch(
    x: Tensor, gate_up: Tensor, n_hidden: int, norm_eps: float | None, tiles: Tiles
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Arguments that all kernels share, and the grid (samples, tiles of channels)."""
    interpreted = load()
    wide = interpreted or x.dtype == torch.float32  # the interpreter multiplies no bfloat16
    how: dict[str, Any] = {"n_hidden": n_hidden, "padded": gate_up.shape[1]}
    how |= {"POS": gate_up.shape[2], "CHANNELS": tiles.channels, "HIDDEN": tiles.hidden}
    how |= {"NORMALISED": norm_eps is not None, "num_warps": tiles.warps, "num_stages": 2}
    how["OPERAND"] = tl.float32 if wide else tl.bfloat16
    return how, (x.shape[0], -(-x.shape[2] // tiles.channels))


def _processors(device: torch.device) -> int:
    """About how many programs run at once."""
    if device.type != "cuda":
        return 8
    return torch.cuda.get_device_properties(device).multi_processor_count
