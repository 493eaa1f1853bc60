"""Single linkage of many points without all pairs: groups that chains of short links join.

Points are sorted into cells of a grid in a few directions, and within a cell gathered into balls,
whose points are surely joined. A k-d tree finds the balls that are close, and only their points are
compared: distances along few directions are at most those along all.
"""

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from trm_interp.runtime.shapes import Float, Int

GRID, TREE = 4, 12  # directions of the grid, and of the tree
ROOM = 1.001  # of a link, where points are only kept apart if they surely are
BLOCK = 1 << 22  # numbers at once
Points = Float[np.ndarray, "point number"]
Pairs = Int[np.ndarray, "pair 2"]


def linked(z: Points, link: float) -> Int[np.ndarray, " point"]:
    """A number for every group of points that chains of links at most `link` long (Euclid) join.

    n points in a few tight groups take about n log n steps, and so do n points that are far apart
    but for n^2 over the number of cells that they fill. Where very many are about half a link
    apart, all of these are compared.

    >>> linked(np.array([[0.0], [5.0], [1.0], [1.9]], np.float32), 1.0).tolist()
    [0, 1, 0, 0]
    """
    width, link = z.shape[1], max(link, 1e-12)
    drawn = np.random.default_rng(0).standard_normal((width, min(width, TREE)))
    places = z.astype(np.float64) @ np.linalg.qr(drawn)[0]
    ball, leaders = _balls(z, places[:, :GRID], link)
    close = KDTree(places[leaders]).query_pairs(2 * ROOM * link, output_type="ndarray")
    distance = _distances(z, leaders[close])
    group = _components(len(leaders), close[distance <= link])
    members = np.split(np.argsort(ball, kind="stable"), np.cumsum(np.bincount(ball))[:-1])
    unsure = close[(distance > link) & (distance <= 2 * ROOM * link)]
    for a, b in unsure[group[unsure[:, 0]] != group[unsure[:, 1]]].tolist():
        if group[a] != group[b] and _touch(z[members[a]], z[members[b]], link):
            group[group == group[b]] = group[a]
    return np.unique(group, return_inverse=True)[1][ball]


def _balls(
    z: Points, places: Points, link: float
) -> tuple[Int[np.ndarray, " point"], Int[np.ndarray, " ball"]]:
    """A ball for every point, and the point that each is around: within a cell the first one that
    is in no ball yet, with all that are at most half a link from it."""
    _, cell, sizes = np.unique(
        np.floor(places / link).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    order, first = np.argsort(cell.ravel(), kind="stable"), 0
    ball, leaders = np.empty(len(z), np.int64), list[int]()
    for size in sizes.tolist():
        left = order[first : first + size]
        rows, first = z[left], first + size
        while len(left):
            within = np.square(rows - rows[0]).sum(1) <= (link / 2) ** 2
            ball[left[within]] = len(leaders)
            leaders.append(int(left[0]))
            left, rows = left[~within], rows[~within]
    return ball, np.array(leaders)


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
