"""Exact mean and sd of a function over an approximate posterior."""

from typing import Any

import equinox as eqx
import jax

from probkit.fits.predict import labels_at
from probkit.fits.tree import dataset_of
from probkit.fits.value import Fit, refuse_no_fit
from probkit.method.programs import renew
from probkit.settings import with_all_digits


@with_all_digits
def moments(fitted: Fit, inputs: Any):
    """Exact mean and sd of the observed function at new inputs, without draws.

    Args:
        fitted: a fit by a method that approximates the posterior, of a model that knows
            these moments.
        inputs: as for `predict`.

    Returns:
        An xarray `Dataset` with `mean` and `sd` over the named axes of the family, in the
        units of the data. The sd is that of the function, without observation noise.

    Raises:
        ValueError: if the fit has draws only, if the model knows no exact moments for its
            approximation, or if the inputs do not fit the model.
    """
    refuse_no_fit(fitted, "moments(fit, ...)")
    model, data, approximation = fitted.model, fitted.data, fitted.approximation
    draws = 'use draws, `pk.predict(fit, x, key=key).mean(("chain", "draw"))`'
    if approximation is None:
        raise ValueError(f"`moments`: this fit has draws and no approximation; {draws}.")
    given = model.inputs(inputs, data)
    renew("moments", model, model.moments, approximation, given, data)
    found = _moments(model, approximation, given, data)
    if found is None:
        raise ValueError(
            f"`moments`: `{type(model).__name__}` knows no exact moments for a "
            f"`{type(approximation).__name__}`; {draws}."
        )
    arrays = jax.device_get(found)
    coords, dims = labels_at(fitted, given)
    return dataset_of(arrays, fitted, coords, sample_dims=[], dims=dims)


@eqx.filter_jit
def _moments(model, approximation, inputs, data):
    return model.moments(approximation, inputs, data)
