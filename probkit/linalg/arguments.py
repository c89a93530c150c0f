"""Arguments of the operators: factors, noise and sizes, checked and converted."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike


def size(factor: Any) -> tuple[int, int]:
    """Rows and columns of an array or operator."""
    if _is_operator(factor):
        return factor.out_size(), factor.in_size()
    rows, columns = factor.shape
    return rows, columns


def inexact(x: Any) -> Array:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)


def as_factors(factors: Sequence[Any], name: str) -> tuple[Any, ...]:
    """Factors as the classes keep them: operators, or inexact arrays of two axes."""
    out = tuple(F if _is_operator(F) else inexact(F) for F in factors)
    bad = [F.shape for F in out if not _is_operator(F) and F.ndim != 2]
    if bad or not out:
        raise ValueError(
            f"`{name}` takes one or more matrices (arrays of two axes, or lineax "
            f"operators), and got {f'shapes {bad}' if bad else 'none'}."
        )
    return out


def as_arrays(factors: Sequence[Any], name: str) -> tuple[Array, ...]:
    """Factors of a class that takes arrays only."""
    operators = [type(F).__name__ for F in factors if _is_operator(F)]
    if operators:
        raise ValueError(
            f"`{name}` takes arrays, and got operators {operators}: give `dense(factor)`."
        )
    return as_factors(factors, name)


def _is_operator(x):
    return isinstance(x, lx.AbstractLinearOperator)


def as_noise(noise: ArrayLike, factors: Sequence[Array], name: str) -> Array:
    """A variance in the precision of the factors."""
    if jnp.shape(noise):
        raise ValueError(
            f"`{name}(noise=...)` has shape {jnp.shape(noise)}; it is one variance for all "
            "entries."
        )
    # A traced value is not known here; the answers are NaN where it is too low.
    if not isinstance(noise, jax.core.Tracer) and np.any(np.asarray(noise) < 0):
        raise ValueError(
            f"`{name}(noise=...)` is {noise}; it is a variance, and must not be below 0."
        )
    return inexact(noise).astype(jnp.finfo(jnp.result_type(*factors)).dtype)


def check_square(factor: Any, name: str) -> None:
    rows, columns = size(factor)
    if rows != columns:
        raise ValueError(
            f"`{name}` needs square matrices, and this one is {rows} x {columns}."
        )


SEVERAL = {
    "mv": "for several use `matmat(op, B)`, with one column per vector",
    "solve": "for several give a matrix, with one column per vector",
}


def check_vector(vector: ArrayLike, length: int, question: str) -> None:
    if jnp.shape(vector) != (length,):
        several = SEVERAL.get(question, "for several use `jax.vmap`")
        raise ValueError(
            f"`{question}` got a vector of shape {jnp.shape(vector)} for an operator that "
            f"takes {length} entries; {several}."
        )
