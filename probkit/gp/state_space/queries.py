r"""Markov processes at places without sites.

A query is a place with a site of zero, which changes nothing elsewhere.

Given one draw of the states at all places, queries are drawn from left to right. The state
on the left of a query, which may be that of an earlier query, and steps $a$ and $b$ to both
sides give a draw $\tilde z$ of its state and $\tilde z'$ of that of the next place. With
the true $z'$ of the next place, the draw of the query is

$$z = \tilde z + Q(a) A(b)^T Q(a + b)^{-1} (z' - \tilde z').$$

The same gain gives the mean and the covariance of one query. This needs no difference of
covariances. Left of all places the stationary covariance stands
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
    states = colored_states(process, x, white)
    order = jnp.argsort(query)
    q = query[order]
    after = jnp.searchsorted(x, q)
    # Of a query after another one in the same gap, that one is the place on its left.
    follows = jnp.concatenate([jnp.zeros(1, bool), after[1:] == after[:-1]])
    left = jnp.where(follows, jnp.roll(q, 1), x[jnp.maximum(after - 1, 0)])
    alone = (after == 0) & ~follows
    A, Q, B, R, K = _gaps(process, x, q, after, left, alone)
    noise = jax.random.normal(key, (2, *K.shape[:2]), K.dtype)
    starts, ends = _neighbours(states, after)

    def step(before, given):
        follows, start, end, A, e, B, f, K = given
        z = A @ jnp.where(follows, before, start) + e
        z = z + K @ (end - B @ z - f)
        return z, z

    e = jnp.einsum("nij,nj->ni", root_of(Q), noise[0])
    f = jnp.einsum("nij,nj->ni", root_of(R), noise[1])
    drawn = jax.lax.scan(step, states[0], (follows, starts, ends, A, e, B, f, K))[1]
    return (drawn @ process.readout().T)[jnp.argsort(order)]


def between(
    process: AbstractProcess,
    x: Float[Array, " n"],
    white: Float[Array, "n d"],
    query: Float[Array, " q"],
) -> tuple[Float[Array, "q r"], Float[Array, "q r r"]]:
    """Mean and covariance of the values at other places, given the states at all places.

    Args:
        process: the process, of `r` values and `d` numbers of state.
        x: sorted places. Places may repeat.
        white: the white noise from which `color` makes the values at `x`.
        query: places in any order, inside and outside of `x`.
    """
    H, states = process.readout(), colored_states(process, x, white)
    after = jnp.searchsorted(x, query)
    left = x[jnp.maximum(after - 1, 0)]
    A, Q, B, R, K = _gaps(process, x, query, after, left, after == 0)
    starts, ends = _neighbours(states, after)
    ahead = jnp.einsum("nij,nj->ni", A, starts)
    missed = ends - jnp.einsum("nij,nj->ni", B, ahead)
    mean = ahead + jnp.einsum("nij,nj->ni", K, missed)
    # (I - K B) Q (I - K B)^T + K R K^T, without a difference
    HK = H @ K
    rest = H - HK @ B
    covariance = rest @ Q @ rest.mT + HK @ R @ HK.mT
    return mean @ H.T, covariance


def _neighbours(states, after):
    """The states of the places on the left and on the right of each query."""
    right = states[jnp.minimum(after, len(states) - 1)]
    return states[jnp.maximum(after - 1, 0)], right


def _gaps(process, x, q, after, left, alone):
    """A and Q from the place on the left, the same to that on the right, and the gain.

    A query that is `alone` has nothing on its left.
    """
    P, last = process.stationary(), after == len(x)
    right = x[jnp.minimum(after, len(x) - 1)]

    def gap(left, q, right, alone, last):
        a, b = jnp.where(alone, 0.0, q - left), jnp.where(last, 0.0, right - q)
        A, Q = process.transition(a), process.noise(a)
        A, Q = jnp.where(alone, 0.0, A), jnp.where(alone, P, Q)
        B, R = process.transition(b), process.noise(b)
        whole = jnp.where(alone, P, process.noise(a + b))
        return A, Q, B, R, jnp.where(last, 0.0, _divided(Q @ B.T, whole))

    return jax.vmap(gap)(left, q, right, alone, last)


def _divided(C: Float[Array, "d d"], Q: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """$C Q^{-1}$, without the states that have no noise."""
    squared = jnp.diagonal(Q)
    scale = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    root = root_of(Q / scale / scale[:, None])
    root = root + jnp.diag(jnp.where(jnp.diagonal(root) > 0, 0.0, 1.0))
    unit = jnp.where(squared > 0, C / scale, 0.0)
    return jax.scipy.linalg.cho_solve((root, True), unit.T).T / scale
