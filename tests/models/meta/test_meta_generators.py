"""Simulated data sets: other ones in each step, from the distributions that they name."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from doors import refused
from probkit.models import meta

KEY = jax.random.key(0)
GENERATORS = {
    "sines and lines": meta.SineLine(KEY, batch_size=4000),
    "lines": meta.LinearGaussian(KEY, [1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]], 4000),
    "harmonics": meta.Harmonics(KEY, batch_size=4000),
}
every_generator = pytest.mark.parametrize("name", GENERATORS)


@every_generator
def test_a_step_follows_from_its_number_alone(name):
    source = GENERATORS[name]
    at = eqx.filter_jit(lambda step: source.at(step))
    one, again, other = at(jnp.int32(3)), source.at(3), at(jnp.int32(4))
    np.testing.assert_allclose(one.y, again.y, rtol=1e-12, atol=1e-12)
    assert float(jnp.abs(one.y - other.y).min(1).max()) > 0
    example = source.example()
    assert example.x.shape == one.x.shape
    assert bool(example.seen.all())


@every_generator
def test_the_units_are_those_of_many_data_sets(name):
    data = GENERATORS[name].at(0)
    x, y = np.asarray(data.x[..., 0]), np.asarray(data.y)
    assert x.mean() == pytest.approx(float(data.x_mean[0]), abs=0.1)
    # The sd of a grid of fifty points is a fiftieth above that of its interval.
    assert x.std() == pytest.approx(float(data.x_sd[0]), rel=0.04)
    assert abs(y.mean() - data.y_mean) < 0.15 * y.std()
    assert y.std() == pytest.approx(float(data.y_sd), rel=0.15)


@every_generator
def test_held_out_data_sets_have_each_point_once(name):
    source = GENERATORS[name]
    found = source.held_out(jax.random.key(1), 30)
    x = np.concatenate([found.support_x, found.x], 1)
    np.testing.assert_allclose(np.sort(x, 1), np.broadcast_to(source.grid(), x.shape))
    assert found.support_x.shape[1] == source.like.y.shape[1]
    noise = np.asarray(found.y - found.mean)
    assert noise.std() == pytest.approx(source.noise_sd, rel=0.1)


def test_half_of_the_functions_are_lines():
    x = jnp.broadcast_to(jnp.linspace(-5.0, 5.0, 50), (2000, 50))
    f = GENERATORS["sines and lines"].functions(KEY, x)
    bent = np.abs(np.diff(f, 2)).max(1)
    lines = bent < 1e-10
    # Four standard errors.
    assert abs(lines.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    # The curvature of a sine is its height.
    again = np.diff(f, 2)[~lines] / (2 - 2 * np.cos(10 / 49))
    np.testing.assert_allclose(again, -f[~lines, 1:-1], atol=1e-9)
    assert np.abs(f[~lines]).max() < 5
    slope = (f[lines, -1] - f[lines, 0]) / 10
    assert slope.min() < -2.9
    assert slope.max() > 2.9
    assert np.abs(slope).max() < 3


def test_lines_have_the_given_mean_and_covariance():
    source = GENERATORS["lines"]
    x = jnp.broadcast_to(jnp.array([0.0, 1.0]), (20_000, 2))
    f = np.asarray(source.functions(KEY, x))
    found = np.stack([f[:, 0], f[:, 1] - f[:, 0]], 1)
    # Four standard errors of a mean are 0.02, and of a variance 0.02 of two sds.
    np.testing.assert_allclose(found.mean(0), source.mean, atol=0.02)
    np.testing.assert_allclose(np.cov(found.T), source.covariance, atol=0.02)


def test_harmonics_have_one_period():
    source = GENERATORS["harmonics"]
    x = jnp.linspace(0.0, 1.0, 9)[None]
    f = source.functions(KEY, x)
    np.testing.assert_allclose(f, source.functions(KEY, x + 1), atol=1e-10)
    # The first three frequencies and no other.
    t = jnp.arange(32)[None] / 32.0
    power = np.abs(np.fft.rfft(np.asarray(source.functions(KEY, t))[0]))
    assert (power[1:4] > 1e-3).all()
    assert np.delete(power, [1, 2, 3]).max() < 1e-9


def test_wrong_settings_are_refused():
    refused(lambda: meta.SineLine(KEY, num_support=50), "needs more points")
    refused(lambda: meta.LinearGaussian(KEY, [1.0]), r"have \(2,\) and \(2, 2\)")
    wrong = [[1.0, 2.0], [2.0, 1.0]]
    refused(lambda: meta.LinearGaussian(KEY, covariance=wrong), "not positive definite")
    refused(lambda: meta.Harmonics(KEY, num_harmonics=0), "whole number")
