"""Single linkage of many points without all pairs: groups that chains of short links join.

Points are sorted into cells of a grid in a few directions, and within a cell gathered into balls,
whose points are surely joined. A k-d tree finds the balls that are close, and only their points are
compared: distances along few directions are at most those along all. Where few directions tell few
balls apart, as in thousands of dimensions, products of matrices do it in place of the tree.
"""

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from trm_interp.runtime.shapes import Float, Int

GRID, TREE = 4, 12  # directions of the grid, and of the tree
ROOM = 1.001  # of a link, where points are only kept apart if they surely are
TOLD = 1 / 64  # share of the pairs of balls above which products cost less than the tree
LONELY = 64  # points in a row that are by themselves, before a cell is given up
BLOCK, TILE = 1 << 22, 512  # numbers, and rows of a product, at once
Points = Float[np.ndarray, "point number"]
Pairs = Int[np.ndarray, "pair 2"]


def linked(z: Points, link: float) -> Int[np.ndarray, " point"]:
    """A number for every group of points that chains of links at most `link` long (Euclid) join.

    n points in a few tight groups take about n log n steps. Points that are by themselves are
    compared by products, all pairs of them at worst. Where very many are about half a link apart,
    all of these are compared one by one.

    >>> linked(np.array([[0.0], [5.0], [1.0], [1.9]], np.float32), 1.0).tolist()
    [0, 1, 0, 0]
    """
    width, link = z.shape[1], max(link, 1e-12)
    drawn = np.random.default_rng(0).standard_normal((width, min(width, TREE)))
    places = z.astype(np.float64) @ np.linalg.qr(drawn)[0]
    ball, leaders = _balls(z, places[:, :GRID], link)
    close = _close(z, places, leaders, 2 * ROOM * link)
    distance = _distances(z, leaders[close])
    group = _components(len(leaders), close[distance <= link])
    sizes = np.bincount(ball)
    members = np.split(np.argsort(ball, kind="stable"), np.cumsum(sizes)[:-1])
    unsure = close[
        (distance > link) & (distance <= 2 * ROOM * link) & (sizes[close] > 1).any(axis=1)
    ]
    for a, b in unsure[group[unsure[:, 0]] != group[unsure[:, 1]]].tolist():
        if group[a] != group[b] and _touch(z[members[a]], z[members[b]], link):
            group[group == group[b]] = group[a]
    return np.unique(group, return_inverse=True)[1][ball]


def _balls(
    z: Points, places: Points, link: float
) -> tuple[Int[np.ndarray, " point"], Int[np.ndarray, " ball"]]:
    """A ball for every point, and the point that each is around: within a cell any that is in no
    ball yet, with all that are at most half a link from it; or with none, where many had none."""
    _, cell, sizes = np.unique(
        np.floor(places / link).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    order, first = np.argsort(cell.ravel(), kind="stable"), 0
    ball, leaders, rng = np.empty(len(z), np.int64), list[int](), np.random.default_rng(0)
    for size in sizes.tolist():
        left, lonely = rng.permutation(order[first : first + size]), 0
        rows, first = z[left], first + size
        while len(left) and lonely < LONELY:
            within = np.square(rows - rows[0]).sum(1) <= (link / 2) ** 2
            ball[left[within]] = len(leaders)
            leaders.append(int(left[0]))
            lonely = 0 if within.sum() > 1 else lonely + 1
            left, rows = left[~within], rows[~within]
        ball[left] = len(leaders) + np.arange(len(left))
        leaders += left.tolist()
    return ball, np.array(leaders)


def _close(z: Points, places: Points, leaders: Int[np.ndarray, " ball"], reach: float) -> Pairs:
    """Pairs of balls: all whose leaders are at most `reach` apart, and some of the others."""
    n, tree = len(leaders), KDTree(places[leaders])
    some = KDTree(places[leaders[:: max(1, n // 256)]])
    if some.count_neighbors(tree, reach) <= TOLD * some.n * n:
        return tree.query_pairs(reach, output_type="ndarray")
    found = [np.empty((0, 2), np.int64)]
    for first in range(0, n, TILE):
        a = z[leaders[first : first + TILE]]
        for second in range(first, n, TILE):
            b = z[leaders[second : second + TILE]]
            power = np.square(a).sum(1)[:, None] + np.square(b).sum(1)
            pairs = np.argwhere((1 - 1e-4) * power - 2 * (a @ b.T) <= reach**2)  # or rounded
            pairs += first, second
            found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)


def _distances(z: Points, pairs: Pairs) -> Float[np.ndarray, " pair"]:
    size = max(1, BLOCK // z.shape[1])
    parts = [pairs[first : first + size] for first in range(0, len(pairs), size)]
    each = [np.linalg.norm(z[part[:, 0]] - z[part[:, 1]], axis=1) for part in parts]
    return np.concatenate([np.empty(0, z.dtype), *each])


def _touch(a: Points, b: Points, link: float) -> bool:
    """Whether any point of one is linked to any of the other."""
    few, many = (a, b) if len(a) < len(b) else (b, a)
    return any(bool((np.square(many - one).sum(1) <= link**2).any()) for one in few)


def _components(n: int, pairs: Pairs) -> Int[np.ndarray, " point"]:
    joined = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    graph = scipy.sparse.coo_matrix(joined, shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)
