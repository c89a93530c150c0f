"""Many observations on a line by fixed waves: the exact answer, and where it ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

import probkit as pk
from lowering import lowers_for_cuda
from probkit.models import gp
from probkit.models.gp import by_waves, ring

KEY = jax.random.key(0)
N = 400
rng = np.random.default_rng(6)
X = np.sort(rng.uniform(2, 12, N))
Y = np.sin(6 * X) + 0.2 * X + 0.1 * rng.normal(size=N)
EXACT = gp.Observed(X, Y)
WAVES = gp.Observed(X, Y, num_waves=400, units=EXACT.units)
COMMON = {"level": 0.7, "noise_sd": 0.1}
CASES = {
    "a smooth function and a line": (
        gp.SquaredExponential() + gp.Linear(),
        {
            "sd_squared_exponential": 0.9,
            "lengthscale_squared_exponential": 1.2,
            "sd_linear": 0.5,
        },
    ),
    "a season that changes": (
        gp.Matern() * gp.Periodic(1.05),
        {
            "sd_matern_periodic": 1.1,
            "lengthscale_matern": 2.0,
            "lengthscale_periodic": 1.5,
            "period_periodic": 1.05,
        },
    ),
    "bumps of the spectrum": (
        gp.SpectralMixture(2),
        {
            "sd_mixture": [1.0, 0.8],
            "frequency_mixture": [0.0, 0.95],
            "lengthscale_mixture": [3.0, 2.0],
        },
    ),
}
every_case = pytest.mark.parametrize("name", CASES)


def case(name):
    kernel, sites = CASES[name]
    sites = {k: jnp.asarray(v, float) for k, v in {**COMMON, **sites}.items()}
    return gp.Regression(kernel), sites


def density(model, data):
    return jax.jit(lambda s: model.evidence(s, data).log_prob(data.y))


@every_case
def test_evidence_and_slopes_are_the_exact_ones(name):
    # The waves have a lengthscale of 120 besides those of the kernels, 3 or less: a change
    # of these by 0.03 %, times the slopes of the density. One density is -8,604 nats.
    model, sites = case(name)
    one, other = (
        jax.value_and_grad(density(model, data))(sites) for data in (EXACT, WAVES)
    )
    assert float(other[0]) == pytest.approx(float(one[0]), abs=0.05, rel=1e-5)
    for site, slope in one[1].items():
        np.testing.assert_allclose(other[1][site], slope, rtol=0.01, atol=0.05)


@every_case
def test_predictions_terms_and_leave_one_out_are_the_exact_ones(name):
    model, sites = case(name)
    new = [1.0, 5.55, 14.0]
    one, other = (
        model.predict(sites, model.inputs(new, data), KEY) for data in (EXACT, WAVES)
    )
    np.testing.assert_allclose(other["mean"], one["mean"], atol=2e-3)
    np.testing.assert_allclose(other["sd"], one["sd"], rtol=5e-3)
    one, other = (model.recover(sites, data, KEY) for data in (EXACT, WAVES))
    np.testing.assert_allclose(other["term_mean"], one["term_mean"], atol=2e-3)
    one, other = (model.pointwise(sites, data)["y"] for data in (EXACT, WAVES))
    np.testing.assert_allclose(other, one, atol=5e-3)


@every_case
def test_the_error_of_the_kernel_is_that_of_its_matrix(name):
    # An independent way: the matrix of all pairs, by the waves as columns.
    model, sites = case(name)
    structure, few = model.structure(), gp.Observed(X, Y, num_waves=15, units=EXACT.units)
    found = float(by_waves.error(structure, sites, few))
    j = np.arange(1, 16)
    phase = 2 * np.pi * j * (X - X.min())[:, None] / (6 * np.ptp(X))
    t = (X - X.min()) / (np.ptp(X) / 2) - 1
    waves = np.sqrt(2) * np.cos(phase), np.sqrt(2) * np.sin(phase)
    Φ = np.concatenate([np.ones((N, 1)), *waves, t[:, None]], 1)
    λ = np.asarray(by_waves.variances(structure, sites, few).sum(0))
    K = np.asarray(structure.covariance(sites, EXACT).sum(0))
    variance = float(structure.covariance(sites, EXACT).sum(0)[0, 0])
    line = "line" in name
    if line:
        variance -= 0.25 * float(t[0] ** 2)
    largest = np.abs((Φ * λ) @ Φ.T - K).max() / variance
    # The lags of the data are not all lags between 0 and their length.
    assert largest <= found * (1 + 1e-6) + 1e-12
    assert largest > 0.8 * found
    assert float(by_waves.error(structure, sites, WAVES)) < 1e-3 < found


def test_products_of_waves_follow_from_their_sums():
    few = ring.ring_of(jnp.asarray(X), 5)
    features = ring.Features(jnp.asarray(X), few)
    rows = np.stack([features.expand(e) for e in jnp.eye(12)], 1)
    np.testing.assert_allclose(ring.gram(few), rows.T @ rows, atol=1e-9)
    np.testing.assert_allclose(features.project(jnp.asarray(Y)), rows.T @ Y, atol=1e-9)
    np.testing.assert_allclose(
        rows[:, 2], np.sqrt(2) * np.cos(2 * np.pi * (X - X[0]) / (3 * np.ptp(X)))
    )
    squares = features.of_each(lambda row: row @ row)
    np.testing.assert_allclose(squares, (rows**2).sum(1))


@functools.cache
def small():
    few = ring.ring_of(jnp.asarray(X[:30]), 4)
    features = ring.Features(jnp.asarray(X[:30]), few)
    rows = np.stack([features.expand(e) for e in jnp.eye(10)], 1)
    return few, features, rows, jnp.linspace(0.2, 1.5, 10)


def normal(a):
    from probkit.distributions import FeatureNormal

    few, features, _, λ = small()
    return FeatureNormal(a[0], ring.gram(few), a[1] * λ, a[2], features, 30)


def test_the_distribution_is_that_of_scipy():
    _, _, rows, λ = small()
    covariance = 1.3 * (rows * np.asarray(λ)) @ rows.T + 0.4 * np.eye(30)
    expected = scipy.stats.multivariate_normal(np.full(30, 0.3), covariance)
    found, y = normal(jnp.array([0.3, 1.3, 0.4])), jnp.asarray(Y[:30])
    assert float(found.log_prob(y)) == pytest.approx(expected.logpdf(Y[:30]), rel=1e-10)
    both = found.log_prob(jnp.stack([y, 2 * y]))
    assert float(both[1]) == pytest.approx(expected.logpdf(2 * Y[:30]), rel=1e-10)
    draws = found.sample(KEY, (4000,))
    white = np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(draws) - 0.3).T)
    # Standard errors of a mean and of a covariance: 0.016 and 0.022; there are 930 of them.
    np.testing.assert_allclose(white.mean(1), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(white), np.eye(30), atol=0.12)


def test_first_and_second_derivatives_of_the_distribution():
    y = jnp.asarray(Y[:30])
    at = jnp.array([0.3, 1.3, 0.4])

    def ours(a):
        return normal(a).log_prob(y)

    def plain(a):
        _, _, rows, λ = small()
        S = a[1] * (rows * λ) @ rows.T + a[2] * jnp.eye(30)
        left = y - a[0]
        return -0.5 * (left @ jnp.linalg.solve(S, left) + jnp.linalg.slogdet(S)[1])

    check_grads(ours, (at,), order=1, modes=["fwd", "rev"], rtol=1e-6)
    for derivative in (jax.grad, jax.hessian):
        one, other = (jax.jit(derivative(f))(at) for f in (ours, plain))
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


# Fits.


@functools.cache
def many():
    """A wave of 0.3 cycles that keeps its phase for 10, on a slope; and noise."""
    n, random = 10_500, np.random.default_rng(2)
    x = np.sort(random.uniform(0, 50, n))
    frequency = 0.3 + random.normal(size=100) / (2 * np.pi * 10)
    phase = 2 * np.pi * (frequency * x[:, None] + random.uniform(size=100))
    f = np.sqrt(2 / 100) * np.cos(phase).sum(1) + 0.02 * x
    return x, f, f + 0.5 * random.normal(size=n)


def test_more_observations_than_a_matrix_holds_are_fitted(tmp_path):
    x, f, y = many()
    units = gp.Observed(x[::40], y[::40]).units
    assert gp.Observed(x, y, units=units).ring.num_waves == 600
    data = gp.Observed(x, y, units=units, num_waves=130)
    model = gp.Regression(gp.SpectralMixture(2) + gp.Linear())
    fit = pk.fit(model, data, pk.MAP(1, num_draws=10), key=KEY)
    frequency = fit.posterior["frequency_mixture"].values[0, :, 1]
    # Five stretches of 10, each with a spectrum of sd 0.016: a standard error of 0.007.
    assert abs(frequency.mean() - 0.3) < 0.03
    # The standard error of an sd is 0.5 / √(2 n), 0.0032.
    assert abs(float(fit.posterior["noise_sd"].mean()) - 0.5) < 0.015
    report = pk.diagnose(fit)
    assert report["error of the kernel by waves"].ok
    places = x[::1000]
    found = pk.predict(fit, places, key=KEY)
    mean, sd = (found[k].mean(("chain", "draw")).values for k in ("mean", "sd"))
    assert np.abs((mean - f[::1000]) / sd).max() < 5
    again = pk.load(pk.save(fit, tmp_path / "fit.nc"))
    assert again.data.ring.num_waves == 130
    assert pk.predict(again, places, key=KEY).equals(found)


@pytest.mark.parametrize(
    ("lengthscale", "ok"), [(0.02, False), (0.5, True), (4.0, True), (25.0, False)]
)
def test_waves_that_are_not_the_kernel_are_reported(lengthscale, ok):
    # The data are 10 long: 400 waves reach periods of 0.15, and repeat after 60.
    model, sites = case("a smooth function and a line")
    sites["lengthscale_squared_exponential"] = jnp.asarray(lengthscale)
    found = {c.name: c for c in model.checks(sites, WAVES)}
    assert found["error of the kernel by waves"].ok == ok


def test_what_is_left_out_of_the_waves_is_not_free():
    # A slow wave, and kernels of it and of much faster waves than the fastest of 60.
    y = np.sin(X) + 0.1 * np.random.default_rng(1).normal(size=N)
    exact = gp.Observed(X, y)
    few = gp.Observed(X, y, num_waves=60, units=exact.units)
    model = gp.Regression(gp.SquaredExponential())
    sites = {"sd_squared_exponential": 1.0, "level": 0.0, "noise_sd": 0.1}

    def advantage(data):
        slow, fast = (
            density(model, data)(
                {**sites, "lengthscale_squared_exponential": jnp.asarray(lengthscale)}
            )
            for lengthscale in (2.0, 0.02)
        )
        return float(slow - fast)

    assert advantage(exact) > 300
    assert advantage(few) > 0.8 * advantage(exact)


@pytest.mark.parametrize("lengthscale", [30.0, 300.0, 1e4])
def test_waves_that_never_end_keep_the_variance_of_the_kernel(lengthscale):
    # On a frequency of the ring, its repetitions add up.
    model, sites = case("bumps of the spectrum")
    sites["lengthscale_mixture"] = jnp.array([lengthscale, lengthscale])
    sites["frequency_mixture"] = jnp.array([0.0, 30 / float(WAVES.ring.length)])
    variances = by_waves.variances(model.structure(), sites, WAVES)
    total = variances[0, 0] + 2 * variances[0, 1:401].sum()
    assert float(total) <= 1.64 * (1 + 1e-9)


def test_an_even_series_with_gaps_is_one_of_scattered_places():
    x = np.delete(np.linspace(0, 10, 500), np.r_[40:90, 300:310])
    y = np.sin(5 * x) + 0.1 * np.random.default_rng(0).normal(size=len(x))
    exact = gp.Observed(x, y)
    data = gp.Observed(x, y, num_waves=150, units=exact.units)
    model, sites = case("bumps of the spectrum")
    one, other = (float(density(model, d)(sites)) for d in (exact, data))
    assert other == pytest.approx(one, abs=0.05)


def test_hot_paths_lower_for_cuda():
    lowers_for_cuda(pk.MAP(2), case("bumps of the spectrum")[0], WAVES)
