r"""Standardised coordinates of linear data sets, and the units of the data.

Values have a mean of zero and an sd of one, and so do inputs. Coefficients $c$ there are
$T c + t$ in units of the data. With given features only the values are standardised.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.model.density import Sites
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import Believed
from probkit.models.meta.features import of_each, size_of


def by_row(features: Any) -> bool:
    """Whether features are those of one row at a time."""
    return isinstance(features, eqx.Module)


def value_center(features: Any, data: Episodes) -> Float[Array, ""]:
    """What is subtracted from the values: their mean, but if a function has features in
    the place of an intercept.
    """
    known = features is None or by_row(features)
    return data.y_mean if known else jnp.zeros_like(data.y_mean)


def num_features(features: Any, data: Episodes) -> int:
    """The number of coefficients of a data set."""
    x = data.x
    if features is None:
        return x.shape[-1] + 1
    if by_row(features):
        row = jax.ShapeDtypeStruct(x.shape[2:], x.dtype)
        return size_of(features, row, 0, "Linear")
    return size_of(features, x, 2, "Linear")


def input_center(model: Any, data: Episodes) -> Float[Array, " d"]:
    """What is subtracted from the inputs.

    An intercept cannot be independent of slopes both at the mean and at zero.
    """
    full = model.covariance == "full"
    return data.x_mean if full else jnp.zeros_like(data.x_mean)


def design(model: Any, x: Array, data: Episodes, rows: Array) -> Float[Array, "n m p"]:
    """Standardised features, zero where there is no row."""
    if by_row(model.features):
        found = of_each(model.features, x, 2)
    elif model.features is not None:
        found = model.features(x)
    else:
        z = (x - input_center(model, data)) / data.x_sd
        found = jnp.concatenate([jnp.ones_like(z[..., :1]), z], -1)
    return jnp.where(rows[..., None], found, 0.0)


def to_units(model: Any, data: Episodes) -> tuple[Float[Array, "p p"], Float[Array, " p"]]:
    """$T$ and $t$."""
    scale = data.y_sd
    if model.features is not None:
        p = num_features(model.features, data)
        return scale * jnp.eye(p, dtype=data.dtype), jnp.zeros(p, data.dtype)
    slope = scale / data.x_sd
    T = jnp.diag(jnp.concatenate([scale[None], slope]))
    T = T.at[0, 1:].set(-slope * input_center(model, data))
    center = value_center(None, data)
    return T, jnp.zeros(len(slope) + 1, data.dtype).at[0].set(center)


# One draw of the hierarchy.


def standardised(model: Any, sites: Sites, data: Episodes) -> Believed:
    """The hierarchy of one draw."""
    T, t = to_units(model, data)
    back = jnp.linalg.inv(T)
    mean = (sites["population_mean"] - t) @ back.T
    if model.covariance == "full":
        root = jnp.linalg.cholesky(back @ sites["covariance"] @ back.T)
    else:
        scaled = sites["between_sd"] / jnp.diagonal(T)
        root = scaled[..., None] * jnp.eye(len(t), dtype=data.dtype)
    if model.num_components == 1:
        mean, root = mean[None], root[None]
        log_weight = jnp.zeros(1, data.dtype)
    else:
        log_weight = jnp.log(sites["weight"])
    sd = sites["noise_sd"] if model.noise_sd is None else model.noise_sd
    noise = sd / data.y_sd
    return Believed(log_weight, mean, root, noise**-2, -2 * jnp.log(noise))


def in_units(
    model: Any,
    mean: Float[Array, "k p"],
    spread: Float[Array, "k p p"],
    weight: Float[Array, " k"],
    noise: Array | None,
    data: Episodes,
) -> Sites:
    """Sites in units of the data.

    Args:
        model: a `meta.Linear`.
        mean: of the coefficients, for each component.
        spread: their covariance.
        weight: of the components.
        noise: its sd, unless it is known.
        data: the data.
    """
    T, t = to_units(model, data)
    sites = {"population_mean": mean @ T.T + t}
    if model.covariance == "full":
        sites["covariance"] = T @ spread @ T.T
    else:
        variances = jnp.diagonal(spread, axis1=1, axis2=2)
        sites["between_sd"] = jnp.sqrt(variances) * jnp.diagonal(T)
    if model.num_components == 1:
        sites = {site: value[0] for site, value in sites.items()}
    else:
        sites["weight"] = weight
    if noise is not None:
        sites["noise_sd"] = noise * data.y_sd
    return sites
