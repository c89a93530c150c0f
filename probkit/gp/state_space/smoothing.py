r"""What is known of a Markov process from Gaussian terms at its places.

The likelihood of the values $u_s$ at place $s$ is a *site*,
$\exp(-\tfrac12 u^T Λ_s u + η_s^T u)$, whose precision $Λ_s$ may be singular, or zero where
nothing is observed. Neither $Λ$ nor the covariance of a prediction is inverted.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.gp.state_space import evidence
from probkit.gp.state_space.passes import Chain
from probkit.gp.state_space.process import AbstractProcess, along, steps
from probkit.gp.state_space.small import LARGE, cholesky
from probkit.validate import short

METHODS = ("auto", "sequential", "blocked", "associative")

# From this number of places on, a CPU goes through blocks side by side.
LONG = 2000

# Up to this size roots are written out, row by row.
WRITTEN_OUT = 16


class Sites(eqx.Module):
    r"""Gaussian terms of the likelihood, $\exp(-\tfrac12 u^T Λ u + η^T u)$ at each place.

    Attributes:
        precision: $Λ$, symmetric and positive semidefinite.
        shift: $η$.
    """

    precision: Float[Array, "n r r"]
    shift: Float[Array, "n r"]

    @classmethod
    def of_values(cls, y: Float[Array, " n"], variance: Float[Array, "*n"]) -> "Sites":
        """The terms of one value per place with normal noise. NaN is a missing value."""
        seen = jnp.isfinite(y)
        precision = jnp.where(seen, 1 / variance, 0.0)
        shift = precision * jnp.where(seen, y, 0.0)
        return cls(precision[:, None, None], shift[:, None])


class Smoothed(NamedTuple):
    """What is known of the values at each place.

    Attributes:
        mean: their means.
        covariance: their covariances, at one place.
        log_evidence: log of the integral of all sites under the process, in nats.
    """

    mean: Float[Array, "n r"]
    covariance: Float[Array, "n r r"]
    log_evidence: Float[Array, ""]


def log_evidence(
    process: AbstractProcess, x: Float[Array, " n"], sites: Sites, method: str = "auto"
) -> Float[Array, ""]:
    r"""$\log \int \prod_s \exp(-\tfrac12 u_s^T Λ_s u_s + η_s^T u_s)\, p(u)\, du$, in nats.

    Args:
        process: the process, of `r` values.
        x: sorted places. Places may repeat.
        sites: one term per place.
        method: see `smooth`.

    Raises:
        ValueError: for another method.
    """
    return evidence.log_evidence(_chain(process, x, sites, method))


def smooth(
    process: AbstractProcess, x: Float[Array, " n"], sites: Sites, method: str = "auto"
) -> Smoothed:
    """Mean and covariance of the values at all places, given all sites.

    A place without observations has a site of zeros, which changes nothing elsewhere.

    Args:
        process: the process, of `r` values.
        x: sorted places. Places may repeat.
        sites: one term per place.
        method: "sequential" goes through the places one by one, "blocked" through some
            stretches of them side by side, and "associative" through a tree. They agree but
            for rounding. "auto" chooses by device and length.

    Returns:
        The values, and the log evidence.

    Raises:
        ValueError: for another method.
    """
    chain = _chain(process, x, sites, method)
    total, read = evidence.read_all(chain, evidence.values)
    mean, covariance = _unlaid(read, chain, len(x))
    return Smoothed(mean, covariance, total)


def smooth_with_evidence(
    process: AbstractProcess, x: Float[Array, " n"], sites: Sites, method: str = "auto"
) -> Smoothed:
    """As `smooth`, where only the log evidence is differentiated.

    Its derivatives and the values take one pass forth and one back. Mean and covariance
    count as constants.

    Args:
        process: the process, of `r` values.
        x: sorted places. Places may repeat.
        sites: one term per place.
        method: see `smooth`.
    """
    chain = _chain(process, x, sites, method)
    total, read = evidence.with_values(chain)
    mean, covariance = _unlaid(read, chain, len(x))
    return Smoothed(mean, covariance, total)


def _blocks(method: str, n: int, d: int) -> int:
    """The number of blocks into which `n` places are cut."""
    if method not in METHODS:
        listed = ", ".join(f'"{name}"' for name in METHODS)
        raise ValueError(f"`method={short(method)}`: it takes one of {listed}.")
    if method == "auto":
        on_cpu = jax.default_backend() == "cpu"
        by_one = on_cpu and (n < LONG or d >= LARGE)
        method = "sequential" if by_one else "blocked" if on_cpu else "associative"
    if method == "associative":
        return n
    return 1 if method == "sequential" else max(round(math.sqrt(n)), 1)


def _chain(process, x, sites, method: str = "auto") -> Chain:
    """The chain in blocks. The last block is filled up with steps of zero."""
    H, P = process.readout(), process.stationary()
    blocks = _blocks(method, len(x), len(P))
    if P.dtype == jnp.float32:
        if method in ("blocked", "associative"):
            raise ValueError(
                f'`method="{method}"` needs float64: call `enable_x64()`, or leave out '
                "`method`."
            )
        blocks = 1
    rows = -(-len(x) // blocks)

    def laid(a):
        if blocks == 1:
            return a
        filled = jnp.pad(a, [(0, rows * blocks - len(x)), *[(0, 0)] * (a.ndim - 1)])
        return jnp.moveaxis(filled.reshape(blocks, rows, *a.shape[1:]), 0, -1)

    def each(f):
        return jax.vmap(f if blocks == 1 else jax.vmap(f, out_axes=-1))(d)

    d = laid(steps(x))
    A, Q = each(process.transition), each(process.noise)
    first = (0,) if blocks == 1 else (0, ..., 0)
    H = H if blocks == 1 else H[..., None]
    A, Q = A.at[first].set(0.0), Q.at[first].set(P)
    return Chain(A, Q, laid(sites.precision), laid(sites.shift), H)


def _unlaid(read, chain: Chain, n: int):
    """One row per place."""

    def flat(a):
        a = jnp.moveaxis(a, -1, 0)
        return a.reshape(-1, *a.shape[2:])[:n]

    return read if chain.readout.ndim == 2 else jax.tree.map(flat, read)


def sample(
    process: AbstractProcess,
    x: Float[Array, " n"],
    sites: Sites,
    key: PRNGKeyArray,
) -> Float[Array, "n r"]:
    """One joint draw of the values at all places, given all sites.

    A draw from the prior, plus the mean of what is left of sites that were drawn with it.

    Args:
        process: the process, of `r` values.
        x: sorted places. Places may repeat.
        sites: one term per place.
        key: a JAX random key.

    Source: Durbin & Koopman (2002), "A simple and efficient simulation smoother".
    """
    return color(process, x, sample_white(process, x, sites, key))


def sample_white(
    process: AbstractProcess,
    x: Float[Array, " n"],
    sites: Sites,
    key: PRNGKeyArray,
) -> Float[Array, "n d"]:
    """One joint draw given all sites, as the white noise from which `color` makes it.

    Args:
        process: the process, of `r` values and `d` numbers of state.
        x: sorted places. Places may repeat.
        sites: one term per place.
        key: a JAX random key.
    """
    key_prior, key_sites = jax.random.split(key)
    A, root = _steps(process, x)
    white = jax.random.normal(key_prior, root.shape[:2], root.dtype)
    prior = _colored(A, root, white) @ process.readout().T
    of_sites = _root(sites.precision)
    noise = jax.random.normal(key_sites, sites.shift.shape, sites.shift.dtype)
    drawn = jnp.einsum("nij,nj->ni", sites.precision, prior)
    drawn = drawn + jnp.einsum("nij,nj->ni", of_sites, noise)
    left = Sites(sites.precision, sites.shift - drawn)
    return white + white_mean(process, x, left)


def white_mean(
    process: AbstractProcess, x: Float[Array, " n"], sites: Sites
) -> Float[Array, "n d"]:
    """The mean, given all sites, of the white noise from which `color` makes the values.

    Args:
        process: the process, of `r` values and `d` numbers of state.
        x: sorted places. Places may repeat.
        sites: one term per place.
    """
    chain = _chain(process, x, sites)
    _, score = evidence.read_all(chain, evidence.score)
    # E[w | sites] is the root of Q, transposed, times the score of the prediction.
    _, root = _steps(process, x)
    return jnp.einsum("nij,ni->nj", root, _unlaid(score, chain, len(x)))


def color(
    process: AbstractProcess, x: Float[Array, " n"], white: Float[Array, "n d"]
) -> Float[Array, "n r"]:
    """The values of the process that white noise makes: of a draw from its prior.

    Args:
        process: the process, of `r` values and `d` numbers of state.
        x: sorted places. Places may repeat.
        white: independent standard normal numbers.
    """
    return colored_states(process, x, white) @ process.readout().T


def colored_states(
    process: AbstractProcess, x: Float[Array, " n"], white: Float[Array, "n d"]
) -> Float[Array, "n d"]:
    """The states of the values of `color`."""
    return _colored(*_steps(process, x), white)


def _steps(process, x) -> tuple[Array, Array]:
    """$A$ and the root of $Q$ of each step; the first starts from the stationary state."""
    A, Q = along(process, x)
    return A, root_of(Q.at[0].set(process.stationary()))


def _colored(A, root, white):
    noise = jnp.einsum("nij,nj->ni", root, white)

    def step(z, given):
        A, e = given
        z = A @ z + e
        return z, z

    return jax.lax.scan(step, jnp.zeros_like(white[0]), (A, noise))[1]


def root_of(Q: Float[Array, "*n d d"]) -> Float[Array, "*n d d"]:
    """A lower triangular root of a positive semidefinite matrix, which may be zero."""
    squared = jnp.diagonal(Q, axis1=-2, axis2=-1)
    # The square root of zero has no derivative, but rows of zeros stay so.
    safe = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    scale = jnp.where(squared > 0, safe, 0.0)
    unit = Q / safe[..., :, None] / safe[..., None, :]
    eye = jnp.eye(Q.shape[-1], dtype=Q.dtype)
    jitter = 10 * jnp.finfo(Q.dtype).eps
    unit = unit + jnp.where(scale[..., None] > 0, jitter, 1.0) * eye
    return _root(unit) * scale[..., :, None]


def _root(A: Float[Array, "*n d d"]) -> Float[Array, "*n d d"]:
    """A lower triangular root of a positive semidefinite matrix.

    Not by the library for many matrices at a time. On a CPU it waits for the other threads
    of a pool, one of which may wait for this one in the same way, for ever.
    """
    if A.shape[-1] > WRITTEN_OUT:
        return jnp.linalg.cholesky(A)
    if A.ndim == 2:
        return cholesky(A).T
    R = cholesky(jnp.moveaxis(A, 0, -1))
    return jnp.moveaxis(R, (0, 1, 2), (2, 1, 0))
