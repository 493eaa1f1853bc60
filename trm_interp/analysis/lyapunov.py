"""Finite-time Lyapunov exponents: how fast the k fastest small displacements grow along a run."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.tangent import Push
from trm_interp.runtime.shapes import Float


class Growth(NamedTuple):
    """What tangents did along a run. Exponents are means of `log_stretch` over time."""

    state: Float[Tensor, "run dim"]
    """Where the runs ended."""
    log_stretch: Float[np.ndarray, "interval run k"]
    """Growth of the first k displacements between re-orthonormalisations: log |diag R|, in nats."""
    maps: list[int]
    """Applications of the map in each interval."""

    def exponents(self, evaluations: int = 1, first: int = 0) -> Float[np.ndarray, "run k"]:
        """Nats per evaluation, from interval `first` on, leading one first.

        `evaluations`: of the network in one application of the map. The average over all of a run
        understates the leading exponent: random first tangents still have to turn, which costs
        about log(dim) / 2 nats in all. An average over the later half does not.
        """
        return self.log_stretch[first:].sum(0) / (evaluations * sum(self.maps[first:]))


@torch.no_grad()
def lyapunov(
    push: Push,
    start: Float[Tensor, "run dim"],
    k: int,
    maps: int,
    every: int = 1,
    seed: int = 0,
    watch: Callable[[int, Tensor], None] = lambda done, state: None,
) -> Growth:
    """Push k tangents along `maps` applications of a map, with a QR after each `every` of them.

    The method of Benettin et al. (1980), for a batch of runs: tangents start as random orthonormal
    vectors (`seed`; the same for all runs), the logarithms of R's diagonal add up. Works in the
    dtype of `start`. -inf where a direction is contracted to nothing. `watch` is called after each
    map with how many are done and the state. ValueError where k is not between 1 and dim.

    >>> halve = lambda z, tangents: (z / 2, tangents / 2)  # its own derivative
    >>> lyapunov(halve, torch.ones(1, 3), k=2, maps=4).exponents().round(4).tolist()
    [[-0.6931, -0.6931]]
    """
    runs, dim = start.shape
    if not 1 <= k <= dim:
        raise ValueError(f"k must be between 1 and the {dim} numbers of the state, got {k}")
    if maps < 1 or every < 1:
        raise ValueError(f"maps and every must be at least 1, got {maps} and {every}")
    random = torch.randn(dim, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    first = torch.linalg.qr(random).Q.to(start)
    tangents = first.T[:, None].expand(k, runs, dim)
    stretched: list[Tensor] = []
    intervals: list[int] = []
    z, since = start, 0
    for done in range(1, maps + 1):
        z, tangents = push(z, tangents)
        since += 1
        watch(done, z)
        if since == every or done == maps:
            q, r = torch.linalg.qr(tangents.permute(1, 2, 0))
            tangents = q.permute(2, 0, 1)
            stretched.append(torch.diagonal(r, dim1=1, dim2=2).abs().log())
            intervals.append(since)
            since = 0
    return Growth(z, torch.stack(stretched).cpu().double().numpy(), intervals)
