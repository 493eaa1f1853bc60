"""How a map moves small displacements: k tangents at once with one primal evaluation.

A map takes states [run, dim] to states [run, dim], every run on its own. Its push-forward also
takes k displacements of each state to their images under the map's derivative there. `pushforward`
makes one for any map out of torch's forward mode. The tangents of the parts of a network are
written out below because forward mode evaluates every non-linearity once per tangent: these do so
once, and leave the matrix products to dominate.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from trm_interp.runtime.shapes import Float

Map = Callable[[Tensor], Tensor]
Push = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(states [run, dim], tangents [k, run, dim]) -> the images of both."""


@torch.no_grad()
def push(
    advance: Map, z: Float[Tensor, "*shape"], tangents: Float[Tensor, " k *shape"]
) -> tuple[Float[Tensor, "*out"], Float[Tensor, " k *out"]]:
    """advance(z), and the derivative of `advance` at z applied to each of the k tangents.

    Forward mode (torch.func.jvp), batched over tangents, exact up to rounding. Attention takes its
    math path, which alone has forward derivatives.
    """
    return push_together(advance, (z,), (tangents,))


@torch.no_grad()
def push_together(
    advance: Callable[..., Tensor], states: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """`push` of a map of several states, each of which has k tangents [k, *shape of the state]."""

    def along(*tangent: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(advance, tuple(states), tangent)  # type: ignore[return-value]

    if not len(tangents[0]):  # which forward mode refuses
        image = advance(*states)
        return image, image.new_zeros(0, *image.shape)
    with sdpa_kernel(SDPBackend.MATH):
        return vmap(along, out_dims=(None, 0))(*tangents)  # type: ignore[arg-type]


def pushforward(advance: Map) -> Push:
    """The push-forward of any map that torch can differentiate.

    >>> square = pushforward(lambda z: z**2)
    >>> [x.tolist() for x in square(torch.tensor([[3.0]]), torch.tensor([[[1.0]], [[2.0]]]))]
    [[[9.0]], [[[6.0]], [[12.0]]]]
    """
    return lambda z, tangents: push(advance, z, tangents)


def rms_norm_tangent(
    x: Float[Tensor, "*shape"], dx: Float[Tensor, " k *shape"], dim: int, eps: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, " k *shape"]]:
    """y = x r with r = (mean x^2 + eps)^(-1/2) along `dim`, and dy = r (dx - y mean(y dx)).

    `dim` counts from the end. `dx` is overwritten.
    """
    r = torch.rsqrt(x.square().mean(dim, keepdim=True) + eps)
    y = x * r
    along = (dx * y).mean(dim, keepdim=True)
    return y, dx.addcmul_(along, y, value=-1).mul_(r)


def swiglu_tangent(
    gate: Float[Tensor, "*shape"],
    value: Float[Tensor, "*shape"],
    dgate: Float[Tensor, " k *shape"],
    dvalue: Float[Tensor, " k *shape"],
    norm: tuple[int, float] | None = None,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, " k *shape"]]:
    """silu(gate) * value and its tangents, with silu' = s (1 + gate (1 - s)), s = sigmoid(gate).

    `norm` (dim, eps): the normalised form, sigmoid(gate) * RMSNorm(gate * value) along dim.
    """
    s = torch.sigmoid(gate)
    if norm is None:
        slope = s * (1 + gate * (1 - s)) * value
        silu = F.silu(gate)
        return silu * value, (dgate * slope).addcmul_(dvalue, silu)
    inner, dinner = rms_norm_tangent(gate * value, dgate * value + dvalue * gate, *norm)
    return s * inner, (dgate * (s * (1 - s) * inner)).addcmul_(dinner, s)
