"""Kronecker sums: a sum of one factor per axis."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import as_arrays, check_square, check_vector
from probkit.linalg.compiled import compiled
from probkit.linalg.eigenvalues import AbstractSpectral
from probkit.linalg.modes import mode_products
from probkit.linalg.questions import diagonal, plus_identity, times, trace
from probkit.linalg.spectral import hermitian
from probkit.linalg.structured import AbstractHermitian


class KroneckerSum(AbstractSpectral, AbstractHermitian):
    r"""$G_1 ⊕ … ⊕ G_P = \sum_p I ⊗ … ⊗ G_p ⊗ … ⊗ I$, in C order.

    A separable Laplacian is one. With $G_p = U_p\, \mathrm{diag}(λ_p)\, U_p^H$ it is
    $(⊗U_p)\, \mathrm{diag}(λ_{1,i_1} + … + λ_{P,i_P})\, (⊗U_p)^H$.

    Args:
        factors: Hermitian arrays $G_p$, `(m_p, m_p)`, of which the nearest Hermitian
            matrices are used.

    Factors and their sum may be indefinite. `solve` needs a sum without eigenvalue zero,
    and `sqrt` and `sample` give NaN if one is below zero.

    Raises:
        ValueError: if a factor is not square.
    """

    factors: tuple[Inexact[Array, "..."], ...]

    def __init__(self, factors: Sequence[ArrayLike]):
        self.factors = as_arrays(factors, "KroneckerSum(factors=...)")
        for G in self.factors:
            check_square(G, "KroneckerSum")

    def added(self):
        return jnp.zeros((), jnp.finfo(self.dtype).dtype)

    @staticmethod
    def spectrum(values, added):
        return functools.reduce(jnp.add.outer, values) + added

    @compiled
    def mv(self, vector):
        check_vector(vector, self.shape[1], "mv")
        tensor = vector.reshape([len(G) for G in self.factors])
        nothing = [None] * len(self.factors)
        terms = [
            mode_products(tensor, [*nothing[:p], hermitian(G), *nothing[p + 1 :]])
            for p, G in enumerate(self.factors)
        ]
        return functools.reduce(jnp.add, terms).reshape(-1)


@diagonal.register(KroneckerSum)
def _(op):
    return op.spectrum([jnp.diagonal(G) for G in op.factors], 0).reshape(-1)


@trace.register(KroneckerSum)
def _(op):
    # tr(⊕G_p) = Σ_p (n / n_p) tr G_p
    n = op.shape[0]
    return sum(n // len(G) * jnp.trace(G) for G in op.factors)


@times.register(KroneckerSum)
def _(op, factor):
    return KroneckerSum([factor * G for G in op.factors])


@plus_identity.register(KroneckerSum)
def _(op, amount):
    # (G_1 + s I) ⊕ G_2 ⊕ …
    first, *rest = op.factors
    return KroneckerSum([first + amount * jnp.eye(len(first), dtype=first.dtype), *rest])
