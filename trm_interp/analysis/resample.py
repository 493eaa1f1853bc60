"""Intervals over puzzles: bootstrap counts, percentile bounds, false discovery rates."""

import warnings

import numpy as np

from trm_interp.analysis.estimates import Estimate
from trm_interp.runtime.shapes import Bool, Float, Int

TIMES = 1000  # resamples behind an interval
LEAST = 2  # puzzles that have an interval: resamples of a single one are all equal


def resamples(n: int, seed: int, times: int = TIMES) -> Int[np.ndarray, "times n"]:
    """How often each of n puzzles is drawn in each resample: rows sum to n."""
    rng = np.random.default_rng([seed, n, times])
    return rng.multinomial(n, np.full(n, 1 / n), size=times)


def bounds(drawn: Float[np.ndarray, " times *rest"]) -> tuple[np.ndarray, np.ndarray]:
    """2.5 % and 97.5 % quantiles over the resamples that are finite; NaN where none is.

    >>> [float(bound) for bound in bounds(np.array([*range(41), np.nan]))]
    [1.0, 39.0]
    """
    numbers = np.where(np.isfinite(drawn), drawn, np.nan).astype(np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(numbers, [0.025, 0.975], axis=0)
    return np.asarray(low), np.asarray(high)


def mean_with_bounds(
    values: Float[np.ndarray, " puzzle *rest"], seed: int, times: int = TIMES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over puzzles where the value is a number, and its 95 % bootstrap interval.

    The bounds are NaN where fewer than LEAST puzzles have one.

    >>> mean, low, high = mean_with_bounds(np.array([3.0]), seed=0)
    >>> float(mean), float(low), float(high)
    (3.0, nan, nan)
    """
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0).reshape(len(values), -1)
    counts = resamples(len(values), seed, times).astype(filled.dtype)
    weights = there.reshape(len(values), -1).astype(filled.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(0) / weights.sum(0)
        drawn = (counts @ filled) / (counts @ weights)
    rest, enough = values.shape[1:], weights.sum(0) >= LEAST
    low, high = (np.where(enough, bound, np.nan) for bound in bounds(drawn))
    return mean.reshape(rest), low.reshape(rest), high.reshape(rest)


def mean_estimate(values: Float[np.ndarray, " puzzle"], seed: int) -> Estimate:
    """`mean_with_bounds` of one number a puzzle, as results hold it."""
    value, low, high = map(float, mean_with_bounds(values, seed))
    return Estimate(value=value, low=low, high=high)


def mean_of_few(values: Float[np.ndarray, " puzzle"]) -> Estimate:
    """Mean over a handful of puzzles with Student's 95 % interval; no bounds for fewer than LEAST.

    A bootstrap over few is too narrow: of four normal numbers it holds the mean in 80 % of cases.

    >>> mean_of_few(np.array([1.0, 3.0])).text(".1f")  # 2 +- 12.71 * sqrt(2) / sqrt(2)
    '2.0 [-10.7, 14.7]'
    """
    from scipy.stats import t  # takes long to import, for which the explorer must not wait

    n = len(values)
    if n < LEAST:
        return Estimate(value=float(values[0]) if n else None, low=None, high=None)
    mean = float(values.mean())
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Estimate(value=mean, low=mean - half, high=mean + half)


def median_with_bounds(values: Float[np.ndarray, " puzzle"], seed: int) -> dict[str, float]:
    """`median`, its 95 % bootstrap interval over puzzles (`low`, `high`) and `n`.

    The bounds are NaN for fewer than LEAST puzzles.

    >>> median_with_bounds(np.array([3.0, 3.0, 3.0]), seed=0)
    {'median': 3.0, 'low': 3.0, 'high': 3.0, 'n': 3}
    >>> median_with_bounds(np.array([3.0]), seed=0)
    {'median': 3.0, 'low': nan, 'high': nan, 'n': 1}
    """
    if len(values) < LEAST:
        median = float(values[0]) if len(values) else np.nan
        return {"median": median, "low": np.nan, "high": np.nan, "n": len(values)}
    low, high = bounds(median_draws(values, seed))
    median, n = float(np.median(values)), len(values)
    return {"median": median, "low": float(low), "high": float(high), "n": n}


def median_draws(
    values: Float[np.ndarray, " puzzle"], seed: int, times: int = TIMES
) -> Float[np.ndarray, " times"]:
    """The median of as many puzzles, drawn again with replacement."""
    order, n = np.argsort(values), len(values)
    reached = np.cumsum(resamples(n, seed, times)[:, order], axis=1)
    lower, upper = ((reached > i).argmax(1) for i in ((n - 1) // 2, n // 2))
    return (values[order][lower] + values[order][upper]) / 2


def mean_draws(
    values: Float[np.ndarray, " puzzle"], seed: int, times: int = TIMES
) -> Float[np.ndarray, " times"]:
    """The mean of as many puzzles, drawn again with replacement."""
    return resamples(len(values), seed, times) @ values / len(values)


def ratio_with_bounds(
    top: Float[np.ndarray, " puzzle"], bottom: Float[np.ndarray, " puzzle"], seed: int
) -> dict[str, float]:
    """Sum over sum, with a 95 % bootstrap interval over puzzles; NaN over 0.

    The bounds are NaN for fewer than LEAST puzzles.
    """
    counts = resamples(len(top), seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(np.divide(top.sum(), bottom.sum()))
        drawn = (counts @ top) / (counts @ bottom)
    low, high = bounds(drawn) if len(top) >= LEAST else (np.nan, np.nan)
    return {"value": value, "low": float(low), "high": float(high)}


def discoveries(p: Float[np.ndarray, "*rest"], rate: float = 0.05) -> Bool[np.ndarray, "*rest"]:
    """Which tests pass at this false discovery rate (Benjamini & Hochberg 1995); NaN never does.

    >>> discoveries(np.array([0.01, 0.04, 0.03, 0.9])).tolist()  # 0.05 * 1 / 4 = 0.0125
    [True, False, False, False]
    """
    return adjusted(p) <= rate


def adjusted(p: Float[np.ndarray, "*rest"]) -> Float[np.ndarray, "*rest"]:
    """q: the lowest false discovery rate (Benjamini & Hochberg 1995) at which each test passes,
    among those that are a number; NaN for the others.

    >>> adjusted(np.array([0.01, 0.04, np.nan])).tolist()  # 0.01 * 2 / 1, 0.04 * 2 / 2
    [0.02, 0.04, nan]
    """
    q, tested = np.full(p.shape, np.nan), np.isfinite(p)
    if tested.any():
        from scipy.stats import false_discovery_control

        q[tested] = false_discovery_control(p[tested], method="bh")
    return q
