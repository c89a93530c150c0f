"""Waves in values at scattered points."""

import numpy as np
import pytest

from probkit.gp import periodogram
from probkit.gp.periodogram import waves
from probkit.gp.wave_sums import wave_sums

π = np.pi


def scattered(seed, n, d=1):
    random = np.random.default_rng(seed)
    return random, random.uniform(0, 1, (n, d))


def test_two_waves_are_found_in_noise_on_a_trend():
    random, x = scattered(0, 220)
    t = 10 * x[:, 0]
    y = 3 * np.sin(2 * π * t) + np.cos(2 * π * 2.3 * t) + 0.5 * t
    found = waves(t, y + 0.3 * random.normal(size=220))
    # The standard error of a frequency is sqrt(6 / n) sd / (π amplitude length): .002.
    np.testing.assert_allclose(found.frequency[:, 0], [1.0, 2.3], atol=0.008)
    np.testing.assert_allclose(found.amplitude, [3.0, 1.0], rtol=0.1)


def test_a_product_of_waves_is_found_in_two_dimensions():
    random, x = scattered(1, 150, 2)
    y = np.sin(3 * π * x[:, 0]) * np.cos(2 * π * 4.2 * (x[:, 1] - 0.1))
    found = waves([1.0, 2.0] * x, y + 0.05 * random.normal(size=150))
    np.testing.assert_allclose(found.frequency, [[1.5, 2.1]], atol=0.02)
    np.testing.assert_allclose(found.amplitude, [1.0], rtol=0.1)


def test_a_damped_wave_is_one():
    random, x = scattered(2, 40)
    y = np.exp(-2 * x[:, 0]) * np.cos(19.9 * x[:, 0]) + 0.04 * random.normal(size=40)
    np.testing.assert_allclose(waves(x, y).frequency, [[19.9 / (2 * π)]], atol=0.1)


@pytest.mark.parametrize("d", [1, 2])
def test_noise_has_none(d):
    # At a false alarm rate of 1e-3, two in 100 have a probability of 0.005.
    drawn = [scattered(seed, 60, d) for seed in range(100 if d == 1 else 20)]
    found = [waves(x, random.normal(size=60)) for random, x in drawn]
    assert sum(len(one.amplitude) > 0 for one in found) <= 2


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_values_have_none(n):
    _, x = scattered(3, n)
    assert waves(x, np.sin(9 * x[:, 0])).frequency.shape == (0, 1)


def test_no_frequency_is_above_that_of_the_grid():
    t = np.linspace(0, 1, 60)
    found = waves(t, np.sin(2 * π * 20 * t), max_frequency=[10.0])
    assert (found.frequency <= 10.0).all()


def test_a_constant_column_and_equal_values_have_none():
    _, x = scattered(4, 40)
    still = np.concatenate([x, np.ones_like(x)], 1)
    assert not len(waves(still, np.full(40, 2.0)).amplitude)


def test_sums_of_waves_are_those_of_their_definition():
    random, x = scattered(8, 90)
    columns = random.normal(size=(90, 2))
    found = wave_sums(7 + 3 * x[:, 0], columns, 40, 0.25)
    waves_there = np.exp(2j * π * np.outer(0.25 * np.arange(40), 7 + 3 * x[:, 0]))
    np.testing.assert_allclose(found, (waves_there @ columns).T, atol=1e-7)


@pytest.mark.parametrize("x", [scattered(9, 60)[1], np.linspace(0, 1, 60)[:, None]])
def test_gains_on_a_line_are_those_of_least_squares(x):
    # The highest frequency of even places has no sine.
    y = np.random.default_rng(10).normal(size=60)
    known = np.linalg.qr(periodogram._quadratic(x))[0]
    left = y - known @ (known.T @ y)
    grid = periodogram._grid(np.array([29.5]), 1000)
    fast = periodogram._on_a_line(x[:, 0], grid[:, 0])(left, known)
    np.testing.assert_allclose(fast, periodogram._gains(x, grid, left, known), atol=1e-6)
