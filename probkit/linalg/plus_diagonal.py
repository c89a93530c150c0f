"""A Kronecker structure plus a diagonal: noise of its own in each cell of a grid."""

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from probkit.linalg.arguments import check_vector
from probkit.linalg.beside import Beside
from probkit.linalg.compiled import compiled
from probkit.linalg.eigenvalues import AbstractSpectral
from probkit.linalg.gradients import Equation
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.questions import (
    diagonal,
    eigh,
    hermitian_solve,
    logdet,
    plus_diagonal,
    plus_identity,
    solve,
    sqrt,
    times,
)
from probkit.linalg.structured import AbstractStructured, adjoint

# As in `MaskedKroneckerPlusNoise`, where they are settings.
RTOL, MAX_STEPS = 1e-10, 1000


class PlusDiagonal(AbstractStructured):
    """$A + D$ for Hermitian $A$ with eigenvectors of product form; what a sum becomes.

    `solve` iterates, because the sum has no such eigenvectors.

    Args:
        operator: $A$, positive semi-definite.
        diagonal: $D$, positive, shape `(n,)`.
    """

    operator: lx.AbstractLinearOperator
    diagonal: Array

    @property
    def shape(self):
        return self.operator.out_size(), self.operator.in_size()

    @property
    def dtype(self):
        return self.operator.in_structure().dtype

    @compiled
    def mv(self, vector):
        check_vector(vector, self.shape[1], "mv")
        return self.operator.mv(vector) + self.diagonal * vector

    def transpose(self):
        return lx.conj(self)


@plus_diagonal.register(Kronecker)
@plus_diagonal.register(AbstractSpectral)
def _(op, amounts):
    return PlusDiagonal(op, amounts)


@solve.register(PlusDiagonal)
def _(op, vector):
    # Conjugate gradients, preconditioned by (A + s I)⁻¹. The eigenvalues of the product are
    # between those of D / s, so that about 12 √(max D / min D) steps are enough.
    check_vector(vector, op.shape[0], "solve")
    fixed = jax.tree.map(jax.lax.stop_gradient, op)
    low, high = fixed.diagonal.min(), fixed.diagonal.max()
    middle = jnp.sqrt(low) * jnp.sqrt(high)
    values, U = eigh(plus_identity(fixed.operator, middle))
    values = values.reshape(-1)

    def precondition(r):
        return U.mv(adjoint(U).mv(r) / values)

    def solution(b):
        largest = values.max() + high
        equation = Equation(fixed.mv, b, RTOL, largest)
        return equation.verdict(equation.rounds(equation.begin(), precondition, MAX_STEPS))

    return hermitian_solve(op, vector, solution)


@logdet.register(PlusDiagonal)
def _(op):
    raise NotImplementedError(
        "`logdet` has no exact rule for a Kronecker structure plus a diagonal; if the "
        "diagonal is a product over the axes use `SumOfTwoKroneckers`, and if the dense "
        "cost is fine give `lx.MatrixLinearOperator(dense(op))`."
    )


@diagonal.register(PlusDiagonal)
def _(op):
    return diagonal(op.operator) + op.diagonal


@sqrt.register(PlusDiagonal)
def _(op):
    # [√A, √D] [√A, √D]ᴴ = A + D
    root = jnp.sqrt(op.diagonal).astype(op.dtype)
    return Beside([sqrt(op.operator), lx.DiagonalLinearOperator(root)])


@times.register(PlusDiagonal)
def _(op, factor):
    return PlusDiagonal(times(op.operator, factor), factor * op.diagonal)


@plus_identity.register(PlusDiagonal)
def _(op, amount):
    return PlusDiagonal(op.operator, op.diagonal + amount)


@plus_diagonal.register(PlusDiagonal)
def _(op, amounts):
    return PlusDiagonal(op.operator, op.diagonal + amounts)
