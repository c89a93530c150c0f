"""EM, SVI, NUTS and type II on one problem: they agree where theory says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from probkit.model.density import log_densities
from probkit.models import sbl

KEY = jax.random.key(0)
SUPPORT = np.ix_([1, 4], [2, 3])
X = np.zeros((6, 5))
X[SUPPORT] = [[2.0, -1.0], [1.5, 1.0]]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(6, 6)), rng.normal(size=(6, 5))
    return sbl.Measurements(A @ X @ B.T + 0.3 * rng.normal(size=(6, 6)), (A, B))


@pytest.fixture(scope="module")
def model():
    return sbl.KroneckerSBL()


@pytest.fixture(scope="module")
def type_two(model, data):
    return pk.fit(model, data, sbl.TypeII(), key=KEY)


@pytest.fixture(scope="module")
def by_em(model, data):
    return pk.fit(model, data, pk.EM(num_restarts=4), key=KEY)


@pytest.fixture(scope="module")
def by_nuts(model, data, type_two):
    # Begins at a fit that left some scales at zero exactly.
    method = pk.NUTS(num_chains=2, num_warmup=400, num_samples=600)
    return pk.fit(model, data, method, key=KEY, start=type_two)


@pytest.fixture(scope="module")
def by_svi(model, data):
    method = pk.SVI(guide="multivariate_normal", num_draws=1000)
    return pk.fit(model, data, method, key=KEY)


def coefficients(fitted):
    drawn = pk.recover(fitted, key=KEY)["coefficient"]
    return drawn.mean(("chain", "draw")).values, drawn.std(("chain", "draw")).values


def test_nuts_converges_from_a_pruned_fit(by_nuts):
    report = pk.diagnose(by_nuts)
    assert report["divergences"].ok and report["R-hat of the log density"].ok
    assert report["R-hat, highest"].value < 1.05


def test_no_draw_of_nuts_is_more_probable_than_the_best_of_em(model, data, by_em, by_nuts):
    joint = jax.jit(lambda sites: sum(log_densities(model, data, sites)))
    best = float(joint(by_em.sites()))
    draws = {k: jnp.asarray(v.values[0, ::20]) for k, v in by_nuts.posterior.items()}
    assert best >= float(jax.vmap(joint)(draws).max())


def test_coefficients_at_the_maximum_are_those_of_nuts(model, data, by_em, by_nuts):
    mean, sd = coefficients(by_nuts)
    best = np.asarray(model.posterior(by_em.sites(), data).mean())
    # The maximum is not the mean: it sets to zero what NUTS leaves small.
    gap = np.abs(best - mean) / sd
    assert gap[SUPPORT].max() < 0.5 and gap.max() < 1.5, gap
    np.testing.assert_allclose(mean[SUPPORT], X[SUPPORT], atol=4 * sd[SUPPORT].max())


def test_svi_agrees_with_nuts_on_the_coefficients(by_svi, by_nuts):
    mean, sd = coefficients(by_nuts)
    other, spread = coefficients(by_svi)
    assert np.all(np.abs(other - mean) < 0.3 * sd)
    # On the support; elsewhere the posterior has a spike and tails that no normal has.
    np.testing.assert_allclose(spread[SUPPORT], sd[SUPPORT], rtol=0.25)


def test_type_two_is_surer_than_nuts(model, data, type_two, by_nuts):
    # It holds the hyperparameters fixed: off the support it is certain of zero.
    sure = np.sqrt(np.asarray(model.posterior(type_two.sites(), data).variances()))
    _, sd = coefficients(by_nuts)
    off = np.ones(X.shape, bool)
    off[SUPPORT] = False
    assert np.all(sure[SUPPORT] < 1.1 * sd[SUPPORT])
    assert sure[off].mean() < 0.1 * sd[off].mean()
