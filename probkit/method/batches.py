"""A map over many draws in batches, with the memory of one batch and one compiled body."""

import jax
import jax.numpy as jnp

BATCH = 64


def map_in_batches(function, tree, batch: int = BATCH):
    """`jax.vmap(function)` over the leading axis of `tree`, `batch` entries at a time.

    The last batch is filled up with copies of the last entry. `jax.lax.map` would instead
    compile the function a second time for the remainder.

    Args:
        function: a function of one entry, to arrays.
        tree: arrays with a leading axis of the same length, at least one.
        batch: the number of entries in one batch.

    Returns:
        What `function` returns, with a leading axis.
    """
    count = jax.tree.leaves(tree)[0].shape[0]
    size = min(batch, count)
    whole = -(-count // size) * size
    rows = jnp.minimum(jnp.arange(whole), count - 1)
    batches = jax.tree.map(lambda a: a[rows].reshape(-1, size, *a.shape[1:]), tree)
    out = jax.lax.map(jax.vmap(function), batches)
    return jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:])[:count], out)
