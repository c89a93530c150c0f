"""A Kronecker product plus noise, observed on part of its grid."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, ArrayLike, Bool

from probkit.linalg.arguments import check_vector
from probkit.linalg.compiled import compiled
from probkit.linalg.gradients import Equation
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
        rtol: `solve` ends when $|b - A x| / |b|$ is below this number, or $|b - A x|$ below
            ten rounding units of $A x$ if that is more.
        max_steps: the largest number of steps; after these `solve` returns NaN.

    `solve` uses conjugate gradients, preconditioned by the inverse over the whole grid and
    then also by the largest eigenvalues, of which up to 256 vectors are kept.
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


# The largest eigenvalues are used apart, so many, if their vectors have at most so many
# numbers.
RANK, MOST_NUMBERS = 256, 2**23


@solve.register(MaskedKroneckerPlusNoise)
def _(op, vector):
    # Conjugate gradients stay among the vectors that are 0 at unobserved cells, where
    # A = M Σ M is positive definite. The first steps are preconditioned by M Σ⁻¹ M, which
    # is exact where all is seen, and close if most is, or if the noise is large.
    check_vector(vector, op.shape[0], "solve")
    fixed = jax.tree.map(jax.lax.stop_gradient, op)
    seen = op.mask.reshape(-1)
    d, U = eigh(fixed.grid)
    d = jnp.where(d < 0, jnp.nan, d)
    rank = min(RANK, d.size, MOST_NUMBERS // d.size)

    def solution(b):
        equation = Equation(fixed.mv, jnp.where(seen, b, 0), op.rtol, d.max())
        on_grid = functools.partial(_on_grid, d, U, seen)
        begun = equation.steps(equation.begin(), on_grid, min(rank, op.max_steps))

        def finish(begun):
            precondition = _with_largest(d, U, seen, fixed.grid.noise, rank)
            return equation.rounds(begun, precondition, op.max_steps)

        unfinished = equation.over(begun.x, begun.left) > 1
        return equation.verdict(jax.lax.cond(unfinished, finish, lambda end: end, begun))

    return hermitian_solve(op, jnp.where(seen, vector, 0), solution)


def _on_grid(d, U, seen, r):
    """$M Σ^{-1} M r$."""
    return jnp.where(seen, U.mv(adjoint(U).mv(r) / d.reshape(-1)), 0)


def _with_largest(d, U, seen, noise, rank):
    r"""A preconditioner that is exact in the largest eigenvalues too.

    A smooth process on part of a grid has few eigenvalues above the noise, but these are
    so large that the inverse over the whole grid is no good on a part. With $W$ from their
    eigenvectors, $Σ = R + W W^H$, where $R$ has the mean $c$ of the small eigenvalues in
    the place of the large ones. With $Z = P W$, $P = M R^{-1} M$,

    $$A^{-1} ≈ P - Z\, (I + W^H Z)^{-1} Z^H.$$
    """
    size = d.size
    large, places = jax.lax.top_k(d.reshape(-1), rank)
    mean = (d.sum() - large.sum()) / (size - rank) if rank < size else noise
    rest = d.reshape(-1).at[places].set(mean)
    columns = [
        F[:, i] for F, i in zip(U.factors, jnp.unravel_index(places, d.shape), strict=True)
    ]
    W = functools.reduce(lambda A, B: (A[:, None] * B).reshape(-1, rank), columns)
    W = jnp.where(seen[:, None], W * jnp.sqrt(jnp.maximum(large - mean, 0)), 0)
    on_rest = functools.partial(_on_grid, rest, U, seen)
    Z = jax.vmap(on_rest, in_axes=1, out_axes=1)(W)
    factor = cho_factor(jnp.eye(rank, dtype=W.dtype) + W.conj().T @ Z)
    return lambda r: on_rest(r) - Z @ cho_solve(factor, Z.conj().T @ r)


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
