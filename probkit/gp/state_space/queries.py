r"""Markov processes at places without sites.

A query is a place with a site of zero, which changes nothing elsewhere.

Given one draw of the states at all places, queries are drawn from left to right. The state
on the left of a query, which may be that of an earlier query, and steps $a$ and $b$ to both
sides give a draw $\tilde z$ of its state and $\tilde z'$ of that of the next place. With
the true $z'$ of the next place, the draw of the query is

$$z = \tilde z + Q(a) A(b)^T Q(a + b)^{-1} (z' - \tilde z').$$

This needs no difference of covariances. Left of all places the stationary covariance stands
for $Q(a)$, and right of them $z = \tilde z$.

Source: Doucet (2010), "A note on efficient conditional simulation of Gaussian
distributions".
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.gp.state_space.process import AbstractProcess
from probkit.gp.state_space.smoothing import (
    Sites,
    Smoothed,
    colored_states,
    root_of,
    smooth,
)


def at(
    process: AbstractProcess,
    x: Float[Array, " n"],
    sites: Sites,
    query: Float[Array, " q"],
    method: str = "auto",
) -> Smoothed:
    """Mean and covariance of the values at other places, given all sites.

    Args:
        process: the process, of `r` values.
        x: sorted places. Places may repeat.
        sites: one term per place.
        query: places in any order, inside and outside of `x`.
        method: see `smooth`.

    Returns:
        The values at `query`, and the log evidence.
    """
    places = jnp.concatenate([x, query])
    order = jnp.argsort(places)

    def merged(a):
        return jnp.pad(a, [(0, len(query)), *[(0, 0)] * (a.ndim - 1)])[order]

    all_sites = Sites(merged(sites.precision), merged(sites.shift))
    mean, covariance, total = smooth(process, places[order], all_sites, method)
    found = jnp.argsort(order)[len(x) :]
    return Smoothed(mean[found], covariance[found], total)


def bridge(
    process: AbstractProcess,
    x: Float[Array, " n"],
    white: Float[Array, "n d"],
    query: Float[Array, " q"],
    key: PRNGKeyArray,
) -> Float[Array, "q r"]:
    """One joint draw of the values at other places, given the states at all places.

    Args:
        process: the process, of `r` values and `d` numbers of state.
        x: sorted places. Places may repeat.
        white: the white noise from which `color` makes the values at `x`.
        query: places in any order, inside and outside of `x`.
        key: a JAX random key.
    """
    states, P = colored_states(process, x, white), process.stationary()
    order = jnp.argsort(query)
    q = query[order]
    after = jnp.searchsorted(x, q)
    first, last = after == 0, after == len(x)
    # Of a query after another one in the same gap, that one is the place on its left.
    follows = jnp.concatenate([jnp.zeros(1, bool), after[1:] == after[:-1]])
    left = jnp.where(follows, jnp.roll(q, 1), x[jnp.maximum(after - 1, 0)])
    right = x[jnp.minimum(after, len(x) - 1)]
    alone = first & ~follows

    def gap(left, q, right, alone, last):
        a, b = jnp.where(alone, 0.0, q - left), jnp.where(last, 0.0, right - q)
        A, Q = process.transition(a), process.noise(a)
        A, Q = jnp.where(alone, 0.0, A), jnp.where(alone, P, Q)
        B, R = process.transition(b), process.noise(b)
        whole = jnp.where(alone, P, process.noise(a + b))
        K = jnp.where(last, 0.0, _divided(Q @ B.T, whole))
        return A, root_of(Q), B, root_of(R), K

    A, root_a, B, root_b, K = jax.vmap(gap)(left, q, right, alone, last)
    noise = jax.random.normal(key, (2, *K.shape[:2]), K.dtype)
    ends = states[jnp.minimum(after, len(x) - 1)]
    starts = states[jnp.maximum(after - 1, 0)]

    def step(before, given):
        follows, start, end, A, e, B, f, K = given
        z = A @ jnp.where(follows, before, start) + e
        z = z + K @ (end - B @ z - f)
        return z, z

    e = jnp.einsum("nij,nj->ni", root_a, noise[0])
    f = jnp.einsum("nij,nj->ni", root_b, noise[1])
    drawn = jax.lax.scan(step, states[0], (follows, starts, ends, A, e, B, f, K))[1]
    return (drawn @ process.readout().T)[jnp.argsort(order)]


def _divided(C: Float[Array, "d d"], Q: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """$C Q^{-1}$, without the states that have no noise."""
    squared = jnp.diagonal(Q)
    scale = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    root = root_of(Q / scale / scale[:, None])
    root = root + jnp.diag(jnp.where(squared > 0, 0.0, 1.0))
    unit = jnp.where(squared > 0, C / scale, 0.0)
    return jax.scipy.linalg.cho_solve((root, True), unit.T).T / scale
