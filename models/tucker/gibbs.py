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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
    noise_prior,
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
# The share of proposals to accept: best between 0.44 in one dimension and 0.23 in many.
ACCEPTED = 0.3
# How fast proposals stop changing; between 1/2 and 1.
DECAY = 0.55
# At how many entries the draws of the surface are looked at.
WATCHED = 8


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
) -> tuple[Sites, Array, Float[Array, "draw watched"]]:
    """Draws from where a run of message passing ended.

    In the sweeps that are thrown away, the proposals for parameters learn their size and
    shape.

    Args:
        model: the model.
        data: the data.
        post: where it starts: at the means.
        inverses: the approximate covariance of the parameters of each mode, or None to
            leave them as they are.
        key: a JAX random key.
        counts: the number of sweeps that are thrown away, and that of those kept.

    Returns:
        `{site: array[draw, ...]}`; the share of accepted proposals; and the surface at a
        few entries, in the units of a sweep.

    Source: Vihola (2012), "Robust adaptive Metropolis algorithm with coerced acceptance
    rate", for the proposals.
    """
    roots = None if inverses is None else tuple(map(_first_root, inverses))
    watched = np.linspace(0, len(data) - 1, min(WATCHED, len(data))).astype(int)
    start = replace(
        post,
        factors=tuple(
            replace(f, covariance=jnp.zeros_like(f.covariance)) for f in post.factors
        ),
        level=replace(post.level, covariance=jnp.zeros_like(post.level.covariance)),
        core=replace(post.core, covariance=jnp.zeros_like(post.core.covariance)),
    )

    steps = jnp.arange(1, 1 + sum(counts), dtype=data.dtype)
    rates = jnp.where(steps <= counts[0], steps**-DECAY, 0.0)

    def sweep(carry, given):
        here, roots = carry
        key, rate = given
        here, roots, seen = swept(model, data, here, roots, key, rate)
        drawn = sites_of(model, data, here, seen.whites)
        return (here, roots), (drawn, seen.accepted, seen.surface[watched])

    # One scan, of which the start is thrown away, because a sweep is slow to compile.
    keys = jax.random.split(key, sum(counts))
    _, every = jax.lax.scan(sweep, (start, roots), (keys, rates))
    draws, accepted, surface = jax.tree.map(lambda a: a[counts[0] :], every)
    return draws, accepted.mean(), surface


def _first_root(inverse: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Of the covariance of proposals, from the approximate covariance of parameters."""
    m = len(inverse)
    tiny = jnp.finfo(inverse.dtype).eps * jnp.trace(inverse)
    eye = jnp.eye(m, dtype=inverse.dtype)
    return WALK / math.sqrt(m) * jnp.linalg.cholesky(inverse + tiny * eye)


class Seen(NamedTuple):
    """What is kept of a sweep.

    Attributes:
        whites: the white noise of each mode.
        accepted: the share of accepted proposals.
        surface: at all entries, in the units of a sweep.
    """

    whites: list[Array]
    accepted: Float[Array, ""]
    surface: Float[Array, " n"]


def swept(
    model: AbstractTucker,
    data: Entries,
    post: Posterior,
    roots: tuple[Float[Array, "_m _m"], ...] | None,
    key: Any,
    rate: Float[Array, ""],
) -> tuple[Posterior, tuple[Float[Array, "_m _m"], ...] | None, Seen]:
    """One sweep: every block is drawn given the others.

    Args:
        model: the model.
        data: the data.
        post: a draw, as a posterior without variances.
        roots: of the covariance of the proposals for the parameters of each mode, or None
            to leave the parameters as they are.
        key: a JAX random key.
        rate: how much these roots learn from their proposals.

    Returns:
        The next draw, the next roots, and what is kept of the sweep.
    """
    count = len(data.axes)
    keys = jax.random.split(key, 2 * count + 4)
    whites, accepted = [], jnp.zeros((), data.dtype)
    for k in range(count):
        terms = messages(model, data, post, k)
        if roots is not None:
            post, root, took = walked(
                model, data, post, terms, roots[k], k, keys[count + k], rate
            )
            roots = (*roots[:k], root, *roots[k + 1 :])
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
        standardised(model, data), f, post.noise, noise_prior(post), keys[-3]
    )
    post = replace(post, level=level, noise=noise, weight=weight, shift=shift)
    if post.before is None:  # what was known before does not move along with them
        post, whites = slid(model, data, post, whites, keys[-4])
    return post, roots, Seen(whites, accepted, f)


def walked(model, data, post, terms, root, k, key, rate):
    """The parameters of a mode after steps of Metropolis, its functions integrated out.

    Also the next root of the proposals of all parameters together, and whether this one was
    accepted.
    """
    z, back, log_prior = coordinates(model, data, post.sites, k)

    def log_density(z):
        found = back(z)
        sites = post.sites | found
        own = loaded(terms, loads(model, sites, data, k, own=True))
        evidence = model.prior(sites, data, k).log_evidence(own)
        return evidence + log_prior(found) + log_volume(back, z)

    key_noise, key_single, key_accept = jax.random.split(key, 3)
    noise = jax.random.normal(key_noise, z.shape, z.dtype)
    # The first goes nowhere, to know the density there, which is so compiled once.
    together = jnp.stack([jnp.zeros_like(z), root @ noise])
    proposals = jnp.concatenate([together, _singles(len(z), z.dtype, key_single)])

    def step(state, given):
        z, now = state
        proposal, key = given
        there = log_density(z + proposal)
        accepted = jnp.log(jax.random.uniform(key, (), z.dtype)) < there - now
        state = jnp.where(accepted, z + proposal, z), jnp.where(accepted, there, now)
        return state, (accepted, jnp.exp(jnp.minimum(there - now, 0.0)))

    keys = jax.random.split(key_accept, len(proposals))
    start = z, -jnp.inf * jnp.ones((), z.dtype)
    (z, _), (accepted, chance) = jax.lax.scan(step, start, (proposals, keys))
    root = adapted(root, noise, chance[1], rate)
    moved = replace(post, sites=post.sites | back(z))
    return moved, root, accepted[1].astype(z.dtype)


def _singles(m: int, dtype: Any, key: Any) -> Float[Array, "steps m"]:
    """Proposals of one parameter each."""
    key_which, key_sd, key_one = jax.random.split(key, 3)
    which = jax.random.randint(key_which, (SINGLE,), 0, m)
    low, high = math.log(SHORTEST), math.log(LONGEST)
    sd = jnp.exp(jax.random.uniform(key_sd, (SINGLE,), dtype, low, high))
    size = sd * jax.random.normal(key_one, (SINGLE,), dtype)
    return jax.nn.one_hot(which, m, dtype=dtype) * size[:, None]


def adapted(
    root: Float[Array, "m m"],
    noise: Float[Array, " m"],
    chance: Float[Array, ""],
    rate: Float[Array, ""],
) -> Float[Array, "m m"]:
    """The root of proposals, longer in a direction that is accepted too often."""
    m = len(noise)
    # Where the density is not a number, the proposal was too long.
    excess = jnp.where(jnp.isnan(chance), 0.0, chance) - ACCEPTED
    change = jnp.minimum(m * rate, 1.0) * excess * jnp.outer(noise, noise)
    inside = jnp.eye(m, dtype=root.dtype) + change / (noise @ noise)
    return root @ jnp.linalg.cholesky(inside)


def log_volume(back, z: Float[Array, " m"]) -> Float[Array, ""]:
    """Log of the volume of the map to the sites, each coordinate by itself."""
    _, slopes = jax.jvp(
        lambda z: jax.flatten_util.ravel_pytree(back(z))[0], (z,), (jnp.ones_like(z),)
    )
    return jnp.log(jnp.abs(slopes)).sum()
