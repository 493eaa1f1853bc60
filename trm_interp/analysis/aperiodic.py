"""How high the autocorrelation of aperiodic series peaks: the null of `recurrence`.

Aperiodic is what relaxes or drifts: autoregressive series of order 1 with a coefficient from 0
(white noise) to 1 (a random walk). Higher orders have complex roots, which are periods: a null of
that kind, or one with random Fourier phases, has the autocorrelation of the series itself, peaks
included, and nothing would ever pass it.

A series is looked at from cycle to cycle (`recurrence.beyond_schedule`), one number a phase. Two
kinds of aperiodic series go through the same steps:

- Each principal component over phases is an independent series of its own, from cycle to cycle, so
  that a feature with its own profile over the schedule may drift. How many components matter is
  matched by `dimension`. The coefficient is not estimated, which from some 20 cycles is biased at a
  random walk (Kendall 1954): p is the largest over all coefficients.
- One series over all ticks, so that phases follow each other. Its coefficient is matched: p is the
  largest over those whose autocorrelation from tick to tick varies around that of the series.

p is the larger one of both. Peaks are drawn once for a length and then looked up.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.optimize import brentq
from scipy.signal import detrend, lfilter

from trm_interp.runtime.shapes import Float

LEVEL = 0.05  # p at or below which a series recurs
OF_CYCLES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)  # coefficients from cycle to cycle
OF_TICKS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)  # from tick to tick
MATCHED = (0.05, 0.95)  # quantiles of the autocorrelation between which a coefficient is possible
DIMENSIONS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)


def beyond_schedule(
    tail: Float[np.ndarray, "*series tick"], cycle: int
) -> Float[np.ndarray, "*series h_cycle phase"]:
    """A tail in whole cycles without what the schedule and a drift explain: every phase less its
    own linear trend."""
    by_phase = tail.reshape(*tail.shape[:-1], -1, cycle)
    return detrend(by_phase, axis=-2, type="linear")


def autocorrelation(
    series: Float[np.ndarray, "*series time phase"],
) -> Float[np.ndarray, "*series lag"]:
    """Sample autocorrelation at lags up to half of the length, each averaged over its own pairs and
    summed over phases. NaN where nothing varies.

    >>> autocorrelation(np.array([1.0, -1, 1, -1, 1, -1])[:, None]).round(6).tolist()
    [1.0, -1.0, 1.0, -1.0]
    """
    n = series.shape[-2]
    centred = series - series.mean(-2, keepdims=True)
    power = np.square(np.abs(np.asarray(fft.rfft(centred, 2 * n, axis=-2)))).sum(-1)
    products = np.asarray(fft.irfft(power, 2 * n, axis=-1))[..., : n // 2 + 1]
    products = products / (n - np.arange(n // 2 + 1, dtype=products.dtype))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(products[..., :1] > 0, products / products[..., :1], np.nan)


def highest_peak(r: Float[np.ndarray, "*series lag"]) -> Float[np.ndarray, "*series"]:
    """Highest local maximum at lag 2 or more; 0 where there is none above 0.

    >>> float(highest_peak(np.array([1.0, 0.2, -0.5, 0.9, 0.1]))), float(highest_peak(np.ones(4)))
    (0.9, 0.0)
    """
    inner = r[..., 2:-1]
    is_peak = (inner >= r[..., 1:-2]) & (inner > r[..., 3:])
    return np.where(is_peak, inner, 0.0).max(-1, initial=0.0)


def dimension(
    residual: Float[np.ndarray, "*series h_cycle phase"],
) -> Float[np.ndarray, "*series"]:
    """How many independent phases have the same spread of variance over principal components:
    (sum of eigenvalues)^2 / sum of their squares, from 1 to the number of phases."""
    covariance = np.swapaxes(residual, -1, -2) @ residual
    total = np.trace(covariance, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.square(total) / np.square(covariance).sum((-2, -1))


def autoregressive(
    coefficient: float, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Gaussian series of order 1 along the last axis, stationary below 1, which is a walk."""
    noise = rng.standard_normal(shape)
    if coefficient < 1:
        noise[..., 0] /= np.sqrt(1 - coefficient**2)
    return np.asarray(lfilter([1.0], [1.0, -coefficient], noise, axis=-1))


class Peaks(NamedTuple):
    """Of aperiodic series, each row in rising order. `of_cycles` [dimension, coefficient, draw],
    for `dimensions`; `of_ticks` [coefficient, draw], each possible where the autocorrelation at one
    tick lies between its `matched` [coefficient, 2]."""

    dimensions: np.ndarray
    of_cycles: np.ndarray
    of_ticks: np.ndarray
    matched: np.ndarray

    @property
    def highest(self) -> float:
        """The height that is passed at LEVEL whatever the series is."""
        n = self.of_ticks.shape[-1]
        at = n - int(LEVEL * (1 + n))
        return float(max(self.of_cycles[..., at].max(), self.of_ticks[:, at].max()))

    def p(
        self,
        score: Float[np.ndarray, " series"],
        dimensions: Float[np.ndarray, " series"],
        at_one: Float[np.ndarray, " series"],
    ) -> tuple[Float[np.ndarray, " series"], Float[np.ndarray, " series"]]:
        """The largest share of draws that peak at least as high, and the height that is passed at
        LEVEL. `at_one`: the autocorrelation of the residual from tick to tick."""
        p, height = np.zeros(score.shape), np.zeros(score.shape)
        # the next one below: fewer dimensions have higher peaks
        rows = np.searchsorted(self.dimensions, dimensions + 1e-6, side="right") - 1
        for row in np.unique(rows):
            chosen = rows == row
            for draws in self.of_cycles[row]:
                _raise(p, height, chosen, score, draws)
        # the nearest coefficient where the autocorrelation is beyond all of their ranges
        clipped = np.clip(at_one, self.matched[0, 0], self.matched[-1, 1])
        for (low, high), draws in zip(self.matched, self.of_ticks, strict=True):
            _raise(p, height, (low <= clipped) & (clipped <= high), score, draws)
        return p, height


def _raise(
    p: np.ndarray, height: np.ndarray, chosen: np.ndarray, score: np.ndarray, draws: np.ndarray
) -> None:
    """Raise p and height of the chosen series to those of these draws."""
    n = len(draws)
    as_high = n - np.searchsorted(draws, score[chosen] * (1 - 1e-9))
    p[chosen] = np.maximum(p[chosen], (1 + as_high) / (1 + n))
    height[chosen] = np.maximum(height[chosen], draws[n - int(LEVEL * (1 + n))])


@lru_cache(maxsize=4)
def aperiodic_peaks(cycles: int, cycle: int, draws: int, seed: int) -> Peaks:
    """The peaks of aperiodic series of `cycles` cycles with `cycle` ticks each.

    `draws`: series of each kind, at least 19, with which p can reach 0.05.
    """
    if draws < 1 / LEVEL - 1:
        raise ValueError(f"p can be {LEVEL} with 19 draws or more, got {draws}")
    rng = np.random.default_rng([seed, 0xACF])
    components = min(cycle, cycles - 2)
    dimensions = np.array([d for d in DIMENSIONS if d <= components])
    weights = np.stack([_weights(d, components) for d in dimensions])
    of_cycles = []
    for coefficient in OF_CYCLES:
        series = autoregressive(coefficient, (components, draws, cycles), rng)
        r = autocorrelation(beyond_schedule(series, 1))  # [component, draw, lag]
        of_cycles.append(highest_peak(np.tensordot(weights, r, 1)))
    of_ticks, matched = [], []
    for coefficient in OF_TICKS:
        series = autoregressive(coefficient, (draws, cycles * cycle), rng)
        residual = beyond_schedule(series, cycle)
        of_ticks.append(highest_peak(autocorrelation(residual)))
        matched.append(np.quantile(from_tick_to_tick(residual), MATCHED))
    return Peaks(
        dimensions,
        np.sort(np.stack(of_cycles, axis=1), axis=-1),
        np.sort(np.stack(of_ticks), axis=-1),
        np.maximum.accumulate(np.stack(matched), axis=0),
    )


@lru_cache(maxsize=4)
def lowest_of_half_periodic(cycles: int, draws: int, seed: int) -> float:
    """The peak that 5 % of half-periodic series do not reach, where a period can be excluded.

    These are waves of three turns or more within `cycles`, any frequency as likely, with as much
    white noise, one number a cycle: with several phases they vary less. 0 in short tails.
    """
    rng = np.random.default_rng([seed, 0x4A1F])
    frequency, phase = rng.uniform(3 / cycles, 0.5, (draws, 1)), rng.uniform(0, 1, (draws, 1))
    wave = np.sqrt(2) * np.cos(2 * np.pi * (frequency * np.arange(cycles) + phase))
    series = wave + rng.standard_normal((draws, cycles))
    return float(np.quantile(highest_peak(autocorrelation(beyond_schedule(series, 1))), LEVEL))


def from_tick_to_tick(
    residual: Float[np.ndarray, "*series h_cycle phase"],
) -> Float[np.ndarray, "*series"]:
    """Autocorrelation at a lag of one tick."""
    *shape, cycles, phases = residual.shape
    series = residual.reshape(*shape, cycles * phases)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (series[..., 1:] * series[..., :-1]).sum(-1) / np.square(series).sum(-1)


def _weights(dimension: float, components: int) -> Float[np.ndarray, " component"]:
    """Falling geometrically, with this `dimension`; their sum is 1."""
    powers = np.arange(components)

    def excess(ratio: float) -> float:
        weights = ratio**powers
        return float(weights.sum() ** 2 / np.square(weights).sum() - dimension)

    ratio = 1.0 if excess(1.0) <= 1e-9 else float(brentq(excess, 0.0, 1.0))  # type: ignore[arg-type]
    weights = ratio**powers
    return weights / weights.sum()
