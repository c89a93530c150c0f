"""A map over many draws in batches: memory for one batch, one compiled body."""

import jax
import jax.numpy as jnp

BATCH = 64


def map_in_batches(function, tree, batch: int = BATCH):
    """`jax.vmap(function)` over the leading axis of `tree`, `batch` entries at a time.

    The last batch is filled up with copies of the last entry. `jax.lax.map` would compile
    the function twice instead, once for the remainder.
    """
    count = jax.tree.leaves(tree)[0].shape[0]
    size = min(batch, count)
    whole = -(-count // size) * size
    rows = jnp.minimum(jnp.arange(whole), count - 1)
    batches = jax.tree.map(lambda a: a[rows].reshape(-1, size, *a.shape[1:]), tree)
    out = jax.lax.map(jax.vmap(function), batches)
    return jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:])[:count], out)
