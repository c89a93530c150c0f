"""Gibbs sampling of linear episodes. That it has the moments of a worked example, as NUTS
has, is in `test_meta_linear`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

import probkit as pk
from doors import refused
from lowering import lowers_for_cuda
from probkit.distributions import NormalInverseWishart, half_t
from probkit.models import meta
from probkit.models.meta.beliefs import DF, FullPrior
from probkit.models.meta.evidence import Believed, Rows, drawn_coefficients
from probkit.models.meta.gibbs import Place
from probkit.models.meta.posterior import CONCENTRATION

KEY = jax.random.key(0)
METHOD = meta.Gibbs(num_chains=2, num_warmup=100, num_samples=300)
CLOSE = meta.Episodic(draws="approximation")


def lines(kinds=1):
    rng = np.random.default_rng(2)
    n = 14 * kinds
    x = rng.uniform(0, 4, (n, 4))
    slope = 2.0 - 6.0 * (np.arange(n)[:, None] % kinds) + 0.5 * rng.normal(size=(n, 1))
    y = 5 + slope * x + rng.normal(size=(n, 1)) + 0.4 * rng.normal(size=x.shape)
    return meta.Episodes(x, y)


# Intercepts and slopes of many lines.
MEAN, COVARIANCE = [1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]]
MANY = meta.LinearGaussian(KEY, MEAN, COVARIANCE, 300).at(0)
PRIOR = NormalInverseWishart(
    jnp.array([4.0, 1.0]), jnp.asarray(2.0), jnp.eye(2), jnp.asarray(5.0)
)
CASES = {
    "full": (meta.Linear(), lines()),
    "diagonal": (meta.Linear("diagonal"), lines()),
    "a given prior and noise": (meta.Linear(prior=PRIOR, noise_sd=0.4), lines()),
    "two components": (meta.Linear(num_components=2), lines(2)),
}


def drawn_before(model, data, key):
    """A hierarchy of the prior, and coefficients and values that it made."""
    keys = jax.random.split(key, 7)
    (prior,), k = model.block_priors(data), model.num_components
    weight = jax.random.dirichlet(keys[0], CONCENTRATION * jnp.ones(k))
    if isinstance(prior, FullPrior):
        root = jnp.linalg.cholesky(prior.covariance().sample(keys[1], (k,)))
    else:
        root = jax.vmap(jnp.diag)(prior.deviation().sample(keys[1], (k,)))
    white = jax.random.normal(keys[2], (k, len(prior.loc)))
    mean = prior.loc + jnp.einsum("kpq,kq->kp", root, white) / jnp.sqrt(prior.strength)
    sd = model.noise_sd
    if sd is None:
        sd = half_t(model.noise_scale(data), DF).sample(keys[3])
    precision = jnp.asarray(sd / model.value_scale(data)) ** -2
    if model.noise_sd is None:
        precision = sd**-2
    believed = Believed(jnp.log(weight), mean, root, precision, jnp.log(precision))
    rows = model.rows(data)
    unseen = jax.tree.map(jnp.zeros_like, rows)
    theta, kind = drawn_coefficients(unseen, believed, keys[4])
    white = jax.random.normal(keys[5], rows.y.shape) / jnp.sqrt(precision)
    y = jnp.where(rows.seen, jnp.einsum("nmp,np->nm", rows.design, theta) + white, 0.0)
    return Place(believed, theta, kind), Rows(rows.design, y, rows.seen)


def numbers(believed):
    """Of a hierarchy, as logarithms where they are positive; sorted by components."""
    covariance = believed.root @ believed.root.mT
    sd = jnp.sqrt(jnp.diagonal(covariance, axis1=-2, axis2=-1))
    found = [believed.mean, jnp.log(sd), covariance[:, 0, 1] / sd[:, 0] / sd[:, 1]]
    found = [values.sum(0).reshape(-1) for values in found]
    return jnp.concatenate([*found, believed.log_weight[:1], -believed.log_precision[None]])


@pytest.mark.parametrize("name", CASES)
def test_sweeps_keep_what_they_should(name):
    """Draws of the prior, and of data given them, have the joint distribution. So sweeps
    given those data must leave the distribution of the hierarchy as it was (Geweke 2004,
    "Getting it right").
    """
    model, data = CASES[name]

    def one(key):
        key, key_sweeps = jax.random.split(key)
        before, rows = drawn_before(model, data, key)

        def sweep(place, key):
            return place.swept(model, data, rows, tuple(jax.random.split(key))), None

        after, _ = jax.lax.scan(sweep, before, jax.random.split(key_sweeps, 3))
        return numbers(before.believed), numbers(after.believed)

    # Those of one half before, and of the other after, are independent.
    before, after = jax.jit(jax.vmap(one))(jax.random.split(KEY, 6000))
    before, after = np.asarray(before[:3000]), np.asarray(after[3000:])
    for a, b in zip(before.T, after.T, strict=True):
        if np.ptp(b) > 0:
            # At some twenty numbers in all: one run in 5,000 fails by chance.
            assert ks_2samp(a, b).pvalue > 1e-5


@pytest.fixture(scope="module")
def fitted():
    return pk.fit(meta.Linear(), MANY, METHOD, key=KEY)


@pytest.fixture(scope="module")
def close():
    return pk.fit(meta.Linear(), MANY, CLOSE, key=KEY)


def test_checks_are_those_of_chains(fitted):
    names = [check.name for check in pk.diagnose(fitted)]
    for name in ("R-hat, highest", "R-hat of the log density", "bulk ESS, lowest"):
        assert name in names
    lp = fitted.tree["sample_stats"]["lp"].values
    assert lp.shape == (2, 300)
    assert np.isfinite(lp).all()


def test_few_draws_of_one_chain_are_told(fitted):
    tree = fitted.tree.isel(chain=[0], draw=slice(20), missing_dims="ignore")
    found = {check.name: check for check in pk.diagnose(replace(fitted, tree=tree))}
    assert "R-hat, highest" not in found
    assert not found["bulk ESS, lowest"].ok


def test_many_data_sets_have_the_posterior_of_coordinate_ascent(fitted, close):
    for name in ("population_mean", "noise_sd"):
        a, b = (f.posterior[name] for f in (fitted, close))
        off = (a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) / a.std()
        assert float(np.abs(off).max()) < 0.3
    mean = fitted.posterior["population_mean"].mean(("chain", "draw")).values
    # Four sds of the mean of 300 data sets.
    np.testing.assert_allclose(mean, MEAN, atol=4 * np.sqrt(0.5 / 300))


def test_a_sweep_lowers_for_a_gpu():
    lowers_for_cuda(METHOD, *CASES["two components"])


def test_other_models_are_refused():
    data = pk.models.moe.Pairs([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    model = pk.models.moe.MixtureOfExperts(num_experts=1)
    refused(lambda: pk.fit(model, data, METHOD, key=KEY), "draws for `meta.Linear`")


# Where steps may begin.


def test_steps_begin_where_an_earlier_fit_ended(fitted, close):
    elbo, atol = close.facts["elbo"], CLOSE.atol
    again = pk.fit(meta.Linear(), MANY, CLOSE, key=KEY, start=close)
    assert again.facts["elbo"] == pytest.approx(elbo, abs=atol)
    assert again.tree["trace"]["objective"].values[0, 0] > elbo - atol
    after = pk.fit(meta.Linear(), MANY, CLOSE, key=KEY, start=fitted)
    assert after.facts["elbo"] == pytest.approx(elbo, abs=atol)
    assert after.tree["trace"]["objective"].values[0, 0] > -np.inf
