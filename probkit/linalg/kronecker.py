"""Kronecker products of any number of factors."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from probkit.linalg.arguments import as_factors, check_square, check_vector, size
from probkit.linalg.compiled import compiled
from probkit.linalg.matrices import as_operator
from probkit.linalg.modes import mode_products
from probkit.linalg.questions import diagonal, eigh, logdet, solve, sqrt, trace
from probkit.linalg.spectral import outer
from probkit.linalg.structured import AbstractStructured, dense


class Kronecker(AbstractStructured):
    r"""$F_1 ⊗ … ⊗ F_P$, on vectors flattened in C order: the last factor runs fastest.

    Args:
        factors: matrices, each an array of shape `(m_p, n_p)` or a lineax operator, real
            or complex. They need not be square.

    Raises:
        ValueError: if a factor is not a matrix, or if there is none.

    `solve`, `logdet`, `diagonal` and `trace` need square factors, `eigh` Hermitian ones,
    and `sqrt` Hermitian positive definite ones.
    """

    factors: tuple[Any, ...]

    def __init__(self, factors: Sequence[Any]):
        self.factors = as_factors(factors, "Kronecker(factors=...)")

    @property
    def shape(self):
        rows, columns = zip(*map(size, self.factors), strict=True)
        return math.prod(rows), math.prod(columns)

    @property
    def dtype(self):
        return jnp.result_type(*(as_operator(F).in_structure().dtype for F in self.factors))

    @compiled
    def mv(self, vector: Array) -> Array:
        check_vector(vector, self.shape[1], "mv")
        tensor = vector.reshape([size(F)[1] for F in self.factors])
        return mode_products(tensor, self.factors).reshape(-1)

    def transpose(self):
        return Kronecker([F.T for F in self.factors])


def submatrix(factors: Sequence[Array], places: Sequence[Array]) -> Array:
    r"""The rows and columns of $F_1 ⊗ … ⊗ F_P$ at some places, and nothing else of it.

    Args:
        factors: square arrays, `(m_p, m_p)`.
        places: the indices of the places, one array of shape `(k,)` per factor.

    Returns:
        Dense, `(k, k)`: the products of entries of the factors.
    """
    pairs = zip(factors, places, strict=True)
    return functools.reduce(jnp.multiply, [F[i[:, None], i] for F, i in pairs])


class Inverse(AbstractStructured):
    """$A^{-1}$ as an operator: its product with a vector is a solution."""

    operator: lx.AbstractLinearOperator

    @property
    def shape(self):
        return size(self.operator)

    @property
    def dtype(self):
        return self.operator.in_structure().dtype

    @compiled
    def mv(self, vector):
        return solve(self.operator, vector)

    def transpose(self):
        return Inverse(self.operator.T)


@solve.register(Kronecker)
def _(op, vector):
    # (F_1 ⊗ … ⊗ F_P)⁻¹ = F_1⁻¹ ⊗ … ⊗ F_P⁻¹
    for F in op.factors:
        check_square(F, "solve")
    return Kronecker([Inverse(as_operator(F)) for F in op.factors]).mv(vector)


@logdet.register(Kronecker)
def _(op):
    # log|F_1 ⊗ … ⊗ F_P| = Σ_p (n / n_p) log|F_p|
    for F in op.factors:
        check_square(F, "logdet")
    n = op.shape[0]
    return sum(n // size(F)[0] * logdet(as_operator(F)) for F in op.factors)


@diagonal.register(Kronecker)
def _(op):
    # diag(F_1 ⊗ … ⊗ F_P) = diag F_1 ⊗ … ⊗ diag F_P
    for F in op.factors:
        check_square(F, "diagonal")
    return outer([diagonal(as_operator(F)) for F in op.factors]).reshape(-1)


@trace.register(Kronecker)
def _(op):
    # tr(F_1 ⊗ … ⊗ F_P) = Π_p tr F_p
    for F in op.factors:
        check_square(F, "trace")
    return math.prod(trace(as_operator(F)) for F in op.factors)


@sqrt.register(Kronecker)
def _(op):
    # (R_1 ⊗ … ⊗ R_P)(R_1 ⊗ … ⊗ R_P)ᴴ = R_1 R_1ᴴ ⊗ … ⊗ R_P R_Pᴴ
    return Kronecker([sqrt(as_operator(F)) for F in op.factors])


@eigh.register(Kronecker)
def _(op):
    # eigenvalues multiply, eigenvectors are Kronecker products
    values, vectors = zip(*(eigh(as_operator(F)) for F in op.factors), strict=True)
    return outer(values), Kronecker([_unwrap(U) for U in vectors])


def _unwrap(op):
    return op.matrix if isinstance(op, lx.MatrixLinearOperator) else op


@lx.tridiagonal.register(Kronecker)
def _(op):
    # entry (i, j) is the product of the entries of the factors at (i_p, j_p)
    check_square(op, "lx.tridiagonal")
    factors = [dense(as_operator(F)) for F in op.factors]
    i = jnp.arange(op.shape[0])

    def entries(rows, columns):
        places = (
            jnp.unravel_index(rows, [len(F) for F in factors]),
            jnp.unravel_index(columns, [F.shape[1] for F in factors]),
        )
        return math.prod(F[k, l] for F, k, l in zip(factors, *places, strict=True))

    return entries(i, i), entries(i[1:], i[:-1]), entries(i[:-1], i[1:])
