"""Does a number tell outcomes apart once other numbers are controlled for?"""

import numpy as np
from scipy.stats import rankdata

from trm_interp.analysis.auc import FEWEST
from trm_interp.analysis.resample import TIMES, bounds, resamples
from trm_interp.runtime.shapes import Bool, Float, Int


def partial_rank_correlation(
    x: Float[np.ndarray, " puzzle"],
    y: Float[np.ndarray, " puzzle"],
    controls: Float[np.ndarray, "puzzle control"],
) -> float:
    """Correlation of the ranks of x and y after a linear fit of the controls' ranks to both.

    Spearman's without controls; NaN where nothing is left of x or y.

    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> round(partial_rank_correlation(x, x**3, np.zeros((4, 0))), 9)
    1.0
    """
    ranks = [rankdata(values) for values in (x, y, *controls.T)]
    pair, design = np.stack(ranks[:2], 1), np.stack([np.ones(len(x)), *ranks[2:]], 1)
    residuals = pair - design @ np.linalg.lstsq(design, pair, rcond=None)[0]
    norms = np.linalg.norm(residuals, axis=0)
    if (norms < 1e-9 * len(x) ** 1.5).any():
        return np.nan
    return float(residuals[:, 0] @ residuals[:, 1] / norms.prod())


def partial_with_bounds(
    x: Float[np.ndarray, " puzzle"],
    y: Float[np.ndarray, " puzzle"],
    controls: Float[np.ndarray, "puzzle control"],
    seed: int,
    times: int = TIMES,
) -> dict[str, float]:
    """`partial_rank_correlation` as `value` with a 95 % bootstrap interval over puzzles."""
    rows = np.arange(len(x))
    drawn = [np.repeat(rows, counts) for counts in resamples(len(x), seed, times)]
    values = [partial_rank_correlation(x[i], y[i], controls[i]) for i in drawn]
    low, high = bounds(np.array(values))
    value = partial_rank_correlation(x, y, controls)
    return {"value": value, "low": float(low), "high": float(high)}


def auc_within(
    values: Float[np.ndarray, " puzzle"],
    positive: Bool[np.ndarray, " puzzle"],
    strata: Int[np.ndarray, " puzzle"],
    seed: int,
    times: int = TIMES,
) -> dict[str, float]:
    """AUC over the pairs within a stratum: how much of it remains at equal strata.

    With a 95 % bootstrap interval (`low`, `high`; outcomes resampled apart) and the number of
    `pairs`. NaN where either outcome has fewer than FEWEST puzzles, or no pair is left.

    >>> failed = np.arange(20) % 2 == 1
    >>> auc_within(np.arange(20.0) // 10, failed, np.arange(20) // 10, seed=0)["auc"]
    0.5
    """
    same = strata[positive][:, None] == strata[~positive][None]
    yes, no = same.shape
    if min(yes, no) < FEWEST or not same.any():
        return {**dict.fromkeys(("auc", "low", "high"), np.nan), "pairs": int(same.sum())}
    low, high = bounds(auc_within_draws(values, positive, strata, seed, times))
    auc = float(_in_order(values, positive, same).sum() / same.sum())
    return {"auc": auc, "low": float(low), "high": float(high), "pairs": int(same.sum())}


def auc_within_draws(
    values: Float[np.ndarray, " puzzle"],
    positive: Bool[np.ndarray, " puzzle"],
    strata: Int[np.ndarray, " puzzle"],
    seed: int,
    times: int = TIMES,
) -> Float[np.ndarray, " times"]:
    """The AUC of `auc_within` of puzzles that are drawn again, either outcome apart; NaN where no
    pair is left."""
    same = strata[positive][:, None] == strata[~positive][None]
    yes, no = same.shape
    order = _in_order(values, positive, same)
    first, second = resamples(yes, seed, times), resamples(no, seed + 1, times)
    with np.errstate(invalid="ignore"):
        return ((first @ order) * second).sum(1) / ((first @ same) * second).sum(1)


def auc_of_each(
    values: Float[np.ndarray, " run"],
    positive: Bool[np.ndarray, " run"],
    strata: Int[np.ndarray, " run"],
) -> Float[np.ndarray, " stratum"]:
    """The AUC within each stratum that has both outcomes, in ascending order of strata.

    >>> failed, puzzle = np.array([0, 1, 0, 1, 0], bool), np.array([0, 0, 1, 1, 2])
    >>> auc_of_each(np.array([1.0, 2.0, 4.0, 3.0, 9.0]), failed, puzzle).tolist()
    [1.0, 0.0]
    """
    same = strata[positive][:, None] == strata[~positive][None]
    order, of = _in_order(values, positive, same), strata[positive]
    each = [(order[rows].sum(), same[rows].sum()) for s in np.unique(of) for rows in [of == s]]
    return np.array([hits / pairs for hits, pairs in each if pairs])


def _in_order(values: np.ndarray, positive: np.ndarray, same: np.ndarray) -> np.ndarray:
    """[positive, negative]: 1 where the positive one has the higher value, 1/2 for ties; 0 for
    pairs of two strata."""
    return (np.sign(values[positive][:, None] - values[~positive][None]) + 1) / 2 * same


def thirds(values: Float[np.ndarray, " puzzle"]) -> Int[np.ndarray, " puzzle"]:
    """The stratum 0, 1 or 2 of each value, by the quantiles 1/3 and 2/3.

    >>> thirds(np.arange(6.0)).tolist()
    [0, 0, 1, 1, 2, 2]
    """
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="right")
