"""What every family keeps, asked through the same door.

All that a test asks of a family is compiled as one program and computed once.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy

import probkit as pk
from families import FAMILIES, OF_ROWS, VAGUE, WITH_EM
from lowering import lowers_for_cuda
from probkit.fits.tree import data_arrays
from probkit.model import AbstractModel
from probkit.model.density import (
    constrain,
    latent_names,
    log_densities,
    log_likelihood,
    observed_names,
    prior_draw,
    site_shapes,
    unconstrain,
)

every_family = pytest.mark.parametrize("name", FAMILIES)
every_em_family = pytest.mark.parametrize("name", WITH_EM)
METHODS = (pk.EM(2), pk.SVI(), pk.NUTS(2))
SEEDS = 3
SPREAD = 200  # draws of which the spread is taken
STEPS = 10
STEP = 2.0**-11  # of a finite difference


@cache
def family(name):
    return FAMILIES[name]()


@cache
def answers(name):
    """What a family answers for some draws from its prior, and the positions of more."""
    model, data = family(name)

    def drawn(key):
        sites = prior_draw(model, data, key)
        return sites, unconstrain(model, data, sites)

    def asked(drawn, key):
        sites, position = drawn
        given = model.integrated(sites, data)
        return {
            "sites": sites,
            "position": position,
            "again": constrain(model, data, position),
            "pointwise": model.pointwise(sites, data),
            "likelihood": sum(v.sum() for v in log_likelihood(model, data, sites).values()),
            "predicted": model.predict(given, model.inputs(data, data), key),
            "recovered": model.recover(given, data, key),
            "canonical": model.canonical(sites, data),
        }

    @jax.jit
    def of_all(keys):
        every = jax.vmap(drawn)(keys)
        few = jax.tree.map(lambda a: a[:SEEDS], (every, keys))
        return jax.vmap(asked)(*few) | {"positions": every[1]}

    return of_all(jax.random.split(jax.random.key(0), SPREAD))


def first(tree):
    return jax.tree.map(lambda a: a[0], tree)


@every_family
def test_every_site_and_array_has_named_axes(name):
    model, data = family(name)
    dims, coords = model.dims(data), model.coords(data)
    sites = first(answers(name)["sites"])
    assert set(sites) == set(latent_names(model, data))
    for variable, array in {**sites, **data_arrays(data)}.items():
        expected = tuple(len(coords[axis]) for axis in dims[variable])
        assert array.shape == expected, variable


@every_family
def test_is_plain_numpyro(name):
    model, data = family(name)
    assert observed_names(model, data)
    assert set(site_shapes(model, data)) >= set(latent_names(model, data))


@every_family
def test_coordinates_go_there_and_back(name):
    found = answers(name)
    for site, value in found["sites"].items():
        np.testing.assert_allclose(found["again"][site], value, rtol=1e-9, atol=1e-9)


@every_family
def test_coordinates_of_the_prior_have_unit_size(name):
    # What InUnits promises: samplers work at a scale of one, whatever the data's units.
    for site, values in answers(name)["positions"].items():
        if values.size:
            spread = float(values.std()) / VAGUE.get((name, site), 1.0)
            assert 0.2 < spread < 5, f"{site}: {spread}"


@every_family
def test_every_observation_has_a_log_density(name):
    model, data = family(name)
    scores = answers(name)["pointwise"]
    # An equation is conditioned on, too, and is no observation.
    assert set(scores) == set(observed_names(model, data)) & set(data.arrays())
    for variable, score in scores.items():
        shape = data.arrays()[variable].shape
        # The columns of a vector that is observed as one share one number.
        by_row = type(model).pointwise is AbstractModel.pointwise
        assert score.shape[1:] == (shape[:1] if by_row else shape)
        assert bool(jnp.isfinite(score).all())


@every_family
def test_gradients_match_finite_differences(name):
    model, data = family(name)
    position, unravel = ravel_pytree(first(answers(name)["position"]))
    along = np.random.default_rng(0).normal(size=position.shape)

    # Energy and slope at three places, by one program that is compiled once.
    @jax.jit
    def energies(steps):
        energy = lambda z: potential_energy(model, (data,), {}, unravel(z))  # noqa: E731
        both = jax.value_and_grad(energy)
        return jax.lax.map(lambda step: both(position + step * along), steps)

    energy, slopes = energies(jnp.array([-STEP, 0.0, STEP]))
    difference = (energy[2] - energy[0]) / (2 * STEP)
    np.testing.assert_allclose(slopes[1] @ along, difference, rtol=1e-4, atol=1e-4)


@cache
def steps_of_em(name):
    """The likelihood that the E-step has; the objectives of EM before and after steps."""
    model, data = family(name)

    def climb(sites, use_prior):
        def objective(sites):
            prior, likelihood = log_densities(model, data, sites)
            return likelihood + prior if use_prior else likelihood

        def step(sites, _):
            moments, _ = model.e_step(sites, data)
            better = model.m_step(moments, sites, data, use_prior)
            return better, objective(better)

        after = jax.lax.scan(step, sites, None, length=STEPS)[1]
        return jnp.concatenate([objective(sites)[None], after])

    def asked(sites):
        objective = model.e_step(sites, data)[1]
        return objective, {
            use_prior: climb(sites, use_prior) for use_prior in (True, False)
        }

    return jax.jit(jax.vmap(asked))(answers(name)["sites"])


@every_em_family
def test_em_objective_is_the_likelihood_of_the_program(name):
    objective, _ = steps_of_em(name)
    np.testing.assert_allclose(objective, answers(name)["likelihood"], rtol=1e-10)


@every_em_family
@pytest.mark.parametrize("use_prior", [True, False])
def test_an_em_step_never_lowers_the_objective(name, use_prior):
    objectives = np.asarray(steps_of_em(name)[1][use_prior])
    before, after = objectives[:, :-1], objectives[:, 1:]
    assert objectives.shape == (SEEDS, STEPS + 1)
    assert (after >= before - 1e-9 * abs(before)).all()


@every_em_family
def test_the_fixed_point_of_em_is_stationary(name):
    model, data = family(name)
    fitted = pk.fit(model, data, pk.EM(num_restarts=4), key=jax.random.key(0))
    sites = fitted.sites()

    @jax.jit
    def slope(sites):
        def objective(z):
            return sum(log_densities(model, data, constrain(model, data, z)))

        return jax.grad(objective)(unconstrain(model, data, sites))

    assert all(float(jnp.abs(g).max(initial=0.0)) < 0.02 for g in slope(sites).values())


@every_family
def test_canonical_order_does_not_depend_on_the_labels(name):
    model, data = family(name)
    sites, ordered = first(answers(name)["sites"]), first(answers(name)["canonical"])
    axis, dims = model.interchangeable, model.dims(data)
    # Without such an axis, the order found once must be found again.
    count = 1 if axis is None else len(model.coords(data)[axis])

    @jax.jit
    def both(rolled):
        return model.canonical(rolled, data), model.canonical(rolled, data, ordered)

    for shift in range(count):
        rolled = {
            k: jnp.roll(v, shift, dims[k].index(axis)) if axis in dims[k] else v
            for k, v in sites.items()
        }
        for again in both(rolled):
            for site, value in ordered.items():
                # Computed in two programs, whose last digits may differ.
                np.testing.assert_allclose(again[site], value, rtol=1e-12)


@every_family
def test_predictions_and_recovered_values_have_named_axes(name):
    model, data = family(name)
    found = answers(name)
    # Rows that only fill up a data set are NaN, and no others.
    asked = getattr(model.inputs(data, data), "asked", True)
    for variable, value in {**found["predicted"], **found["recovered"]}.items():
        assert value.ndim - 1 == len(model.dims(data)[variable]), variable
        there = asked if variable in found["predicted"] else True
        assert bool((jnp.isfinite(value) == there).all()), variable


@pytest.mark.parametrize("name", OF_ROWS)
def test_a_guide_fitted_in_batches_is_that_of_all_rows(name):
    # From one place, because the posterior of a mixture has several maxima, and with a
    # step size that falls, because the slope of a batch is noisier.
    model, data = family(name)
    start = pk.fit(model, data, pk.MAP(num_starts=2), key=jax.random.key(1))
    falling = optax.adam(optax.cosine_decay_schedule(0.03, 4000))
    whole, batch = (
        pk.fit(
            model,
            data,
            pk.SVI(batch_size=size, optimizer=falling, max_steps=4000, patience=99),
            key=jax.random.key(0),
            start=start,
            throw=False,
            relabel=False,
        ).posterior
        for size in (None, len(data) // 3)
    )
    for site in latent_names(model, data):
        mean, sd = whole[site].mean(("chain", "draw")), whole[site].std(("chain", "draw"))
        off = (batch[site].mean(("chain", "draw")) - mean) / sd
        ratio = batch[site].std(("chain", "draw")) / sd
        assert float(abs(off).max()) < 0.25, site
        assert float(ratio.min()) > 0.8, site
        assert float(ratio.max()) < 1.25, site


# One family of each kind, because the programs of the others have the same operations.
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("name", ["moe three inputs", "sbl complex, coupled, frozen"])
def test_hot_paths_lower_for_cuda(name, method):
    lowers_for_cuda(method, *family(name))
