"""Products of a tensor with a matrix along each of its axes, as plain GEMMs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, Inexact

from probkit.linalg.arguments import size
from probkit.linalg.compiled import compiled


@compiled
def mode_products(tensor: ArrayLike, matrices: Sequence[Any]) -> Array:
    r"""$⟦T; F_1, …, F_P⟧$, the tensor with $F_p$ applied along axis $p$.

    $$⟦T; F_1, …, F_P⟧_{i_1 … i_P}
    = \sum_{j_1 … j_P} T_{j_1 … j_P} \prod_p (F_p)_{i_p j_p}$$

    With both sides flattened in C order this is $(F_1 ⊗ … ⊗ F_P)\, t$.

    Args:
        tensor: $T$, shape `(n_1, …, n_P)`, real or complex.
        matrices: $P$ entries, each an array of shape `(m_p, n_p)`, a lineax operator of
            these sizes, or None, which leaves axis $p$ as it is.

    Returns:
        Shape `(m_1, …, m_P)`, in the common dtype.

    Raises:
        ValueError: if the number or the sizes of the matrices do not fit the tensor.
    """
    T = jnp.asarray(tensor)
    sizes = tuple(size(F)[1] if F is not None else None for F in matrices)
    if len(sizes) != T.ndim or any(
        n is not None and n != axis for n, axis in zip(sizes, T.shape, strict=True)
    ):
        raise ValueError(
            f"`mode_products` got a tensor of shape {T.shape} for matrices with {sizes} "
            "columns; axis p must be as long as matrix p has columns."
        )
    shape = list(T.shape)
    # The last axis is multiplied by its matrix and becomes the first, so that after P
    # rounds the axes are in order again. Each round is one GEMM, F Tᵀ, with operands in the
    # order of memory; no axis is moved by a copy.
    for p in reversed(range(len(shape))):
        T = _last_to_front(T.reshape(-1, shape[p]), matrices[p])
        shape[p] = T.shape[0]
    return T.reshape(shape)


def _last_to_front(T, F):
    if F is None:
        return T.T
    if isinstance(F, lx.AbstractLinearOperator):
        return jax.vmap(F.mv, out_axes=1)(T)
    dtype = jnp.result_type(F, T)
    # Behind the barrier a transposed F, which is small, is copied. Otherwise it becomes
    # part of a GEMM with both sides transposed, which takes twice as long on CPU.
    F = jax.lax.optimization_barrier(F.astype(dtype))
    # Of float32 numbers a GPU would otherwise multiply the first ten bits.
    return jax.lax.dot_general(
        F, T.astype(dtype), (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST
    )


def abs2(a: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """Squared modulus of each entry.

    Args:
        a: real or complex, any shape.

    Returns:
        Real, shape of `a`, in its units squared.
    """
    return jnp.real(a * jnp.conj(a))
