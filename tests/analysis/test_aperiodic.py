"""How high aperiodic series peak."""

import numpy as np
import pytest

from trm_interp.analysis.aperiodic import (
    OF_CYCLES,
    aperiodic_peaks,
    autocorrelation,
    autoregressive,
    beyond_schedule,
    dimension,
    from_tick_to_tick,
    highest_peak,
    lowest_of_half_periodic,
)

RNG = np.random.default_rng(0)


def test_autocorrelation_by_hand():
    # centred -1, 0, 1, 0: lag 0 (1 + 1) / 4, lag 1 (0 + 0 + 0) / 3, lag 2 (-1 + 0) / 2
    expected = np.array([0.5, 0.0, -0.5]) / 0.5
    series = np.array([1.0, 2, 3, 2])[:, None]
    np.testing.assert_allclose(autocorrelation(series), expected, atol=1e-12)
    both = np.concatenate([series, 3 * series], axis=1)  # summed over phases, then normalised
    np.testing.assert_allclose(autocorrelation(both), expected, atol=1e-12)


def test_the_highest_peak_has_neighbours_below_it():
    assert highest_peak(np.array([1.0, 0.2, -0.5, 0.9, 0.1, -0.4, 0.91, 0.0])) == 0.91
    assert highest_peak(np.array([1.0, 0.8, 0.5, 0.2, 0.1])) == 0  # decay is no recurrence
    assert highest_peak(np.array([1.0, 0.1, 0.2, 0.3, 0.4])) == 0  # may go on rising


def test_what_the_schedule_and_a_drift_explain_is_taken_away():
    t = np.arange(168)
    schedule = np.array([0.0, 1, 2, 3, 2, 1, 5])[t % 7]
    residual = beyond_schedule(schedule * (1 + 0.01 * t) + 0.3 * t, 7)
    assert residual.shape == (24, 7)
    np.testing.assert_allclose(residual, 0, atol=1e-9)


def test_the_dimension_counts_phases_that_vary_by_themselves():
    one = RNG.standard_normal((400, 1)) * np.array([1.0, -2, 3])
    assert dimension(one) == pytest.approx(1)
    assert dimension(RNG.standard_normal((5000, 3))) == pytest.approx(3, abs=0.02)
    # variances 1 and 2: (1 + 2)^2 / (1 + 4)
    two = RNG.standard_normal((20_000, 2)) * np.sqrt([1.0, 2.0])
    assert dimension(two) == pytest.approx(9 / 5, abs=0.02)


def test_autoregressive_series_have_their_coefficient():
    series = autoregressive(0.8, (2000, 50), RNG)
    np.testing.assert_allclose(series.var(0), 1 / (1 - 0.8**2), rtol=0.2)  # from the start
    ratio = (series[:, 1:] * series[:, :-1]).mean() / np.square(series[:, :-1]).mean()
    assert ratio == pytest.approx(0.8, abs=0.02)
    walk = autoregressive(1.0, (2000, 50), RNG)
    np.testing.assert_allclose(walk.var(0), np.arange(1, 51), rtol=0.2)


def test_p_is_the_largest_rank_among_all_that_is_possible():
    peaks = aperiodic_peaks(24, 7, 999, 0)
    highest = max(peaks.of_cycles[0].max(), peaks.of_ticks.max())
    one = np.ones(1)
    p, height = peaks.p(np.array([highest + 0.01]), one, 0.5 * one)
    assert p == 1 / 1000 and 0.4 < height <= peaks.highest
    p, _ = peaks.p(np.zeros(1), one, 0.5 * one)
    assert p == 1
    at_height, _ = peaks.p(height, one, 0.5 * one)
    just_above, _ = peaks.p(height + 1e-6, one, 0.5 * one)
    assert at_height > 0.05 >= just_above
    few, many = (peaks.p(np.array([0.4]), one * d, 0.0 * one)[0] for d in (1.0, 6.0))
    assert few > many  # one component alone peaks higher


def test_the_coefficient_of_a_walk_cannot_be_estimated():
    """Over 24 cycles it comes out as 0.6, and its peaks are lower than those of noise: why p is
    the largest over all coefficients."""
    walk = beyond_schedule(autoregressive(1.0, (2000, 24), RNG), 1)
    assert np.median(from_tick_to_tick(walk)) < 0.75
    of_walk, of_noise = (aperiodic_peaks(24, 1, 999, 0).of_cycles[0, at] for at in (-1, 0))
    assert OF_CYCLES[-1] == 1 and np.median(of_walk) < np.median(of_noise)


def test_random_fourier_phases_would_keep_the_peaks():
    """Same power spectrum, same circular autocorrelation (Wiener-Khinchin)."""
    series = np.cos(2 * np.pi * np.arange(336) / 11) + RNG.standard_normal(336)
    spectrum = np.fft.rfft(series)
    turned = spectrum * np.exp(2j * np.pi * RNG.random(spectrum.shape))
    turned[0], turned[-1] = spectrum[0], spectrum[-1]
    surrogate = np.fft.irfft(turned)
    circular = [np.fft.irfft(np.abs(np.fft.rfft(s - s.mean())) ** 2) for s in (series, surrogate)]
    np.testing.assert_allclose(*circular, atol=1e-8)


def test_half_periodic_series_reach_the_lowest_peak_that_excludes_none():
    t = np.arange(24)
    waves = np.cos(2 * np.pi * (t / 3 + RNG.uniform(0, 1, (2000, 1))))
    r = autocorrelation(beyond_schedule(waves + np.sqrt(0.5) * RNG.standard_normal((2000, 24)), 1))
    lowest = lowest_of_half_periodic(24, 2000, 0)
    assert 0.15 < lowest < 0.5 and (highest_peak(r) < lowest).mean() < 0.08
    assert lowest_of_half_periodic(8, 2000, 0) == 0  # nothing is excluded in so few cycles


def test_too_few_draws_are_refused():
    assert aperiodic_peaks(24, 1, 19, 0).of_ticks.shape[1] == 19
    with pytest.raises(ValueError, match="19 draws or more, got 18"):
        aperiodic_peaks(24, 1, 18, 0)
