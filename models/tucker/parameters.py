"""Parameters that are estimated: scales, and those of kernels, by mode."""

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions.transforms import biject_to

from probkit.model.density import Sites
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.model import AbstractTucker, Tucker


def names_of(model: AbstractTucker, data: Entries, k: int) -> list[str]:
    """The sites that are moved together with the functions of a mode."""
    axis = data.axes[k]
    parameters = model.mode(axis).parameters(axis)
    scale = f"scale_{axis.name}" if isinstance(model, Tucker) else "scale"
    names = [scale, *(f"{p}_{axis.name}" for p in parameters)]
    if model.effects:
        names.append(f"sd_effect_{axis.name}")
        names += [f"{p}_effect_{axis.name}" for p in parameters]
    return names


def coordinates(model: AbstractTucker, data: Entries, sites: Sites, k: int):
    """The parameters of a mode as one vector, the way back, and their log prior."""
    priors = model.priors(data)
    maps = {name: biject_to(priors[name].support) for name in names_of(model, data, k)}
    flat, unravel = ravel_pytree({name: t.inv(sites[name]) for name, t in maps.items()})

    def back(z: Float[Array, " m"]) -> Sites:
        return {name: maps[name](value) for name, value in unravel(z).items()}

    def log_prior(found: Sites) -> Float[Array, ""]:
        zero = jnp.zeros((), flat.dtype)
        return sum((priors[name].log_prob(v) for name, v in found.items()), zero)

    return flat, back, log_prior


def centres(model: AbstractTucker, data: Entries) -> Sites:
    """Each parameter where its unconstrained coordinate is zero: its median, or mean."""
    priors = model.priors(data)

    def centre(prior):
        return biject_to(prior.support)(jnp.zeros(prior.shape(), data.dtype))

    return {name: centre(priors[name]) for name in all_names(model, data)}


def all_names(model: AbstractTucker, data: Entries) -> list[str]:
    """The sites of all modes."""
    every = {name for k in range(len(data.axes)) for name in names_of(model, data, k)}
    return sorted(every)
