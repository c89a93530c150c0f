"""What a fit leaves of the observations: limits, and a pattern among neighbours."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# The least share of the observations that is explained; and the most, in standard errors
# for independent noise, by which neighbours may correlate and the mean square may exceed
# the noise.
LEAST_EXPLAINED, STANDARD_ERRORS = 0.1, 4.0


def of_neighbours(
    places: Float[Array, "n d"], left: Float[Array, " n"]
) -> Float[Array, ""]:
    """The correlation of each residual with that of the nearest other place.

    Args:
        places: in units in which distances along all axes compare.
        left: the residuals, of mean zero.

    Returns:
        The mean product, relative to the mean square: 0 for independent noise, with a
        standard error of about one over the root of n.
    """
    apart = jnp.sum((places[:, None] - places) ** 2, -1)
    nearest = jnp.argmin(apart + jnp.diag(jnp.full(len(left), jnp.inf)), 1)
    return jnp.mean(left * left[nearest]) / jnp.mean(left**2)
