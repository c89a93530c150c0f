"""Unknown coefficients from observations: the right ones, with honest sds, or a word."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from probkit.model.density import log_likelihood
from probkit.models import pde
from probkit.models.pde.profile import candidates, starts

KEY = jax.random.key(0)
MODEL = pde.SpectralGP(equation_sd=1e-3, num_nodes=12)
T = np.linspace(0.1, 3, 20)


def cooling(high, noise_sd=None):
    values = np.exp(-0.8 * T) + 0.02 * np.random.default_rng(0).normal(size=20)
    return pde.Problem(
        {"t": (0, 3)},
        lambda u, t, c: u.dt + c.rate * u,
        pde.Initial(1.0),
        observations=pde.Observations(T, values, noise_sd),
        unknown={"rate": (0, high)},
        shape=20,
    )


@functools.cache
def cooled(high):
    return pk.fit(MODEL, cooling(high), pde.Closed(), key=KEY)


def rate_by_least_squares():
    """The rate and its standard error, from the solution itself."""
    values = np.asarray(cooling(3).values)
    rate = 0.8
    for _ in range(20):
        slope = -T * np.exp(-rate * T)
        rate += slope @ (values - np.exp(-rate * T)) / (slope @ slope)
    left = values - np.exp(-rate * T)
    return rate, np.sqrt(left @ left / 19 / (slope @ slope))


@pytest.mark.parametrize("high", [3, 100])
def test_the_rate_does_not_depend_on_how_wide_its_range_is(high):
    rate, error = rate_by_least_squares()
    draws = cooled(high).posterior["rate"].values
    assert abs(draws.mean() - rate) < error
    assert draws.std() == pytest.approx(error, rel=0.35)


def test_a_good_fit_is_not_flagged():
    assert pk.diagnose(cooled(3)).ok


def test_the_band_holds_the_solution_and_the_sd_of_the_rate():
    at = np.linspace(0.05, 2.95, 30)
    found = pk.predict(cooled(3), at, key=KEY)
    mean, sd = (found[name].values[0] for name in ("u_mean", "u_sd"))
    whole = np.sqrt((sd**2).mean(0) + mean.var(0))
    assert (np.abs(mean.mean(0) - np.exp(-0.8 * at)) < 3 * whole).all()
    # With the rate known u would be known: what is left is the sd of the rate.
    error = rate_by_least_squares()[1]
    np.testing.assert_allclose(whole, at * np.exp(-0.8 * at) * error, rtol=0.5, atol=1e-3)


def test_a_damped_oscillator_is_not_taken_for_noise():
    random = np.random.default_rng(0)
    t = np.sort(random.uniform(0, 1, 40))
    values = np.exp(-2 * t) * np.cos(19.9 * t) + 0.04 * random.normal(size=40)
    problem = pde.Problem(
        {"t": (0, 1)},
        lambda u, t, c: u.dtt + c.mu * u.dt + c.k * u,
        observations=pde.Observations(t, values),
        unknown={"mu": (0, 10), "k": (100, 800)},
        shape=60,
    )
    fit = pk.fit(MODEL, problem, pde.Closed(), key=KEY)
    assert pk.diagnose(fit).ok
    for name, truth in {"mu": 4.0, "k": 400.0}.items():
        draws = fit.posterior[name].values
        assert abs(draws.mean() - truth) < 3 * draws.std(), name
    assert 0.3 < float(fit.posterior["mu"].std()) / 0.18 < 3
    assert float(fit.posterior["noise_sd"].mean()) == pytest.approx(0.04, rel=0.4)


def test_a_diffusivity_is_found_in_a_wide_range():
    random = np.random.default_rng(0)
    points = random.uniform(0, 1, (50, 2)) * [1.0, 0.5]
    values = np.sin(np.pi * points[:, 0]) * np.exp(-0.3 * np.pi**2 * points[:, 1])
    problem = pde.Problem(
        {"x": (0, 1), "t": (0, 0.5)},
        lambda u, p, c: u.dt - c.D * u.dxx,
        [pde.Dirichlet(0.0, on="x"), pde.Initial(lambda p: np.sin(np.pi * p.x))],
        observations=pde.Observations(points, values + 0.02 * random.normal(size=50)),
        unknown={"D": (0.01, 2)},
        shape=10,
    )
    fit = pk.fit(MODEL, problem, pde.Closed(num_starts=1), key=KEY)
    draws = fit.posterior["D"].values
    assert abs(draws.mean() - 0.3) < 3 * draws.std() < 0.03


# What is wrong is said.


def logistic():
    """Observations at which a kernel of long lengthscale fits, and solves nothing."""
    t = np.random.default_rng(2).uniform(0, 6, 40)
    values = 1 / (1 + 9 * np.exp(-1.3 * t)) + 0.02 * np.random.default_rng(1).normal(
        size=40
    )
    return pde.Problem(
        {"t": (0, 6)},
        lambda u, t, c: u.dt - c.rate * u * (1 - u),
        observations=pde.Observations(t, values),
        unknown={"rate": (0.1, 4)},
        shape=30,
    )


def test_every_draw_of_a_nonlinear_equation_solves_it():
    problem = logistic()
    fit = pk.fit(pde.SpectralGP(equation_sd=1e-3), problem, pde.Closed(), key=KEY)
    assert pk.diagnose(fit).ok
    found = pk.recover(fit, key=KEY)["solution_mean"].values[0]
    t = problem.coordinates()
    for rate, u in zip(fit.posterior["rate"].values[0], found, strict=True):
        # Solutions of the equation differ in their odds at time 0 alone.
        odds = np.exp(np.mean(np.log((1 - u) / u)[10:16] + rate * t[10:16]))
        np.testing.assert_allclose(u, 1 / (1 + odds * np.exp(-rate * t)), atol=5e-3)


def test_kernels_that_cannot_solve_a_nonlinear_equation_are_excluded():
    problem = logistic()
    model = pde.SpectralGP(equation_sd=1e-3)

    @jax.jit
    def shares(lengthscale):
        sites = model.start_sites(problem) | {"lengthscale_t": lengthscale, "rate": 1.3}
        return log_likelihood(model, problem, sites)["equation"]

    largest = -0.5 * 30 * np.log(2 * np.pi)
    assert float(shares(jnp.array([1.0]))) == pytest.approx(largest)
    assert float(shares(jnp.array([4.0]))) < largest - 10


def against(residual, values, **more):
    return pde.Problem(
        {"t": (0, 3)},
        residual,
        pde.Initial(0.0),
        observations=pde.Observations(T, values, more.pop("noise_sd", None)),
        shape=20,
        **more,
    )


def test_an_equation_that_explains_nothing_is_no_success():
    # u' + u = 0 from u = 0 is zero, and the observations are not.
    problem = against(lambda u, t: u.dt + u, np.sin(2 * T))
    with pytest.raises(pk.FitError, match="explains next to nothing"):
        pk.fit(MODEL, problem, pde.Closed(), key=KEY)
    fit = pk.fit(MODEL, problem, pde.Closed(), key=KEY, throw=False)
    report = pk.diagnose(fit)
    assert not report["share of the observations explained"].ok
    assert not report["correlation of neighbouring residuals"].ok


def test_observations_further_away_than_their_noise_are_flagged():
    fit = pk.fit(MODEL, cooling(3, noise_sd=0.002), pde.Closed(), key=KEY, throw=False)
    assert not pk.diagnose(fit)["mean square of the residuals"].ok
    fit = pk.fit(MODEL, cooling(3, noise_sd=0.02), pde.Closed(), key=KEY)
    assert pk.diagnose(fit)["mean square of the residuals"].ok


def test_an_unknown_at_the_end_of_its_range_is_flagged():
    fit = pk.fit(MODEL, cooling(0.5), pde.Closed(), key=KEY, throw=False)
    assert not pk.diagnose(fit)["unknowns from the ends of their ranges"].ok
    assert pk.diagnose(cooled(3))["unknowns from the ends of their ranges"].ok


def test_an_unknown_as_wide_as_its_range_is_flagged():
    # The inflow of what is already full: u = 0 whatever the rate.
    values = 0.1 * np.random.default_rng(0).normal(size=20)
    problem = against(
        lambda u, t, c: u.dt + c.rate * u, values, unknown={"rate": (0, 3)}, noise_sd=0.1
    )
    fit = pk.fit(MODEL, problem, pde.Closed(), key=KEY, throw=False)
    assert not pk.diagnose(fit)["width of the unknowns"].ok
    assert pk.diagnose(cooled(3))["width of the unknowns"].ok


# Where the search starts.


def test_starts_differ_and_the_best_is_near_the_truth():
    problem = cooling(10)
    tried = candidates(MODEL, problem)
    assert float(tried["rate"].min()) > 0 and float(tried["rate"].max()) < 10
    # An eighth of the even half is in the lowest eighth of the range, and half of the rest.
    assert np.mean(np.asarray(tried["rate"]) < 1.25) == pytest.approx(5 / 16, abs=0.05)
    begun = starts(MODEL, problem, 3)
    assert abs(float(begun["rate"][0]) - 0.8) < 0.15
    apart = np.asarray(begun["rate"])
    short = np.asarray(begun["lengthscale_t"])[:, 0]
    pairs = [(i, j) for i in range(len(apart)) for j in range(i)]
    assert all(abs(apart[i] - apart[j]) > 0.5 or short[i] != short[j] for i, j in pairs)


@pytest.mark.parametrize("least, ok", [(-2.0, False), (0.9, True)])
def test_what_is_no_maximum_is_flagged(least, ok):
    facts = {"newton_change": 0.0, "least_curvature": least}
    found = {check.name: check.ok for check in pde.Closed().checks(None, facts)}
    assert found["least curvature at the optimum"] is ok


def test_few_observations_of_unknown_noise_have_the_sd_of_the_exact_posterior():
    # u' = inflow from u = 0 is a line. A normal about the maximum has 0.7 of its sd.
    t = np.linspace(0.2, 1, 6)
    y = 3 * t + 0.3 * np.random.default_rng(1).normal(size=6)
    problem = pde.Problem(
        {"t": (0, 1)},
        lambda u, t, c: u.dt - c.inflow,
        pde.Initial(0.0),
        shape=12,
        observations=pde.Observations(t, y),
        unknown={"inflow": (0, 10)},
    )
    method = pde.Closed(num_draws=4000, num_starts=1)
    fit = pk.fit(pde.SpectralGP(equation_sd=1e-6), problem, method, key=KEY)
    inflow, log_noise = np.linspace(0, 10, 1501)[1:-1], np.linspace(-6, 3, 901)[:, None]
    squares = ((y[:, None] - t[:, None] * inflow) ** 2).sum(0)
    noise = np.exp(log_noise)
    height = -5 * log_noise - squares / (2 * noise**2) - 0.5 * (noise / np.std(y)) ** 2
    weight = np.exp(height - height.max())
    weight /= weight.sum()
    found = fit.posterior
    exact = {"inflow": (weight.sum(0), inflow), "noise_sd": (weight.sum(1), noise[:, 0])}
    for name, (share, value) in exact.items():
        mean = share @ value
        sd = np.sqrt(share @ (value - mean) ** 2)
        assert float(found[name].mean()) == pytest.approx(mean, abs=0.1 * sd)
        # The draws leave out that the prior cuts the largest noises off.
        rel = {"inflow": 0.05, "noise_sd": 0.2}[name]
        assert float(found[name].std()) == pytest.approx(sd, rel=rel)
