"""A matrix between two diagonals."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import check_square, check_vector, inexact
from probkit.linalg.compiled import compiled
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.product import Product
from probkit.linalg.questions import diagonal, logdet, solve, sqrt
from probkit.linalg.structured import AbstractStructured


class ScaledKronecker(AbstractStructured):
    r"""$D\, (F_1 ⊗ … ⊗ F_P)\, D^H$ with $D = \mathrm{diag}(s)$, in C order.

    Correlations that are a Kronecker product, with a scale of its own for each entry.

    Args:
        scale: $s$, shape `(n,)`; `solve` and `logdet` need entries other than 0.
        factors: square matrices `(n_p, n_p)`, as for `Kronecker`.

    Raises:
        ValueError: if a factor is not square or the scale has another length.
    """

    scale: Inexact[Array, " n"]
    inner: Kronecker

    def __init__(self, scale: ArrayLike, factors: Sequence[Any]):
        self.scale, self.inner = inexact(scale), Kronecker(factors)
        for F in self.inner.factors:
            check_square(F, "ScaledKronecker")
        check_vector(self.scale, self.inner.shape[0], "ScaledKronecker(scale=...)")

    @property
    def shape(self):
        return self.inner.shape

    @property
    def dtype(self):
        return jnp.result_type(self.scale, self.inner.dtype)

    @compiled
    def mv(self, vector):
        return self.scale * self.inner.mv(self.scale.conj() * vector)

    def transpose(self):
        # (D K Dᴴ)ᵀ = conj(D) Kᵀ conj(D)ᴴ
        return ScaledKronecker(self.scale.conj(), [F.T for F in self.inner.factors])


@solve.register(ScaledKronecker)
def _(op, vector):
    # (D K Dᴴ)⁻¹ = D⁻ᴴ K⁻¹ D⁻¹
    check_vector(vector, op.shape[0], "solve")
    return solve(op.inner, vector / op.scale) / op.scale.conj()


@logdet.register(ScaledKronecker)
def _(op):
    # log|D K Dᴴ| = log|K| + 2 Σ log|s_i|
    return logdet(op.inner) + 2 * jnp.log(jnp.abs(op.scale)).sum()


@diagonal.register(ScaledKronecker)
def _(op):
    return jnp.abs(op.scale) ** 2 * diagonal(op.inner)


@sqrt.register(ScaledKronecker)
def _(op):
    # R = D √K
    return Product([lx.DiagonalLinearOperator(op.scale), sqrt(op.inner)])
