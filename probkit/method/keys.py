"""Random keys, split where each new number of them is a program of its own."""

import jax
from jaxtyping import Array, PRNGKeyArray

from probkit.method.programs import jit_for_one_run


@jit_for_one_run
def split_keys(key: PRNGKeyArray, count: int) -> Array:
    """`jax.random.split(key, count)`."""
    return jax.random.split(key, count)


@jit_for_one_run
def two_keys(key: PRNGKeyArray) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """`jax.random.split(key)` as two keys."""
    one, other = jax.random.split(key)
    return one, other
