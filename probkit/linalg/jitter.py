"""The one place where something is added to a diagonal so that a factorisation succeeds."""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


@functools.singledispatch
def with_jitter(
    matrix: Array, factor: float = 10.0, *, amount: ArrayLike | None = None
) -> Any:
    r"""$A + a I$, by default with $a = c\, ε\, \mathrm{tr}(A)$.

    Here $ε$ is the rounding unit of the dtype. Rounding in a Cholesky factorisation moves
    eigenvalues by a few $ε λ_{\max}$, and $λ_{\max} ≤ \mathrm{tr}\, A$. The default
    scales with the matrix, so that units of the data do not matter. For $n = 100$ it is
    $2·10^{-13}$ of the mean of the diagonal in float64, and $10^{-4}$ in float32.

    Args:
        matrix: $A$, Hermitian positive semi-definite: an array of shape `(n, n)` or a
            `Toeplitz` operator.
        factor: $c$, without units.
        amount: $a$, one number in units of the matrix; `factor` is then not used.

    Returns:
        The matrix with a larger diagonal, of its own type and dtype.
    """
    if amount is None:
        amount = default_jitter(factor, jnp.trace(matrix).real, matrix.dtype)
    return matrix + amount * jnp.eye(len(matrix), dtype=matrix.dtype)


def default_jitter(factor: float, trace: Array, dtype: Any) -> Array:
    """A multiple of the rounding unit and of the trace."""
    return factor * jnp.finfo(dtype).eps * trace
