"""L-BFGS: the direction of a quasi-Newton step, from a few differences of slopes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Differences kept. More seldom help.
SIZE = 10
# A difference is kept if the curvature that it shows is at least this share of the
# largest that it could show. Along others the inverse would lose its sign.
LEAST_CURVATURE = 1e-10


class Memory(NamedTuple):
    """Moves and differences of slopes, the last one last; zero where there are none yet."""

    moves: Float[Array, "m p"]
    slopes: Float[Array, "m p"]
    curvature: Float[Array, " m"]  # their inner products


def empty(position: Float[Array, " p"]) -> Memory:
    """Before the first step."""
    none = jnp.zeros((SIZE, position.size), position.dtype)
    return Memory(none, none, jnp.zeros(SIZE, position.dtype))


def remembered(
    memory: Memory, move: Float[Array, " p"], change: Float[Array, " p"]
) -> Memory:
    """With one more move and change of slope, if the loss curves upwards along it."""
    curvature = jnp.vdot(move, change)
    largest = jnp.linalg.norm(move) * jnp.linalg.norm(change)
    keep = (curvature > LEAST_CURVATURE * largest) & (largest > 0)
    rows = zip(memory, (move, change, curvature), strict=True)
    pushed = Memory(*(jnp.concatenate([a[1:], b[None]]) for a, b in rows))
    return jax.tree.map(lambda new, old: jnp.where(keep, new, old), pushed, memory)


def direction(memory: Memory, slope: Float[Array, " p"]) -> Float[Array, " p"]:
    r"""$-H g$, with $H$ the inverse Hessian that the memory stands for.

    Without memory it is the direction of steepest descent, of length one at most.

    Source: Nocedal (1980), "Updating quasi-Newton matrices with limited storage": the
    two-loop recursion.
    """
    known = memory.curvature > 0
    rho = jnp.where(known, 1 / jnp.where(known, memory.curvature, 1.0), 0.0)

    def back(q, row):
        move, change, weight = row
        share = weight * jnp.vdot(move, q)
        return q - share * change, share

    rows = (memory.moves, memory.slopes, rho)
    q, shares = jax.lax.scan(back, slope, rows, reverse=True)
    last = memory.slopes[-1]
    scale = memory.curvature[-1] / jnp.where(known[-1], jnp.vdot(last, last), 1.0)
    unit = 1 / jnp.maximum(1.0, jnp.linalg.norm(slope))
    q = jnp.where(known[-1], scale, unit) * q

    def forth(q, row):
        (move, change, weight), share = row
        return q + (share - weight * jnp.vdot(change, q)) * move, None

    return -jax.lax.scan(forth, q, (rows, shares))[0]
