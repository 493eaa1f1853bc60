"""How much of a variance each crossed factor explains: components of a random-effects ANOVA."""

from itertools import chain, combinations
from math import prod

import numpy as np

from trm_interp.analysis.resample import TIMES, bounds
from trm_interp.runtime.shapes import Float

Factors = tuple[int, ...]  # axes of the table, ascending


def components(values: Float[np.ndarray, "*factors"]) -> dict[Factors, float]:
    """Variance components of a balanced crossed design with one value a cell, by sets of axes.

    All factors are random. Every mean square is set equal to its expectation (method of moments;
    Searle, Casella & McCulloch 1992, chapter 4), so the estimates are unbiased, and small ones may
    come out below 0. The set of all axes has what no smaller set explains. An axis of length 1
    is no factor, and belongs to no set.

    >>> both = components(np.array([[0.0, 0.0], [1.0, 1.0]]))
    >>> both[(0,)], both[(1,)], both[(0, 1)]
    (0.5, 0.0, 0.0)
    """
    axes = [axis for axis, levels in enumerate(values.shape) if levels > 1]
    squares = {factors: _mean_square(values, factors) for factors in _subsets(axes) if factors}
    found: dict[Factors, float] = {}
    for factors in sorted(squares, key=len, reverse=True):
        larger = [wider for wider in found if set(factors) < set(wider)]
        rest = squares[factors] - sum(found[wider] * _cells(values, wider) for wider in larger)
        found[factors] = rest / _cells(values, factors)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _subsets(axes: list[int]) -> list[Factors]:
    return list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))


def _cells(values: np.ndarray, factors: Factors) -> int:
    """Values that share one combination of levels of these factors."""
    return prod(n for axis, n in enumerate(values.shape) if axis not in factors)


def _mean_square(values: np.ndarray, factors: Factors) -> float:
    """Of the interaction of these factors: its effects by inclusion and exclusion of means."""
    every = range(values.ndim)
    effect = np.zeros(())
    for kept in _subsets(list(factors)):
        mean = values.mean(axis=tuple(a for a in every if a not in kept), keepdims=True)
        effect = effect + (-1) ** (len(factors) - len(kept)) * mean
    freedom = prod(values.shape[axis] - 1 for axis in factors)
    return float((effect**2).sum() * _cells(values, factors) / freedom)


def shares(values: Float[np.ndarray, "*factors"]) -> dict[Factors, float]:
    """The components over their sum; NaN where all values are equal."""
    found = components(values)
    total = sum(found.values())
    return {factors: one / total if total > 0 else np.nan for factors, one in found.items()}


def shares_with_bounds(
    values: Float[np.ndarray, "*factors"], groups: dict[str, tuple[Factors, ...]], seed: int
) -> dict[str, dict[str, float]]:
    """Sums of shares by name, `value`, `low` and `high`: a 95 % bootstrap interval over axis 0.

    Sets that the design does not have count as 0. The bounds are NaN for fewer than two levels of
    axis 0, or where most resamples have no variance. A resample holds levels of axis 0 more than
    once, which lowers its component by a share of 1 / levels.
    """
    drawn = grouped_draws(values, groups, seed)
    at_all = _grouped(values, groups)
    return {
        name: {
            "value": at_all[name],
            **dict(zip(("low", "high"), map(float, bounds(drawn[name])), strict=True)),
        }
        for name in groups
    }


def grouped_draws(
    values: Float[np.ndarray, "*factors"],
    groups: dict[str, tuple[Factors, ...]],
    seed: int,
    times: int = TIMES,
) -> dict[str, np.ndarray]:
    """The sums of shares in bootstrap resamples of axis 0, [times] each; NaN for fewer than two
    levels."""
    n = len(values)
    if n < 2:
        return {name: np.full(times, np.nan) for name in groups}
    rng = np.random.default_rng([seed, n, times])
    rows = [_grouped(values[rng.integers(n, size=n)], groups) for _ in range(times)]
    return {name: np.array([row[name] for row in rows]) for name in groups}


def _grouped(values: np.ndarray, groups: dict[str, tuple[Factors, ...]]) -> dict[str, float]:
    each = shares(values)
    return {name: sum(each.get(one, 0.0) for one in sets) for name, sets in groups.items()}
