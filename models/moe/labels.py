"""One order of experts for all draws."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from optax.assignment import hungarian_algorithm


def order_like(
    log_r: Float[Array, "n k"], reference: Float[Array, "n k"]
) -> Int[Array, " k"]:
    """The order in which responsibilities agree best with others, an assignment problem.

    It minimises the divergence between the two tables (Stephens 2000, "Dealing with label
    switching in mixture models"). A sort by one coefficient would cut through the
    posterior wherever that coefficient does not distinguish the experts.

    Args:
        log_r: logarithms of responsibilities.
        reference: logarithms of those to agree with.
    """
    target = jnp.exp(reference)
    theirs, ours = hungarian_algorithm(-target.T @ jnp.maximum(log_r, -700.0))
    return jnp.zeros_like(ours).at[theirs].set(ours)


def order_by_input(log_r: Float[Array, "n k"], x: Float[Array, "n d"]) -> Int[Array, " k"]:
    """By the mean of the first input, weighted by responsibilities."""
    r = jax.nn.softmax(log_r, axis=-1)
    return jnp.argsort(r.T @ x[:, 0] / r.sum(0))
