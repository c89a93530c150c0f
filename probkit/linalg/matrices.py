"""Rules for lineax's own dense and diagonal operators, the leaves of a structure."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx

from probkit.linalg.arguments import check_square, check_vector
from probkit.linalg.questions import (
    diagonal,
    eigh,
    hermitian_solve,
    logdet,
    plus_diagonal,
    plus_identity,
    quadratic_form,
    solve,
    sqrt,
    times,
)
from probkit.linalg.spectral import eigh_of_matrix, hermitian


def as_operator(factor: Any) -> lx.AbstractLinearOperator:
    if isinstance(factor, lx.AbstractLinearOperator):
        return factor
    return lx.MatrixLinearOperator(factor)


@solve.register(lx.MatrixLinearOperator)
def _(op, vector):
    # A = L Lᴴ where A is tagged positive definite, A = P L U elsewhere
    check_square(op, "solve")
    check_vector(vector, op.out_size(), "solve")
    if lx.is_positive_semidefinite(op):
        A = hermitian(op.matrix)
        root = jnp.linalg.cholesky(jax.lax.stop_gradient(A))
        solution = functools.partial(jax.scipy.linalg.cho_solve, (root, True))
        return hermitian_solve(lx.MatrixLinearOperator(A), vector, solution)
    return jnp.linalg.solve(op.matrix, vector)


@logdet.register(lx.MatrixLinearOperator)
def _(op):
    # log|L Lᴴ| = 2 Σ log L_ii; log|P L U| = Σ log|U_ii|
    check_square(op, "logdet")
    if lx.is_positive_semidefinite(op):
        return _positive_logdet(hermitian(op.matrix))
    return jnp.linalg.slogdet(op.matrix)[1]


@jax.custom_jvp
def _positive_logdet(matrix):
    return 2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix)).real).sum()


@_positive_logdet.defjvp
def _(primals, tangents):
    # d log|A| = tr A⁻¹ dA
    (matrix,), (tangent,) = primals, tangents
    root = jnp.linalg.cholesky(matrix), True
    inverse = jax.scipy.linalg.cho_solve(root, jnp.eye(len(matrix), dtype=matrix.dtype))
    return _positive_logdet(matrix), jnp.vdot(inverse, tangent).real


@diagonal.register(lx.MatrixLinearOperator)
def _(op):
    check_square(op, "diagonal")
    return jnp.diagonal(op.matrix)


@sqrt.register(lx.MatrixLinearOperator)
def _(op):
    # Cholesky: NaN where the matrix is singular; see `with_jitter`
    check_square(op, "sqrt")
    return lx.MatrixLinearOperator(jnp.linalg.cholesky(op.matrix), lx.lower_triangular_tag)


@eigh.register(lx.MatrixLinearOperator)
def _(op):
    check_square(op, "eigh")
    values, vectors = eigh_of_matrix(hermitian(op.matrix))
    return values, lx.MatrixLinearOperator(vectors)


@solve.register(lx.DiagonalLinearOperator)
def _(op, vector):
    return vector / op.diagonal


@logdet.register(lx.DiagonalLinearOperator)
def _(op):
    return jnp.log(jnp.abs(op.diagonal)).sum()


@diagonal.register(lx.DiagonalLinearOperator)
def _(op):
    return op.diagonal


@sqrt.register(lx.DiagonalLinearOperator)
def _(op):
    return lx.DiagonalLinearOperator(jnp.sqrt(op.diagonal))


@eigh.register(lx.DiagonalLinearOperator)
def _(op):
    return op.diagonal.real, lx.IdentityLinearOperator(op.in_structure())


@quadratic_form.register(lx.IdentityLinearOperator)
def _(op, vector):
    check_vector(vector, op.in_size(), "quadratic_form")
    return jnp.vdot(vector, vector).real


@solve.register(lx.IdentityLinearOperator)
def _(op, vector):
    return vector


@logdet.register(lx.IdentityLinearOperator)
def _(op):
    return jnp.zeros((), op.in_structure().dtype).real


@diagonal.register(lx.IdentityLinearOperator)
def _(op):
    return jnp.ones(op.in_structure().shape, op.in_structure().dtype)


@sqrt.register(lx.IdentityLinearOperator)
def _(op):
    return op


@eigh.register(lx.IdentityLinearOperator)
def _(op):
    return diagonal(op).real, op


# Multiples, and sums with a multiple of the identity, are matrices of the same kind.


@times.register(lx.MatrixLinearOperator)
def _(op, factor):
    return lx.MatrixLinearOperator(factor * op.matrix)


@times.register(lx.DiagonalLinearOperator)
@times.register(lx.IdentityLinearOperator)
def _(op, factor):
    return lx.DiagonalLinearOperator(factor * diagonal(op))


@plus_identity.register(lx.MatrixLinearOperator)
def _(op, amount):
    check_square(op, "a sum with the identity")
    A = jnp.asarray(op.matrix)
    return lx.MatrixLinearOperator(A + amount * jnp.eye(len(A), dtype=A.dtype))


@plus_diagonal.register(lx.MatrixLinearOperator)
def _(op, amounts):
    check_square(op, "a sum with a diagonal")
    return lx.MatrixLinearOperator(jnp.asarray(op.matrix) + jnp.diag(amounts))


@plus_diagonal.register(lx.DiagonalLinearOperator)
def _(op, amounts):
    return lx.DiagonalLinearOperator(op.diagonal + amounts)


@plus_identity.register(lx.DiagonalLinearOperator)
@plus_identity.register(lx.IdentityLinearOperator)
def _(op, amount):
    return lx.DiagonalLinearOperator(diagonal(op) + amount)
