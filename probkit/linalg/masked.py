"""A Kronecker product plus noise, observed on part of its grid."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Bool

from probkit.linalg.arguments import check_vector
from probkit.linalg.compiled import compiled
from probkit.linalg.plus_noise import KroneckerPlusNoise
from probkit.linalg.product import Product
from probkit.linalg.questions import (
    any_inverse_quadratic_form,
    any_quadratic_form,
    diagonal,
    eigh,
    hermitian_solve,
    inverse_quadratic_form,
    logdet,
    quadratic_form,
    solve,
    sqrt,
)
from probkit.linalg.structured import AbstractHermitian, adjoint


class MaskedKroneckerPlusNoise(AbstractHermitian):
    r"""$M Σ M$ with $Σ = G_1 ⊗ … ⊗ G_P + σ² I$ and $M = \mathrm{diag}(mask)$.

    It is the covariance of the observed cells, on vectors over the whole grid. What a
    vector has at the other cells does not matter, be it NaN, and an answer is 0 there.
    `solve`, quadratic forms and the log-determinant are those of the observed cells. All
    sizes are those of the grid, for every mask.

    Args:
        factors: Hermitian positive semi-definite arrays $G_p$, `(m_p, m_p)`.
        noise: $σ² > 0$, a variance, one number, in the units of the product of factors.
            Answers are NaN if $Σ$ is not positive definite.
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

    @compiled
    def mv(self, vector):
        seen = self.mask.reshape(-1)
        return jnp.where(seen, self.grid.mv(jnp.where(seen, vector, 0)), 0)


@solve.register(MaskedKroneckerPlusNoise)
def _(op, vector):
    # Conjugate gradients, preconditioned by M Σ⁻¹ M, exact where all is seen. They stay
    # among the vectors that are 0 at unobserved cells, where M Σ M is positive definite.
    check_vector(vector, op.shape[0], "solve")
    fixed = jax.tree.map(jax.lax.stop_gradient, op)
    seen = op.mask.reshape(-1)
    d, U = eigh(fixed.grid)
    d = jnp.where(d < 0, jnp.nan, d).reshape(-1)

    def precondition(r):
        return jnp.where(seen, U.mv(adjoint(U).mv(r) / d), 0)

    def solution(b):
        b = jnp.where(seen, b, 0)
        return _conjugate_gradients(fixed.mv, b, precondition, op.rtol, op.max_steps)

    return hermitian_solve(op, jnp.where(seen, vector, 0), solution)


# At unobserved cells 0 stands for whatever the vector has: 0 times NaN is NaN.


@quadratic_form.register(MaskedKroneckerPlusNoise)
def _(op, vector):
    return any_quadratic_form(op, _of_seen(op, vector, "quadratic_form"))


@inverse_quadratic_form.register(MaskedKroneckerPlusNoise)
def _(op, vector):
    vector = _of_seen(op, vector, "inverse_quadratic_form")
    return any_inverse_quadratic_form(op, vector)


def _of_seen(op, vector, question):
    check_vector(vector, op.shape[0], question)
    return jnp.where(op.mask.reshape(-1), jnp.asarray(vector), 0)


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
    return jnp.where(op.mask.reshape(-1), diagonal(op.grid), 0)


@sqrt.register(MaskedKroneckerPlusNoise)
def _(op):
    # R = M √Σ
    seen = op.mask.reshape(-1).astype(op.dtype)
    return Product([lx.DiagonalLinearOperator(seen), sqrt(op.grid)])
