"""The token mixer in one pass: its gate, value and hidden rows never reach the memory of a GPU.

`FusedMixer` stands in for the products of a `layers.SwiGLU` over positions. It is an operator of
its own, which torch.compile keeps as it is. Where a kernel fails, in a compiler or at run time,
the operator computes the same with plain PyTorch from then on: see `failures`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_interp.core.models import mixer_kernels as kernels
from trm_interp.core.models.layers import at_least_float32
from trm_interp.core.models.mixer_kernels import PLANS, Plan, Tiles
from trm_interp.runtime.errors import first_line, is_out_of_memory
from trm_interp.runtime.shapes import Float

MOST_POSITIONS = 256  # of a tile, which holds all of them
failures: list[str] = []  # why the kernels are no longer used in this process
Result = TypeVar("Result")


@dataclass(frozen=True)
class FusedMixer:
    """down(silu(gate) * value) along positions, or its normalised form, with kernels of this plan.

    float32 and bfloat16, at most 256 positions; one derivative, no forward mode.
    """

    plan: Plan = PLANS[0]

    def __call__(
        self,
        x: Float[Tensor, "*batch pos channel"],
        gate_up: Float[Tensor, "n_gate_up pos"],
        down: Float[Tensor, "pos n_hidden"],
        norm_eps: float | None = None,
    ) -> Float[Tensor, "*batch pos channel"]:
        """`norm_eps`: that of RMSNorm where the form is the normalised one, else None."""
        n_pos, n_hidden = down.shape
        pos = max(16, 1 << (n_pos - 1).bit_length())
        rows = -n_hidden % self.plan.hidden
        both = F.pad(gate_up.to(x.dtype).unflatten(0, (2, n_hidden)), (0, pos - n_pos, 0, rows))
        back = F.pad(down.to(x.dtype), (0, rows, 0, pos - n_pos))
        samples = x.flatten(0, -3).contiguous()
        tiles = [n for of in self.plan for n in of]
        out, _ = _mix(samples, both, back, n_hidden, norm_eps, tiles)
        return out.unflatten(0, x.shape[:-2])


def _or_plain(fused: Callable[[], Result], plain: Callable[[], Result]) -> Result:
    """What the kernels give; after a failure, which is noted, always what plain PyTorch gives."""
    if not failures:
        try:
            return fused()
        except Exception as error:  # of triton, of its compiler, of the driver
            if is_out_of_memory(error):
                raise
            failures.append(first_line(error)[:150])
    return plain()


def _plan(tiles: Sequence[int]) -> Plan:
    return Plan(*(Tiles(*tiles[i : i + 3]) for i in (0, 3, 6)))


@torch.library.custom_op("trm_interp::mix_positions", mutates_args=())
def _mix(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    n_hidden: int,
    norm_eps: float | None,
    tiles: list[int],
) -> tuple[Tensor, Tensor]:
    given: list[Any] = [*(t.contiguous() for t in (x, gate_up, down)), n_hidden, norm_eps]
    return _or_plain(
        lambda: kernels.forward(*given, plan=_plan(tiles)), lambda: plain_forward(*given)
    )


@torch.library.custom_op("trm_interp::mix_positions_backward", mutates_args=())
def _mix_backward(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    out: Tensor,
    scale: Tensor,
    upstream: Tensor,
    n_hidden: int,
    norm_eps: float | None,
    tiles: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = [t.contiguous() for t in (x, gate_up, down, out, scale, upstream)]
    given: list[Any] = [*tensors, n_hidden, norm_eps]
    return _or_plain(
        lambda: kernels.backward(*given, plan=_plan(tiles)), lambda: plain_backward(*given)
    )


@_mix.register_fake
def _(x, gate_up, down, n_hidden, norm_eps, tiles):
    columns = 0 if norm_eps is None else x.shape[2]
    return x.new_empty(x.shape), x.new_empty(x.shape[0], columns, dtype=torch.float32)


@_mix_backward.register_fake
def _(x, gate_up, down, out, scale, upstream, n_hidden, norm_eps, tiles):
    return x.new_empty(x.shape), x.new_empty(gate_up.shape), x.new_empty(down.shape)


def _keep(ctx, inputs, output) -> None:
    x, gate_up, down, *ctx.how = inputs
    out, scale = output
    ctx.save_for_backward(x, gate_up, down, out, scale)
    ctx.mark_non_differentiable(scale)


def _differentiate(ctx, upstream: Tensor, _: Tensor | None):
    gradients = _mix_backward(*ctx.saved_tensors, upstream, *ctx.how)
    return *gradients, None, None, None


_mix.register_autograd(_differentiate, setup_context=_keep)


# the same with plain PyTorch, and as a statement of what the kernels compute


def plain_forward(
    x: Tensor, gate_up: Tensor, down: Tensor, n_hidden: int, norm_eps: float | None
) -> tuple[Tensor, Tensor]:
    """As `mixer_kernels.forward`, in the dtype of x."""
    gate, value = _gate_and_value(x, gate_up)
    mixed = (down @ (F.silu(gate) * value))[:, : x.shape[1]]
    if norm_eps is None:
        return mixed.contiguous(), x.new_empty(x.shape[0], 0, dtype=torch.float32)
    squares = at_least_float32(gate * value).square().sum(1)
    scale = torch.rsqrt(squares / n_hidden + norm_eps)
    return (mixed * scale[:, None]).to(x.dtype).contiguous(), scale


def plain_backward(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    out: Tensor,
    scale: Tensor,
    upstream: Tensor,
    n_hidden: int,
    norm_eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `mixer_kernels.backward`."""
    gate, value = _gate_and_value(x, gate_up)
    above = F.pad(upstream, (0, 0, 0, down.shape[0] - x.shape[1]))
    factor, through = 1.0, 0.0
    if norm_eps is not None:
        factor = scale[:, None].to(x.dtype)
        through = -(factor**2) * (upstream * out).sum(1, keepdim=True) / n_hidden
    d_hidden = (down.T @ above) * factor
    opened = torch.sigmoid(gate)
    silu = gate * opened
    shared = through * gate * value
    d_gate = d_hidden * value * (opened + silu * (1 - opened)) + shared * value
    d_value = d_hidden * silu + shared * gate
    both = torch.stack([d_gate, d_value])  # [2, sample, hidden, channel]
    wide = F.pad(x, (0, 0, 0, gate_up.shape[2] - x.shape[1]))
    d_x = (gate_up[0].T @ d_gate + gate_up[1].T @ d_value)[:, : x.shape[1]]
    d_gate_up = torch.einsum("tshc,spc->thp", both, wide)
    d_down = torch.einsum("spc,shc->ph", above, silu * value * factor)
    return d_x.contiguous(), d_gate_up.contiguous(), d_down.contiguous()


def _gate_and_value(x: Tensor, gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """[sample, hidden, channel] each."""
    wide = F.pad(x, (0, 0, 0, gate_up.shape[2] - x.shape[1]))
    return gate_up[0] @ wide, gate_up[1] @ wide
