"""Least squares with many columns of weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def weighted_grams(
    z: Float[Array, "n t"], weights: Float[Array, "n m"]
) -> Float[Array, "m t t"]:
    """$Z^\\top \\mathrm{diag}(w_j) Z$ for each column of weights, as one matrix product.

    Args:
        z: $Z$, one row per observation.
        weights: $w$, one column per result.

    Returns:
        One matrix per column of weights.
    """
    (n, t), m = z.shape, weights.shape[1]
    weighted = (weights[:, :, None] * z[:, None, :]).reshape(n, m * t)
    return (z.T @ weighted).reshape(t, m, t).swapaxes(0, 1)


def solve_positive(matrix: Float[Array, "*b t t"], right: Float[Array, "*b t"]):
    factor = jnp.linalg.cholesky(matrix)
    half = jax.scipy.linalg.solve_triangular(factor, right[..., None], lower=True)
    whole = jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans="T")
    return whole[..., 0]
