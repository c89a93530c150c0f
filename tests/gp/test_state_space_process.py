"""Markov forms of kernels: transitions, noise and the kernels that they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probkit.gp.state_space import (
    Constant,
    Independent,
    Matern,
    Periodic,
    Product,
    Sum,
)
from reference import state_space as slow

SMOOTHNESS = (0.5, 1.5, 2.5)
each = pytest.mark.parametrize("smoothness", SMOOTHNESS)
STEPS = ("1e-6", "1e-5", "1e-4", "1e-3", "0.01", "0.1", "0.3", "0.99", "1.01", "2.5")
STEPS = (*STEPS, "7", "20", "1e3", "1e6")


def matern(smoothness, d, lengthscale=1.0):
    z = np.sqrt(2 * smoothness) * np.abs(d) / lengthscale
    return {0.5: 1.0, 1.5: 1 + z, 2.5: 1 + z + z**2 / 3}[smoothness] * np.exp(-z)


def periodic(d, period, lengthscale):
    return np.exp(-2 * (np.sin(np.pi * d / period) / lengthscale) ** 2)


@pytest.fixture(scope="module")
def at_all_steps():
    """A and Q of kernels of variance one, at all steps in units of ℓ / sqrt(2ν)."""
    z = jnp.array([float(z) for z in STEPS])
    out = {}
    for smoothness in SMOOTHNESS:
        p = Matern(smoothness, np.sqrt(2 * smoothness))
        out[smoothness] = [np.asarray(jax.vmap(f)(z)) for f in (p.transition, p.noise)]
    return out


@each
def test_the_stationary_covariance_solves_its_lyapunov_equation(smoothness):
    P = Matern(smoothness, 0.3, 2.0).stationary()
    np.testing.assert_allclose(P, 2 * slow.stationary(smoothness), atol=1e-14)


@each
def test_transitions_are_exponentials_of_matrices(smoothness, at_all_steps):
    expected = [slow.step(smoothness, z)[0] for z in STEPS]
    np.testing.assert_allclose(
        at_all_steps[smoothness][0], expected, rtol=1e-12, atol=1e-15
    )


@each
def test_noise_has_all_digits_from_short_steps_to_long_ones(smoothness, at_all_steps):
    # Each entry relative to the sds of its row and column, which differ by z^2
    for z, got in zip(STEPS, at_all_steps[smoothness][1], strict=True):
        expected = slow.step(smoothness, z)[1]
        sd = np.sqrt(np.diagonal(expected))
        np.testing.assert_array_less(np.abs(got - expected) / sd / sd[:, None], 1e-13)


@each
def test_noise_in_float32_has_the_digits_of_float32(smoothness):
    p = Matern(smoothness, jnp.float32(np.sqrt(2 * smoothness)), jnp.float32(1.0))
    assert p.noise(jnp.float32(0.1)).dtype == jnp.float32
    for z in STEPS:
        expected = slow.step(smoothness, z)[1]
        sd = np.sqrt(np.diagonal(expected))
        got = np.asarray(p.noise(jnp.float32(z)), float)
        np.testing.assert_array_less(np.abs(got - expected) / sd / sd[:, None], 5e-6)


@each
@pytest.mark.parametrize("z", ["1e-6", "0.01", "0.99", "1.01", "7"])
def test_noise_has_the_right_slope_in_the_lengthscale(smoothness, z):
    """By scale: Q depends on d / ℓ only, so ℓ dQ/dℓ = -z dQ/dz = -z A_L q A_L^T."""

    def noise(lengthscale):
        return Matern(smoothness, lengthscale).noise(jnp.array(float(z)))

    slope = jax.jacfwd(noise)(jnp.sqrt(2 * smoothness))
    A, _ = slow.step(smoothness, z)
    # dQ/dz = A (q L L^T) A^T with q L L^T = -(F P + P F^T)
    F, P = np.array(slow.DRIFT[smoothness], float), slow.stationary(smoothness)
    q = -(F @ P + P @ F.T)[-1, -1]
    a = A[:, -1]
    expected = -float(z) * q * np.outer(a, a) / np.sqrt(2 * smoothness)
    sd = np.sqrt(np.abs(np.diagonal(expected)))
    np.testing.assert_array_less(np.abs(slope - expected) / sd / sd[:, None], 1e-9)


EVERY = {
    "matern12": lambda s: Matern(0.5, s),
    "matern32": lambda s: Matern(1.5, s),
    "matern52": lambda s: Matern(2.5, s),
    "periodic": lambda s: Periodic(1.3, s, num_waves=3),
    "quasiperiodic": lambda s: Product(Periodic(1.3, s, num_waves=2), Matern(1.5, s)),
    "sum": lambda s: Sum([Matern(0.5, s), Constant(2.0)]),
    "independent": lambda s: Independent([Matern(0.5, s), Matern(2.5, 2 * s)]),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())


@every
def test_a_step_of_zero_changes_nothing_and_has_a_slope_of_zero(make):
    def both(s):
        p = make(s)
        return p.transition(jnp.array(0.0)), p.noise(jnp.array(0.0))

    A, Q = both(jnp.array(0.7))
    np.testing.assert_array_equal(A, np.eye(len(A)))
    np.testing.assert_array_equal(Q, 0.0)
    for slope in jax.jacfwd(both)(jnp.array(0.7)):
        np.testing.assert_array_equal(slope, 0.0)


@every
def test_noise_is_what_the_stationary_covariance_lacks(make):
    p, d = make(jnp.array(0.7)), jnp.array(0.9)
    A, P = p.transition(d), p.stationary()
    np.testing.assert_allclose(p.noise(d), P - A @ P @ A.T, atol=1e-13)


@every
def test_two_steps_are_one(make):
    p, a, b = make(jnp.array(0.7)), jnp.array(0.2), jnp.array(0.55)
    A = p.transition(b)
    np.testing.assert_allclose(p.transition(a + b), A @ p.transition(a), atol=1e-14)
    Q = A @ p.noise(a) @ A.T + p.noise(b)
    np.testing.assert_allclose(p.noise(a + b), Q, atol=1e-14)


LAGS = np.array([-2.2, 0.0, 0.01, 0.4, 1.3, 9.0])


@pytest.mark.parametrize(
    "process, kernel",
    [
        (Matern(0.5, 0.7, 2.0), lambda d: 2 * matern(0.5, d, 0.7)),
        (Matern(1.5, 0.7, 2.0), lambda d: 2 * matern(1.5, d, 0.7)),
        (Matern(2.5, 0.7, 2.0), lambda d: 2 * matern(2.5, d, 0.7)),
        (Constant(3.0), lambda d: 3 + 0 * d),
        (Periodic(1.3, 1.5, 2.0, 12), lambda d: 2 * periodic(d, 1.3, 1.5)),
        (
            Product(Periodic(1.3, 1.5, 2.0, 12), Matern(1.5, 0.7)),
            lambda d: 2 * periodic(d, 1.3, 1.5) * matern(1.5, d, 0.7),
        ),
        (
            Sum([Matern(0.5, 0.7), Product(Matern(1.5, 0.4), Matern(2.5, 0.9))]),
            lambda d: matern(0.5, d, 0.7) + matern(1.5, d, 0.4) * matern(2.5, d, 0.9),
        ),
    ],
    ids=["m12", "m32", "m52", "constant", "periodic", "quasiperiodic", "sum"],
)
def test_the_covariance_is_the_kernel(process, kernel):
    got = jax.vmap(process.covariance)(jnp.asarray(LAGS))[:, 0, 0]
    np.testing.assert_allclose(got, kernel(LAGS), atol=1e-12)


def test_values_of_independent_processes_are_independent():
    p = Independent([Matern(0.5, 0.7), Matern(1.5, 0.4)])
    k = p.covariance(jnp.array(0.3))
    assert k[0, 0] == pytest.approx(matern(0.5, 0.3, 0.7))
    assert k[1, 1] == pytest.approx(matern(1.5, 0.3, 0.4))
    assert k[0, 1] == k[1, 0] == 0


def test_the_waves_of_a_periodic_kernel_that_are_left_out_are_known():
    p = Periodic(1.0, 0.5, num_waves=3)
    kernel = periodic(0.0, 1.0, 0.5)
    waves = np.mean(
        [
            periodic(d, 1.0, 0.5)
            * (1 + 2 * sum(np.cos(2 * np.pi * j * d) for j in (1, 2, 3)))
            for d in np.arange(200) / 200
        ]
    )
    assert float(p.missing()) == pytest.approx(kernel - waves, rel=1e-10)
    assert float(p.covariance(jnp.array(0.0))[0, 0]) == pytest.approx(1.0)


def test_a_smoothness_that_is_not_there(no_checker):
    with pytest.raises(ValueError, match=r"`Matern\(smoothness=2\)`: it takes 0.5, 1.5 or"):
        Matern(2, 1.0)


def test_a_sum_of_nothing(no_checker):
    with pytest.raises(ValueError, match="it takes a list of one process or more"):
        Sum([])
