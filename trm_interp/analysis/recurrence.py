"""Features over time: transient, recurrence, period, and the drift between equal phases.

The schedule writes every site in cycles (six updates of the latent state an H-cycle, say), so any
activation has a period of one H-cycle even where the map from cycle to cycle stands still.
Two measures see past that: the drift between ticks of equal phase, which is 0 for a period that
the schedule forces, and recurrence beyond series that were shuffled within each phase. (A null
with random Fourier phases would not do: it keeps the power spectrum, hence the autocorrelation.)

Series run along the last axis, one number a tick; `cycle` is how many ticks an H-cycle has there.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft

from trm_interp.runtime.shapes import Float, Int

TAIL = 0.5  # share of a run, its end, that counts as stationary
STILL = 1e-3  # standard deviation of a tail, over the largest value, below which nothing moves
FUNDAMENTAL = 0.95  # the period is the first peak of this share of the highest


class Recurrence(NamedTuple):
    """`score`: highest peak of the autocorrelation, at most about 1. `null`: its mean over
    shuffles. `p`: share of shuffles at least as high. `period`: lag of the first such peak, in
    ticks of the series. NaN where the series does not move."""

    score: Float[np.ndarray, "*series"]
    null: Float[np.ndarray, "*series"]
    p: Float[np.ndarray, "*series"]
    period: Float[np.ndarray, "*series"]

    @property
    def excess(self) -> np.ndarray:
        """Recurrence that the schedule does not force."""
        return self.score - self.null


def tail_of(series: Float[np.ndarray, "*series tick"], cycle: int) -> np.ndarray:
    """The last half, in whole cycles."""
    n = series.shape[-1]
    return series[..., n - max(1, int(TAIL * n) // cycle) * cycle :]


def autocorrelation(series: Float[np.ndarray, "*series tick"]) -> Float[np.ndarray, "*series lag"]:
    """Sample autocorrelation at lags up to half of the length, each averaged over its own pairs.

    >>> autocorrelation(np.array([1.0, -1, 1, -1, 1, -1])).round(6).tolist()
    [1.0, -1.0, 1.0, -1.0]
    """
    n = series.shape[-1]
    centred = series - series.mean(-1, keepdims=True)
    spectrum = np.asarray(fft.rfft(centred, 2 * n, axis=-1))
    products = np.asarray(fft.irfft(np.abs(spectrum) ** 2, 2 * n, axis=-1))[..., : n // 2 + 1]
    products = products / (n - np.arange(n // 2 + 1, dtype=products.dtype))
    power = products[..., :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(power > 0, products / power, np.nan)


def highest_peak(
    r: Float[np.ndarray, "*series lag"],
) -> tuple[Float[np.ndarray, "*series"], Float[np.ndarray, "*series"]]:
    """Highest local maximum at lag 2 or more, and the lag of the first one near to it.

    Score 0 and no lag (NaN) where the autocorrelation has no such maximum.
    """
    inner = r[..., 1:-1]
    peak = (inner >= r[..., :-2]) & (inner > r[..., 2:]) & (np.arange(1, r.shape[-1] - 1) > 1)
    heights = np.where(peak, inner, -np.inf)
    best = heights.max(-1, initial=-np.inf)
    has_peak = np.isfinite(best) & (best > 0)
    first = (heights >= FUNDAMENTAL * best[..., None]).argmax(-1) + 1.0
    return np.where(has_peak, best, 0.0), np.where(has_peak, first, np.nan)


def shuffled_phases(
    series: Float[np.ndarray, "*series tick"], cycle: int, rng: np.random.Generator
) -> np.ndarray:
    """The values of each phase of the schedule in a random order, the same for all series.

    What the schedule alone forces is kept; the order of the cycles is lost.
    """
    cycles = series.shape[-1] // cycle
    order = rng.permuted(np.tile(np.arange(cycles), (cycle, 1)), axis=1).T  # [cycle index, phase]
    return series[..., (order * cycle + np.arange(cycle)).ravel()]


def recurrence(
    series: Float[np.ndarray, "*series tick"],
    cycle: int,
    shuffles: int = 19,
    seed: int = 0,
    still: Float[np.ndarray, "*series"] | float = 0.0,
) -> Recurrence:
    """Does the tail of each series come back, beyond what the schedule forces?

    `still`: standard deviation at or below which a tail counts as not moving.
    """
    tail = tail_of(series, cycle).astype(np.float32)
    deviation = tail.std(-1, dtype=np.float64)
    moves = deviation > np.maximum(still, 1e-12)
    tail = (tail - tail.mean(-1, keepdims=True)) / np.where(moves, deviation, 1.0)[..., None]
    tail = tail.astype(np.float32)
    score, period = highest_peak(autocorrelation(tail))
    rng = np.random.default_rng([seed, 0xACF])
    total, higher = np.zeros_like(score), np.zeros_like(score)
    for _ in range(shuffles):
        other, _ = highest_peak(autocorrelation(shuffled_phases(tail, cycle, rng)))
        total += other
        higher += other >= score - 1e-4  # rounding of float32 transforms
    parts = (score, total / shuffles, (1 + higher) / (1 + shuffles), period)
    return Recurrence(*(np.where(moves, part, np.nan) for part in parts))


def transient_cycles(
    series: Float[np.ndarray, "*series tick"], cycle: int
) -> Int[np.ndarray, "*series"]:
    """Cycles before the series joins its stationary tail; 0 where it is stationary throughout.

    One change-point in the means of whole cycles, by least squares, outside the last quarter
    (the tail); kept if it pays 3 log n, the modified Bayesian information criterion of Zhang &
    Siegmund (2007), of which the place of the change takes its part.

    >>> transient_cycles(np.repeat([5.0, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0], 2), cycle=2).item()
    1
    """
    n = series.shape[-1] // cycle
    means = series[..., : n * cycle].reshape(*series.shape[:-1], n, cycle).mean(-1)
    means = means.astype(np.float64) - means[..., -1:]
    sums, squares = np.cumsum(means, -1), np.cumsum(means**2, -1)
    latest = n - max(1, n // 4)
    at = np.arange(1, latest + 1)  # cycles before the change
    before = squares[..., at - 1] - sums[..., at - 1] ** 2 / at
    late = sums[..., -1:] - sums[..., at - 1]
    after = squares[..., -1:] - squares[..., at - 1] - late**2 / np.maximum(n - at, 1)
    split = np.maximum(before + after, 0)
    whole = np.maximum(squares[..., -1] - sums[..., -1] ** 2 / n, 0)
    best = split.argmin(-1)
    least = split.min(-1)
    floor = 1e-9 * (squares[..., -1] + 1e-30)
    pays = n * np.log((whole + floor) / (least + floor)) > 3 * np.log(n)
    return np.where(pays, best + 1, 0)


def same_phase_drift(acts: Float[np.ndarray, " tick *rest"], cycle: int) -> np.ndarray:
    """Change from each tick to the tick of equal phase one cycle later, [tick - cycle, *rest]."""
    return acts[cycle:] - acts[:-cycle]


def relative_drift(
    acts: Float[np.ndarray, "tick pos feature"], cycle: int, still: float | np.ndarray = 0.0
) -> Float[np.ndarray, " feature"]:
    """Same-phase drift of the tail over what unrelated ticks would differ by, per feature.

    sqrt(mean (a(t + cycle) - a(t))^2 / (2 variance over time)), pooled over positions. 0: the
    schedule's own period and nothing else; 1: white noise; NaN: does not move.
    """
    tail = acts[len(acts) - max(2, int(TAIL * len(acts)) // cycle) * cycle :]
    change = np.square(same_phase_drift(tail, cycle)).mean(axis=(0, 1))
    variance = tail.var(axis=0).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        drift = np.sqrt(change / (2 * variance))
    return np.where(np.sqrt(variance) > np.maximum(still, 1e-12), drift, np.nan)
