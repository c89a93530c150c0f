"""Where a mixture begins: a few episodes for each kind."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

# Episodes per parameter that a kind begins with: few, so that kinds differ.
PER_PARAMETER = 3


def kinds_of(theta: Float[Array, "n p"], k: int, key: PRNGKeyArray) -> Float[Array, "n k"]:
    """Shares of the episodes in each of `k` kinds: a few random ones belong to each.

    Args:
        theta: a first estimate of the parameters of each episode.
        k: the number of kinds.
        key: a JAX random key.
    """
    n, p = theta.shape
    size = max(1, min(PER_PARAMETER * p, n // k))
    rows = jax.random.permutation(key, n)[: k * size].reshape(k, size)
    return jnp.zeros((n, k), theta.dtype).at[rows, jnp.arange(k)[:, None]].set(1.0)
