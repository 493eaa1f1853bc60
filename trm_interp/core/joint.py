"""The joint state (z_H, z_L) of a TRM as one vector, and the map of one H-cycle on it.

dim = 2 x pos x d_model: z_H first. One H-cycle is the smallest map that is the same at every
application; a supervision step is `h_cycles` of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_interp.analysis.tangent import push, rms_norm_tangent, swiglu_tangent
from trm_interp.core.clock import schedule
from trm_interp.core.models.layers import Block, Network, SwiGLU, from_the_left
from trm_interp.core.models.trm import TRM, State
from trm_interp.core.training.losses import is_solved


def joined(state: State) -> Tensor:
    """[run, dim] of a state."""
    return torch.cat([state.z_H.flatten(1), state.z_L.flatten(1)], 1)


class CycleMap:
    """One H-cycle of some puzzles: states [run, dim] to states, alone or with tangents.

    `x` is the embedded input [run, pos, d_model], and sets the dtype: float64 for fixed points and
    spectra. A call is the plain model; `push` also moves k tangents, and costs about as much as
    1 + k calls.
    """

    def __init__(self, model: TRM, x: Tensor) -> None:
        self.model, self.x = model, x
        self.evaluations = model.config.l_cycles + 1  # of the network, a call
        self.dim = 2 * x[0].numel()

    def rows(self, which: Tensor) -> "CycleMap":
        """The map of some of the puzzles."""
        return CycleMap(self.model, self.x[which])

    def split(self, z: Tensor) -> State:
        """z_H and z_L [*more, run, pos, d_model] of [*more, run, dim]."""
        z_H, z_L = z.unflatten(-1, (2, *self.x.shape[1:])).unbind(-3)
        return State(z_H, z_L)

    def z_H(self, z: Tensor) -> Tensor:
        return self.split(z).z_H

    @torch.no_grad()
    def right(self, z: Tensor, labels: Tensor) -> Tensor:
        """bool [run]: does the decoded grid equal the labels [run, cell]?"""
        return is_solved(self.model.readout(self.z_H(z))[0].argmax(-1), labels)

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Tensor:
        depth = (1, self.model.config.l_cycles)
        return joined(self.model.advance(self.split(z), self.x, depth=depth)[0])

    @torch.no_grad()
    def push(self, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """The map and its derivative along tangents [k, run, dim]; equals `analysis.tangent.push`
        of a call, which costs half as much again."""
        (z_H, z_L), (dz_H, dz_L) = self.split(z), self.split(tangents)
        for tick in schedule(1, 1, self.model.config.l_cycles):
            if tick.writes == "z_L":
                z_L, dz_L = _network(self.model.net, z_L + (z_H + self.x), dz_L + dz_H)
            else:
                z_H, dz_H = _network(self.model.net, z_H + z_L, dz_H + dz_L)
        images = torch.cat([dz_H.flatten(-2), dz_L.flatten(-2)], -1)
        return joined(State(z_H, z_L)), images


def _network(net: Network, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
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
    up, down = mlp.gate_up.weight.to(x.dtype), mlp.down.weight.to(x.dtype)
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
