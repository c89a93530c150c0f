"""Eigenvalues of Hermitian matrices, and their derivatives where they may coincide."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array


def hermitian(matrix: Array) -> Array:
    """The nearest Hermitian matrix."""
    return (matrix + matrix.conj().T) / 2


@jax.custom_jvp
def eigh_of_matrix(matrix: Array) -> tuple[Array, Array]:
    """`jnp.linalg.eigh`, whose derivative is finite at equal eigenvalues."""
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return values, vectors


@eigh_of_matrix.defjvp
def _(primals, tangents):
    # With E = Uᴴ dG U: dλ_i = E_ii and dU = U K, K_ij = E_ij / (λ_j - λ_i). Within a group
    # of equal eigenvalues every rotation of U is right, and none is taken. Gaps below
    # rounding count as zero; a gap g just above costs about log10(λ_max / g) digits.
    (matrix,), (tangent,) = primals, tangents
    values, U = eigh_of_matrix(matrix)
    E = U.conj().T @ tangent @ U
    gap = values - values[:, None]
    same = jnp.abs(gap) <= len(values) * jnp.finfo(values.dtype).eps * jnp.abs(values).max()
    K = jnp.where(same, 0, E / jnp.where(same, 1, gap))
    return (values, U), (jnp.diagonal(E).real, U @ K)


def outer(vectors: Sequence[Array]) -> Array:
    """$v_1 ⊗ … ⊗ v_P$ as a tensor with one axis per vector.

    Args:
        vectors: $v_p$, shape `(n_p,)`; one or more.

    Returns:
        Shape `(n_1, …, n_P)`, in the product of their units.
    """
    return functools.reduce(jnp.multiply.outer, vectors)
