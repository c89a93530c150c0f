"""Maps over lanes and draws: side by side, or one after another where threads could block.

On a CPU the matrices of a batch are factored by the threads that also run the program, if
there is enough work to share. Each batch waits for threads that are free, so that two
batches at the same time can wait for each other for ever (jaxlib before 0.11.2, with as
many batches as threads). One matrix alone is never shared out.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun, jaxprs_in_params

BATCH = 64
# Operations of LAPACK, by their names in a traced program.
SHARED_OUT = frozenset(
    [
        *("cholesky", "eig", "eigh", "geqrf", "geqp3", "hessenberg", "householder_product"),
        *("lu", "ormqr", "qr", "schur", "svd", "triangular_solve"),
        *("tridiagonal", "tridiagonal_solve"),
    ]
)
# A batch of less work than this, in products of numbers, stays on one thread. Measured for
# `eigh`, which is shared out first: batches of 64,000 products are, and of 16,000 not.
LEAST_SHARED = 10_000


def map_in_batches(function: Callable[[Any], Any], tree: Any, batch: int = BATCH) -> Any:
    """`jax.vmap(function)` over the leading axis of `tree`, `batch` entries at a time.

    On a CPU it takes one entry at a time. The last batch is filled up with copies of the
    last entry. `jax.lax.map` would instead compile the function a second time for the
    remainder.

    Args:
        function: a function of one entry, to arrays.
        tree: arrays with a leading axis of the same length, at least one.
        batch: the number of entries in one batch.

    Returns:
        What `function` returns, with a leading axis.
    """
    if on_cpu():
        return jax.lax.map(function, tree)
    count = jax.tree.leaves(tree)[0].shape[0]
    size = min(batch, count)
    whole = -(-count // size) * size
    rows = jnp.minimum(jnp.arange(whole), count - 1)
    batches = jax.tree.map(lambda a: a[rows].reshape(-1, size, *a.shape[1:]), tree)
    out = jax.lax.map(jax.vmap(function), batches)
    return jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:])[:count], out)


def side_by_side(function: Callable[[Any], Any], tree: Any) -> Any:
    """`jax.vmap(function)` over the leading axis of `tree`, if threads cannot block.

    Otherwise one entry after another, by `jax.lax.map`.

    Args:
        function: a function of one entry, to arrays.
        tree: arrays with a leading axis of the same length, at least one.

    Returns:
        What `function` returns, with a leading axis.
    """
    leaves, structure = jax.tree.flatten(tree)
    if not on_cpu():
        return jax.vmap(function)(tree)
    one = jax.tree.unflatten(structure, [jax.eval_shape(lambda a: a[0], a) for a in leaves])
    traced, out = jax.make_jaxpr(function, return_shape=True)(one)
    work = len(leaves[0]) * max(_work(traced.jaxpr), default=0)

    # What was traced, so that it is not traced again.
    def flat(leaves):
        return jaxpr_as_fun(traced)(*leaves)

    found = jax.vmap(flat)(leaves) if work < LEAST_SHARED else jax.lax.map(flat, leaves)
    return jax.tree.unflatten(jax.tree.structure(out), found)


def shared_out(jaxpr: Any) -> Iterator[str]:
    """The operations of a program that a CPU shares out over its threads, by name.

    Args:
        jaxpr: the traced program.
    """
    for equation in jaxpr.eqns:
        if equation.primitive.name in SHARED_OUT:
            *others, m, n = equation.invars[0].aval.shape
            count = math.prod(others)
            if count > 1 and count * m * n * min(m, n) > LEAST_SHARED:
                yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from shared_out(inner)


def on_cpu() -> bool:
    """Whether programs run on a CPU."""
    return jax.default_backend() == "cpu"


def _work(jaxpr: Any) -> Iterator[int]:
    """Products of numbers in each operation of LAPACK of a program, about."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in SHARED_OUT:
            shapes = [v.aval.shape for v in equation.invars if v.aval.ndim > 1]
            *others, m, n = max(shapes, key=math.prod)
            yield math.prod(others) * m * n * min(m, n)
        for inner in jaxprs_in_params(equation.params):
            yield from _work(inner)
