"""Is a set of numbers bimodal? Otsu's threshold, Hartigan's dip, a mixture of two normals."""

import numpy as np
from diptest import dipstat

from trm_interp.runtime.limits import seed32
from trm_interp.runtime.shapes import Float


def otsu(values: Float[np.ndarray, " value"]) -> tuple[float, float]:
    """The threshold that splits best, and the share of the variance between its two sides.

    Otsu (1979) on the numbers themselves, no histogram: the threshold is halfway between two
    neighbours. The share is 3/4 for a uniform and 2/pi = 0.64 for a normal distribution, 1 for two
    points. (NaN, NaN) where all numbers are equal.

    >>> otsu(np.array([0.0, 0.0, 4.0, 4.0]))
    (2.0, 1.0)
    """
    ordered = np.sort(values)
    n, total = len(ordered), ordered.var()
    below = np.arange(1, n)
    sums = np.cumsum(ordered)[:-1]
    gap = (ordered.sum() - sums) / (n - below) - sums / below
    between = below * (n - below) / n**2 * gap**2
    between = np.where(ordered[1:] > ordered[:-1], between, -1.0)
    if not (between > 0).any():
        return np.nan, np.nan
    best = int(between.argmax())
    return float((ordered[best] + ordered[best + 1]) / 2), float(between[best] / total)


def dip(values: Float[np.ndarray, " value"]) -> float:
    """Largest distance of the empirical distribution from the nearest unimodal one.

    Hartigan & Hartigan (1985): between 1 / (2 n) and 1/4.

    >>> dip(np.array([0.0, 0.0, 1.0, 1.0])), dip(np.array([0.0, 1.0, 2.0, 3.0]))
    (0.25, 0.125)
    """
    return float(dipstat(np.asarray(values, np.float64), allow_zero=False))  # type: ignore[arg-type]


def dip_test(values: Float[np.ndarray, " value"], seed: int, times: int = 500) -> dict[str, float]:
    """`dip` and its `p`: share of uniform samples of the same size with at least that dip.

    Uniform is the least favourable unimodal distribution. p is at least 1 / (times + 1).
    """
    observed = dip(values)
    rng = np.random.default_rng([seed, len(values), times])
    drawn = [dip(rng.random(len(values))) for _ in range(times)]
    return {"dip": observed, "p": (1 + sum(one >= observed for one in drawn)) / (times + 1)}


def mixture(values: Float[np.ndarray, " value"], seed: int) -> dict[str, float]:
    """Two normals against one: `low` and `high` means, `share_low`, the gap and the evidence.

    `gap` is Ashman's D, the means' distance over the root mean square of both widths: above 2 the
    modes are separate. `bic_gain`: Bayesian information criterion of one normal less that of two;
    above 0 speaks for two, above 10 strongly.
    """
    from sklearn.mixture import GaussianMixture

    column = values[:, None].astype(np.float64)
    one = GaussianMixture(1).fit(column)
    two = GaussianMixture(2, n_init=5, random_state=seed32(seed)).fit(column)
    means, variances = np.ravel(two.means_), np.ravel(two.covariances_)  # type: ignore[arg-type]
    low, high = np.argsort(means)
    return {
        "low": float(means[low]),
        "high": float(means[high]),
        "share_low": float(np.ravel(two.weights_)[low]),  # type: ignore[arg-type]
        "gap": float(np.sqrt(2) * (means[high] - means[low]) / np.sqrt(variances.sum())),
        "bic_gain": float(one.bic(column) - two.bic(column)),
    }
