"""The layers' derivatives along k tangents, written out: what `core.tangent` says of their parts.

Forward mode gives the same and costs half as much again (`core.tangent.push`).
"""

import torch.nn.functional as F
from torch import Tensor

from trm_interp.core.models.layers import Block, Network, SwiGLU, from_the_left
from trm_interp.core.tangent import push, rms_norm_tangent, swiglu_tangent


def network_tangent(net: Network, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    """The blocks of a network at h [run, pos, d_model], the sum of its two operands.

    Also their derivative along dh [k, run, pos, d_model], which is overwritten.
    """
    for block in net.blocks:
        h, dh = _block(block, h, dh)  # type: ignore[arg-type]
    return h, dh


def _block(block: Block, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    """As Block.forward. dh [k, run, pos, d_model] is overwritten."""
    if isinstance(block.mixer, SwiGLU):
        mixed, dmixed = _swiglu(block.mixer, h, dh)
    else:
        mixed, dmixed = push(block.mixer, h, dh)
    h, dh = rms_norm_tangent(h + mixed, dh.add_(dmixed), block.mixer_norm_dim, block.eps)
    out, dout = _swiglu(block.mlp, h, dh)
    return rms_norm_tangent(h + out, dh.add_(dout), -1, block.eps)


def _swiglu(mlp: SwiGLU, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """As SwiGLU.forward."""
    up, down = mlp.gate_up.weight_in(x.dtype), mlp.down.weight_in(x.dtype)
    norm = (mlp.dim, mlp.eps) if mlp.normalised else None
    if mlp.dim == -1:
        gate, value = F.linear(x, up).chunk(2, -1)
        dgate, dvalue = F.linear(dx, up).chunk(2, -1)
        hidden, dhidden = swiglu_tangent(gate, value, dgate, dvalue, norm)
        return F.linear(hidden, down), F.linear(dhidden, down)
    gate, value = from_the_left(up, x).chunk(2, -2)
    dgate, dvalue = from_the_left(up, dx).chunk(2, -2)
    hidden, dhidden = swiglu_tangent(gate, value, dgate, dvalue, norm)
    return from_the_left(down, hidden), from_the_left(down, dhidden)
