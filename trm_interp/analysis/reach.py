"""How far a change of one cell reaches: means over cells by their relation to the one changed."""

import numpy as np

from trm_interp.analysis.resample import bounds, resamples
from trm_interp.runtime.shapes import Bool, Float, Int


def by_relation(
    values: Float[np.ndarray, " change *tick cell"],
    relations: Bool[np.ndarray, "change relation cell"],
) -> Float[np.ndarray, " change *tick relation"]:
    """Mean over the cells of every relation that have a number; NaN where a change has none.

    >>> relations = np.array([[[True, False, False], [False, True, True], [False] * 3]])
    >>> by_relation(np.array([[4.0, 1.0, 2.0]]), relations).tolist()
    [[4.0, 1.5, nan]]
    """
    masks, there = relations.astype(np.float64), np.isfinite(values)
    total = np.einsum("r...c,rkc->r...k", np.where(there, values, 0.0), masks)
    count = np.einsum("r...c,rkc->r...k", there.astype(np.float64), masks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def by_puzzle(
    values: Float[np.ndarray, " change *rest"], puzzle: Int[np.ndarray, " change"]
) -> Float[np.ndarray, " puzzle *rest"]:
    """Means over the changes of each puzzle that have a number, in the order of `np.unique`.

    >>> by_puzzle(np.array([1.0, 3.0, np.nan]), np.array([7, 7, 9])).tolist()
    [2.0, nan]
    """
    names, at = np.unique(puzzle, return_inverse=True)
    there = np.isfinite(values)
    total, count = (np.zeros((len(names), *values.shape[1:])) for _ in range(2))
    np.add.at(total, at, np.where(there, values, 0.0))
    np.add.at(count, at, there)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def locality(
    related: Float[np.ndarray, " puzzle *tick"],
    unrelated: Float[np.ndarray, " puzzle *tick"],
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much more a change moves related cells than unrelated ones: ratio of the means over
    puzzles that have both, with its 95 % bootstrap interval over them. 1: no difference; NaN where
    unrelated cells do not move at all.

    >>> value, *_ = locality(np.array([[4.0], [2.0]]), np.array([[1.0], [1.0]]), seed=0)
    >>> value.tolist()
    [3.0]
    """
    there = np.isfinite(related) & np.isfinite(unrelated)
    near, far = (np.where(there, of, 0.0).reshape(len(of), -1) for of in (related, unrelated))
    counts = resamples(len(near), seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = [
            np.where(below > 0, above / below, np.nan)
            for above, below in ((near.sum(0), far.sum(0)), (counts @ near, counts @ far))
        ]
    value, (low, high) = ratios[0], bounds(ratios[1])
    shape = related.shape[1:]
    return value.reshape(shape), low.reshape(shape), high.reshape(shape)
