"""Do neighbouring labels agree? Moran's I and the purity of neighbourhoods, tested.

A neighbourhood is a sparse matrix of weights [point, point] without a diagonal. The value of either
measure by chance is estimated from shuffled labels, never assumed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse
from sklearn.neighbors import NearestNeighbors

from trm_interp.runtime.shapes import Float, Int

TIMES = 999  # shuffles behind a p-value
AT_ONCE = 64  # shuffles measured together: bounds the memory


class PermutationTest(NamedTuple):
    """`value`: of the data. `chance`: mean over shuffles. `p`: share of shuffles, the data counted
    as one of them, at least as high. NaN where all labels are equal."""

    value: float
    chance: float
    p: float


def nearest(points: Float[np.ndarray, "point dim"], k: int) -> scipy.sparse.csr_matrix:
    """Weight 1 / k for each of the k nearest other points (Euclid; equal points are neighbours).

    ValueError where there are not k others.
    """
    n = len(points)
    if not 1 <= k < n:
        raise ValueError(f"{n} points have at most {n - 1} neighbours, asked for {k}")
    neighbours = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
    ends = np.arange(0, k * n + 1, k)
    return scipy.sparse.csr_matrix((np.full(k * n, 1 / k), neighbours.ravel(), ends), shape=(n, n))


def lattice(rows: int, columns: int) -> scipy.sparse.csr_matrix:
    """Weight 1 between the fields of an image, row by row, that share an edge ("rook").

    >>> lattice(1, 3).toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    field = np.arange(rows * columns).reshape(rows, columns)
    one = np.concatenate([field[:, :-1].ravel(), field[:-1].ravel()])
    other = np.concatenate([field[:, 1:].ravel(), field[1:].ravel()])
    pairs = (np.concatenate([one, other]), np.concatenate([other, one]))
    shape = (rows * columns, rows * columns)
    return scipy.sparse.csr_matrix((np.ones(2 * len(one)), pairs), shape=shape)


def morans_i(
    values: Float[np.ndarray, " point *shuffle"], weights: scipy.sparse.csr_matrix
) -> Float[np.ndarray, "*shuffle"]:
    """Moran's I (1950): n / W sum_ij w_ij a_i a_j / sum_i a_i^2 with a = values less their mean.

    1 / (1 - n) in the mean over all orders, near 1 where neighbours agree, negative where they
    differ. NaN where the values are all equal.

    >>> float(morans_i(np.array([1.0, 0.0, 1.0, 0.0]), lattice(1, 4)))
    -1.0
    """
    centred = values - values.mean(0)
    power = np.square(centred).sum(0)
    products = (centred * (weights @ centred)).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(power > 0, len(values) / weights.sum() * products / power, np.nan)


def purity(
    labels: Int[np.ndarray, " point *shuffle"], weights: scipy.sparse.csr_matrix
) -> Float[np.ndarray, "*shuffle"]:
    """Share of a point's neighbours (by weight) with its own label, in the mean over the points
    that have neighbours; NaN where the labels are all equal.

    >>> round(float(purity(np.array([0, 0, 1, 1]), lattice(1, 4))), 3)  # 1, 1/2, 1/2, 1
    0.75
    """
    pairs = weights.tocoo()
    same = labels[pairs.row] == labels[pairs.col]
    total = np.bincount(pairs.row, pairs.data, minlength=len(labels))
    share = (pairs.data / total[pairs.row]) @ same / (total > 0).sum()
    return np.where((labels == labels[0]).all(0), np.nan, share)


def against_shuffles(
    measure: Callable[[np.ndarray, scipy.sparse.csr_matrix], np.ndarray],
    labels: np.ndarray,
    weights: scipy.sparse.csr_matrix,
    seed: int,
    groups: Int[np.ndarray, " point"] | None = None,
    times: int = TIMES,
) -> PermutationTest:
    """`morans_i` or `purity` against labels that were permuted, within each group if given: then
    what the groups alone explain does not count."""
    value = float(measure(labels, weights))
    if np.isnan(value):
        return PermutationTest(np.nan, np.nan, np.nan)
    rng = np.random.default_rng([seed, 0x5A71, len(labels)])
    members = [np.arange(len(labels))]
    if groups is not None:
        members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    shuffled = np.empty(times)
    for first in range(0, times, AT_ONCE):
        n = min(AT_ONCE, times - first)
        order = np.empty((len(labels), n), np.int64)
        for rows in members:
            order[rows] = rng.permuted(np.tile(rows[:, None], (1, n)), axis=0)
        shuffled[first : first + n] = measure(labels[order], weights)
    p = (1 + (shuffled >= value - 1e-12).sum()) / (1 + times)
    return PermutationTest(value, float(shuffled.mean()), float(p))
