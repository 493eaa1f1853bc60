"""An effect over several models: a hierarchical bootstrap, and whether the models agree.

Models differ among themselves as puzzles do, and an interval over the puzzles of one says nothing
about the next. Here models are drawn first, then the puzzles of each, which comes as replicates of
its estimate.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from trm_interp.analysis.resample import TIMES
from trm_interp.runtime.shapes import Float, Int


class OverModels(NamedTuple):
    """Mean over `k` models with its 95 % interval (NaN for fewer than two), and the `replicates` of
    it, [times]."""

    value: float
    low: float
    high: float
    k: int
    replicates: np.ndarray


def over_models(
    estimates: Float[np.ndarray, " subject"],
    draws: Float[np.ndarray, "subject times"],
    model: Int[np.ndarray, " subject"],
    seed: int,
    times: int = TIMES,
) -> OverModels:
    """Mean over models of an effect that was estimated on several subjects.

    `draws`: bootstrap replicates of every estimate over its own puzzles. `model`: which model each
    subject is of; several subjects of one model (other puzzles, another snapshot) are one
    observation, their mean. A replicate draws as many models as there are, with replacement, and
    for each draw a replicate of every subject of that model.

    The interval has the quantiles of `level`, which widen it for few models: with two to four it is
    the whole range of the replicates, so that it is clear of a value only if all models are.

    >>> one = np.array([1.0, 3.0])
    >>> over = over_models(one, one[:, None], np.array([0, 1]), seed=0)
    >>> over.value, over.low, over.high, over.k
    (2.0, 1.0, 3.0, 2)
    """
    names, member = np.unique(model, return_inverse=True)
    k, rng = len(names), np.random.default_rng([seed, len(model), times])
    of_model = member == np.arange(k)[:, None]  # [model, subject]
    weights = of_model / of_model.sum(1, keepdims=True)
    value = float((weights @ estimates).mean())
    if k < 2:
        return OverModels(value, math.nan, math.nan, k, np.empty(0))
    total = np.zeros(times)
    subjects = np.arange(len(model))
    for _ in range(k):
        drawn = draws[subjects, rng.integers(draws.shape[1], size=(times, len(model)))]
        chosen = rng.integers(k, size=times)
        total += (drawn @ weights.T)[np.arange(times), chosen]
    replicates = total / k
    low, high = np.quantile(replicates, [level(k), 1 - level(k)])
    return OverModels(value, float(low), float(high), k, replicates)


def level(k: int) -> float:
    """Quantile at which a 95 % interval over `k` models begins (Hesterberg 2015, section 5.2).

    A bootstrap over few is too narrow, by the factor sqrt((k - 1) / k) and as a normal is narrower
    than Student's t; this is the quantile of a normal that makes up for both.

    >>> [round(level(k), 4) for k in (3, 5, 10, 1000)]
    [0.0, 0.001, 0.0086, 0.0248]
    """
    return float(norm.cdf(-math.sqrt(k / (k - 1)) * t.ppf(0.975, k - 1)))


def common_side(
    estimates: Float[np.ndarray, " subject"],
    low: Float[np.ndarray, " subject"],
    high: Float[np.ndarray, " subject"],
    null: float,
) -> int | None:
    """The side of `null` on which all estimates lie: 1 above, -1 below, 0 if they lie on both.

    None where two of the intervals lie on opposite sides: the subjects contradict each other.

    >>> narrow = np.array([0.1, 0.1])
    >>> def side(*at): return common_side(np.array(at), at - narrow, at + narrow, 0.0)
    >>> side(0.05, 0.5), side(-0.2, -0.3), side(-0.05, 0.5), side(-0.5, 0.5)
    (1, -1, 0, None)
    """
    if (low > null).any() and (high < null).any():
        return None
    return int((estimates > null).all()) - int((estimates < null).all())
