"""Minibatches stand for all rows, or are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probkit as pk
from doors import refused
from own import Counts, NormalMean, PoissonRegression, Values
from probkit.method.minibatch import minibatch
from probkit.model import AbstractModel
from probkit.model.density import log_densities
from probkit.model.source import draw_rows

KEY = jax.random.key(0)


def counts(n=60):
    x = jnp.linspace(-1, 1, n)
    return Counts(x, jax.random.poisson(KEY, jnp.exp(1 + x)))


def test_the_mean_over_batches_is_the_likelihood_of_all_rows():
    model, data = PoissonRegression(), counts()
    program = minibatch(model, data, 6.0, "SVI(batch_size=10)")
    sites = {"intercept": jnp.array(0.7), "slope": jnp.array(-0.3)}
    batches = [data.take(rows) for rows in jnp.split(jnp.arange(60), 6)]
    prior, whole = log_densities(model, data, sites)
    values = [log_densities(program, batch, sites) for batch in batches]
    assert float(np.mean([v for _, v in values])) == pytest.approx(float(whole), rel=1e-12)
    assert all(float(p) == pytest.approx(float(prior), rel=1e-12) for p, _ in values)


class Weighted(PoissonRegression):
    """Each observation counts twice, by a handler of the user's own."""

    def __call__(self, data):
        with numpyro.handlers.scale(scale=2.0):
            super().__call__(data)


def test_a_scale_of_ones_own_is_kept():
    data = counts()
    sites = {"intercept": jnp.array(0.7), "slope": jnp.array(-0.3)}
    batches = [data.take(rows) for rows in jnp.split(jnp.arange(60), 6)]
    program = minibatch(Weighted(), data, 6.0, "SVI(batch_size=10)")
    values = [log_densities(program, batch, sites)[1] for batch in batches]
    whole = log_densities(Weighted(), data, sites)[1]
    assert float(np.mean(values)) == pytest.approx(float(whole), rel=1e-12)


def test_rows_are_spread_evenly():
    rows = draw_rows(KEY, 10, 100_000)
    # A count of 10,000 has an sd of 95; four of them for each of ten counts.
    assert np.abs(np.bincount(rows, minlength=10) - 10_000).max() < 380


def test_drawing_rows_costs_nothing_per_row():
    # No operation of the program has a result as long as the data.
    program = jax.make_jaxpr(lambda key: draw_rows(key, 10**6, 10))(KEY)
    sizes = [np.prod(v.aval.shape) for e in program.jaxpr.eqns for v in e.outvars]
    assert max(sizes) < 1000


class Local(AbstractModel):
    """A latent value for each observation."""

    def __call__(self, data):
        with numpyro.plate("observation", len(data)):
            rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
            numpyro.sample("y", dist.Poisson(rate), obs=data.y)


class Summed(AbstractModel):
    """The likelihood as one number, which nobody can split."""

    def __call__(self, data):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.factor("likelihood", -0.5 * ((data.y - mean) ** 2).sum())


REFUSED = {
    "latents of each observation": (Local(), 10, "`rate` has one value per observation"),
    "a factor": (Summed(), 10, "observed site `likelihood` does not have one row"),
    "more rows than there are": (PoissonRegression(), 61, "exceeds the 60 observations"),
}


@pytest.mark.parametrize("model, size, words", REFUSED.values(), ids=REFUSED.keys())
def test_what_a_batch_cannot_stand_for_is_refused_before_the_run(model, size, words):
    method = pk.SVI(batch_size=size)
    refused(lambda: pk.fit(model, counts(), method, key=KEY), words)


def test_batches_find_the_posterior_of_all_rows():
    y = jax.random.normal(KEY, (400, 2)) + jnp.array([1.0, -2.0])
    precision = 400 + 1 / 9
    mean, sd = np.asarray(y.sum(0)) / precision, precision**-0.5
    method = pk.SVI(batch_size=40, learning_rate=0.003, num_draws=4000)
    fitted = pk.fit(NormalMean(), Values(y), method, key=KEY, throw=False)
    draws = fitted.posterior["mean"]
    np.testing.assert_allclose(draws.mean(("chain", "draw")), mean, atol=0.35 * sd)
    np.testing.assert_allclose(draws.std(("chain", "draw")), sd, rtol=0.15)
