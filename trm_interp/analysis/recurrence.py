"""Features over time: transient, recurrence, period, and the drift between equal phases.

The schedule writes every site in cycles (six updates of the latent state an H-cycle, say), so any
activation has a period of one H-cycle even where the map from cycle to cycle stands still.
Two measures see past that: the drift between ticks of equal phase, which is 0 for a period that
the schedule forces, and recurrence from cycle to cycle beyond a linear drift of every phase,
against aperiodic series (`aperiodic`). A period of its own shows there whatever its length, a
divisor of the cycle excepted; near the cycle's own it looks like a drift, and is none.

How often p is at most 0.05, in 6 000 series each of 48 H-cycles (a tail of 24), on top of a
schedule of their own; standard error 0.003. At sites with 7 ticks a cycle, with 6, and with one:

=======================================================  =====  =====  =====
linear trend                                             0.003  0.004  0.017
linear trend and white noise                             0.010  0.015  0.042
exponential relaxation, with noise                       0.002  0.003  0.007
step inside the tail                                     0      0      0
white noise                                              0.013  0.011  0.039
order one, coefficient 0.5                               0.016  0.021  0.039
order one, coefficient 0.9                               0.036  0.039  0.030
order one, coefficient 0.93, the worst                   0.037  0.044  0.027
order one, coefficient 0.99                              0.027  0.031  0.023
random walk                                              0.027  0.027  0.027
random walk and white noise                              0.008  0.007  0.032
profile over the cycle, a walk from cycle to cycle       0.025  0.022  0.025
profile over the cycle, order one with 0.5               0.039  0.039  0.035
the schedule alone                                       0      0      0
period of 3 cycles (21 ticks, 18, 3), as much noise      1.000  0.999  0.556
period of 3 cycles, a third of its variance in noise     1.000  1.000  0.991
period of 6 cycles, as much noise                        0.967  0.936  0.344
=======================================================  =====  =====  =====

Series run along the last axis, one number a tick; `cycle` is how many ticks an H-cycle has there.
"""

from typing import NamedTuple

import numpy as np

from trm_interp.analysis.aperiodic import (
    LEVEL,
    aperiodic_peaks,
    autocorrelation,
    beyond_schedule,
    dimension,
    from_tick_to_tick,
    highest_peak,
)
from trm_interp.runtime.shapes import Float, Int

TAIL = 0.5  # share of a run, its end, that counts as stationary
STILL = 1e-3  # standard deviation of a tail, over the largest value, below which nothing moves
FEWEST = 8  # H-cycles of a tail in which recurrence can be told from drift
FUNDAMENTAL = 0.75  # the period is the first lag that returns by this share of the best one
PER_TICK = 4  # periods that are tried between two ticks
DRAWS = 2000  # aperiodic series of each kind


class Recurrence(NamedTuple):
    """`score`: highest peak of the autocorrelation from cycle to cycle, at most about 1, and 0
    where nothing moves beyond the schedule. `null`: the height that `LEVEL` of aperiodic series
    reach. `p`: how many of them peak as high. `period`: in ticks of the series, where p is at most
    `LEVEL`. NaN where the series does not move, or has too few H-cycles (FEWEST)."""

    score: Float[np.ndarray, "*series"]
    null: Float[np.ndarray, "*series"]
    p: Float[np.ndarray, "*series"]
    period: Float[np.ndarray, "*series"]

    @property
    def excess(self) -> np.ndarray:
        """Recurrence beyond what the schedule forces and aperiodic series reach."""
        return self.score - self.null

    @property
    def recurs(self) -> np.ndarray:
        """Whether p is at most LEVEL."""
        return self.p <= LEVEL


def tail_of(series: Float[np.ndarray, "*series tick"], cycle: int) -> np.ndarray:
    """The last half, in whole cycles."""
    n = series.shape[-1]
    return series[..., n - tail_length(n, cycle) :]


def tail_length(ticks: int, cycle: int) -> int:
    """How many ticks the tail has."""
    return max(1, int(TAIL * ticks) // cycle) * cycle


def recurrence(
    series: Float[np.ndarray, "*series tick"],
    cycle: int,
    draws: int = DRAWS,
    seed: int = 0,
    still: Float[np.ndarray, "*series"] | float = 0.0,
) -> Recurrence:
    """Does the tail of each series come back, beyond what the schedule forces?

    `still`: standard deviation at or below which a tail counts as not moving. `draws`: aperiodic
    series of each kind, at least 19.
    """
    shape = series.shape[:-1]
    tails = tail_of(series, cycle).reshape(-1, tail_length(series.shape[-1], cycle))
    tails = tails.astype(np.float64)
    least = np.broadcast_to(np.maximum(still, 1e-12), shape).ravel()
    score, null, p, period = np.full((4, len(tails)), np.nan)
    moves = tails.std(-1) > least
    cycles = tails.shape[-1] // cycle
    if cycles >= FEWEST:
        peaks = aperiodic_peaks(cycles, cycle, draws, seed)
        score[moves], null[moves], p[moves] = 0.0, peaks.highest, 1.0  # by the schedule alone
        residual = beyond_schedule(tails, cycle)
        at = np.flatnonzero(moves & (residual.std((-2, -1)) > least))
        residual = residual[at]
        score[at] = highest_peak(autocorrelation(residual))
        p[at], null[at] = peaks.p(score[at], dimension(residual), from_tick_to_tick(residual))
        recurs = p[at] <= LEVEL
        ticks = residual[recurs].reshape(-1, tails.shape[-1], 1)
        period[at[recurs]] = fundamental(autocorrelation(ticks))
    return Recurrence(*(one.reshape(shape) for one in (score, null, p, period)))


def fundamental(r: Float[np.ndarray, "series lag"]) -> Float[np.ndarray, " series"]:
    """Shortest lag that, with its multiples, returns nearly as well as the best one.

    Lags are tried in fractions (1 / PER_TICK) of a tick, between which the autocorrelation is
    linear. Multiples make it sharp, and noise at a single multiple does not count.

    >>> wave = np.cos(2 * np.pi * np.arange(64) / 10.5)
    >>> fundamental(wave[None]).tolist()
    [10.5]
    """
    longest = r.shape[-1] - 1
    lags = np.arange(2 * PER_TICK, longest * PER_TICK + 1) / PER_TICK
    means = np.zeros((len(lags), longest + 1))  # [candidate, lag], rows sum to 1
    for row, lag in zip(means, lags, strict=True):
        multiples = lag * np.arange(1, int(longest / lag) + 1)
        below = np.minimum(multiples.astype(int), longest - 1)
        np.add.at(row, below, 1 - (multiples - below))
        np.add.at(row, below + 1, multiples - below)
    means /= means.sum(1, keepdims=True)
    returns = r @ means.T
    near = returns >= FUNDAMENTAL * returns.max(-1, keepdims=True)
    first = near.argmax(-1)[:, None]
    after = np.arange(len(lags)) >= first
    in_first = after & (np.cumsum(after & ~near, axis=-1) == 0)  # the first run of near ones
    return lags[np.where(in_first, returns, -np.inf).argmax(-1)]


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
