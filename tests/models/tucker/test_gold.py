"""Message passing and Gibbs draws beside NUTS, SVI and an integral, on small problems."""

import arviz_stats as azs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import Trace_ELBO, autoguide

import probkit as pk
from probkit.models import tucker
from probkit.models.tucker.parameters import centres

KEY = jax.random.key(0)
CP = tucker.CP(1, effects=False)


def entries(sizes, n, noise, of=lambda rng, f: f):
    rng = np.random.default_rng(3)
    index = [rng.integers(0, size, n) for size in sizes]
    for column, size in zip(index, sizes, strict=True):
        column[:size] = np.arange(size)
    f = 1 + np.cos(index[0]) * (1 + index[1])
    y = of(rng, f) + noise * rng.normal(size=n)
    named = {f"m{k}": np.char.add("s", i.astype(str)) for k, i in enumerate(index)}
    return tucker.Entries(named, y)


def surface(fitted):
    """Draws at all combinations, `(chain, draw, cell)`."""
    drawn = pk.predict(fitted, tucker.grid(fitted.data), key=KEY)["surface"].values
    return drawn.reshape(*drawn.shape[:2], -1)


def by_nuts(fitted):
    """Chains that start at two draws of a fit, because far from it they get stuck."""
    method = pk.NUTS(num_chains=2, num_warmup=300, num_samples=600)
    exact = pk.fit(fitted.model, fitted.data, method, key=KEY, start=fitted, throw=False)
    return surface(exact)


def test_gibbs_draws_of_a_core_are_those_of_nuts():
    data = entries((4, 3), 40, 0.4)
    model = tucker.Tucker((2, 1), effects=False)
    method = tucker.MessagePassing(num_starts=2, num_draws=1000, num_warmup=200)
    fitted = pk.fit(model, data, method, key=KEY)
    ours, theirs = surface(fitted), by_nuts(fitted)
    error = np.sqrt(
        sum(
            x.var((0, 1)) / np.minimum(effective_sample_size(x), x.shape[0] * x.shape[1])
            for x in (ours, theirs)
        )
    )
    # Five standard errors at twelve cells: one run in 100,000 fails by chance.
    assert (np.abs(ours.mean((0, 1)) - theirs.mean((0, 1))) / error).max() < 5
    # Of chains that visit a second optimum, sds are known no better than this.
    error = np.hypot(*(_error_of_sd(x) for x in (ours, theirs)))
    assert (np.abs(ours.std((0, 1)) - theirs.std((0, 1))) / error).max() < 5


def _error_of_sd(draws):
    """Monte Carlo standard errors of sds, `(cell,)`."""
    return np.array([float(azs.mcse(x, method="sd")) for x in np.moveaxis(draws, -1, 0)])


def test_the_approximation_for_counts_is_close_to_nuts_and_narrower():
    data = entries((4, 3), 40, 0.0, lambda rng, f: rng.poisson(np.exp(f / 2)))
    model = tucker.CP(1, effects=False, observation=tucker.Poisson())
    fitted = pk.fit(model, data, tucker.MessagePassing(num_starts=2), key=KEY, throw=False)
    found, drawn = pk.moments(fitted, tucker.grid(data)), by_nuts(fitted)
    mean, sd = drawn.mean((0, 1)), drawn.std((0, 1))
    assert np.abs((found["mean"].values.ravel() - mean) / sd).max() < 1
    ratio = found["sd"].values.ravel() / sd
    assert 0.3 < ratio.mean() < 1.1


@pytest.fixture(scope="module")
def tiny():
    """Two by two labels, so that one mode and the noise can be summed over on a grid."""
    return entries((2, 2), 8, 0.3)


def log_evidence(data, scale):
    """Of the entries, in nats: functions of the second mode and level by formula, those of
    the first and the noise on a grid."""
    y = np.asarray((data.y - data.y_mean) / data.y_sd)
    i, j = np.asarray(data.places).T
    s = scale / float(data.y_sd)
    x, w = np.polynomial.hermite_e.hermegauss(60)
    u = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    log_w = np.log(np.outer(w, w).ravel() / (2 * np.pi))
    C = 1 + s**2 * u[:, i][:, :, None] * u[:, i][:, None] * (j[:, None] == j)
    values, vectors = np.linalg.eigh(C)
    along = np.einsum("gnm,n->gm", vectors, y) ** 2
    log_τ = np.linspace(-6, 14, 400)
    τ = np.exp(log_τ)
    a, b = 0.5, 0.5 * 0.01**2
    log_prior = a * np.log(b) - np.log(np.sqrt(np.pi)) + a * log_τ - b * τ
    log_prior = log_prior + np.log(log_τ[1] - log_τ[0])
    variance = values[:, None] + 1 / τ[:, None]
    inside = -(np.log(2 * np.pi * variance) + along[:, None] / variance).sum(-1) / 2
    total = np.logaddexp.reduce((inside + log_w[:, None] + log_prior).ravel())
    return total - len(y) * np.log(float(data.y_sd))


def test_the_bound_is_below_the_evidence_and_above_that_of_a_guide(tiny):
    method = tucker.MessagePassing(
        num_starts=4, atol=1e-4, learn=False, draws="approximation", num_draws=5
    )
    bound = pk.fit(CP, tiny, method, key=KEY).facts["elbo"]
    sites = centres(CP, tiny)
    evidence = log_evidence(tiny, float(sites["scale"][0]))
    evidence += float(CP.priors(tiny)["scale"].log_prob(sites["scale"]))
    assert evidence - 4 < bound < evidence
    # A guide of independent normals, with the scale known too.
    program = numpyro.handlers.condition(CP, data=sites)
    guide = autoguide.AutoNormal(
        program, init_loc_fn=autoguide.init_to_median, init_scale=0.1
    )
    svi = numpyro.infer.SVI(
        program, guide, numpyro.optim.Adam(0.05), Trace_ELBO(num_particles=4)
    )

    @jax.jit  # the start too, which is not compiled whole otherwise
    def ends(key):
        params = svi.run(key, 6000, tiny, progress_bar=False).params
        loss = lambda key: Trace_ELBO().loss(key, params, program, guide, tiny)  # noqa: E731
        return jax.vmap(loss)(jax.random.split(key, 2000))

    losses = ends(KEY)
    theirs, error = -losses.mean(), losses.std() / jnp.sqrt(len(losses))
    assert theirs < bound + 4 * error
    assert theirs > bound - 2
