"""A structured matrix plus one of low rank."""

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import check_square, check_vector, inexact
from probkit.linalg.beside import Beside
from probkit.linalg.compiled import compiled
from probkit.linalg.kronecker import Inverse
from probkit.linalg.matrices import as_operator
from probkit.linalg.questions import (
    diagonal,
    logdet,
    plus_identity,
    solve,
    sqrt,
    times,
    trace,
)
from probkit.linalg.structured import AbstractStructured, matmat


class PlusLowRank(AbstractStructured):
    r"""$A + W C W^H$ with $C = \mathrm{diag}(c)$, whose rank is small relative to $A$.

    Args:
        base: $A$, `(n, n)`, any operator with rules for `solve` and `logdet`.
        columns: $W$, an array of shape `(n, k)`.
        weights: $c$, real, shape `(k,)`; ones by default. They may be 0 or negative, but
            `sqrt` needs weights of at least 0.

    Raises:
        ValueError: if the sizes do not fit.
    """

    base: lx.AbstractLinearOperator
    columns: Inexact[Array, "n k"]
    weights: Inexact[Array, " k"]

    def __init__(
        self,
        base: lx.AbstractLinearOperator,
        columns: ArrayLike,
        weights: ArrayLike | None = None,
    ):
        check_square(base, "PlusLowRank")
        W = inexact(columns)
        if W.ndim != 2 or W.shape[0] != base.in_size():
            raise ValueError(
                f"`PlusLowRank(columns=...)` has shape {W.shape}; it needs the "
                f"{base.in_size()} rows of the base, and one column per rank."
            )
        c = jnp.ones(W.shape[1]) if weights is None else inexact(weights)
        check_vector(c, W.shape[1], "PlusLowRank(weights=...)")
        self.base, self.columns = base, W
        self.weights = c.astype(jnp.finfo(W.dtype).dtype)

    @property
    def shape(self):
        return len(self.columns), len(self.columns)

    @property
    def dtype(self):
        return jnp.result_type(self.base.in_structure().dtype, self.columns)

    @compiled
    def mv(self, vector):
        W = self.columns
        return self.base.mv(vector) + W @ (self.weights * (W.conj().T @ vector))

    def transpose(self):
        # (W C Wᴴ)ᵀ = conj(W) C conj(W)ᴴ
        return PlusLowRank(self.base.T, self.columns.conj(), self.weights)


@lx.is_positive_semidefinite.register(PlusLowRank)
def _(op):
    # Hermitian. Weights that make it indefinite are not looked for.
    return lx.is_positive_semidefinite(op.base)


def _capacity(op):
    r"""$A^{-1} W$ and $I + C W^H A^{-1} W$, of the size of the rank."""
    solved = matmat(Inverse(op.base), op.columns)
    inner = op.columns.conj().T @ solved
    return solved, jnp.eye(len(op.weights), dtype=op.dtype) + op.weights[:, None] * inner


@solve.register(PlusLowRank)
def _(op, vector):
    # Woodbury: A⁻¹ b - A⁻¹ W (I + C Wᴴ A⁻¹ W)⁻¹ C Wᴴ A⁻¹ b
    check_vector(vector, op.shape[0], "solve")
    solved, capacity = _capacity(op)
    x = solve(op.base, vector)
    inner = op.weights * (op.columns.conj().T @ x)
    return x - solved @ jnp.linalg.solve(capacity, inner)


@logdet.register(PlusLowRank)
def _(op):
    # |A + W C Wᴴ| = |A| |I + C Wᴴ A⁻¹ W|
    return logdet(op.base) + jnp.linalg.slogdet(_capacity(op)[1])[1]


@diagonal.register(PlusLowRank)
def _(op):
    return diagonal(op.base) + jnp.abs(op.columns) ** 2 @ op.weights


@trace.register(PlusLowRank)
def _(op):
    return trace(op.base) + (jnp.abs(op.columns) ** 2 @ op.weights).sum()


@sqrt.register(PlusLowRank)
def _(op):
    # R = [√A, W √C]
    return Beside([sqrt(op.base), as_operator(op.columns * jnp.sqrt(op.weights))])


@times.register(PlusLowRank)
def _(op, factor):
    return PlusLowRank(times(op.base, factor), op.columns, factor * op.weights)


@plus_identity.register(PlusLowRank)
def _(op, amount):
    return PlusLowRank(plus_identity(op.base, amount), op.columns, op.weights)
