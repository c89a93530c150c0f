"""L-BFGS: the direction of a quasi-Newton step, from a few differences of gradients.

Positions are vectors of `p` unconstrained coordinates. A slope is the gradient of the loss
there, in nats per coordinate.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The number of differences kept. More seldom help.
SIZE = 10
# A difference is kept if its curvature is at least this share of the largest that a move
# and a change of slope of these lengths can have. With others the approximate Hessian
# would no longer be positive definite.
LEAST_CURVATURE = 1e-10


class Memory(NamedTuple):
    """The last moves and changes of slope, the newest last; zero while there are fewer."""

    moves: Float[Array, "m p"]
    slopes: Float[Array, "m p"]
    curvature: Float[Array, " m"]  # their inner products


def empty(position: Float[Array, " p"]) -> Memory:
    """The memory before the first step, for positions like `position`."""
    none = jnp.zeros((SIZE, position.size), position.dtype)
    return Memory(none, none, jnp.zeros(SIZE, position.dtype))


def remembered(
    memory: Memory, move: Float[Array, " p"], change: Float[Array, " p"]
) -> Memory:
    """The memory with one move more, if the loss is convex along it.

    Args:
        memory: the memory before.
        move: the change of position.
        change: the change of slope.

    Returns:
        The new memory, without the oldest move; or the old one.
    """
    curvature = jnp.vdot(move, change)
    largest = jnp.linalg.norm(move) * jnp.linalg.norm(change)
    keep = (curvature > LEAST_CURVATURE * largest) & (largest > 0)
    rows = zip(memory, (move, change, curvature), strict=True)
    pushed = Memory(*(jnp.concatenate([a[1:], b[None]]) for a, b in rows))
    return jax.tree.map(lambda new, old: jnp.where(keep, new, old), pushed, memory)


def direction(memory: Memory, slope: Float[Array, " p"]) -> Float[Array, " p"]:
    r"""The direction of the next step, $-H g$ with an approximate inverse Hessian $H$.

    With an empty memory it is the direction of steepest descent, with length one at most.

    Args:
        memory: the last moves, which define $H$.
        slope: $g$, the gradient of the loss.

    Returns:
        The direction; a whole step along it has size one.

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
