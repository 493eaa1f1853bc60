"""States that a map leaves where they are, and how it treats what is close to them.

A fixed point of one H-cycle is one of a supervision step too. It is found from a point of a
trajectory by Newton's method, each linear system solved by GMRES on Jacobian-vector products, for
a batch of runs at once; that also finds points that the map itself would run away from. Points of
small speed q = |F(z) - z|^2 / 2 that are not fixed count as slow (Sussillo & Barak 2013).

Eigenvalues are reported, not verdicts. A modulus below 1 says that displacements shrink in the end,
from an infinitesimal neighbourhood: not for how many cycles they grow first (the Jacobian of a
recursion is far from normal), nor how large the neighbourhood is; and models that do converge show
moduli far above 1 away from where they converge to. States also lie on a sphere (every position is
normalised), where the radial directions have eigenvalue 0 whatever the network does.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
from torch import Tensor

from trm_interp.core.tangent import Push
from trm_interp.runtime.shapes import Bool, Float, Int

NEWTON_STEPS, KRYLOV = 20, 30  # at most, and products of each
HALVINGS = 6  # of a Newton step that does not bring F(z) closer to z


class FixedPoints(NamedTuple):
    """One entry a run."""

    state: Float[Tensor, "run dim"]
    q: Float[Tensor, " run"]
    """|F(z) - z|^2 / 2, a sum over coordinates."""
    converged: Bool[Tensor, " run"]
    """RMS of F(z) - z at most the tolerance."""
    steps: Int[Tensor, " run"]
    """Newton steps taken."""


def speed(z: Float[Tensor, "*run dim"], image: Float[Tensor, "*run dim"]) -> Float[Tensor, "*run"]:
    """q = |F(z) - z|^2 / 2 (Sussillo & Barak 2013).

    >>> speed(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 3.0])).item()  # (1 + 4) / 2
    2.5
    """
    return (image - z).square().sum(-1) / 2


@torch.no_grad()
def find_fixed_points(
    push: Push,
    start: Float[Tensor, "run dim"],
    tolerance: float = 1e-8,
    steps: int = NEWTON_STEPS,
    krylov: int = KRYLOV,
) -> FixedPoints:
    """Newton-Krylov from every start: solve (J - I) s = z - F(z), go along s, halve where needed.

    A run ends where RMS(F(z) - z) <= tolerance, where no fraction of the step brings it down (often
    near a local minimum of q, a slow point), or after `steps`. GMRES takes `krylov` products. Use
    float64 for tolerances below 1e-5.

    >>> cosine = lambda z, tangents: (z.cos(), -z.sin() * tangents)
    >>> round(find_fixed_points(cosine, torch.ones(1, 1, dtype=torch.float64)).state.item(), 6)
    0.739085
    """
    runs, dim = start.shape
    z, taken = start.clone(), torch.zeros(runs, dtype=torch.int64, device=start.device)
    no_tangents = start.new_zeros(0, runs, dim)
    residual = push(z, no_tangents)[0] - z
    size = residual.norm(dim=1)
    enough = tolerance * dim**0.5
    going = size > enough
    for _ in range(steps):
        if not going.any():
            break
        direction = _gmres(push, z, -residual, min(krylov, dim))
        better = torch.zeros_like(going)
        for halving in range(HALVINGS + 1):
            trial = torch.where((going & ~better)[:, None], z + direction / 2**halving, z)
            off = push(trial, no_tangents)[0] - trial
            good = going & ~better & (off.norm(dim=1) < (1 - 1e-4 / 2**halving) * size)
            z = torch.where(good[:, None], trial, z)
            residual = torch.where(good[:, None], off, residual)
            better |= good
            if (better | ~going).all():
                break
        taken += better
        size = residual.norm(dim=1)
        going &= better & (size > enough)
    return FixedPoints(z, size.square() / 2, size <= enough, taken)


def _gmres(push: Push, z: Tensor, wanted: Tensor, m: int) -> Tensor:
    """s [run, dim] with (J(z) - I) s nearest to `wanted` among the first m Krylov vectors."""
    runs, dim = z.shape
    length = wanted.norm(dim=1, keepdim=True)
    tiny = torch.finfo(z.dtype).eps
    basis = z.new_zeros(m + 1, runs, dim)
    basis[0] = wanted / length.clamp(min=tiny)
    h = z.new_zeros(runs, m + 1, m)
    for j in range(m):
        w = push(z, basis[j][None])[1][0] - basis[j]
        before = w.norm(dim=1, keepdim=True)
        for _ in range(2):  # twice is enough to stay orthogonal
            along = torch.einsum("jrd,rd->rj", basis[: j + 1], w)
            w = w - torch.einsum("rj,jrd->rd", along, basis[: j + 1])
            h[:, : j + 1, j] += along
        left = w.norm(dim=1, keepdim=True)
        there = left > 10 * tiny * before  # else the space is exhausted
        h[:, j + 1, j] = torch.where(there, left, 0.0)[:, 0]
        basis[j + 1] = torch.where(there, w / torch.where(there, left, 1.0), 0.0)
    first = z.new_zeros(runs, m + 1, 1)
    first[:, 0] = length
    weights = torch.linalg.pinv(h) @ first
    return torch.einsum("rj,jrd->rd", weights[..., 0], basis[:m])


def leading_eigenvalues(
    push: Push, z: Float[Tensor, " dim"], k: int, seed: int = 0, tolerance: float = 1e-6
) -> np.ndarray:
    """complex128 [k]: eigenvalues of the Jacobian at z, largest modulus first.

    Arnoldi (ARPACK) on Jacobian-vector products. NaN for those that did not converge. ValueError
    where k is not between 1 and dim - 2, which is what ARPACK can do.
    """
    dim = len(z)
    if not 1 <= k <= dim - 2:
        raise ValueError(f"k must be between 1 and {dim - 2} for {dim} numbers, got {k}")

    def product(v: np.ndarray) -> np.ndarray:
        tangent = torch.from_numpy(np.ascontiguousarray(v.reshape(-1))).to(z)
        return push(z[None], tangent[None, None])[1][0, 0].cpu().double().numpy()

    operator = LinearOperator((dim, dim), matvec=product, dtype=np.float64)  # type: ignore[call-arg]
    begin = np.random.default_rng([seed, dim]).standard_normal(dim)
    try:
        settings = {"v0": begin, "tol": tolerance, "maxiter": 300}
        values = eigs(operator, k, return_eigenvectors=False, **settings)
    except ArpackNoConvergence as error:
        values = error.eigenvalues
    values = np.asarray(values)[np.argsort(-np.abs(values))][:k]
    return np.concatenate([values, np.full(k - len(values), np.nan, complex)])
