"""A Kronecker product plus white noise, exact through the eigenvectors of the factors."""

from collections.abc import Sequence

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import as_arrays, as_noise, check_square
from probkit.linalg.compiled import compiled
from probkit.linalg.eigenvalues import AbstractSpectral, at_least_zero, decomposed
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.questions import diagonal, eigh, plus_identity, trace
from probkit.linalg.spectral import hermitian, outer
from probkit.linalg.structured import AbstractHermitian


class KroneckerPlusNoise(AbstractSpectral, AbstractHermitian):
    r"""$Σ = G_1 ⊗ … ⊗ G_P + σ² I$, on vectors flattened in C order.

    With $G_p = U_p\, \mathrm{diag}(λ_p)\, U_p^H$ every question has an exact answer by
    $Σ = (⊗U_p)\, \mathrm{diag}(⊗λ_p + σ²)\, (⊗U_p)^H$. The cost is that of $P$ small
    eigenproblems and a few mode products.

    Args:
        factors: Hermitian positive semi-definite arrays $G_p$, `(m_p, m_p)`, of any rank.
            The nearest Hermitian matrices are used. Eigenvalues count as zero if they are
            below zero by rounding only, up to $10\, m_p ε$ of the largest.
        noise: $σ² > 0$, a variance, one number, in the units of the product of factors.

    A factor may be indefinite if the sum $Σ$ is positive definite. If $Σ$ has an eigenvalue
    below zero it is no covariance: `solve`, `logdet`, `inverse_quadratic_form`, `sqrt` and
    `sample` give NaN, while `eigh` gives the eigenvalues.

    Raises:
        ValueError: if a factor is not square, or the noise is below zero or not one number.

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

    def added(self):
        return self.noise

    @staticmethod
    def spectrum(values, added):
        # Below zero it is no covariance, and no logarithm of it is a density.
        d = _eigenvalues(values, added)
        return jnp.where(d < 0, jnp.nan, d)

    @compiled
    def mv(self, vector):
        K = Kronecker([hermitian(G) for G in self.factors])
        return K.mv(vector) + self.noise * vector


def _eigenvalues(values, noise):
    return outer([at_least_zero(v) for v in values]) + noise


@eigh.register(KroneckerPlusNoise)
def _(op):
    # whatever their sign
    values, U = decomposed(op.factors)
    return _eigenvalues(values, op.noise), Kronecker(U)


@diagonal.register(KroneckerPlusNoise)
def _(op):
    return diagonal(Kronecker(op.factors)) + op.noise


@trace.register(KroneckerPlusNoise)
def _(op):
    return trace(Kronecker(op.factors)) + op.shape[0] * op.noise


@lx.tridiagonal.register(KroneckerPlusNoise)
def _(op):
    K = Kronecker([hermitian(G) for G in op.factors])
    main, lower, upper = lx.tridiagonal(K)
    return main + op.noise, lower, upper


@plus_identity.register(KroneckerPlusNoise)
def _(op, amount):
    return KroneckerPlusNoise(op.factors, op.noise + amount)
