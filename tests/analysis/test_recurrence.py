"""Transient, recurrence, period and drift on series whose answers are known."""

import numpy as np
import pytest

from trm_interp.analysis.recurrence import (
    autocorrelation,
    highest_peak,
    recurrence,
    relative_drift,
    shuffled_phases,
    tail_of,
    transient_cycles,
)

CYCLE, N = 7, 336
T = np.arange(N)
RNG = np.random.default_rng(0)
SCHEDULE = np.array([0.0, 1, 2, 3, 2, 1, 5])[T % CYCLE]


def test_autocorrelation_by_hand():
    # centred -1, 0, 1, 0: lag 0 (1 + 1) / 4, lag 1 (0 + 0 + 0) / 3, lag 2 (-1 + 0) / 2
    expected = np.array([0.5, 0.0, -0.5]) / 0.5
    np.testing.assert_allclose(autocorrelation(np.array([1.0, 2, 3, 2])), expected, atol=1e-12)


def test_the_first_of_equal_peaks_is_the_period():
    r = np.array([1.0, 0.2, -0.5, 0.9, 0.1, -0.4, 0.91, 0.0])
    score, period = highest_peak(r)
    assert score == 0.91 and period == 3
    assert highest_peak(np.array([1.0, 0.8, 0.5, 0.2, 0.1]))[0] == 0  # decay is no recurrence


def test_what_the_schedule_forces_is_no_recurrence():
    measured = recurrence(SCHEDULE, CYCLE)
    assert measured.score == pytest.approx(1, abs=1e-3) and measured.period == 7
    assert measured.excess == pytest.approx(0, abs=1e-3) and measured.p == 1


def test_a_period_of_its_own_is_found_beside_the_schedule():
    measured = recurrence(3 * np.cos(2 * np.pi * T / 11) + 0.1 * SCHEDULE, CYCLE, shuffles=39)
    assert measured.period == 11 and measured.score > 0.9
    assert measured.excess > 0.4 and measured.p == 1 / 40


def test_the_null_keeps_phase_means_and_random_fourier_phases_would_not_do():
    series = np.cos(2 * np.pi * T / 11) + RNG.standard_normal(N)
    other = shuffled_phases(series, CYCLE, np.random.default_rng(1))
    np.testing.assert_allclose(other.reshape(-1, CYCLE).mean(0), series.reshape(-1, CYCLE).mean(0))
    assert not np.array_equal(other, series)
    # same power spectrum, same circular autocorrelation (Wiener-Khinchin)
    spectrum = np.fft.rfft(series)
    turned = spectrum * np.exp(2j * np.pi * RNG.random(spectrum.shape))
    turned[0], turned[-1] = spectrum[0], spectrum[-1]
    surrogate = np.fft.irfft(turned)
    circular = [np.fft.irfft(np.abs(np.fft.rfft(s - s.mean())) ** 2) for s in (series, surrogate)]
    np.testing.assert_allclose(*circular, atol=1e-8)


def test_noise_rarely_passes_and_what_stands_still_is_not_measured():
    measured = recurrence(RNG.standard_normal((200, N)), CYCLE, shuffles=19)
    assert 0.01 <= (measured.p <= 0.05).mean() <= 0.12 and abs(measured.excess.mean()) < 0.02
    assert np.isnan(recurrence(np.ones(N), CYCLE).score)
    assert np.isnan(recurrence(1 + 1e-5 * RNG.standard_normal(N), CYCLE, still=1e-3).score)


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
