"""Does a number tell failed puzzles from solved ones? AUC, its p-value and its interval."""

import numpy as np
from scipy.stats import mannwhitneyu, rankdata

from trm_interp.analysis.resample import TIMES, bounds
from trm_interp.runtime.shapes import Bool, Float

FEWEST = 5  # puzzles of either outcome, below which no comparison is made


def auc_of_ranks(
    ranks: Float[np.ndarray, " row *rest"], positive: Bool[np.ndarray, " row"]
) -> Float[np.ndarray, "*rest"]:
    """Chance that a positive row has the higher value, ties counting half; NaN without both kinds.

    >>> float(auc_of_ranks(rankdata([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1], bool)))
    0.75
    """
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    if not n1 or not n0:
        return np.full(ranks.shape[1:], np.nan)
    return np.asarray((ranks[positive].sum(0) - n1 * (n1 + 1) / 2) / (n1 * n0))


def auc_p(
    values: Float[np.ndarray, " row *rest"], positive: Bool[np.ndarray, " row"]
) -> Float[np.ndarray, "*rest"]:
    """Two-sided p-value of the AUC of values, or of their ranks, for positive rows.

    Mann-Whitney's test in its normal approximation, with the exact variance under ties and no
    continuity correction. NaN where all values are tied, or without both kinds.
    """
    yes, no = values[positive], values[~positive]
    if not len(yes) or not len(no):
        return np.full(values.shape[1:], np.nan)
    test = mannwhitneyu(yes, no, use_continuity=False, method="asymptotic")
    return np.asarray(test.pvalue)


def auc_with_bounds(
    values: Float[np.ndarray, " puzzle"],
    positive: Bool[np.ndarray, " puzzle"],
    seed: int,
    times: int = TIMES,
) -> dict[str, float]:
    """`auc` with a 95 % bootstrap interval over puzzles (`low`, `high`), and its `p`.

    Each resample draws as many puzzles of either kind as there are. NaN where a kind has fewer
    than FEWEST puzzles. ValueError for a value that is not finite.

    >>> auc_with_bounds(np.arange(20.0), np.arange(20) >= 10, seed=0)["auc"]
    1.0
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values are not finite")
    yes, no = values[positive], values[~positive]
    if min(len(yes), len(no)) < FEWEST:
        return dict.fromkeys(("auc", "low", "high", "p"), np.nan)
    ranks = rankdata(values)
    auc = auc_of_ranks(ranks, positive)
    low, high = bounds(auc_draws(yes, no, seed, times))
    p = float(auc_p(ranks, positive))
    return {"auc": float(auc), "low": float(low), "high": float(high), "p": p}


def auc_draws(
    yes: Float[np.ndarray, " positive"],
    no: Float[np.ndarray, " negative"],
    seed: int,
    times: int = TIMES,
) -> Float[np.ndarray, " times"]:
    """The AUC of as many puzzles of either kind, drawn again with replacement.

    >>> auc_draws(np.array([2.0, 3.0]), np.array([0.0, 1.0]), seed=0, times=3).tolist()
    [1.0, 1.0, 1.0]
    """
    # share of pairs in order: -1, 0, 1 -> 0, 1/2, 1, one matrix for all resamples
    order = (np.sign(yes[:, None] - no[None]) + 1) / 2
    rng = np.random.default_rng([seed, len(yes), len(no), times])
    first = rng.multinomial(len(yes), np.full(len(yes), 1 / len(yes)), size=times)
    second = rng.multinomial(len(no), np.full(len(no), 1 / len(no)), size=times)
    return np.einsum("ty,yn,tn->t", first, order, second, optimize=True) / order.size
