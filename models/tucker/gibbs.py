r"""Draws of the exact posterior, by Gibbs sampling from where message passing ended.

A product of independent blocks is too sure of itself: it takes the other modes for known
when it looks at one. Gibbs sampling visits the same blocks with the same formulas, but each
is drawn given a *draw* of the others. Parameters of a mode are proposed with its functions
integrated out, and its functions are drawn after that.

Source: Gelman et al. (2013), "Bayesian data analysis", section 11.1 and 11.3.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.method.programs import jit_for_one_run
from probkit.model.density import Sites
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.model import AbstractTucker, Tucker
from probkit.models.tucker.parameters import coordinates
from probkit.models.tucker.posterior import (
    Factor,
    Posterior,
    core_given,
    level_given,
    loaded,
    loads,
    messages,
    shifted,
    sites_of,
    standardised,
    surface_at,
)
from probkit.models.tucker.ridges import slid

# The best scale of a random walk in m dimensions, times the root of m.
WALK = 2.4
# Steps of single parameters per sweep, and their sds, in unconstrained coordinates. The
# curvature at the start is that for known functions of the other modes, and some parameters
# vary much more than it says.
SINGLE, SHORTEST, LONGEST = 3, 0.1, 3.0


def _is_short(model, data, post, inverses, key, counts) -> bool:
    return data.is_short(sum(counts))


@partial(jit_for_one_run, is_short=_is_short)
def chain(
    model: AbstractTucker,
    data: Entries,
    post: Posterior,
    inverses: tuple[Float[Array, "_m _m"], ...] | None,
    key: Any,
    counts: tuple[int, int],
) -> tuple[Sites, Array]:
    """Draws from where a run of message passing ended.

    Args:
        model: the model.
        data: the data.
        post: where it starts: at the means.
        inverses: the approximate covariance of the parameters of each mode, or None to
            leave them as they are.
        key: a JAX random key.
        counts: the number of sweeps that are thrown away, and that of those kept.

    Returns:
        `{site: array[draw, ...]}`, and the share of accepted proposals.
    """
    roots = None
    if inverses is not None:
        tiny = jnp.finfo(data.dtype).eps
        eye = [jnp.eye(len(H), dtype=H.dtype) for H in inverses]
        found = zip(inverses, eye, strict=True)
        roots = tuple(jnp.linalg.cholesky(H + tiny * jnp.trace(H) * I) for H, I in found)
    start = replace(
        post,
        factors=tuple(
            replace(f, covariance=jnp.zeros_like(f.covariance)) for f in post.factors
        ),
        level=replace(post.level, covariance=jnp.zeros_like(post.level.covariance)),
        core=replace(post.core, covariance=jnp.zeros_like(post.core.covariance)),
    )

    def sweep(here, key):
        here, whites, accepted = swept(model, data, here, roots, key)
        return here, (sites_of(model, data, here, whites), accepted)

    # One scan, of which the start is thrown away, because a sweep is slow to compile.
    _, every = jax.lax.scan(sweep, start, jax.random.split(key, sum(counts)))
    draws, accepted = jax.tree.map(lambda a: a[counts[0] :], every)
    return draws, accepted.mean()


def swept(
    model: AbstractTucker,
    data: Entries,
    post: Posterior,
    roots: tuple[Float[Array, "_m _m"], ...] | None,
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
    keys = jax.random.split(key, 2 * count + 4)
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
        none = jnp.zeros((), data.dtype)
        known = jnp.zeros_like(own.precision)
        factor = Factor(mean, known, own.precision, own.shift, none)
        post = replace(post, factors=(*post.factors[:k], factor, *post.factors[k + 1 :]))
        whites.append(white)
    if isinstance(model, Tucker):
        post = replace(post, core=core_given(model, data, post).picked(keys[-1]))
    mean, second = surface_at(model, data, post, data.places)
    level = level_given(model, post, mean).picked(keys[-2])
    f, _ = shifted(post, level, mean, second)
    noise, weight, shift = model.observation.draw(
        standardised(model, data), f, post.noise, keys[-3]
    )
    post = replace(post, level=level, noise=noise, weight=weight, shift=shift)
    post, whites = slid(model, data, post, whites, keys[-4])
    return post, whites, accepted


def walked(model, data, post, terms, root, k, key):
    """The parameters of a mode after steps of Metropolis, its functions integrated out."""
    z, back, log_prior = coordinates(model, data, post.sites, k)

    def log_density(z):
        found = back(z)
        sites = post.sites | found
        own = loaded(terms, loads(model, sites, data, k, own=True))
        evidence = model.prior(sites, data, k).log_evidence(own)
        return evidence + log_prior(found) + log_volume(back, z)

    proposals = _proposals(root, key)

    def step(state, given):
        z, now, took = state
        proposal, key = given
        there = log_density(z + proposal)
        accepted = jnp.log(jax.random.uniform(key, (), z.dtype)) < there - now
        z = jnp.where(accepted, z + proposal, z)
        return (z, jnp.where(accepted, there, now), took + accepted), None

    # The first goes nowhere, to know the density there, which is so compiled once.
    start = (z, -jnp.inf * jnp.ones((), z.dtype), jnp.zeros((), z.dtype))
    keys = jax.random.split(jax.random.fold_in(key, 1), len(proposals))
    (z, _, took), _ = jax.lax.scan(step, start, (proposals, keys))
    moved = replace(post, sites=post.sites | back(z))
    return moved, (took - 1) / (len(proposals) - 1)


def _proposals(root: Float[Array, "m m"], key: Any) -> Float[Array, "steps m"]:
    """None, one of all parameters together, and some of one parameter each."""
    m = len(root)
    key_all, key_which, key_sd, key_one = jax.random.split(key, 4)
    together = WALK / math.sqrt(m) * root @ jax.random.normal(key_all, (m,), root.dtype)
    which = jax.random.randint(key_which, (SINGLE,), 0, m)
    low, high = math.log(SHORTEST), math.log(LONGEST)
    sd = jnp.exp(jax.random.uniform(key_sd, (SINGLE,), root.dtype, low, high))
    size = sd * jax.random.normal(key_one, (SINGLE,), root.dtype)
    single = jax.nn.one_hot(which, m, dtype=root.dtype) * size[:, None]
    return jnp.concatenate([jnp.zeros((1, m), root.dtype), together[None], single])


def log_volume(back, z: Float[Array, " m"]) -> Float[Array, ""]:
    """Log of the volume of the map to the sites, each coordinate by itself."""
    _, slopes = jax.jvp(
        lambda z: jax.flatten_util.ravel_pytree(back(z))[0], (z,), (jnp.ones_like(z),)
    )
    return jnp.log(jnp.abs(slopes)).sum()
