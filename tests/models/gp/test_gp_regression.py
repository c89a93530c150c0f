"""Regression: known answers, three methods, starts from the data, files."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from jax.test_util import check_grads

import probkit as pk
from lowering import lowers_for_cuda
from probkit.distributions import DenseNormal
from probkit.model.density import log_densities
from probkit.models import gp
from reference import gp as slow

KEY = jax.random.key(0)
rng = np.random.default_rng(1)
X = np.sort(rng.uniform(2, 7, 23))
Y = np.sin(3 * X) + X + 0.2 * rng.normal(size=23)
NEW = np.linspace(1, 9, 6)
LINE = gp.Observed(X, Y)
PLANE = gp.Observed(rng.uniform(0, 4, (20, 2)), rng.normal(size=20), inputs=["u", "v"])
LOW, HALF = X.min(), np.ptp(X) / 2
MIDDLE = LOW + HALF
COMMON = {"level": 4.0, "noise_sd": 0.3}

# A kernel, the data, sites, and the same covariance of two places.
CASES = {
    "matern": (
        gp.Matern(0.5),
        LINE,
        {"lengthscale_matern": 0.8, "sd_matern": 1.3},
        lambda a, b: 1.69 * slow.matern(a, b, 0.5, [0.8]),
    ),
    "matern of two inputs": (
        gp.Matern(1.5),
        PLANE,
        {"lengthscale_matern": [0.8, 2.0], "sd_matern": 1.3},
        lambda a, b: 1.69 * slow.matern(a, b, 1.5, [0.8, 2.0]),
    ),
    "squared exponential of one of two": (
        gp.SquaredExponential(on="v"),
        PLANE,
        {"lengthscale_squared_exponential": 0.8, "sd_squared_exponential": 1.3},
        lambda a, b: 1.69 * slow.squared_exponential(a[1:], b[1:], [0.8]),
    ),
    "waves": (
        gp.SpectralMixture(2),
        LINE,
        {
            "sd_mixture": [1.0, 0.5],
            "frequency_mixture": [0.0, 0.5],
            "lengthscale_mixture": [1.0, 4.0],
        },
        lambda a, b: slow.waves(a, b, [1.0, 0.5], [0.0, 0.5], [1.0, 4.0]),
    ),
    "frequencies on a grid": (
        gp.SpectralGrid(4, highest=1.5, lengthscale=3.0),
        LINE,
        {"sd_grid": [1.0, 0.0, 0.5, 0.2]},
        lambda a, b: slow.grid_of_waves(a, b, [1.0, 0.0, 0.5, 0.2], 1.5, 3.0),
    ),
    "a line that drifts": (
        gp.Linear() + gp.Drift(),
        LINE,
        {"sd_linear": 2.0, "sd_drift": 0.7},
        lambda a, b: (
            4 * slow.linear(a, b, MIDDLE, HALF) + 0.49 * slow.drift(a, b, MIDDLE, HALF)
        ),
    ),
    "a sum times a kernel": (
        (gp.Matern() + gp.Linear(name="line")) * gp.Periodic(name="season"),
        LINE,
        {
            "lengthscale_matern": 3.0,
            "lengthscale_season": 0.7,
            "period_season": 2.1,
            "sd_matern_season": 1.2,
            "sd_line_season": 0.4,
        },
        lambda a, b: (
            slow.periodic(a, b, 2.1, 0.7)
            * (
                1.44 * slow.matern(a, b, 2.5, [3.0])
                + 0.16 * slow.linear(a, b, MIDDLE, HALF)
            )
        ),
    ),
}
every_kernel = pytest.mark.parametrize("name", CASES)


def case(name):
    kernel, data, sites, covariance = CASES[name]
    sites = {k: jnp.asarray(v) for k, v in {**COMMON, **sites}.items()}
    return gp.Regression(kernel), data, sites, covariance


@every_kernel
def test_the_evidence_is_that_of_the_dense_normal(name):
    model, data, sites, covariance = case(name)
    assert set(model.priors(data)) == set(sites)
    found = jax.jit(lambda sites: log_densities(model, data, sites)[1])(sites)
    x, y = np.asarray(data.x), np.asarray(data.y)
    expected = slow.log_evidence(covariance, x, y, 4.0, 0.3)
    # The reference integrates a drift by a sum.
    assert float(found) == pytest.approx(expected, rel=1e-7 if "drift" in name else 1e-11)


@every_kernel
def test_mean_and_sd_are_those_of_the_dense_conditional(name):
    model, data, sites, covariance = case(name)
    new = NEW[:, None] if data is LINE else np.stack([NEW, NEW[::-1]], 1)
    inputs = model.inputs(new, data)
    found = jax.jit(lambda sites: model.predict(sites, inputs, KEY))(sites)
    x, y = np.asarray(data.x), np.asarray(data.y)
    mean, C = slow.conditional(covariance, x, y, 4.0, 0.3, new)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(found["sd"], np.sqrt(np.diag(C)), rtol=1e-5)


def test_draws_have_the_covariance_of_the_conditional_and_noise():
    model, data, sites, covariance = case("waves")
    inputs = model.inputs(NEW, data)
    keys = jax.random.split(KEY, 4000)
    draws = jax.jit(jax.vmap(lambda key: model.predict(sites, inputs, key)["y"]))(keys)
    x, y = np.asarray(data.x), np.asarray(data.y)
    mean, C = slow.conditional(covariance, x, y, 4.0, 0.3, NEW[:, None])
    C = C + 0.09 * np.eye(len(NEW))
    white = np.linalg.solve(np.linalg.cholesky(C), (np.asarray(draws) - mean).T)
    # Standard errors of a mean and of a covariance: 0.016 and 0.022.
    np.testing.assert_allclose(white.mean(1), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(white), np.eye(len(NEW)), atol=0.11)


@pytest.mark.parametrize("kind", ["matern", "rbf"])
def test_gpjax_has_the_same_evidence_mean_and_sd(kind):
    import gpjax as gpx

    theirs, ours = {
        "matern": (gpx.kernels.Matern52, gp.Matern()),
        "rbf": (gpx.kernels.RBF, gp.SquaredExponential()),
    }[kind]
    kernel = theirs(lengthscale=jnp.array([0.8]), variance=1.69)
    # Both add jitter of their own; with noise of 0.3, neither is seen at 1e-8.
    prior = gpx.Prior(kernel, gpx.mean_functions.Zero(), jitter=1e-12)
    known = gpx.Dataset(X=jnp.asarray(X)[:, None], y=jnp.asarray(Y)[:, None])
    posterior = prior * gpx.likelihoods.Gaussian(obs_stddev=0.3) | known
    predicted = posterior(jnp.asarray(NEW)[:, None])

    model = gp.Regression(ours)
    name = next(iter(model.structure().leaves))
    sites = {f"lengthscale_{name}": 0.8, f"sd_{name}": 1.3, "level": 0.0, "noise_sd": 0.3}
    sites = {k: jnp.asarray(v) for k, v in sites.items()}
    evidence = log_densities(model, LINE, sites)[1]
    assert float(evidence) == pytest.approx(
        float(posterior.log_marginal_likelihood), rel=1e-8
    )
    found = model.predict(sites, model.inputs(NEW, LINE), KEY)
    np.testing.assert_allclose(found["mean"], predicted.mean, rtol=1e-8, atol=1e-8)
    sd = jnp.sqrt(jnp.diagonal(predicted.covariance_matrix))
    np.testing.assert_allclose(found["sd"], sd, rtol=1e-8)


@pytest.mark.parametrize(
    "name", ["matern", "waves", "frequencies on a grid", "a sum times a kernel"]
)
def test_an_even_grid_needs_lags_only_and_gives_the_same_matrix(name):
    model, _, sites, _ = case(name)
    x = np.linspace(2, 7, 23)
    even, also = gp.Observed(x, Y), gp.Observed(x[::-1], Y[::-1])
    assert even.even and not also.even
    one = model.evidence(sites, even).covariance
    other = model.evidence(sites, also).covariance[::-1, ::-1]
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_terms_add_up_to_the_function():
    model, data, sites, _ = case("a line that drifts")
    terms = model.recover(sites, data, KEY)
    whole = model.predict(sites, model.inputs(data.x, data), KEY)
    np.testing.assert_allclose(4.0 + terms["term_mean"].sum(0), whole["mean"], rtol=1e-9)
    assert model.coords(data)["term"] == ["linear", "drift"]


# The density, and its derivatives.


@functools.cache
def a_covariance():
    root = np.random.default_rng(3).normal(size=(7, 7))
    m = jnp.arange(7.0)
    return root @ root.T + np.eye(7), m, jnp.sin(m)


def test_the_dense_normal_is_that_of_scipy():
    S, m, y = a_covariance()
    expected = scipy.stats.multivariate_normal(m, S).logpdf(y)
    found = DenseNormal(m, jnp.asarray(S))
    assert float(found.log_prob(y)) == pytest.approx(expected, rel=1e-12)
    both = found.log_prob(jnp.stack([y, y]))
    np.testing.assert_allclose(both, expected, rtol=1e-12)


def test_each_entry_given_the_others():
    S, m, y = a_covariance()
    found = DenseNormal(m, jnp.asarray(S)).leave_one_out(y)
    whole = scipy.stats.multivariate_normal(m, S).logpdf(y)
    for i in range(7):
        keep = np.arange(7) != i
        others = scipy.stats.multivariate_normal(m[keep], S[np.ix_(keep, keep)])
        alone = whole - others.logpdf(np.asarray(y)[keep])
        assert float(found[i]) == pytest.approx(alone, rel=1e-9)


def test_whitened_entries_are_errors_of_predictions_from_those_before():
    S, m, y = a_covariance()
    order = jnp.array([3, 0, 1, 2, 6, 5, 4])
    found = DenseNormal(m, jnp.asarray(S)).sorted(order).whitened(y[order])
    before, left = [3, 0, 1], np.asarray(y - m)
    weights = np.linalg.solve(S[np.ix_(before, before)], S[before, 2])
    sd = math.sqrt(S[2, 2] - weights @ S[before, 2])
    assert float(found[3]) == pytest.approx(
        (left[2] - weights @ left[before]) / sd, rel=1e-9
    )


def test_first_and_second_derivatives_of_the_dense_normal():
    S, m, y = a_covariance()
    S = jnp.asarray(S)

    def ours(a):
        return DenseNormal(m, S + a[0] * jnp.outer(y, y) + a[1] * jnp.eye(7)).log_prob(
            a[2] * y
        )

    def numpyros(a):
        S2 = S + a[0] * jnp.outer(y, y) + a[1] * jnp.eye(7)
        return dist.MultivariateNormal(m, S2).log_prob(a[2] * y)

    at = jnp.array([0.3, 0.5, 1.2])
    check_grads(jax.jit(ours), (at,), order=1, modes=["fwd", "rev"], rtol=1e-6)
    for derivative in (jax.grad, jax.hessian):
        one, other = (jax.jit(derivative(f))(at) for f in (ours, numpyros))
        np.testing.assert_allclose(one, other, rtol=1e-8)


# Three methods on one posterior, and its integral on a grid.

N = 40
T = np.linspace(0, 10, N)
SMOOTH = np.sin(T) + 0.3 * np.random.default_rng(5).normal(size=N)
KNOWN = gp.Observed(T, SMOOTH, noise_sd=0.3)
MODEL = gp.Regression(gp.Matern(1.5))


@functools.cache
def by_quadrature():
    """Mean and sd of the logarithms of the lengthscale and of the sd."""
    unit = KNOWN.units
    low, high = np.log(float(unit.spacing[0])), np.log(2 * float(unit.length[0]))
    center, spread = (low + high) / 2, (high - low) / (2 * 2.326)
    a = np.linspace(-3.5, 3.5, 60)  # the logarithms in sds of the prior
    lengths = np.exp(center + spread * a)
    sds = 0.5 * float(unit.y_sd) * np.exp(1.5 * a)
    # Of the logarithm of a gamma variable of shape 2.
    prior = 2 * 1.5 * a - np.exp(1.5 * a)
    logs = np.zeros((60, 60))
    for i, l in enumerate(lengths):
        K = slow.matrix(lambda a, b, l=l: slow.matern([a], [b], 1.5, [l]), T[:1], T)[0]
        K = K[np.abs(np.arange(N)[:, None] - np.arange(N))]
        for j, s in enumerate(sds):
            # The level is integrated out: normal about the mean, with the sd of the data.
            S = s**2 * K + 0.09 * np.eye(N) + float(unit.y_sd) ** 2
            root = np.linalg.cholesky(S)
            white = np.linalg.solve(root, SMOOTH - float(unit.y_mean))
            logs[i, j] = -0.5 * white @ white - np.log(np.diag(root)).sum()
    logs = logs - 0.5 * a[:, None] ** 2 + prior
    p = np.exp(logs - logs.max())
    p /= p.sum()
    out = {}
    for name, axis, values in (("lengthscale", 1, lengths), ("sd", 0, sds)):
        weight, log = p.sum(axis), np.log(values)
        mean = weight @ log
        out[f"{name}_matern"] = mean, math.sqrt(weight @ (log - mean) ** 2)
    return out


# A method; by how many posterior sds the mean of a logarithm, and by how much the logarithm
# of its sd, may be off. The maximum of a skewed density is not at its mean.
METHODS = {
    "NUTS": (pk.NUTS(num_chains=2, num_warmup=200, num_samples=400), 0.25, 0.2),
    "MAP": (pk.MAP(num_draws=800), 1.2, 0.35),
    "SVI": (pk.SVI(guide="multivariate_normal", num_draws=800, max_steps=2000), 0.4, 0.35),
}


@functools.cache
def fitted(method):
    return pk.fit(MODEL, KNOWN, METHODS[method][0], key=KEY, throw=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_finds_the_posterior(method):
    _, shift, stretch = METHODS[method]
    for site, (mean, sd) in by_quadrature().items():
        found = np.log(fitted(method).posterior[site].values)
        assert abs(found.mean() - mean) < shift * sd, site
        assert abs(math.log(found.std() / sd)) < stretch, site


def test_a_good_fit_is_not_flagged():
    assert pk.diagnose(fitted("MAP")).ok


def test_a_kernel_comes_back_from_a_file(tmp_path):
    kernel = gp.Linear() + gp.Periodic(3.0) * gp.Matern(1.5, name="slow")
    model = gp.Regression(kernel)
    fit = pk.fit(model, KNOWN, pk.MAP(num_starts=1, max_steps=3), key=KEY, throw=False)
    again = pk.load(pk.save(fit, tmp_path / "fit.nc"))
    assert again.model == model
    assert again.data.inputs == ("x",) and float(again.data.noise_sd) == 0.3
    one, other = (pk.predict(f, NEW, key=KEY) for f in (fit, again))
    assert one.equals(other)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_tone_is_found_in_one_line(seed):
    # From random frequencies two searches in three end at "all is noise".
    random = np.random.default_rng(seed)
    t = np.sort(random.uniform(0, 10, 60))
    y = np.sin(2 * np.pi * 2.3 * t + seed) + 0.3 * random.normal(size=60)
    fit = pk.fit(
        gp.Regression(gp.SpectralMixture(2)), gp.Observed(t, y), pk.MAP(4), key=KEY
    )
    frequency = fit.posterior["frequency_mixture"].values[0, 0]
    assert abs(frequency[1] - 2.3) < 0.02
    assert pk.diagnose(fit)["share of the observations explained"].value > 0.7
    assert 0.2 < float(fit.posterior["noise_sd"].mean()) < 0.4


def test_other_units_give_the_same_fit_in_those_units():
    method = pk.MAP(num_starts=2)
    kernel = gp.Regression(gp.SpectralMixture(2) + gp.Drift())
    usual = pk.fit(kernel, gp.Observed(X, Y), method, key=KEY)
    grand = pk.fit(kernel, gp.Observed(1e4 * X, 5 - 1e-3 * Y), method, key=KEY)
    scales = {"lengthscale_mixture": 1e4, "frequency_mixture": 1e-4, "sd_drift": 1e-3}
    for site, scale in scales.items():
        one, other = (f.posterior[site].values for f in (usual, grand))
        np.testing.assert_allclose(other, scale * one, rtol=1e-3, atol=1e-9)


def test_float32_stays_float32():
    data = gp.Observed(X.astype("f4"), Y.astype("f4"))
    model, _, sites, _ = case("waves")
    sites = {k: jnp.asarray(v, jnp.float32) for k, v in sites.items()}
    predict = jax.jit(lambda data, s: model.predict(s, model.inputs(NEW, data), KEY))
    found = predict(data, sites)
    assert {a.dtype for a in found.values()} == {np.dtype("float32")}
    double = predict(LINE, case("waves")[2])
    np.testing.assert_allclose(found["mean"], double["mean"], atol=2e-3)


@pytest.mark.parametrize("method", [pk.MAP(2), pk.NUTS(2)], ids=["MAP", "NUTS"])
def test_hot_paths_lower_for_cuda(method):
    lowers_for_cuda(method, gp.Regression(gp.SpectralMixture() + gp.Drift()), LINE)
