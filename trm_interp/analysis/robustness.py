"""How large a push does an end state survive? Return to it after noise, in chosen directions.

A state is a row of numbers, and a map takes it on; nothing here knows the network. Sizes are RMS
over all numbers of a state, so that a direction of RMS 1 times epsilon is noise of RMS epsilon.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from trm_interp.core.counter import normal
from trm_interp.core.tangent import Push
from trm_interp.runtime.shapes import Bool, Float, Int

INSIDE, BELOW, ABOVE = "", "below", "above"  # of an epsilon_50: measured, or only bounded
OVERSAMPLED = 2  # further vectors of a subspace iteration, with which the wanted ones converge


def random_directions(
    runs: Int[Tensor, " run"], n: int, dim: int, seed: int
) -> Float[Tensor, "run n dim"]:
    """Random directions of RMS 1, `n` a run.

    Named by seed, number of the run and of the direction alone: the same in any company.
    """
    drawn = normal(dim, seed, runs[:, None], torch.arange(n, device=runs.device))
    return drawn / drawn.square().mean(-1, keepdim=True).sqrt()


class Leading(NamedTuple):
    """Of the Jacobian at one state a run: eigenvalues, largest modulus first, and directions."""

    values: np.ndarray  # complex [run, k]
    directions: Float[Tensor, "run k dim"]
    """Of RMS 1: the eigenvector of a real eigenvalue, and of a complex pair the real part for one
    and the imaginary part for the other, which span the plane in which it turns."""


@torch.no_grad()
def leading_directions(
    push: Push, z: Float[Tensor, "run dim"], k: int, iterations: int = 30, seed: int = 0
) -> Leading:
    """The k leading eigenvectors of a map's Jacobian at z, for a batch of runs.

    Power iteration of a few vectors together (orthogonal iteration, with OVERSAMPLED more than k),
    then the eigenvectors of the Jacobian within the space that they span (Rayleigh-Ritz). Errors
    fall by |lambda_(k + 3) / lambda_k| an iteration: eigenvalues of nearly equal modulus are not
    told apart, the space that they span is. ValueError where k is not between 1 and dim.
    """
    runs, dim = z.shape
    if not 1 <= k <= dim or iterations < 1:
        raise ValueError(f"k must be between 1 and {dim}, iterations above 0: {k}, {iterations}")
    m = min(k + OVERSAMPLED, dim)
    random = torch.randn(dim, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(random).Q.to(z).expand(runs, dim, m)
    for _ in range(iterations):
        image = push(z, basis.permute(2, 0, 1))[1].permute(1, 2, 0)  # [run, dim, m]
        basis = torch.linalg.qr(image).Q
    image = push(z, basis.permute(2, 0, 1))[1].permute(1, 2, 0)
    within = (basis.mT @ image).cpu().double().numpy()
    values, vectors = np.linalg.eig(within)
    order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(values, order, 1)
    vectors = np.take_along_axis(vectors, order[:, None], 2)
    second = np.imag(values)[:, None] < 0  # of a pair
    parts = np.where(second, np.imag(vectors), np.real(vectors))
    directions = (basis @ torch.from_numpy(parts).to(z)).mT
    size = directions.square().mean(-1, keepdim=True).sqrt()
    return Leading(values, directions / size.clamp(min=1e-30))


@torch.no_grad()
def returns(
    ends: Float[Tensor, "run dim"],
    directions: Float[Tensor, "run direction dim"],
    epsilons: Sequence[float],
    go_on: Callable[[Tensor, Tensor], Tensor],
    judge: Callable[[Tensor, Tensor], Tensor],
    batch_size: int,
    watch: Callable[[int], None] = lambda done: None,
) -> Bool[np.ndarray, "run epsilon direction measure"]:
    """Push every end by each epsilon along each of its directions, go on, and judge what it became.

    `go_on` takes states [row, dim], and for each the number of the run that it continues [row], to
    later states; `judge` says of those whatever is asked, bool [row, measure]. `batch_size` rows
    are taken together; `watch` is called with how many are done.
    """
    shape = (len(ends), len(epsilons), directions.shape[1])
    sizes = torch.tensor(list(epsilons), dtype=ends.dtype, device=ends.device)
    rows = torch.arange(int(np.prod(shape)), device=ends.device)
    judged = []
    for part in rows.split(batch_size):
        run, at = part // (shape[1] * shape[2]), part % shape[2]
        size = sizes[part // shape[2] % shape[1]]
        pushed = ends[run] + size[:, None] * directions[run, at]
        judged.append(judge(go_on(pushed, run), run).cpu().numpy())
        watch(int(part[-1]) + 1)
    of_rows = np.concatenate(judged)
    return of_rows.reshape(*shape, of_rows.shape[1])


def epsilon_50(
    epsilons: Float[np.ndarray, " epsilon"], shares: Float[np.ndarray, "run epsilon"]
) -> tuple[Float[np.ndarray, " run"], list[str]]:
    """The epsilon at which half of the pushes do not return, of every run, and where it lies.

    The shares that return are made to fall with epsilon (isotonic regression), and the place where
    they reach one half is interpolated in log epsilon. BELOW: it is at most the smallest epsilon,
    ABOVE: it is beyond the largest; those are given as the value.

    >>> epsilon_50(np.array([0.1, 0.4, 1.6]), np.array([[1.0, 1.0, 0.0], [1.0, 0.9, 0.8]]))
    (array([0.8, 1.6]), ['', 'above'])
    """
    logs, values, where = np.log(epsilons), [], []
    for share in shares:
        falling = IsotonicRegression(increasing=False).fit_transform(logs, share)
        at = int((falling <= 0.5).argmax())
        if falling[at] > 0.5:
            values.append(epsilons[-1])
            where.append(ABOVE)
        elif at == 0:
            values.append(epsilons[0])
            where.append(BELOW)
        else:
            part = (falling[at - 1] - 0.5) / (falling[at - 1] - falling[at])
            crossing = np.exp(logs[at - 1] + part * (logs[at] - logs[at - 1]))
            values.append(np.round(crossing, 12))
            where.append(INSIDE)
    return np.array(values, np.float64), where


def ranked(values: Float[np.ndarray, " run"], where: Sequence[str]) -> Float[np.ndarray, " run"]:
    """The values for rank correlations: those that are only bounded lie outside all others, tied.

    >>> ranked(np.array([0.1, 0.5, 2.0]), [BELOW, INSIDE, ABOVE]).tolist()
    [0.0, 0.5, inf]
    """
    beyond = {BELOW: 0.0, ABOVE: np.inf}
    return np.array([beyond.get(w, v) for v, w in zip(values, where, strict=True)], np.float64)
