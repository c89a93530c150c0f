r"""Draws of the exact posterior, by Gibbs sampling from where message passing ended.

A product of independent blocks is too sure of itself: it takes the other modes for known
when it looks at one. Gibbs sampling visits the same blocks with the same formulas, but each
is drawn given a *draw* of the others. Parameters of a mode are proposed with its functions
integrated out, and its functions are drawn anew after that.

Source: Gelman et al. (2013), "Bayesian data analysis", section 11.1 and 11.3.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.models.tucker.entries import Entries
from probkit.models.tucker.messages import (
    coordinates,
    loaded,
    standardised,
)
from probkit.models.tucker.model import AbstractTucker, Tucker
from probkit.models.tucker.posterior import (
    Factor,
    Gaussian,
    Posterior,
    core_given,
    level_given,
    loads,
    messages,
    shifted,
    surface_at,
)

# The best scale of a random walk in m dimensions, times the root of m.
WALK = 2.4


def swept(
    model: AbstractTucker,
    data: Entries,
    post: Posterior,
    roots: tuple[Float[Array, "m m"], ...] | None,
    key: Any,
) -> tuple[Posterior, list[Array], Array]:
    """One sweep: every block is drawn given the others.

    Args:
        model: the model.
        data: the data.
        post: a draw, as a posterior without variances.
        roots: of the covariance of the proposals for the parameters of each mode, or None
            to leave the parameters as they are.
        key: a JAX random key.

    Returns:
        The next draw, the white noise of each mode, and the share of accepted proposals.
    """
    count = len(data.axes)
    keys = jax.random.split(key, 2 * count + 3)
    whites, accepted = [], jnp.zeros((), data.dtype)
    for k in range(count):
        terms = messages(model, data, post, k)
        if roots is not None:
            post, took = walked(model, data, post, terms, roots[k], k, keys[count + k])
            accepted = accepted + took / count
        own = loaded(terms, loads(model, post.sites, data, k, own=True))
        prior = model.prior(post.sites, data, k)
        white = prior.sample(own, keys[k])
        mean = prior.color(white)
        p, c = mean.shape
        factor = Factor(mean, jnp.zeros((p, c, c), data.dtype), own, jnp.zeros((), data.dtype))
        post = post._replace(factors=(*post.factors[:k], factor, *post.factors[k + 1 :]))
        whites.append(white)
    if isinstance(model, Tucker):
        post = post._replace(core=picked(core_given(model, data, post), keys[-1]))
    mean, second = surface_at(model, data, post, data.places)
    level = picked(level_given(model, post, mean), keys[-2])
    f, _ = shifted(post, level, mean, second)
    noise, weight, shift = model.observation.draw(
        standardised(model, data), f, post.noise, keys[-3]
    )
    post = post._replace(level=level, noise=noise, weight=weight, shift=shift)
    return post, whites, accepted


def picked(block: Gaussian, key: Any) -> Gaussian:
    """A draw of a block, as a Gaussian without variance."""
    root = jnp.linalg.cholesky(block.covariance)
    noise = jax.random.normal(key, block.mean.shape, block.mean.dtype)
    return Gaussian(block.mean + root @ noise, jnp.zeros_like(block.covariance))


def walked(model, data, post, terms, root, k, key):
    """The parameters of a mode after one step of Metropolis, its functions integrated out."""
    z, back, log_prior = coordinates(model, data, post.sites, k)

    def log_density(z):
        found = back(z)
        sites = post.sites | found
        own = loaded(terms, loads(model, sites, data, k, own=True))
        evidence = model.prior(sites, data, k).log_evidence(own)
        return evidence + log_prior(found) + log_volume(back, z)

    key_step, key_accept = jax.random.split(key)
    step = WALK / math.sqrt(len(z)) * root @ jax.random.normal(key_step, z.shape, z.dtype)
    ratio = log_density(z + step) - log_density(z)
    took = jnp.log(jax.random.uniform(key_accept, (), z.dtype)) < ratio
    found = back(jnp.where(took, z + step, z))
    return post._replace(sites=post.sites | found), took.astype(z.dtype)


def log_volume(back, z: Float[Array, " m"]) -> Float[Array, ""]:
    """Log of the volume of the map to the sites, each coordinate by itself."""
    _, slopes = jax.jvp(
        lambda z: jax.flatten_util.ravel_pytree(back(z))[0], (z,), (jnp.ones_like(z),)
    )
    return jnp.log(jnp.abs(slopes)).sum()
