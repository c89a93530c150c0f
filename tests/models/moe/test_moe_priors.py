"""Priors that do not bend the data, and a check that says when they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

import probkit as pk
from probkit.distributions import IsotropicT, RootF, half_t
from probkit.model.sensitivity import pulls
from probkit.models import moe

KEY = jax.random.key(0)
# Narrow tails, and a noise prior that is nearly inverse gamma: variances of 0.05/2 of that
# of the output, and hardly any smaller.
NARROW = moe.Normal(
    coefficient_df=1e6, noise_df=1e4, noise_tail_df=4.0, noise_scale=0.025**0.5
)
NARROW_GATE = moe.Softmax(df=1e6)
CHECK = "strongest pull of a prior"


def by_sds(x, y):
    """Units that values far out do spoil: means and sds."""
    x = np.asarray(x)[:, None]
    return moe.Units(*map(jnp.asarray, (x.mean(0), x.std(0), np.mean(y), np.std(y))))


@pytest.fixture(scope="module")
def precise():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 50)
    return x, x + 0.003 * rng.normal(size=50)


@pytest.fixture(scope="module")
def wide():
    """An input over six orders of magnitude; the output switches at one."""
    rng = np.random.default_rng(0)
    x = np.exp(2 * rng.normal(size=500))
    return x, np.where(x < 1, 0, 5) + 0.5 * rng.normal(size=500)


@pytest.fixture(scope="module")
def outlier():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, 200)
    y = np.where(x < 0, 2 * x, 3 - x) + 0.3 * rng.normal(size=200)
    y[7] = 1000.0
    return x, y


def test_little_noise_is_found_as_by_least_squares(precise):
    x, y = precise
    fitted = pk.fit(
        moe.MixtureOfExperts(1), moe.Pairs(x, y), pk.EM(num_draws=2000), key=KEY
    )
    exact = stats.linregress(x, y)
    sd = np.sqrt(np.sum((y - exact.intercept - exact.slope * x) ** 2) / 48)
    assert float(fitted.posterior["noise_sd"].mean()) == pytest.approx(sd, rel=0.1)
    slope = fitted.posterior["coefficient"].sel(term="x")
    assert float(slope.std()) == pytest.approx(exact.stderr, rel=0.1)
    assert pk.diagnose(fitted)[CHECK].ok


def test_a_noise_prior_that_holds_it_up_is_named(precise):
    x, y = precise
    model = moe.MixtureOfExperts(1, experts=NARROW)
    fitted = pk.fit(model, moe.Pairs(x, y), pk.EM(), key=KEY)
    check = pk.diagnose(fitted)[CHECK]
    assert not check.ok
    assert "prior of `noise_sd`" in check.remedy


def test_a_sharp_switch_is_found_on_a_wide_input(wide):
    x, y = wide
    fitted = pk.fit(moe.MixtureOfExperts(2), moe.Pairs(x, y), pk.EM(), key=KEY)
    at = np.array([0.2, 0.5, 2.0, 5.0])
    mean = pk.predict(fitted, at, key=KEY)["mean"].values.ravel()
    np.testing.assert_allclose(mean, [0, 0, 5, 5], atol=0.2)
    assert pk.diagnose(fitted)[CHECK].ok


def test_a_gate_prior_that_flattens_the_switch_is_named(wide):
    x, y = wide
    model = moe.MixtureOfExperts(2, NARROW_GATE, NARROW)
    fitted = pk.fit(model, moe.Pairs(x, y, units=by_sds(x, y)), pk.EM(), key=KEY)
    check = pk.diagnose(fitted)[CHECK]
    assert not check.ok
    assert "prior of `gate`" in check.remedy


def test_one_output_far_out_does_not_inflate_the_noise(outlier):
    x, y = outlier
    fitted = pk.fit(moe.MixtureOfExperts(3), moe.Pairs(x, y), pk.EM(), key=KEY)
    noise = np.sort(fitted.posterior["noise_sd"].values.ravel())
    np.testing.assert_allclose(noise[:2], 0.3, atol=0.05)


def test_priors_in_units_of_an_outlier_are_named(outlier):
    x, y = outlier
    model = moe.MixtureOfExperts(3, NARROW_GATE, NARROW)
    fitted = pk.fit(model, moe.Pairs(x, y, units=by_sds(x, y)), pk.EM(), key=KEY)
    assert not pk.diagnose(fitted)[CHECK].ok


def test_a_proper_maximum_with_little_noise_is_not_refused():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 100)
    y = x + 1e-4 * rng.normal(size=100)
    method = pk.EM(maximise="likelihood")
    fitted = pk.fit(moe.MixtureOfExperts(1), moe.Pairs(x, y), method, key=KEY)
    residual = stats.linregress(x, y)
    expected = np.std(y - residual.intercept - residual.slope * x)
    assert float(fitted.posterior["noise_sd"].item()) == pytest.approx(expected, rel=1e-6)
    assert not fitted.facts["degenerate"]


def test_rounded_values_on_a_line_by_chance_are_flagged():
    rng = np.random.default_rng(5)
    x = np.append(rng.normal(0, 1, 20), [3.1, 3.2, 3.3, 3.4])
    y = np.round(np.append(rng.normal(0, 1, 20), 2 + x[20:]), 1)
    data = moe.Pairs(x, y)
    name = "least noise over the step between outputs"
    found = pk.fit(moe.MixtureOfExperts(1), data, pk.EM(), key=KEY)
    assert pk.diagnose(found)[name].ok
    model = moe.MixtureOfExperts(2)
    sites = pk.fit(model, data, pk.EM(num_restarts=4), key=KEY, throw=False)
    draw = {k: jnp.asarray(v.values[0, 0]) for k, v in sites.posterior.items()}
    draw["noise_sd"] = draw["noise_sd"].at[0].set(0.01)
    flagged = {check.name: check for check in model.checks(draw, data)}
    assert not flagged[name].ok


def test_the_pull_is_that_of_a_normal_prior_in_closed_form():
    """One expert with a normal prior: least squares with a ridge, by hand."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=30)
    y = 3 + 2 * x + rng.normal(size=30)
    one = jnp.ones(1)
    data = moe.Pairs(x, y, units=moe.Units(0 * one, one, 0 * one[0], one[0]))
    experts = moe.Normal(coefficient_df=1e9, coefficient_scale=0.5)
    model = moe.MixtureOfExperts(1, experts=experts)
    fitted = pk.fit(model, data, pk.EM(atol=1e-12), key=KEY)
    sites = {k: jnp.asarray(v.values[0, 0]) for k, v in fitted.posterior.items()}
    found = {pull.prior: pull for pull in pulls(model, data, sites)}["coefficient"]
    z = np.column_stack([np.ones(30), x])
    a, s = np.asarray(sites["coefficient"])[:, 0], float(sites["noise_sd"][0])
    # Curvature over the coefficients and log sigma.
    residual = y - z @ a
    cross = 2 * z.T @ residual / s**2
    q, low, high = (0.5 * 1.0) ** 2, 4.0, 1.0
    v = s**2 * low / (q * high)
    bend = (low + high) / 2 * 4 * v / (1 + v) ** 2
    corner = 2 * residual @ residual / s**2 + bend
    H = np.block([[z.T @ z / s**2 + np.eye(2) / 0.25, cross[:, None]], [cross, corner]])
    move = np.linalg.solve(H, np.append(-a / 0.25, 0.0))
    sds = np.abs(move) / np.sqrt(np.diag(np.linalg.inv(H)))
    assert found.sds == pytest.approx(sds.max(), rel=1e-3)


# Densities.


def test_root_f_is_the_root_of_an_f_variable():
    s = np.array([1e-6, 0.3, 1.0, 2.0, 1e6])
    found = RootF(3.0, 1.5).log_prob(jnp.asarray(s))
    expected = stats.f(3.0, 1.5).logpdf(s**2) + np.log(2 * s)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    draws = np.asarray(RootF(3.0, 1.5).sample(jax.random.key(0), (4000,)))
    # A right sampler fails one key in 1,000.
    assert stats.kstest(draws**2, stats.f(3.0, 1.5).cdf).pvalue > 1e-3


def test_root_f_has_the_half_t_as_a_member():
    s = jnp.array([0.1, 1.0, 7.0])
    expected = half_t(jnp.ones(3), 2.5).log_prob(s)
    np.testing.assert_allclose(RootF(1.0, 2.5).log_prob(s), expected, rtol=1e-9)


def test_root_f_approaches_inverse_gamma():
    s = jnp.array([0.5, 1.0, 3.0])
    expected = stats.invgamma(2.0, scale=2.0).logpdf(s**2) + np.log(2 * s)
    np.testing.assert_allclose(RootF(1e8, 4.0).log_prob(s), expected, rtol=1e-5)


@pytest.mark.parametrize("dim", [0, 1, 3])
def test_isotropic_t_is_the_multivariate_t(dim):
    x = np.random.default_rng(dim).normal(size=(5, dim))
    found = IsotropicT(4.0, jnp.full(5, 2.0), dim).log_prob(jnp.asarray(x))
    if dim == 0:
        np.testing.assert_allclose(found, 0.0, atol=1e-12)
        return
    expected = stats.multivariate_t(np.zeros(dim), 4 * np.eye(dim), df=4).logpdf(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    draws = np.asarray(IsotropicT(4.0, jnp.asarray(2.0), dim).sample(KEY, (4000,)))
    assert stats.kstest(draws[:, 0] / 2, stats.t(4).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("squares", "count"), [(0.0, 0.0), (1e-8, 20.0), (4.0, 3.0)])
def test_the_noise_step_is_the_maximum(squares, count):
    experts = moe.Normal()
    found = float(experts._variance(jnp.asarray(squares), jnp.asarray(count), 2, True))
    prior = RootF(experts._low(2), experts.noise_tail_df)

    def minus(log_sd):
        s = np.exp(log_sd)
        log_prior = float(prior.log_prob(jnp.asarray(s / experts.noise_scale)))
        return count * log_sd + squares / (2 * s**2) - log_prior

    best = optimize.minimize_scalar(minus, bounds=(-14, 3), method="bounded")
    assert minus(np.log(found) / 2) <= best.fun + 1e-6
