"""Fixed points z* = f(z*) of many puzzles at once, each judged on its own, and their gradients.

Plain iteration with damping, or Anderson mixing (Anderson 1965; Walker & Ni 2011, type II). Nothing
that happens to one puzzle depends on the others: coefficients, convergence and rest are its own,
and the number of evaluations is the same for all, whatever converges. A puzzle that has converged
rests: it is evaluated at the same point again, which gives the same value.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from trm_interp.core.models.layers import at_least_float32

Solver = Literal["anderson", "iterate"]
RIDGE = 1e-6  # of Anderson's least squares, relative to the mean square of the differences
Map = Callable[[Tensor], Tensor]


class HowToSolve(NamedTuple):
    """Settings of a solve.

    `memory`: earlier evaluations that Anderson mixes with the last. `damping`: lambda of
    z <- (1 - lambda) z + lambda f(z); 1 is none. `tolerance`: of the relative residual.
    """

    solver: Solver = "anderson"
    memory: int = 5
    damping: float = 1.0
    tolerance: float = 1e-3


class Solution(NamedTuple):
    """Where a solve ended. `residual` [batch] is that of the last evaluation; `evaluations` int64
    [batch] how many came before rest, all of them where it was not reached."""

    value: Tensor
    residual: Tensor
    converged: Tensor
    evaluations: Tensor


class FixedPointSearch:
    """A search that is asked for the next `point`, and told what the map gives there.

    >>> search = FixedPointSearch(torch.zeros(1, 1), HowToSolve(tolerance=1e-6))
    >>> for _ in range(3):
    ...     value = 0.5 * search.point + 1
    ...     search.tell(value)
    >>> round(value.item(), 5), search.converged.tolist(), search.evaluations.tolist()
    (2.0, [True], [3])
    """

    def __init__(self, start: Tensor, how: HowToSolve) -> None:
        self.how, self._point = how, start
        batch, device = len(start), start.device
        self.residual = torch.full((batch,), torch.nan, device=device)  # of the last evaluation
        self.converged = torch.zeros(batch, dtype=torch.bool, device=device)
        self.evaluations = torch.zeros(batch, dtype=torch.int64, device=device)  # before rest
        self._points: list[Tensor] = []  # earlier ones, as many as are mixed
        self._steps: list[Tensor] = []  # f(z) - z at these
        self._next: Callable[[], Tensor] | None = None

    @property
    def point(self) -> Tensor:
        """Where to evaluate the map next. Computed when it is asked for."""
        if self._next is not None:
            self._point, self._next = self._next(), None
        return self._point

    def tell(self, value: Tensor, noise: Tensor | None = None, reapply: bool = False) -> None:
        """The map at the last point is `value`. `noise` is added to the next point.

        With `reapply` that is the damped value, with which plain iteration goes on for all puzzles,
        those at rest included.
        """
        point, step = self.point, value - self.point
        self._judge(step, value)
        resting = self.converged

        def ahead() -> Tensor:
            plain = point + self.how.damping * step
            moved = plain if reapply else self._accelerated(point, step, plain)
            if noise is not None:
                moved = moved + noise
            return moved if reapply else torch.where(along(resting, moved), point, moved)

        self._next = ahead

    @torch.no_grad()
    def _judge(self, step: Tensor, value: Tensor) -> None:
        self.residual = relative_residual(step, value)
        self.evaluations = self.evaluations + ~self.converged
        self.converged = self.converged | (self.residual <= self.how.tolerance)

    def _accelerated(self, point: Tensor, step: Tensor, plain: Tensor) -> Tensor:
        if self.how.solver == "iterate":
            return plain
        self._points = [*self._points, point][-self.how.memory - 1 :]
        self._steps = [*self._steps, step][-self.how.memory - 1 :]
        if len(self._steps) == 1:
            return plain
        return mixed(self._points, self._steps, plain, self.how.damping)


def mixed(points: list[Tensor], steps: list[Tensor], plain: Tensor, damping: float) -> Tensor:
    """Anderson's next point, from at least two points and the steps f(z) - z at them.

    With differences dz_i, ds_i of consecutive ones: c minimises |s - sum c_i ds_i|^2, with a small
    ridge, and the next point is `plain` - sum c_i (dz_i + damping ds_i).
    """
    wide = [at_least_float32(step).flatten(1) for step in steps]
    moved = torch.stack([b - a for a, b in pairwise(wide)], 1)  # [batch, i, dim]
    gram = moved @ moved.mT
    square = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    least = torch.finfo(gram.dtype).tiny  # puzzles at rest, whose differences are all zero
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridge = (RIDGE * square + least)[:, None, None] * identity
    shares, _ = torch.linalg.solve_ex(gram + ridge, moved @ wide[-1][..., None])  # [batch, i, 1]
    moves = [
        (b - a).flatten(1) + damping * (t - s).flatten(1)
        for (a, b), (s, t) in zip(pairwise(points), pairwise(steps), strict=True)
    ]
    change = at_least_float32(torch.stack(moves, 1))
    return plain - (shares.mT @ change)[:, 0].view_as(plain).to(plain.dtype)


def solve(f: Map, start: Tensor, how: HowToSolve, most: int) -> Solution:
    """Search from `start` [batch, ...] with `most` evaluations of `f`.

    The value is f at the last point. With `most` 0 it is the start, of unknown residual (NaN).
    """
    search, value = FixedPointSearch(start, how), start
    for _ in range(most):
        value = f(search.point)
        search.tell(value)
    return Solution(value, search.residual, search.converged, search.evaluations)


def relative_residual(step: Tensor, value: Tensor) -> Tensor:
    """[batch] of |f(z) - z| / |f(z)|, norms over everything else; 0 where both are 0."""
    moved, size = (at_least_float32(of).flatten(1).norm(dim=1) for of in (step, value))
    return moved / size.clamp(min=torch.finfo(size.dtype).tiny)


def along(per_puzzle: Tensor, z: Tensor) -> Tensor:
    """[batch] with as many axes as z [batch, ...]."""
    return per_puzzle.view(-1, *[1] * (z.ndim - 1))


class _Pullback(torch.autograd.Function):
    """The identity, whose backward pass is a function of the gradient that arrives."""

    @staticmethod
    def forward(ctx, value: Tensor, pull: Map) -> Tensor:  # type: ignore[override]
        ctx.pull = pull
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.pull(gradient), None


def with_implicit_gradient(
    value: Tensor, point: Tensor, how: HowToSolve, most: int, residual: Tensor | None = None
) -> Tensor:
    """The same value f(point), whose gradient v is replaced by u = v + J^T u before it goes on.

    J is the derivative of f at `point`, a leaf that requires a gradient. At a fixed point this is
    the implicit function theorem's u = (I - J)^-T v (Bai et al., arXiv 1909.01377). `most`: of the
    products with J^T. `residual` [batch], if given, is filled with that of the backward solve.
    """

    def pull(v: Tensor) -> Tensor:
        solution = solve(lambda u: v + pulled_back(value, point, u), v, how, most)
        if residual is not None:
            residual.copy_(solution.residual)
        return solution.value

    return _Pullback.apply(value, pull)  # type: ignore[return-value]


def with_phantom_gradient(value: Tensor, point: Tensor) -> Tensor:
    """The same, with u = v + J^T v: two terms of Neumann's series for (I - J)^-T v.

    Phantom gradients (Geng et al., arXiv 2111.05177) of two undamped evaluations.
    """
    return _Pullback.apply(  # type: ignore[return-value]
        value, lambda v: v + pulled_back(value, point, v)
    )


def pulled_back(value: Tensor, point: Tensor, u: Tensor, differentiable: bool = False) -> Tensor:
    """J^T u for the derivative J of `value` by `point`; the graph stays."""
    (back,) = torch.autograd.grad(value, point, u, retain_graph=True, create_graph=differentiable)
    return back


def jacobian_penalty(value: Tensor, point: Tensor, noise: Tensor) -> Tensor:
    """[batch]: |J^T e|^2 / n for noise e, n numbers a puzzle. Differentiable.

    For standard normal e its mean is the square of J's Frobenius norm over n (Bai et al., arXiv
    2106.14342, with Hutchinson's estimator).
    """
    back = pulled_back(value, point, noise.to(value.dtype), differentiable=True)
    return at_least_float32(back).flatten(1).square().mean(1)
