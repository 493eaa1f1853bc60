"""Principal components of more states than fit in memory: passes over a stream of chunks.

Subspace iteration on the covariance with a few directions to spare (Halko, Martinsson & Tropp
2011, arXiv 0909.4061), one pass an iteration, two products a chunk: memory is the directions and
the coordinates, whatever the number of states. scikit-learn's IncrementalPCA decomposes every chunk
from scratch, which for states of some thousand numbers is a hundred times slower than reading them.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from trm_interp.runtime.shapes import Float

SPARE = 8  # directions beyond the requested ones
BLOCK = 8_000_000  # bytes of float32 states that are multiplied at once: a cache holds them
ITERATIONS = 2
T = TypeVar("T")


class NotFinite(ValueError):
    """States that are not finite; `chunk` is the first chunk with one."""

    def __init__(self, chunk: int) -> None:
        super().__init__(f"states of chunk {chunk} are not finite")
        self.chunk = chunk


@dataclass(frozen=True)
class Components:
    """`mean` [coordinate] of the pool, orthonormal `axes` [pc, coordinate], `explained` [pc]: the
    share of the pool's variance along each; `n`: states in the pool."""

    mean: Float[np.ndarray, " coordinate"]
    axes: Float[np.ndarray, "pc coordinate"]
    explained: Float[np.ndarray, " pc"]
    n: int

    def project(self, states: Float[np.ndarray, "*run coordinate"]) -> Float[np.ndarray, "*run pc"]:
        """Coordinates of states, 0 at the mean of the pool."""
        return (states.astype(np.float32) - self.mean) @ self.axes.T


class Sums(NamedTuple):
    """Of a chunk's states: `image` [axis, coordinate], sum of (state . axis) state; `total`, sum of
    the states; `squares`, sum of their squares, in the first pass; `n`, how many."""

    image: Tensor
    total: Tensor
    squares: float
    n: int


def first_sums(chunks: Iterable[np.ndarray], n_components: int, seed: int = 0) -> Iterator[Sums]:
    """What the first pass takes from each chunk: it depends on no other one, so that passes over
    parts of a stream may be made apart."""
    return _sums(chunks, lambda width: _random_basis(width, n_components, seed), True)


def _sums(
    chunks: Iterable[np.ndarray], basis_of: Callable[[int], Tensor], first: bool
) -> Iterator[Sums]:
    """`basis_of`: the axes of states with so many coordinates."""
    basis, buffer = torch.empty(0), torch.empty(0)
    for chunk in ahead(chunks):
        if not len(basis):
            basis, buffer = basis_of(chunk.shape[1]), _buffer(chunk.shape[1])
        image, total, squares = torch.zeros_like(basis), torch.zeros(basis.shape[1]), 0.0
        for rows in _blocks(chunk, buffer):
            image.addmm_(basis @ rows.T, rows)
            total += rows.sum(0)
            if first:
                squares += float(rows.flatten().dot(rows.flatten()))
        yield Sums(image, total, squares, len(chunk))


def streamed_pca(
    read: Callable[[], Iterable[np.ndarray]],
    n_components: int,
    seed: int = 0,
    iterations: int = ITERATIONS,
    first: Iterable[Sums] | None = None,
) -> tuple[Components, Float[np.ndarray, "state pc"]]:
    """Components of all states that `read()` gives, and the coordinates of every one of them.

    read: gives the same chunks [state, coordinate] of any float type each time it is called:
    `iterations` + 1 times. Chunks are read ahead in a thread. Signs as scikit-learn has them: the
    largest entry of an axis is positive. ValueError for no states, or more components than a
    state has coordinates; NotFinite for a NaN or infinity. `first`: the sums of the first pass,
    where `first_sums` has made them already.
    """
    basis, total, mean, n = torch.empty(0), 0.0, torch.empty(0), 0
    for turn in range(iterations):
        n = 0
        if turn:
            sums: Iterable[Sums] = _sums(read(), lambda width, basis=basis: basis, False)
        else:
            sums = first_sums(read(), n_components, seed) if first is None else first
        for index, of in enumerate(sums):
            if not math.isfinite(of.squares):
                raise NotFinite(index)
            if not n:
                image = torch.zeros(of.image.shape, dtype=torch.float64)
                mean = torch.zeros(of.image.shape[1], dtype=torch.float64)
            image += of.image
            mean += of.total
            total += of.squares
            n += of.n
        if not n:
            raise ValueError("no states to take components of")
        if turn == 0:
            basis = _random_basis(len(mean), n_components, seed)
            variance = total / n - float((mean / n).square().sum())
        mean /= n
        image -= n * torch.outer(basis.double() @ mean, mean)
        basis = torch.linalg.qr(image.T).Q.T.float().contiguous()
    centre, buffer = mean.float(), _buffer(len(mean))
    points, at = torch.empty(n, len(basis)), 0
    for chunk in ahead(read()):
        for rows in _blocks(chunk, buffer):
            torch.matmul(rows, basis.T, out=points[at : at + len(rows)])
            at += len(rows)
    points -= basis @ centre
    spread = points.double().T @ points.double() / n
    values, turned = torch.linalg.eigh(spread)
    turned = turned.flip(1)[:, :n_components]
    axes = turned.T @ basis.double()
    sign = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    axes, turned = axes * sign, turned * sign.T
    explained = values.flip(0)[:n_components] / max(variance, torch.finfo(torch.float64).tiny)
    components = Components(centre.numpy(), axes.float().numpy(), explained.numpy(), n)
    return components, (points @ turned.float()).numpy()


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, the next one of them fetched while this one is worked on."""
    source = iter(items)
    with ThreadPoolExecutor(1, "ahead") as pool:
        waiting = pool.submit(next, source, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, source, None)
            yield item


def _blocks(chunk: np.ndarray, buffer: Tensor) -> Iterator[Tensor]:
    """The rows in float32, as many at a time as the buffer holds."""
    for block in torch.from_numpy(np.ascontiguousarray(chunk)).split(len(buffer)):
        yield buffer[: len(block)].copy_(block)


def _buffer(width: int) -> Tensor:
    """For as many states as are multiplied at once."""
    return torch.empty(max(1, BLOCK // (4 * width)), width)


def _random_basis(width: int, n_components: int, seed: int) -> Tensor:
    if not 1 <= n_components <= width:
        raise ValueError(f"{n_components} components of states with {width} coordinates")
    generator = torch.Generator().manual_seed(seed)
    size = min(n_components + SPARE, width)
    basis = torch.linalg.qr(torch.randn(width, size, generator=generator)).Q
    return basis.T.contiguous()
