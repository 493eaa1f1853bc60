"""Transient, recurrence, period and drift on series whose answers are known."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from trm_interp.analysis.recurrence import (
    LEVEL,
    fundamental,
    recurrence,
    relative_drift,
    tail_of,
    transient_cycles,
)

CYCLE, N = 7, 336
T = np.arange(N)
RNG = np.random.default_rng(0)
SCHEDULE = np.array([0.0, 1, 2, 3, 2, 1, 5])[T % CYCLE]
MANY = 400  # series of a kind: a share of 0.05 has a standard error of 0.011
MOST = LEVEL + 3 * (LEVEL * (1 - LEVEL) / MANY) ** 0.5  # of them may pass by chance, 0.083


def test_what_the_schedule_forces_is_no_recurrence():
    measured = recurrence(SCHEDULE, CYCLE, still=1e-3)
    assert (measured.score, measured.p) == (0, 1) and np.isnan(measured.period)


def test_a_period_of_its_own_is_found_beside_the_schedule():
    measured = recurrence(3 * np.cos(2 * np.pi * T / 11) + 0.1 * SCHEDULE, CYCLE)
    assert measured.period == 11 and measured.score > 0.9
    assert measured.excess > 0.3 and measured.p < 0.001


def white(rng: np.random.Generator, ticks: int) -> np.ndarray:
    return rng.standard_normal((MANY, ticks))


def random_walk(rng: np.random.Generator, ticks: int) -> np.ndarray:
    return np.cumsum(white(rng, ticks), axis=1)


def order_one(coefficient: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    def series(rng: np.random.Generator, ticks: int) -> np.ndarray:
        noise = white(rng, ticks)
        noise[:, 0] /= (1 - coefficient**2) ** 0.5
        return np.asarray(lfilter([1.0], [1.0, -coefficient], noise))

    return series


def step_in_the_tail(rng: np.random.Generator, ticks: int) -> np.ndarray:
    at = ticks * rng.uniform(0.55, 0.95, (MANY, 1))
    return (np.arange(ticks) > at) + 0.05 * white(rng, ticks)


APERIODIC: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "trend": lambda rng, n: np.arange(n) / n + 1e-3 * white(rng, n),
    "trend and noise": lambda rng, n: 3 * np.arange(n) / n + white(rng, n),
    "relaxation": lambda rng, n: np.exp(-np.arange(n) / (0.3 * n)) + 1e-3 * white(rng, n),
    "step": step_in_the_tail,
    "random walk": random_walk,
    "random walk with a trend": lambda rng, n: random_walk(rng, n) + 0.2 * np.arange(n),
    "random walk and noise": lambda rng, n: random_walk(rng, n) + 6 * white(rng, n),
    "order one, 0.5": order_one(0.5),
    "order one, 0.9": order_one(0.9),
    "order one, 0.93": order_one(0.93),
    "order one, 0.99": order_one(0.99),
    "noise": white,
}


@pytest.mark.parametrize("kind", APERIODIC)
@pytest.mark.parametrize(("cycle", "ticks"), [(7, 336), (6, 288), (1, 48)])
def test_aperiodic_series_seldom_recur(kind: str, cycle: int, ticks: int):
    """Shuffled phases were passed by every trend, and by 38 % of the random walks."""
    series = APERIODIC[kind](np.random.default_rng(4), ticks)
    series = series + 2 * np.arange(cycle)[np.arange(ticks) % cycle]  # the schedule
    assert recurrence(series, cycle).recurs.mean() <= MOST


@pytest.mark.parametrize("coefficient", [0.5, 0.9, 1.0])
def test_a_profile_over_the_schedule_may_drift(coefficient: float):
    """A feature that fires at its own places in the cycle, more or less from cycle to cycle: from
    tick to tick it is no walk, and the schedule's period comes and goes."""
    rng = np.random.default_rng(6)
    level = lfilter([1.0], [1.0, -coefficient], white(rng, N // CYCLE))
    series = np.repeat(level, CYCLE, axis=1) * np.tile(white(rng, CYCLE), N // CYCLE)
    assert recurrence(series, CYCLE).recurs.mean() <= MOST


def wave(period: float, rng: np.random.Generator) -> np.ndarray:
    """Of variance 1, with a phase of its own in every series."""
    phases = rng.uniform(0, 2 * np.pi, (MANY, 1))
    return np.sqrt(2) * np.cos(2 * np.pi * T / period + phases)


def slower_and_slower(rng: np.random.Generator) -> np.ndarray:
    """A period from 20 to 22, and noise."""
    phases = rng.uniform(0, 2 * np.pi, (MANY, 1))
    turns = np.cumsum(1 / np.linspace(20, 22, N))
    return np.sqrt(2) * np.cos(2 * np.pi * turns + phases) + white(rng, N)


PERIODIC: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "alone": lambda rng: wave(21, rng),
    "noise": lambda rng: wave(21, rng) + white(rng, N),
    "noise and trend": lambda rng: wave(21, rng) + white(rng, N) + 6 * T / N,
    "walk": lambda rng: wave(21, rng) + 0.1 * random_walk(rng, N),
    "pulses and noise": lambda rng: 3.0 * (T % 21 == 5) + 0.5 * white(rng, N),
    "slower and slower": slower_and_slower,
}


@pytest.mark.parametrize("kind", PERIODIC)
def test_a_period_of_21_is_found_in_noise_of_its_own_variance(kind: str):
    measured = recurrence(PERIODIC[kind](np.random.default_rng(5)) + 2 * SCHEDULE, CYCLE)
    assert measured.recurs.mean() >= 0.95
    assert (np.abs(measured.period[measured.recurs] - 21) <= 1).mean() >= 0.9


def test_a_period_at_a_site_that_is_written_once_a_cycle():
    phases = RNG.uniform(0, 2 * np.pi, (MANY, 1))
    series = np.cos(2 * np.pi * np.arange(48) / 3 + phases) + 0.4 * white(RNG, 48)
    measured = recurrence(series, 1)
    assert measured.recurs.mean() >= 0.95
    assert (measured.period[measured.recurs] == 3).mean() >= 0.9


def test_what_stands_still_or_is_short_is_not_measured():
    still = recurrence(1 + 1e-5 * RNG.standard_normal(N), CYCLE, still=1e-3)
    short = recurrence(RNG.standard_normal(2 * 7 * CYCLE), CYCLE)  # a tail of 7 H-cycles
    for measured in (recurrence(np.ones(N), CYCLE), still, short):
        assert all(np.isnan(part) for part in measured) and not measured.recurs
    assert np.isfinite(recurrence(RNG.standard_normal(2 * 8 * CYCLE), CYCLE).p)


def test_series_keep_their_places_and_their_scale_does_not_count():
    series = RNG.standard_normal((3, 5, N))
    series[1, 2] += 3 * wave(21, RNG)[0]
    measured = recurrence(series, CYCLE)
    assert measured.p.shape == (3, 5) and measured.p[1, 2] < 0.001
    alone = recurrence(1e3 * series[1, 2] + 7, CYCLE)
    for one, other in zip(alone, measured, strict=True):
        np.testing.assert_allclose(one, other[1, 2], rtol=1e-6)


def test_the_period_is_the_shortest_lag_that_returns():
    pulses = np.where(np.arange(100) % 10 == 0, 1.0, -0.1)
    assert fundamental(pulses[None]).tolist() == [10]
    noisy = np.where(np.arange(100) == 40, 1.2, pulses)  # a multiple that returns better by chance
    assert fundamental(noisy[None]).tolist() == [10]


@pytest.mark.parametrize("cycles", [0, 1, 7, 20])
def test_a_transient_of_known_length(cycles: int):
    step = np.where(cycles * CYCLE > T, 4.0, 1.0) + SCHEDULE + 0.3 * RNG.standard_normal(N)
    assert transient_cycles(step, CYCLE) == cycles


def test_noise_and_constants_have_no_transient():
    noise = transient_cycles(RNG.standard_normal((300, N)), CYCLE)
    assert (noise > 0).mean() < 0.25  # BIC is no test; most of pure noise is called stationary
    assert transient_cycles(np.ones(N), CYCLE) == 0
    decay = transient_cycles(np.exp(-T / 30) + 0.01 * RNG.standard_normal(N), CYCLE) * CYCLE
    assert 20 <= decay <= 70


def test_drift_is_0_for_the_schedule_and_1_for_noise():
    acts = np.stack([SCHEDULE, RNG.standard_normal(N), np.ones(N)], axis=1)[:, None]
    drift = relative_drift(np.repeat(acts, 4, axis=1), CYCLE)
    assert drift[0] == 0 and drift[1] == pytest.approx(1, abs=0.15) and np.isnan(drift[2])


def test_drift_by_hand():
    # tail of 0 1 | 2 3: changes 2, 2; over time 0, 1, 2, 3 has variance 1.25: sqrt(4 / 2.5)
    acts = np.array([9.0, 9, 9, 9, 0, 1, 2, 3])[:, None, None]
    assert relative_drift(acts, 2)[0] == pytest.approx((4 / 2.5) ** 0.5)


def test_the_tail_is_whole_cycles_of_the_second_half():
    assert tail_of(np.arange(20), 3).tolist() == list(range(11, 20))
    assert tail_of(np.arange(4), 3).tolist() == [1, 2, 3]
