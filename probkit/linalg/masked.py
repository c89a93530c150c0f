"""A Kronecker product plus noise, observed on part of its grid."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Bool

from probkit.linalg.beside import Beside
from probkit.linalg.plus_noise import KroneckerPlusNoise
from probkit.linalg.product import Product
from probkit.linalg.questions import diagonal, eigh, hermitian_solve, logdet, solve, sqrt
from probkit.linalg.structured import AbstractHermitian, adjoint


class MaskedKroneckerPlusNoise(AbstractHermitian):
    r"""$M Σ M + (I - M)$ with $Σ = G_1 ⊗ … ⊗ G_P + σ² I$ and $M = \mathrm{diag}(mask)$.

    It is the covariance of the observed cells, on vectors over the whole grid. Other cells
    are independent and have variance 1. Log-determinants are therefore those of the
    observed cells, and so are quadratic forms of vectors that are 0 elsewhere. All sizes
    are those of the grid, for every mask.

    Args:
        factors: Hermitian positive semi-definite arrays $G_p$, `(m_p, m_p)`.
        noise: $σ² > 0$, a variance, one number, in the units of the product of factors.
        mask: True where a cell is observed, shape `(m_1, …, m_P)`.
        rtol: `solve` ends when $|b - A x| / |b|$ is below this number, or below ten
            rounding units if that is more.
        max_steps: the largest number of steps; after these `solve` returns NaN.

    `solve` uses conjugate gradients, preconditioned by the inverse over the whole grid.
    There is no exact rule for the log-determinant; use `stochastic_logdet`.

    Raises:
        ValueError: if a factor is not square, or mask and factors differ in shape.
    """

    grid: KroneckerPlusNoise
    mask: Bool[Array, "..."]
    rtol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        factors: Sequence[ArrayLike],
        noise: ArrayLike,
        mask: ArrayLike,
        *,
        rtol: float = 1e-10,
        max_steps: int = 1000,
    ):
        self.grid, self.mask = KroneckerPlusNoise(factors, noise), jnp.asarray(mask, bool)
        self.rtol, self.max_steps = rtol, max_steps
        expected = tuple(len(G) for G in self.grid.factors)
        if self.mask.shape != expected:
            raise ValueError(
                f"`MaskedKroneckerPlusNoise(mask=...)` has shape {self.mask.shape}, but "
                f"the factors make a grid of {expected}."
            )

    @property
    def shape(self):
        return self.grid.shape

    @property
    def dtype(self):
        return self.grid.dtype

    def mv(self, vector):
        seen = self.mask.reshape(-1)
        return jnp.where(seen, self.grid.mv(jnp.where(seen, vector, 0)), vector)


class Estimate(NamedTuple):
    """An estimate from random probes.

    Attributes:
        value: the estimate, one number.
        standard_error: its standard error, in the same units.
    """

    value: Array
    standard_error: Array


@solve.register(MaskedKroneckerPlusNoise)
def _(op, vector):
    # Conjugate gradients, preconditioned by M Σ⁻¹ M + (I - M), exact where all is seen.
    fixed = jax.tree.map(jax.lax.stop_gradient, op)
    seen = op.mask.reshape(-1)
    d, U = eigh(fixed.grid)

    def precondition(r):
        inside = adjoint(U).mv(jnp.where(seen, r, 0)) / d.reshape(-1)
        return jnp.where(seen, U.mv(inside), r)

    def solution(b):
        return _conjugate_gradients(fixed.mv, b, precondition, op.rtol, op.max_steps)

    return hermitian_solve(op, vector, solution)


def _conjugate_gradients(mv, b, precondition, rtol, max_steps):
    """The solution, or NaN if $|b - A x|$ is not below `rtol` times $|b|$ at the end."""
    limit = jnp.maximum(rtol, 10 * jnp.finfo(b.dtype).eps) * jnp.linalg.norm(b)

    def unfinished(state):
        _, r, _, _, step = state
        return (jnp.linalg.norm(r) > limit) & (step < max_steps)

    def advance(state):
        x, r, direction, rho, step = state
        moved = mv(direction)
        length = rho / jnp.vdot(direction, moved).real
        x, r = x + length * direction, r - length * moved
        preconditioned = precondition(r)
        new = jnp.vdot(r, preconditioned).real
        return x, r, preconditioned + new / rho * direction, new, step + 1

    preconditioned = precondition(b)
    start = (jnp.zeros_like(b), b, preconditioned, jnp.vdot(b, preconditioned).real, 0)
    x, r, *_ = jax.lax.while_loop(unfinished, advance, start)
    return jnp.where(jnp.linalg.norm(r) <= limit, x, jnp.nan)


@logdet.register(MaskedKroneckerPlusNoise)
def _(op):
    raise NotImplementedError(
        "`logdet` has no exact rule for a masked Kronecker product; use "
        "`stochastic_logdet(op, key)` for an estimate with its standard error."
    )


@diagonal.register(MaskedKroneckerPlusNoise)
def _(op):
    return jnp.where(op.mask.reshape(-1), diagonal(op.grid), 1)


@sqrt.register(MaskedKroneckerPlusNoise)
def _(op):
    # R = [M √Σ, I - M]
    seen = op.mask.reshape(-1).astype(op.dtype)
    inside = Product([lx.DiagonalLinearOperator(seen), sqrt(op.grid)])
    return Beside([inside, lx.DiagonalLinearOperator(1 - seen)])


def stochastic_logdet(
    op: MaskedKroneckerPlusNoise, key: Array, *, num_probes: int = 32, num_steps: int = 50
) -> Estimate:
    r"""An estimate of $\log|A|$ by Lanczos quadrature from random signs $z$.

    $\log|A| = \mathrm{E}\, z^H \log(A)\, z$, each term from `num_steps` products. The
    derivative uses the same probes, $\mathrm{mean}\, z^H A^{-1} dA\, z$. It is unbiased
    and costs one `solve` per probe.

    Args:
        op: $A$.
        key: a JAX random key; the same key gives the same probes.
        num_probes: the number of $z$, at least 2; the standard error falls as one over the
            root of it.
        num_steps: number of Lanczos steps. The basis is kept, which takes `num_steps`
            vectors per probe. Few steps suffice unless $A$ is badly conditioned. The
            standard error does not contain the error of the steps.

    Returns:
        `Estimate(value, standard_error)`, in nats.

    Source: Ubaru, Chen & Saad (2017), stochastic Lanczos quadrature.
    """
    seen = op.mask.reshape(-1)
    signs = jax.random.rademacher(key, (num_probes, *seen.shape), dtype=op.dtype)
    # Cells that are not observed have logarithm 0 and need no probes.
    terms = _log_forms(num_steps, op, jnp.where(seen, signs, 0))
    return Estimate(terms.mean(), terms.std(ddof=1) / num_probes**0.5)


def _log_forms_of(num_steps, op, probes):
    return jax.lax.map(lambda z: _lanczos_log_form(op.mv, z, num_steps), probes)


_log_forms = jax.custom_jvp(_log_forms_of, nondiff_argnums=(0,))


@_log_forms.defjvp
def _(num_steps, primals, tangents):
    # tr(A⁻¹ dA) ≈ mean Re (A⁻¹ z)ᴴ dA z; the probes do not move
    op, probes = primals
    d_op, _ = tangents

    def tangent(z):
        _, moved = jax.jvp(lambda A: A.mv(z), (op,), (d_op,))
        return jnp.vdot(solve(op, z), moved).real

    return _log_forms(num_steps, op, probes), jax.lax.map(tangent, probes)


def _lanczos_log_form(mv, z, num_steps):
    r"""$z^H \log(A)\, z$ by the Gauss quadrature that Lanczos builds, with its basis kept.

    If the basis is complete before `num_steps`, the rest is zeros: blocks without weight.
    """
    norm = jnp.linalg.norm(z)
    basis = jnp.zeros((num_steps, len(z)), z.dtype)

    def step(carry, i):
        basis, v, largest = carry
        basis = basis.at[i].set(v)
        w = mv(v)
        alpha = jnp.vdot(v, w).real
        for _ in range(2):  # twice is enough against rounding
            w = w - basis.T @ (basis.conj() @ w)
        beta = jnp.linalg.norm(w)
        largest = jnp.maximum(largest, alpha)
        ended = beta <= 100 * jnp.finfo(w.dtype).eps * largest
        v = jnp.where(ended, 0, w / jnp.where(ended, 1, beta))
        return (basis, v, largest), (alpha, jnp.where(ended, 0, beta))

    start = (basis, z / norm, jnp.zeros_like(norm))
    _, (alpha, beta) = jax.lax.scan(step, start, jnp.arange(num_steps))
    T = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    nodes, vectors = jnp.linalg.eigh(T)
    weights = vectors[0] ** 2
    counted = nodes > 0
    logs = jnp.log(jnp.where(counted, nodes, 1))
    return norm**2 * jnp.where(counted, weights * logs, 0).sum()
