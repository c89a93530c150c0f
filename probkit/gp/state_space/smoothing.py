r"""What is known of a Markov process from Gaussian terms at its places.

The likelihood of the values $u_s$ at place $s$ is a *site*,
$\exp(-\tfrac12 u^T Λ_s u + η_s^T u)$, whose precision $Λ_s$ may be singular, or zero where
nothing is observed. The filter goes through the places once, and the smoother once back.
Neither inverts $Λ$, nor the covariance of a prediction.

With $S = H P H^T$ and $B = I + Λ S$ of the prediction $N(m, P)$ of the state:

$$P_f = T P, \quad m_f = m + P H^T B^{-1} (η - Λ H m), \quad T = I - P H^T B^{-1} Λ H,$$

and backwards, with $λ^+$ and $Ξ^+$ of the next place carried through its transition,

$$λ = H^T B^{-1} (η - Λ H m) + T^T λ^+, \qquad Ξ = H^T B^{-1} Λ H + T^T Ξ^+ T,$$

so that the smoothed state is $N(m + P λ,\; P - P Ξ P)$.

Source: Särkkä & Svensson (2023), "Bayesian filtering and smoothing", chapter 12, for the
filter; Bierman (1973), "Fixed interval smoothing with discrete measurements", for the
backward recursion.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.gp.state_space.process import AbstractProcess, along


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


class _Update(NamedTuple):
    """One step of the filter."""

    mean: Array  # predicted state
    covariance: Array
    score: Array  # B^{-1} (η - Λ H m)
    gain: Array  # B^{-1} Λ
    log_evidence: Array


def log_evidence(
    process: AbstractProcess, x: Float[Array, " n"], sites: Sites
) -> Float[Array, ""]:
    r"""$\log \int \prod_s \exp(-\tfrac12 u_s^T Λ_s u_s + η_s^T u_s)\, p(u)\, du$, in nats.

    Args:
        process: the process, of `r` values.
        x: sorted places. Places may repeat.
        sites: one term per place.
    """
    return _filter(process, x, sites).log_evidence.sum()


def smooth(process: AbstractProcess, x: Float[Array, " n"], sites: Sites) -> Smoothed:
    """Mean and covariance of the values at all places, given all sites.

    A place without observations has a site of zeros, which changes nothing elsewhere.

    Args:
        process: the process, of `r` values.
        x: sorted places. Places may repeat.
        sites: one term per place.

    Returns:
        The values, and the log evidence.
    """
    H = process.readout()
    updates = _filter(process, x, sites)
    score, information = _backward(process, x, updates)

    def read(update, λ, Ξ):
        PH = update.covariance @ H.T
        mean = H @ update.mean + PH.T @ λ
        C = H @ PH - PH.T @ Ξ @ PH
        return mean, (C + C.T) / 2

    mean, covariance = jax.vmap(read)(updates, score, information)
    return Smoothed(mean, covariance, updates.log_evidence.sum())


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
    prior = _colored(process, A, root, white)
    values, vectors = jnp.linalg.eigh(sites.precision)
    of_sites = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[:, None, :]
    noise = jax.random.normal(key_sites, sites.shift.shape, sites.shift.dtype)
    drawn = jnp.einsum("nij,nj->ni", sites.precision, prior)
    drawn = drawn + jnp.einsum("nij,nj->ni", of_sites, noise)
    left = Sites(sites.precision, sites.shift - drawn)
    score, _ = _backward(process, x, _filter(process, x, left))
    # E[w | sites] is the root of Q, transposed, times the score of the prediction.
    return white + jnp.einsum("nij,ni->nj", root, score)


def color(
    process: AbstractProcess, x: Float[Array, " n"], white: Float[Array, "n d"]
) -> Float[Array, "n r"]:
    """The values of the process that white noise makes: of a draw from its prior.

    Args:
        process: the process, of `r` values and `d` numbers of state.
        x: sorted places. Places may repeat.
        white: independent standard normal numbers.
    """
    return _colored(process, *_steps(process, x), white)


def _steps(process, x):
    """$A$ and the root of $Q$ of each step; the first starts from the stationary state."""
    A, Q = along(process, x)
    return A, root_of(Q.at[0].set(process.stationary()))


def _colored(process, A, root, white):
    H = process.readout()

    def step(z, given):
        A, L, w = given
        z = A @ z + L @ w
        return z, H @ z

    return jax.lax.scan(step, jnp.zeros_like(white[0]), (A, root, white))[1]


def root_of(Q: Float[Array, "*n d d"]) -> Float[Array, "*n d d"]:
    """A lower triangular root of a positive semidefinite matrix, which may be zero."""
    variance = jnp.diagonal(Q, axis1=-2, axis2=-1)
    # The root has no derivative at zero, where places repeat.
    safe = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    scale = jnp.where(variance > 0, safe, 0.0)
    unit = Q / safe[..., :, None] / safe[..., None, :]
    eye = jnp.eye(Q.shape[-1], dtype=Q.dtype)
    jitter = 10 * jnp.finfo(Q.dtype).eps
    unit = unit + jnp.where(scale[..., None] > 0, jitter, 1.0) * eye
    return jnp.linalg.cholesky(unit) * scale[..., :, None]


def _filter(process, x, sites) -> _Update:
    A, Q = along(process, x)
    H, P = process.readout(), process.stationary()
    eye = jnp.eye(len(H), dtype=P.dtype)

    def step(carry, given):
        m, P = carry
        A, Q, Λ, η = given
        m, P = A @ m, A @ P @ A.T + Q
        PH = P @ H.T
        S, u = H @ PH, H @ m
        r = η - Λ @ u
        B = eye + Λ @ S
        solved = jnp.linalg.solve(B, jnp.concatenate([r[:, None], Λ], axis=1))
        score, gain = solved[:, 0], solved[:, 1:]
        log_evidence = (
            -jnp.linalg.slogdet(B)[1] / 2 + η @ u - u @ Λ @ u / 2 + r @ S @ score / 2
        )
        filtered = P - PH @ gain @ PH.T
        state = (m + PH @ score, (filtered + filtered.T) / 2)
        return state, _Update(m, P, score, gain, log_evidence)

    # The first step has length zero and starts from the stationary state.
    start = (jnp.zeros(len(P), P.dtype), P)
    A = A.at[0].set(jnp.eye(len(P), dtype=P.dtype))
    Q = Q.at[0].set(0.0)
    return jax.lax.scan(step, start, (A, Q, sites.precision, sites.shift))[1]


def _backward(process, x, updates: _Update):
    """$λ$ and $Ξ$ of each place."""
    A, _ = along(process, x)
    H = process.readout()
    d = H.shape[1]

    def step(carry, given):
        λ, Ξ = carry  # of the next place, carried through its transition
        A, update = given
        G = update.gain @ H
        T = jnp.eye(d, dtype=H.dtype) - update.covariance @ H.T @ G
        λ = H.T @ update.score + T.T @ λ
        Ξ = H.T @ G + T.T @ Ξ @ T
        return (A.T @ λ, A.T @ Ξ @ A), (λ, Ξ)

    zero = (jnp.zeros(d, H.dtype), jnp.zeros((d, d), H.dtype))
    return jax.lax.scan(step, zero, (A, updates), reverse=True)[1]
