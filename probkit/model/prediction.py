"""Predictions that follow from a program alone: it is run at other inputs."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import PRNGKeyArray

from probkit.model.density import Program, Sites, observed_names, sites_by_row
from probkit.validate import as_array, short, whole

PREDICT = "predict(..., inputs)"


def data_at(program: Program, given: Any, data: Any) -> Any:
    """Data like those of a fit, at other inputs, without observations.

    Args:
        program: the model.
        given: the inputs. Data of the same class; or an array, if the data have one array
            that is not observed; or a dict with one array per input, by name; or the
            number of observations to predict, if there are no inputs.
        data: the data of the fit.

    Returns:
        Data with `given` as inputs. Observed arrays are NaN, or zero if they have whole
        numbers.

    Raises:
        ValueError: for inputs that are missing, unknown, not finite or of other shapes.
    """
    if isinstance(given, type(data)):
        return given
    rows, kind = data.rows(), type(data).__name__
    observed = [name for name in observed_names(program, data) if name in rows]
    names = [name for name in rows if name not in observed]
    if not names:
        count = whole("predict(inputs", 1)(given)
        return data.replaced({name: _unknown(rows[name], count) for name in observed})
    if not isinstance(given, Mapping):
        if len(names) > 1:
            raise ValueError(
                f"`{PREDICT}` got {short(given)}; `{kind}` has the inputs "
                f"{', '.join(names)}, so it takes a dict with an array for each, or a "
                f"`{kind}`."
            )
        given = {names[0]: given}
    if set(given) != set(names):
        raise ValueError(
            f"`{PREDICT}` has {', '.join(map(str, given)) or 'nothing'}; `{kind}` takes "
            f"{', '.join(names)}."
        )
    new = {name: _like(rows[name], given[name], name) for name in names}
    counts = {name: len(array) for name, array in new.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} rows of `{name}`" for name, count in counts.items())
        raise ValueError(f"`{PREDICT}` has {found}; each prediction has one row of each.")
    count = next(iter(counts.values()))
    if count == 0:
        raise ValueError(f"`{PREDICT}` has no rows; give one or more.")
    return data.replaced(new | {name: _unknown(rows[name], count) for name in observed})


def _like(old: Any, given: Any, name: str) -> Any:
    array = as_array(given, f"{PREDICT}[{name}]", whole_too=True)
    if array.ndim != old.ndim or array.shape[1:] != old.shape[1:]:
        wanted = ", ".join(["m", *map(str, old.shape[1:])])
        raise ValueError(
            f"`{PREDICT}`: `{name}` has shape {array.shape}; in the fit it has "
            f"{old.shape}, so it takes ({wanted}{',' if old.ndim == 1 else ''})."
        )
    if jnp.issubdtype(old.dtype, jnp.integer) and not jnp.issubdtype(
        array.dtype, jnp.integer
    ):
        raise ValueError(
            f"`{PREDICT}`: `{name}` has fractions; in the fit it has whole numbers."
        )
    return array.astype(old.dtype)


def _unknown(old: Any, count: int) -> Any:
    # NaN, so that a program that computes with observed values gives NaN for its
    # predictions, and not wrong numbers.
    floating = jnp.issubdtype(old.dtype, jnp.inexact)
    return jnp.full((count, *old.shape[1:]), jnp.nan if floating else 0, old.dtype)


def draw_at(program: Program, sites: Sites, data: Any, key: PRNGKeyArray) -> Sites:
    """One draw of what a program observes and computes, for one draw of `sites`.

    Sites with one value per observation are drawn from their prior given the other sites,
    because the values of the fit belong to the observations of the fit.

    Args:
        program: the model.
        sites: one draw, `{site: value}`.
        data: the inputs, as `data_at` gives them.
        key: a JAX random key.

    Returns:
        `{name: value}` of the observed and the deterministic sites.
    """
    by_row = sites_by_row(program, data)
    shared = {name: value for name, value in sites.items() if name not in by_row}
    observed = observed_names(program, data)
    free = numpyro.handlers.uncondition(numpyro.handlers.seed(program, key))
    with numpyro.handlers.substitute(data=shared):
        trace = numpyro.handlers.trace(free).get_trace(data)
    return {
        name: site["value"]
        for name, site in trace.items()
        if (name in observed and jnp.size(site["value"])) or site["type"] == "deterministic"
    }
