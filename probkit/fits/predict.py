"""What is computed from the draws of a fit, and from the prior: one draw at a time."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro
from jaxtyping import PRNGKeyArray

from probkit.fits.tree import coords_of, dataset_of
from probkit.fits.value import Fit, draws_of, refuse_no_fit
from probkit.method.batches import map_in_batches
from probkit.model import AbstractModel, Data
from probkit.model.density import observed_names
from probkit.validate import as_key


def predict(fitted: Fit, inputs: Any, *, key: PRNGKeyArray):
    """Posterior predictive draws at new inputs.

    Args:
        fitted: a fit.
        inputs: what the family takes: for a regression, `x` in the shape of the fit's.
        key: a JAX random key.

    Returns:
        An xarray `Dataset` over `chain`, `draw` and the family's named axes. Its
        variables are the family's (see its `predict`); `y` is a new observation.
    """
    refuse_no_fit(fitted, "predict(fit, ...)")
    key = as_key(key, "predict(key=...)")
    given = fitted.model.inputs(inputs, fitted.data)
    arrays = _each_draw(_predict_one, fitted, key, given)
    # The axes of the data have other entries at new inputs.
    dims = fitted.model.dims(fitted.data)
    observed = {a for name in observed_names(fitted.model, fitted.data) for a in dims[name]}
    coords = fitted.model.coords(fitted.data)
    return dataset_of(
        arrays, fitted, {k: v for k, v in coords.items() if k not in observed}
    )


def recover(fitted: Fit, *, key: PRNGKeyArray):
    """Draws of what the model integrated out: labels, coefficients, functions.

    Returns:
        An xarray `Dataset` over `chain`, `draw` and the family's named axes; empty for a
        model that integrates nothing out.
    """
    refuse_no_fit(fitted, "recover(fit, ...)")
    key = as_key(key, "recover(key=...)")
    arrays = _each_draw(_recover_one, fitted, key, fitted.data)
    return dataset_of(arrays, fitted, fitted.model.coords(fitted.data))


def with_log_likelihood(fitted: Fit) -> Fit:
    """The same fit with a group `log_likelihood`, one number an observation and draw.

    It is the model's `pointwise`: where observations depend on each other, that of each
    given all the others.
    """
    arrays = _each_draw(_score_one, fitted, jax.random.key(0), fitted.data)
    tree = fitted.tree.copy()
    tree["log_likelihood"] = dataset_of(
        arrays, fitted, coords_of(fitted.model, fitted.data)
    )
    return Fit(**{**vars(fitted), "tree": tree})


@eqx.filter_jit
def _prior_draws(model, data, keys):
    def one(key):
        program = numpyro.handlers.uncondition(numpyro.handlers.seed(model, key))
        trace = numpyro.handlers.trace(program).get_trace(data)
        kinds = ("sample", "deterministic")
        return {k: v["value"] for k, v in trace.items() if v["type"] in kinds}

    return map_in_batches(one, keys)


def prior(model: AbstractModel, data: Data, *, key: PRNGKeyArray, num_draws: int = 500):
    """Draws of the parameters, and of data like `data`, before seeing any.

    Returns:
        A `DataTree` with groups `prior` and `prior_predictive`, one chain.
    """
    import arviz_base as azb

    arrays = jax.device_get(_prior_draws(model, data, jax.random.split(key, num_draws)))
    observed = observed_names(model, data)
    one_chain = {k: v[None] for k, v in arrays.items()}
    return azb.from_dict(
        {
            "prior": {k: v for k, v in one_chain.items() if k not in observed},
            "prior_predictive": {k: one_chain[k] for k in observed},
        },
        dims={k: list(v) for k, v in model.dims(data).items()},
        coords=coords_of(model, data),
    )


@eqx.filter_jit
def _map_draws(function, model, sites, keys, *args):
    """`function(model, one draw, *args, key)` for every draw, chain by chain."""

    def one(pair):
        sites, key = pair
        return function(model, sites, *args, key)

    flat, keys = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (sites, keys))
    out = map_in_batches(one, (flat, keys))
    shape = jax.tree.leaves(sites)[0].shape[:2]
    return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)


def _each_draw(function, fitted: Fit, key, *args) -> dict[str, np.ndarray]:
    sites = draws_of(fitted)
    shape = jax.tree.leaves(sites)[0].shape[:2]
    keys = jax.random.split(key, shape)
    return jax.device_get(_map_draws(function, fitted.model, sites, keys, *args))


def _predict_one(model, sites, inputs, key):
    return model.predict(sites, inputs, key)


def _recover_one(model, sites, data, key):
    return model.recover(sites, data, key)


def _score_one(model, sites, data, key):
    return model.pointwise(sites, data)
