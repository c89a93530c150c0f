"""Khatri-Rao products: a Kronecker product of each column by itself."""

import functools
import math
from collections.abc import Sequence

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import as_arrays, check_square, check_vector
from probkit.linalg.compiled import compiled
from probkit.linalg.questions import diagonal
from probkit.linalg.structured import AbstractStructured


class KhatriRao(AbstractStructured):
    r"""$F_1 ⊙ … ⊙ F_P$: column $k$ is $F_1[:, k] ⊗ … ⊗ F_P[:, k]$, in C order.

    It maps the weights of $K$ rank-one tensors to their sum (a CP decomposition).

    Args:
        factors: arrays $F_p$ of shape `(m_p, K)`, all with the same number of columns.

    Raises:
        ValueError: if the factors differ in columns.
    """

    factors: tuple[Inexact[Array, "..."], ...]

    def __init__(self, factors: Sequence[ArrayLike]):
        self.factors = as_arrays(factors, "KhatriRao(factors=...)")
        columns = {F.shape[1] for F in self.factors}
        if len(columns) != 1:
            raise ValueError(
                f"`KhatriRao` got factors with {sorted(columns)} columns; all need the "
                "same number."
            )

    @property
    def shape(self):
        return math.prod(len(F) for F in self.factors), self.factors[0].shape[1]

    @property
    def dtype(self):
        return jnp.result_type(*self.factors)

    @compiled
    def mv(self, vector):
        check_vector(vector, self.shape[1], "mv")
        left, right = self._halves()
        return ((left * vector) @ right.T).reshape(-1)

    def transpose(self):
        return _Transposed(self)

    def gram(self) -> lx.MatrixLinearOperator:
        r"""$F^H F$, `(K, K)`: the entrywise product of the $F_p^H F_p$."""
        grams = [F.conj().T @ F for F in self.factors]
        product = functools.reduce(jnp.multiply, grams)
        return lx.MatrixLinearOperator(product, lx.positive_semidefinite_tag)

    def _halves(self):
        # Two halves of about √m rows each. One GEMM joins them, so that the m x K matrix is
        # never formed.
        rows = [len(F) for F in self.factors]
        cut = min(
            range(1, len(rows) + 1),
            key=lambda p: math.prod(rows[:p]) + math.prod(rows[p:]),
        )
        return self._columnwise(self.factors[:cut]), self._columnwise(self.factors[cut:])

    def _columnwise(self, factors):
        out = jnp.ones((1, self.shape[1]), self.dtype)
        for F in factors:
            out = (out[:, None] * F).reshape(-1, self.shape[1])
        return out


class _Transposed(AbstractStructured):
    operator: KhatriRao

    @property
    def shape(self):
        return self.operator.shape[::-1]

    @property
    def dtype(self):
        return self.operator.dtype

    @compiled
    def mv(self, vector):
        # (Fᵀ y)_k = Σ_ab left_ak Y_ab right_bk
        check_vector(vector, self.shape[1], "mv")
        left, right = self.operator._halves()
        Y = vector.reshape(len(left), len(right))
        return ((Y @ right) * left).sum(0)

    def transpose(self):
        return self.operator


@diagonal.register(KhatriRao)
def _(op):
    # row i is the entries i_1, …, i_P of the factors, at column i
    check_square(op, "diagonal")
    rows = jnp.unravel_index(jnp.arange(op.shape[0]), [len(F) for F in op.factors])
    columns = jnp.arange(op.shape[0])
    entries = [F[i, columns] for F, i in zip(op.factors, rows, strict=True)]
    return functools.reduce(jnp.multiply, entries)
