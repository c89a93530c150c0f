"""The one place where something is added to a diagonal so that a factorisation succeeds."""

import jax.numpy as jnp
from jaxtyping import Array


def with_jitter(matrix: Array, factor: float = 10.0) -> Array:
    r"""$A + c\, ε\, \mathrm{tr}(A)\, I$, $ε$ the rounding unit of the dtype.

    Rounding in a Cholesky factorisation moves eigenvalues by a few $ε λ_{\max}$, and
    $λ_{\max} ≤ \mathrm{tr}\, A$. The jitter scales with the matrix, so that units of the
    data do not matter; in float64 it is $2·10^{-13}$ of the mean of the diagonal for
    $n = 100$, in float32 $10^{-4}$.

    Args:
        matrix: $A$, Hermitian positive semi-definite, `(n, n)`.
        factor: $c$.

    Returns:
        The matrix with a raised diagonal, in its dtype.
    """
    amount = factor * jnp.finfo(matrix.dtype).eps * jnp.trace(matrix).real
    return matrix + amount * jnp.eye(len(matrix), dtype=matrix.dtype)
