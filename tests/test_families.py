"""What every family keeps, asked through the same door."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.test_util import check_grads
from numpyro.infer.util import potential_energy

import probkit as pk
from families import FAMILIES, WITHOUT_EM, a_draw
from lowering import lowers_for_cuda
from probkit.fits.tree import data_arrays
from probkit.model.density import (
    constrain,
    latent_names,
    log_densities,
    log_likelihood,
    observed_names,
    prior_draw,
    unconstrain,
)

every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
WITH_EM = {name: make for name, make in FAMILIES.items() if name not in WITHOUT_EM}
every_em_family = pytest.mark.parametrize("make", WITH_EM.values(), ids=WITH_EM.keys())


@every_family
def test_every_site_and_array_has_named_axes(make):
    model, data = make()
    sites, dims, coords = a_draw(model, data), model.dims(data), model.coords(data)
    assert set(sites) == set(latent_names(model, data))
    for name, array in {**sites, **data_arrays(data)}.items():
        assert array.shape == tuple(len(coords[axis]) for axis in dims[name]), name


@every_family
def test_is_plain_numpyro(make):
    model, data = make()
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, 0)).get_trace(data)
    assert any(s["type"] == "sample" and s["is_observed"] for s in trace.values())


@every_family
def test_coordinates_go_there_and_back(make):
    model, data = make()
    sites = a_draw(model, data)
    there = jax.jit(lambda s: unconstrain(model, data, s))
    back = jax.jit(lambda z: constrain(model, data, z))
    again = back(there(sites))
    for name, value in sites.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-9, atol=1e-9)


@every_family
def test_coordinates_of_the_prior_have_unit_size(make):
    # What InUnits promises: samplers work at a scale of one, whatever the data's units.
    model, data = make()

    @jax.jit
    @jax.vmap
    def draw(key):
        return unconstrain(model, data, prior_draw(model, data, key))

    positions = draw(jax.random.split(jax.random.key(0), 200))
    for name, values in positions.items():
        if values.size:
            spread = float(values.std())
            assert 0.2 < spread < 5, f"{name}: {spread}"


@every_family
def test_every_observation_has_a_log_density(make):
    model, data = make()
    sites = a_draw(model, data)
    scores = jax.jit(model.pointwise)(sites, data)
    # An equation is conditioned on, too, and is no observation.
    observed = set(observed_names(model, data)) & set(data.arrays())
    assert set(scores) == observed
    for name, score in scores.items():
        assert score.shape == data.arrays()[name].shape
        assert bool(jnp.isfinite(score).all())


@every_family
def test_gradients_match_finite_differences(make):
    model, data = make()
    position = jax.jit(lambda s: unconstrain(model, data, s))(a_draw(model, data))

    @jax.jit
    def energy(z):
        return potential_energy(model, (data,), {}, z)

    check_grads(energy, (position,), order=1, modes=["rev"], rtol=1e-4, atol=1e-4)


@every_em_family
def test_em_objective_is_the_likelihood_of_the_program(make):
    model, data = make()

    @jax.jit
    def both(sites):
        total = sum(v.sum() for v in log_likelihood(model, data, sites).values())
        return total, model.e_step(sites, data)[1]

    for seed in range(3):
        total, objective = both(a_draw(model, data, seed))
        assert float(objective) == pytest.approx(float(total), rel=1e-10)


@every_em_family
@pytest.mark.parametrize("use_prior", [True, False])
def test_an_em_step_never_lowers_the_objective(make, use_prior):
    model, data = make()

    @jax.jit
    def step(sites):
        moments, _ = model.e_step(sites, data)
        return model.m_step(moments, sites, data, use_prior)

    @jax.jit
    def objective(sites):
        prior, likelihood = log_densities(model, data, sites)
        return likelihood + prior if use_prior else likelihood

    for seed in range(3):
        sites = a_draw(model, data, seed)
        for _ in range(10):
            better = step(sites)
            before, after = float(objective(sites)), float(objective(better))
            assert after >= before - 1e-9 * abs(before)
            sites = better


@every_em_family
def test_the_fixed_point_of_em_is_stationary(make):
    model, data = make()
    fitted = pk.fit(model, data, pk.EM(num_restarts=4), key=jax.random.key(0))
    sites = {k: jnp.asarray(v.values[0, 0]) for k, v in fitted.posterior.items()}
    position = jax.jit(lambda s: unconstrain(model, data, s))(sites)

    def climb(z):
        return sum(log_densities(model, data, constrain(model, data, z)))

    gradient = jax.jit(jax.grad(climb))(position)
    assert all(float(jnp.abs(g).max(initial=0.0)) < 0.02 for g in gradient.values())


@every_family
def test_canonical_order_does_not_depend_on_the_labels(make):
    model, data = make()
    sites = a_draw(model, data)
    ordered = jax.jit(model.canonical)(sites, data)
    axis = model.interchangeable
    canonical = jax.jit(model.canonical)
    # Without such an axis, the order found once must be found again.
    count = 1 if axis is None else len(model.coords(data)[axis])
    for shift in range(count):
        rolled = {
            k: jnp.roll(v, shift, -1) if axis in model.dims(data)[k] else v
            for k, v in sites.items()
        }
        for again in (
            canonical(rolled, data),
            canonical(rolled, data, ordered),
        ):
            for name, value in ordered.items():
                np.testing.assert_array_equal(again[name], value)


@every_family
def test_predictions_and_recovered_values_have_named_axes(make):
    model, data = make()
    sites, key = a_draw(model, data), jax.random.key(0)
    given = model.inputs(data, data)
    out = {**model.predict(sites, given, key), **model.recover(sites, data, key)}
    for name, value in out.items():
        assert value.ndim == len(model.dims(data)[name]), name
        assert bool(jnp.isfinite(value).all()), name


@every_em_family
def test_em_lowers_for_cuda(make):
    lowers_for_cuda(pk.EM(2), *make())


# Not pde's: test_pde.py lowers its density, slope and solution, in less time.
@every_em_family
@pytest.mark.parametrize("method", [pk.SVI(), pk.NUTS(2)], ids=["SVI", "NUTS"])
def test_hot_paths_lower_for_cuda(make, method):
    lowers_for_cuda(method, *make())
