"""Temporal regression: that of dense matrices, by a Markov chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

import probkit as pk
from probkit.models import gp
from probkit.models.gp.marginal import Marginal, gain_left

KEY = jax.random.key(0)
rng = np.random.default_rng(4)
N = 30
T = rng.uniform(0, 10, N)  # in no order
T[7] = T[3]  # two observations at one time
Y = 3 + np.sin(2 * T) + 0.3 * rng.normal(size=N)
ORDER = np.argsort(T, kind="stable")
NEW = [-1.0, 5.0, 12.0, 5.0]

KERNEL = (
    gp.Matern(0.5) * gp.Periodic(3.0)
    + gp.SpectralMixture(2, "student_t")
    + gp.Matern(2.5, name="slow")
)
DENSE, DENSE_DATA = gp.Regression(KERNEL), gp.Observed(T[ORDER], Y[ORDER])
# 14 waves are all of a periodic kernel of this lengthscale but 1e-16 of its variance.
CHAIN = gp.Temporal(KERNEL, num_waves=14)
DATA = gp.Series(T, Y, units=DENSE_DATA.units)
SITES = {
    "level": 2.5,
    "noise_sd": 0.3,
    "sd_matern_periodic": 0.7,
    "sd_slow": 0.5,
    "lengthscale_matern": 4.0,
    "lengthscale_periodic": 1.0,
    "lengthscale_slow": 5.0,
    "period_periodic": 3.1,
    "sd_mixture": [0.4, 0.6],
    "frequency_mixture": [0.05, 0.32],
    "lengthscale_mixture": [3.0, 8.0],
}
SITES = {k: jnp.asarray(v) for k, v in SITES.items()}


@pytest.fixture(scope="module")
def both():
    """What both models say of the same sites."""

    def answers(model, data):
        inputs = model.inputs(NEW, data)

        @jax.jit
        def asked(sites):
            def evidence(sites):
                return model.evidence(sites, data).log_prob(data.y)

            return (
                jax.value_and_grad(evidence)(sites),
                model.predict(sites, inputs, KEY),
                model.recover(sites, data, KEY),
                model.pointwise(sites, data)["y"],
            )

        return asked(SITES)

    return answers(DENSE, DENSE_DATA), answers(CHAIN, DATA)


def test_evidence_and_gradient_are_those_of_dense_matrices(both):
    (one, slopes), (two, slopes_of_chain) = both[0][0], both[1][0]
    np.testing.assert_allclose(two, one, rtol=1e-10)
    for name, slope in slopes.items():
        np.testing.assert_allclose(slopes_of_chain[name], slope, rtol=1e-8, atol=1e-8)


def test_mean_and_sd_are_those_of_dense_matrices(both):
    for name in ("mean", "sd"):
        np.testing.assert_allclose(both[1][1][name], both[0][1][name], rtol=1e-8)


def test_terms_are_those_of_dense_matrices(both):
    for name, value in both[0][2].items():
        np.testing.assert_allclose(both[1][2][name], value, rtol=1e-8, atol=1e-10)


def test_scores_of_each_given_the_others_are_those_of_dense_matrices(both):
    np.testing.assert_allclose(both[1][3], both[0][3], rtol=1e-8)


def test_both_models_have_the_same_priors():
    one, two = DENSE.priors(DENSE_DATA), CHAIN.priors(DATA)
    assert set(one) == set(two)
    for name, prior in one.items():
        value = SITES[name]
        np.testing.assert_allclose(prior.log_prob(value), two[name].log_prob(value))


# A kernel whose state is small, so that programs compile fast.
SMALL = gp.Temporal(gp.Matern(1.5))
OF_SMALL = {"level": 2.5, "noise_sd": 0.3, "sd_matern": 0.8, "lengthscale_matern": 2.0}
OF_SMALL = {k: jnp.asarray(v) for k, v in OF_SMALL.items()}


@jax.jit
def scores(data):
    return SMALL.evidence(OF_SMALL, data).log_prob(data.y), SMALL.pointwise(OF_SMALL, data)


def test_a_missing_value_is_as_if_its_time_were_not_there():
    gaps = Y.copy()
    gaps[[0, 12, 13]] = np.nan
    seen = np.isfinite(gaps)
    with_gaps, without = gp.Series(T, gaps), gp.Series(T[seen], gaps[seen])
    (one, each), (two, each_seen) = scores(with_gaps), scores(without)
    np.testing.assert_allclose(one, two, rtol=1e-12)
    found = np.asarray(each["y"])
    np.testing.assert_allclose(found[with_gaps.seen], each_seen["y"], rtol=1e-10)
    assert (found[~np.asarray(with_gaps.seen)] == 0).all()


def test_the_order_of_the_observations_does_not_matter():
    np.testing.assert_allclose(
        scores(gp.Series(T[ORDER], Y[ORDER]))[0], scores(gp.Series(T, Y))[0], rtol=1e-14
    )


def test_rescaled_data_have_rescaled_priors():
    t, y = 60 * T + 5, 1e3 * Y - 7
    one, two = (SMALL.priors(data) for data in (gp.Series(T, Y), gp.Series(t, y)))
    scaled = {"level": 1e3 * 2.5 - 7, "lengthscale_matern": 120.0, "noise_sd": 300.0}
    units = {"level": 1e3, "lengthscale_matern": 60, "noise_sd": 1e3}
    for name, value in scaled.items():
        density = two[name].log_prob(value) + np.log(units[name])
        np.testing.assert_allclose(density, one[name].log_prob(OF_SMALL[name]), rtol=1e-9)


def test_float32_is_as_exact_as_its_check_says():
    t, y = jnp.asarray(T, jnp.float32), jnp.asarray(Y, jnp.float32)
    single = gp.Series(t, y)
    sites = {k: v.astype(jnp.float32) for k, v in OF_SMALL.items()}
    found = jax.jit(lambda s: SMALL.evidence(s, single).log_prob(single.y))(sites)
    assert found.dtype == jnp.float32
    lost = {c.name: c for c in SMALL.checks(sites, single)}["nats lost to rounding"]
    assert lost.ok
    # Rounding of the values, beside that of the computation.
    assert abs(float(found) - float(scores(gp.Series(T, Y))[0])) < 10 * lost.value


def test_draws_have_the_mean_and_sd_of_predictions():
    draw = jax.jit(
        jax.vmap(lambda key: SMALL.predict(OF_SMALL, SMALL.inputs(NEW, DATA), key))
    )(jax.random.split(KEY, 4000))
    total = np.hypot(draw["sd"][0], OF_SMALL["noise_sd"])
    z = (draw["y"] - draw["mean"][0]) / total
    # Five standard errors of means and of sds of 4,000 normal draws.
    np.testing.assert_allclose(z.mean(0), 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(z.std(0), 1, atol=5 / np.sqrt(8000))


# Dates.


def test_dates_come_back():
    days = pd.date_range("2024-02-27", periods=12)
    series = gp.Series(days[::-1], np.sin(np.arange(12.0))[::-1])
    np.testing.assert_array_equal(series.labels(), days.to_numpy())
    np.testing.assert_allclose(series.t, np.arange(12.0))
    fit = pk.fit(SMALL, series, pk.MAP(1, max_steps=1), key=KEY, throw=False)
    new = [np.datetime64("2024-03-11"), np.datetime64("2024-03-01T06:00")]
    ahead = pk.predict(fit, new, key=KEY)
    np.testing.assert_array_equal(ahead["time"].values, np.array(new, "M8[s]"))
    np.testing.assert_array_equal(fit.tree.observed_data["time"].values, days.to_numpy())


def test_a_file_keeps_dates_gaps_and_exposure(tmp_path):
    dates = np.datetime64("2024-02-28T12:00") + np.arange(6) * np.timedelta64(1, "h")
    y = np.array([1.0, 4.0, np.nan, 2.0, 0.0, 3.0])
    data = gp.Series(dates, y, exposure=[1.0, 2.0, 1.0, 1.0, 0.5, 1.0])
    model = gp.Temporal(gp.Matern(0.5), gp.Poisson())
    fit = pk.fit(model, data, pk.MAP(1, max_steps=1), key=KEY, throw=False)
    again = pk.load(pk.save(fit, tmp_path / "counts.nc"))
    assert again.model == model and again.posterior.equals(fit.posterior)
    assert again.tree.observed_data.equals(fit.tree.observed_data)
    np.testing.assert_array_equal(again.data.labels(), dates)
    for name in ("t", "y", "seen", "exposure"):
        np.testing.assert_array_equal(getattr(again.data, name), getattr(data, name))


@pytest.mark.parametrize("unit", ["us", "s", "h", "D"])
def test_dates_are_exact_to_their_unit(unit):
    dates = np.datetime64("2020-01-01", unit) + np.array([0, 1, 7, 3001])
    np.testing.assert_array_equal(gp.Series(dates, [1.0, 2.0, 4.0, 1.0]).labels(), dates)


def test_days_since_an_origin_are_dates():
    series = gp.Series([0.0, 1.5, 2.0], [1.0, 2.0, 1.0], origin="2021-01-01")
    assert series.labels()[1] == np.datetime64("2021-01-02T12:00")


# Other observations.

LEVEL, SD, LENGTH, NOISE = 0.4, 0.9, 2.0, 0.3
OTHER = {"level": LEVEL, "sd_matern": SD, "lengthscale_matern": LENGTH, "noise_sd": NOISE}
OTHER = {k: jnp.asarray(v) for k, v in OTHER.items()}
TIMES = np.sort(rng.uniform(0, 10, 12))
TRUTH = LEVEL + np.sin(TIMES)
EXPOSURE = rng.uniform(0.5, 3.0, 12)
LIKELIHOODS = {
    "counts": (gp.Poisson(), rng.poisson(EXPOSURE * np.exp(TRUTH)).astype(float), EXPOSURE),
    "yes and no": (gp.Bernoulli(), (TRUTH > LEVEL).astype(float), None),
    "outliers": (gp.StudentT(4.0), TRUTH + 0.3 * np.arange(12) * (TIMES > 8), None),
}


def dense_laplace(kind, y, exposure):
    """By Newton's method with matrices, and derivatives by hand."""
    e = np.ones(12) if exposure is None else exposure
    K = SD**2 * np.exp(-abs(TIMES[:, None] - TIMES) / LENGTH)
    P = np.linalg.inv(K)
    if kind == "counts":
        log_density = lambda f: scipy.stats.poisson.logpmf(y, e * np.exp(f)).sum()  # noqa: E731
        slope = lambda f: y - e * np.exp(f)  # noqa: E731
        information = lambda f: e * np.exp(f)  # noqa: E731
    elif kind == "yes and no":
        s = scipy.special.expit
        log_density = lambda f: np.log(np.where(y == 1, s(f), s(-f))).sum()  # noqa: E731
        slope = lambda f: y - s(f)  # noqa: E731
        information = lambda f: s(f) * s(-f)  # noqa: E731
    else:
        log_density = lambda f: scipy.stats.t.logpdf(y, 4, f, NOISE).sum()  # noqa: E731
        slope = lambda f: 5 * (y - f) / (4 * NOISE**2 + (y - f) ** 2)  # noqa: E731
        information = lambda f: np.full(12, 5 / 7 / NOISE**2)  # noqa: E731
    u = np.zeros(12)
    for _ in range(4000):  # short steps, which rise
        W = np.diag(information(LEVEL + u))
        u = u + 0.2 * np.linalg.solve(P + W, slope(LEVEL + u) - P @ u)
    W = np.diag(information(LEVEL + u))
    value = log_density(LEVEL + u) - u @ P @ u / 2
    return value - np.linalg.slogdet(np.eye(12) + K @ W)[1] / 2, u


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_laplace_is_that_of_dense_matrices(kind):
    observations, y, exposure = LIKELIHOODS[kind]
    model = gp.Temporal(gp.Matern(0.5), observations)
    data = gp.Series(TIMES, y, exposure=exposure)

    @jax.jit
    def asked(sites):
        known = model.evidence(sites, data)
        return (
            known.log_prob(data.y),
            known.center(data.y),
            gain_left(known.process, known.t, known.terms, data.y),
        )

    value, center, left = asked(OTHER)
    expected, at = dense_laplace(kind, y, exposure)
    np.testing.assert_allclose(center, at, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    assert left < 1e-9


def of_two_counts(exposure: float):
    """The log evidence of two counts: by Laplace, and by quadrature."""
    y = np.round(exposure * np.exp([0.7, 0.1]))
    data = gp.Series([0.0, 1.0], y, exposure=[exposure, exposure])
    model = gp.Temporal(gp.Matern(0.5), gp.Poisson())
    laplace = model.evidence(OTHER, data).log_prob(data.y)
    K = SD**2 * np.exp(-abs(np.subtract.outer([0.0, 1.0], [0.0, 1.0])) / LENGTH)
    nodes = np.linspace(-8, 8, 800)  # far beyond, and much finer than, the posterior
    z = np.stack(np.meshgrid(nodes, nodes), -1)
    f = LEVEL + z @ np.linalg.cholesky(K).T
    log_density = scipy.stats.poisson.logpmf(y, exposure * np.exp(f)).sum(-1)
    w = np.exp(-(z**2).sum(-1) / 2) * (nodes[1] - nodes[0]) ** 2 / (2 * np.pi)
    return float(laplace), scipy.special.logsumexp(log_density, b=w)


def test_the_error_of_laplace_falls_as_one_over_the_counts():
    few, many = of_two_counts(30.0), of_two_counts(300.0)
    # Stirling's formula lacks 1 / 12 y for each count y; these are 60 and 33.
    assert abs(few[0] - few[1]) < 1 / (12 * 60) + 1 / (12 * 33)
    assert abs(many[0] - many[1]) < abs(few[0] - few[1]) / 5


def test_what_others_say_is_what_is_known_without_ones_own_site():
    from probkit.gp.state_space import Sites, smooth

    observations, y, exposure = LIKELIHOODS["counts"]
    model, data = (
        gp.Temporal(gp.Matern(0.5), observations),
        gp.Series(TIMES, y, exposure=exposure),
    )
    marginal = model.evidence(OTHER, data)
    mean, variance = marginal.without_own(data.y)
    sites = marginal.sites(data.y)
    others = Sites(sites.precision.at[4].set(0.0), sites.shift.at[4].set(0.0))
    known = smooth(marginal.process, marginal.t, others)
    np.testing.assert_allclose(mean[4], known.mean[4, 0], rtol=1e-10)
    np.testing.assert_allclose(variance[4], known.covariance[4, 0, 0], rtol=1e-10)


def test_a_sampled_function_has_the_density_of_its_parts():
    model = gp.Temporal(gp.Matern(0.5), gp.StudentT(4.0), "sampled")
    y = LIKELIHOODS["outliers"][1]
    data = gp.Series(TIMES, y)
    white = rng.normal(size=(12, 1))
    K = SD**2 * np.exp(-abs(TIMES[:, None] - TIMES) / LENGTH)
    f = LEVEL + np.linalg.cholesky(K) @ white[:, 0]
    found = model.pointwise(OTHER | {"white": jnp.asarray(white)}, data)["y"]
    np.testing.assert_allclose(found, scipy.stats.t.logpdf(y, 4, f, NOISE), rtol=1e-9)


def test_a_sampled_function_is_itself_at_its_times():
    model = gp.Temporal(gp.Matern(0.5), gp.StudentT(4.0), "sampled")
    data = gp.Series(TIMES, LIKELIHOODS["outliers"][1])
    draw = OTHER | {"white": jnp.asarray(np.random.default_rng(6).normal(size=(12, 1)))}
    K = SD**2 * np.exp(-abs(TIMES[:, None] - TIMES) / LENGTH)
    f = np.linalg.cholesky(K) @ np.asarray(draw["white"][:, 0])
    halfway = (TIMES[4] + TIMES[5]) / 2
    inputs = model.inputs([*TIMES[3:5], halfway], data)
    found = jax.jit(model.predict)(draw, inputs, KEY)
    np.testing.assert_allclose(found["mean"][:2], LEVEL + f[3:5], rtol=1e-9)
    np.testing.assert_allclose(found["sd"][:2], 0, atol=1e-7)
    # Ornstein and Uhlenbeck's process between two known values
    ρ = np.exp(-(TIMES[5] - TIMES[4]) / 2 / LENGTH)
    sd = SD * np.sqrt((1 - ρ**2) / (1 + ρ**2))
    np.testing.assert_allclose(found["sd"][2], sd, rtol=1e-9)
    recovered = jax.jit(model.recover)(draw, data, KEY)
    np.testing.assert_allclose(recovered["term_mean"][0], f, rtol=1e-9)


def test_draws_of_a_marginal_are_those_of_its_prior():
    marginal = SMALL.evidence(OF_SMALL, DATA)
    assert isinstance(marginal, Marginal)
    drawn = jax.jit(lambda key: marginal.sample(key, (3000,)))(KEY)
    total = np.hypot(OF_SMALL["sd_matern"], OF_SMALL["noise_sd"])
    z = (drawn - 2.5) / total
    # Five standard errors of 30 sds of 3,000 draws.
    np.testing.assert_allclose(z.std(0), 1, atol=5 / np.sqrt(6000))


def test_waves_of_a_long_series_are_those_of_means_of_neighbours():
    even = np.arange(25_000) / 25_000
    noise = np.random.default_rng(5).normal(size=25_000)
    slow, fast = (np.sin(2 * np.pi * cycles * even) for cycles in (40, 8000))
    found = gp.Series(even, 0.2 * slow + noise).units
    np.testing.assert_allclose(found.frequencies[0], [40.0], atol=0.2)
    np.testing.assert_allclose(found.amplitudes[0], [0.2], atol=0.05)
    # Every third value would have it as 333 cycles of the same amplitude.
    assert np.all(np.asarray(gp.Series(even, fast + 0.1 * noise).units.amplitudes) < 0.1)
