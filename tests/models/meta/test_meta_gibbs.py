"""Gibbs sampling of linear episodes: beside NUTS, and where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size

import probkit as pk
from doors import refused
from lowering import lowers_for_cuda
from probkit.distributions import NormalInverseWishart
from probkit.models import meta

KEY = jax.random.key(0)
METHOD = meta.Gibbs(num_chains=2, num_warmup=200, num_samples=1000)


def lines(kinds=1):
    rng = np.random.default_rng(2)
    n = 14 * kinds
    x = rng.uniform(0, 4, (n, 4))
    slope = 2.0 - 6.0 * (np.arange(n)[:, None] % kinds) + 0.5 * rng.normal(size=(n, 1))
    y = 5 + slope * x + rng.normal(size=(n, 1)) + 0.4 * rng.normal(size=x.shape)
    return meta.Episodes(x, y)


PRIOR = NormalInverseWishart(
    jnp.array([4.0, 1.0]), jnp.asarray(2.0), jnp.eye(2), jnp.asarray(5.0)
)
CASES = {
    "full": (meta.Linear(), lines()),
    "diagonal": (meta.Linear("diagonal"), lines()),
    "a given prior and noise": (meta.Linear(prior=PRIOR, noise_sd=0.4), lines()),
    "two components": (meta.Linear(num_components=2), lines(2)),
}


def flat(fitted):
    """Draws of all sites in one array, `(chain, draw, number)`, sds as logarithms."""
    found = []
    for name in sorted(fitted.posterior.data_vars):
        values = fitted.posterior[name].values
        if name.endswith("_sd"):
            values = np.log(values)
        if name == "covariance":
            variance = np.diagonal(values, axis1=-2, axis2=-1)
            found.append(np.log(variance).reshape(*values.shape[:2], -1))
            values = values[..., 0, 1] / np.sqrt(variance.prod(-1))
        found.append(values.reshape(*values.shape[:2], -1))
    return np.concatenate(found, -1)


@pytest.mark.parametrize("name", CASES)
def test_draws_are_those_of_nuts(name):
    model, data = CASES[name]
    ours = pk.fit(model, data, METHOD, key=KEY)
    nuts = pk.NUTS(num_chains=2, num_warmup=200, num_samples=500)
    theirs = pk.fit(model, data, nuts, key=KEY, start=ours, throw=False)
    a, b = flat(ours), flat(theirs)
    error = np.sqrt(
        sum(
            x.var((0, 1)) / np.minimum(effective_sample_size(x), x.shape[0] * x.shape[1])
            for x in (a, b)
        )
    )
    # Five standard errors at up to a dozen numbers: one run in 100,000 fails by chance.
    assert (np.abs(a.mean((0, 1)) - b.mean((0, 1))) / error).max() < 5
    np.testing.assert_allclose(a.std((0, 1)), b.std((0, 1)), rtol=0.25)
    # The density of a draw is that of the program.
    ours_lp, theirs_lp = (f.tree["sample_stats"]["lp"].values for f in (ours, theirs))
    assert np.isfinite(ours_lp).all()
    assert ours_lp.shape == (2, 1000)
    assert theirs_lp.shape == (2, 500)


def test_checks_are_those_of_chains():
    model, data = CASES["full"]
    fitted = pk.fit(model, data, METHOD, key=KEY)
    names = [check.name for check in pk.diagnose(fitted)]
    for name in ("R-hat, highest", "R-hat of the log density", "bulk ESS, lowest"):
        assert name in names
    short = meta.Gibbs(num_chains=1, num_warmup=0, num_samples=20)
    few = pk.fit(model, data, short, key=KEY)
    found = {check.name: check for check in pk.diagnose(few)}
    assert "R-hat, highest" not in found
    assert not found["bulk ESS, lowest"].ok


def test_many_data_sets_have_the_posterior_of_coordinate_ascent():
    source = meta.LinearGaussian(KEY, [1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]], 1000)
    data = source.at(0)
    method = meta.Gibbs(num_chains=2, num_warmup=100, num_samples=300)
    exact = pk.fit(meta.Linear(), data, method, key=KEY)
    close = pk.fit(meta.Linear(), data, meta.Episodic(), key=KEY)
    for name in ("population_mean", "noise_sd"):
        a, b = (f.posterior[name] for f in (exact, close))
        off = (a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / a.std()
        assert float(np.abs(off).max()) < 0.3
    mean = exact.posterior["population_mean"].mean(("chain", "draw")).values
    # Four sds of the mean of a thousand data sets.
    np.testing.assert_allclose(mean, [1.0, -0.5], atol=4 * np.sqrt(0.5 / 1000))


def test_a_sweep_lowers_for_a_gpu():
    lowers_for_cuda(METHOD, *CASES["two components"])


def test_other_models_are_refused():
    data = pk.models.moe.Pairs([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    model = pk.models.moe.SoftmaxMoE(num_experts=1)
    refused(lambda: pk.fit(model, data, METHOD, key=KEY), "draws for `meta.Linear`")


# Where steps may begin.


def test_steps_begin_where_an_earlier_fit_ended():
    model, data = CASES["full"]
    steps = meta.Episodic(draws="approximation", num_draws=20)
    first = pk.fit(model, data, steps, key=KEY)
    again = pk.fit(model, data, steps, key=KEY, start=first)
    assert again.facts["elbo"] == pytest.approx(first.facts["elbo"], abs=steps.atol)
    assert again.tree["trace"]["steps"].item() <= 5
    drawn = pk.fit(model, data, meta.Gibbs(1, 20, 20), key=KEY, throw=False)
    after = pk.fit(model, data, steps, key=KEY, start=drawn)
    assert after.facts["elbo"] == pytest.approx(first.facts["elbo"], abs=steps.atol)
    assert after.tree["trace"]["objective"].values[0, 0] > -np.inf
