r"""The filter and the smoother by roots of covariances, for float32.

Covariances are kept as $P = U^T U$ and likelihoods of all later sites as $J = V^T V$, with
triangular $U$ and $V$. All steps are sums $A^T A + B^T B$, whose root is the triangular
factor of the two matrices, one upon the other. No difference of covariances is taken, so
that variances are positive, and half the digits are enough.

Source: Särkkä & Svensson (2023), "Bayesian filtering and smoothing", sections 5.6 and 12.4;
Kailath, Sayed & Hassibi (2000), "Linear estimation", chapter 12.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.gp.state_space.passes import Chain, Place
from probkit.gp.state_space.small import (
    cholesky,
    solve,
    triangular,
)


def evidence_of_sites(chain: Chain) -> Float[Array, ""]:
    """The log evidence, by the filter alone."""
    return _forward(chain)[0].log_evidence.sum()


def read_all(chain: Chain, read: Callable[..., Any]) -> tuple[Float[Array, ""], Any]:
    """The log evidence, and what a function makes of each place; see `passes.read_all`."""
    places, roots = _forward(chain)
    H, d = chain.readout, chain.readout.shape[1]

    def step(carry, given):
        λ, V = carry  # of all later sites, seen from this place
        A, Uq, R, place, U, rest = given
        λ = λ + H.T @ (place.score - place.gain @ (H @ (place.covariance @ λ)))
        V = _over(R @ H, V)
        T = _over(jnp.eye(d, dtype=V.dtype), U @ V.T)
        Ξ = _squared(_whiten(T, V))

        def covariance(M):
            return _squared(_whiten(_over(jnp.eye(d, dtype=V.dtype), V @ U.T), U @ M.T))

        out = read(H, place, λ, Ξ, covariance, rest)
        T = _over(jnp.eye(d, dtype=V.dtype), Uq @ V.T)
        return (A.T @ λ, _whiten(T, V) @ A), out

    zero = jnp.zeros_like(places.mean[0]), jnp.zeros_like(places.covariance[0])
    sites = (chain.precision, chain.shift)
    given = (chain.transition, *_roots(chain), places, roots, sites)
    return places.log_evidence.sum(), jax.lax.scan(step, zero, given, reverse=True)[1]


def _forward(chain: Chain) -> tuple[Place, Float[Array, "n d d"]]:
    """Each place, and $U$ of its prediction."""
    H = chain.readout
    r, d = H.shape
    eye, none = jnp.eye(r, dtype=H.dtype), jnp.zeros((r, d), H.dtype)

    def step(state, given):
        before, U = state
        A, Uq, R, Λ, η = given
        UA = U @ A.T
        m, cross = A @ before, UA.T @ U
        U = _over(UA, Uq)
        P, UH = U.T @ U, U @ H.T
        u, S = H @ m, UH.T @ UH
        residual = η - Λ @ u
        # [[I, 0], [U H^T R^T, U]] has the roots of I + R S R^T and of the filtered P.
        joint = jnp.block([[eye, none], [UH @ R.T, U]])
        joint = triangular(joint, r + d)
        T, U_f = joint[:r, :r], joint[r:, r:]
        gain = _squared(_whiten(T, R))
        score = solve(eye + Λ @ S, residual[:, None])[0][:, 0]
        logdet = 2 * jnp.log(jnp.diagonal(T)).sum()
        quadratic = ((η + residual) * u + residual * (S @ score)).sum()
        place = Place(m, P, before, cross, score, gain, (quadratic - logdet) / 2)
        return (m + U_f.T @ (U_f @ (H.T @ residual)), U_f), (place, U)

    zero = jnp.zeros(d, H.dtype), jnp.zeros((d, d), H.dtype)
    given = (chain.transition, *_roots(chain), chain.precision, chain.shift)
    return jax.lax.scan(step, zero, given)[1]


def _roots(chain: Chain):
    """Of the noise and of the precision of each site."""

    def root(a):
        return jnp.moveaxis(cholesky(jnp.moveaxis(a, 0, -1)), -1, 0)

    return root(chain.noise), root(chain.precision)


def _over(A: Array, B: Array) -> Array:
    """The root of $A^T A + B^T B$."""
    return triangular(jnp.concatenate([A, B]), A.shape[1])


def _whiten(T: Array, B: Array) -> Array:
    """$T^{-T} B$ for an upper triangular $T$."""
    return jax.scipy.linalg.solve_triangular(T, B, trans=1)


def _squared(A: Array) -> Array:
    return A.T @ A
