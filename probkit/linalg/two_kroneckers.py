"""The sum of two Kronecker products."""

from collections.abc import Sequence

import jax.numpy as jnp
import lineax as lx
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import as_arrays, check_square, check_vector, size
from probkit.linalg.compiled import compiled
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.plus_noise import KroneckerPlusNoise
from probkit.linalg.product import Product
from probkit.linalg.questions import diagonal, logdet, solve, sqrt, trace
from probkit.linalg.spectral import hermitian
from probkit.linalg.structured import AbstractHermitian, adjoint


class SumOfTwoKroneckers(AbstractHermitian):
    r"""$A_1 ⊗ … ⊗ A_P + B_1 ⊗ … ⊗ B_P$, in C order; signal and coloured noise.

    With $B_p = L_p L_p^H$ it is $L\, (C_1 ⊗ … ⊗ C_P + I)\, L^H$, where $L = ⊗L_p$ and
    $C_p = L_p^{-1} A_p L_p^{-H}$. The eigenvectors of the $C_p$ are the generalised ones of
    the pairs $(A_p, B_p)$. There is no such basis for three products.

    Args:
        first: Hermitian positive semi-definite arrays $A_p$, `(m_p, m_p)`.
        second: Hermitian positive definite arrays $B_p$ of the same sizes.

    The nearest Hermitian matrices are used. `solve`, `logdet` and `sqrt` give NaN if a
    $B_p$ or the sum is not positive definite.

    Raises:
        ValueError: if the sizes do not fit.
    """

    first: tuple[Inexact[Array, "..."], ...]
    second: tuple[Inexact[Array, "..."], ...]

    def __init__(self, first: Sequence[ArrayLike], second: Sequence[ArrayLike]):
        self.first = as_arrays(first, "SumOfTwoKroneckers(first=...)")
        self.second = as_arrays(second, "SumOfTwoKroneckers(second=...)")
        sizes = [size(A) for A in self.first], [size(B) for B in self.second]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"`SumOfTwoKroneckers` got first factors of sizes {sizes[0]} and second of "
                f"{sizes[1]}; both products need the same."
            )
        for A in self.first:
            check_square(A, "SumOfTwoKroneckers")

    @property
    def shape(self):
        return Kronecker(self.first).shape

    @property
    def dtype(self):
        return jnp.result_type(*self.first, *self.second)

    @compiled
    def mv(self, vector):
        first, second = ([hermitian(A) for A in F] for F in (self.first, self.second))
        return Kronecker(first).mv(vector) + Kronecker(second).mv(vector)


def _whitened(op):
    """$L$, and the first product in units of the second, plus $I$."""
    A, B = ([hermitian(F) for F in factors] for factors in (op.first, op.second))
    L = [jnp.linalg.cholesky(F) for F in B]
    half = [solve_triangular(R, F, lower=True) for R, F in zip(L, A, strict=True)]
    # L⁻¹ A L⁻ᴴ = (L⁻¹ (L⁻¹ A)ᴴ)ᴴ, Hermitian
    C = [solve_triangular(R, H.conj().T, lower=True) for R, H in zip(L, half, strict=True)]
    lower = Kronecker([lx.MatrixLinearOperator(R, lx.lower_triangular_tag) for R in L])
    return lower, KroneckerPlusNoise(C, 1.0)


@solve.register(SumOfTwoKroneckers)
def _(op, vector):
    # (L (C + I) Lᴴ)⁻¹ = L⁻ᴴ (C + I)⁻¹ L⁻¹
    check_vector(vector, op.shape[0], "solve")
    L, inner = _whitened(op)
    return solve(adjoint(L), solve(inner, solve(L, vector)))


@logdet.register(SumOfTwoKroneckers)
def _(op):
    # log|L (C + I) Lᴴ| = log|C + I| + 2 log|L|
    L, inner = _whitened(op)
    return logdet(inner) + 2 * logdet(L)


@diagonal.register(SumOfTwoKroneckers)
def _(op):
    return diagonal(Kronecker(op.first)) + diagonal(Kronecker(op.second))


@trace.register(SumOfTwoKroneckers)
def _(op):
    return trace(Kronecker(op.first)) + trace(Kronecker(op.second))


@sqrt.register(SumOfTwoKroneckers)
def _(op):
    # R = L √(C + I)
    L, inner = _whitened(op)
    return Product([L, sqrt(inner)])
