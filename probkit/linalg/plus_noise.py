"""A Kronecker product plus white noise, exact through the eigenvectors of the factors."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import as_arrays, as_noise, check_square
from probkit.linalg.eigenvalues import decomposed, spectral_logdet, spectral_solve
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.product import Product
from probkit.linalg.questions import (
    diagonal,
    eigh,
    logdet,
    solve,
    sqrt,
    trace,
)
from probkit.linalg.spectral import outer
from probkit.linalg.structured import AbstractHermitian


class KroneckerPlusNoise(AbstractHermitian):
    r"""$Σ = G_1 ⊗ … ⊗ G_P + σ² I$, on vectors flattened in C order.

    With $G_p = U_p\, \mathrm{diag}(λ_p)\, U_p^H$ every question has an exact answer by
    $Σ = (⊗U_p)\, \mathrm{diag}(⊗λ_p + σ²)\, (⊗U_p)^H$. The cost is that of $P$ small
    eigenproblems and a few mode products.

    Args:
        factors: Hermitian positive semi-definite arrays $G_p$, `(m_p, m_p)`, of any rank.
            The nearest Hermitian matrices are used; eigenvalues below zero count as zero.
        noise: $σ² > 0$, a variance, one number, in the units of the product of factors.

    Raises:
        ValueError: if a factor is not square or the noise is not one number.

    First and second derivatives of `solve`, `logdet` and `inverse_quadratic_form` are right
    whether or not eigenvalues coincide.
    """

    factors: tuple[Inexact[Array, "..."], ...]
    noise: Inexact[Array, ""]

    def __init__(self, factors: Sequence[ArrayLike], noise: ArrayLike):
        self.factors = as_arrays(factors, "KroneckerPlusNoise(factors=...)")
        for G in self.factors:
            check_square(G, "KroneckerPlusNoise")
        self.noise = as_noise(noise, self.factors, "KroneckerPlusNoise")

    @property
    def shape(self):
        n = math.prod(len(G) for G in self.factors)
        return n, n

    @property
    def dtype(self):
        return jnp.result_type(*self.factors)

    def mv(self, vector):
        return Kronecker(self.factors).mv(vector) + self.noise * vector


def _spectrum(values, noise):
    return outer(values) + noise


@eigh.register(KroneckerPlusNoise)
def _(op):
    values, U = decomposed(op.factors)
    return outer(values) + op.noise, Kronecker(U)


@solve.register(KroneckerPlusNoise)
def _(op, vector):
    # Σ⁻¹ b = (⊗U_p) diag(1/d) (⊗U_p)ᴴ b
    return spectral_solve(op, vector)


@logdet.register(KroneckerPlusNoise)
def _(op):
    # log|Σ| = Σ log(⊗λ_p + σ²)
    return spectral_logdet(_spectrum, op.factors, op.noise)


@diagonal.register(KroneckerPlusNoise)
def _(op):
    return diagonal(Kronecker(op.factors)) + op.noise


@trace.register(KroneckerPlusNoise)
def _(op):
    return trace(Kronecker(op.factors)) + op.shape[0] * op.noise


@sqrt.register(KroneckerPlusNoise)
def _(op):
    # R = (⊗U_p) diag(√d):  R Rᴴ = Σ
    d, U = eigh(op)
    return Product([U, lx.DiagonalLinearOperator(jnp.sqrt(d).reshape(-1).astype(op.dtype))])
