"""One order of components, and one set of signs, for all draws.

Components can be exchanged, and two modes of one component can both change their sign,
without a change of the surface.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from optax.assignment import hungarian_algorithm


def order_and_signs(
    factors: list[Float[Array, "_p r"]], reference: list[Float[Array, "_p r"]]
) -> tuple[Int[Array, " r"], Float[Array, "k r"]]:
    """The order and signs of the components of a draw that agree best with another draw.

    Args:
        factors: the components of each mode at its points.
        reference: those of the other draw.

    Returns:
        Which component comes at each place, and its sign in each mode. The product of the
        signs of a component is one.
    """
    agreement = jnp.stack(
        [_unit(u).T @ _unit(v) for u, v in zip(factors, reference, strict=True)]
    )
    ours, theirs = hungarian_algorithm(-jnp.prod(jnp.abs(agreement), axis=0))
    order = jnp.zeros_like(ours).at[theirs].set(ours)
    matched = agreement[:, order, jnp.arange(len(order))]
    signs = jnp.where(matched < 0, -1.0, 1.0)
    # Where the signs of a component disagree, its least certain mode gives way.
    weakest = jnp.argmin(jnp.abs(matched), axis=0)
    odd = jnp.prod(signs, axis=0) < 0
    flip = odd & (jnp.arange(len(factors))[:, None] == weakest)
    return order, jnp.where(flip, -signs, signs)


def _unit(u: Float[Array, "p r"]) -> Float[Array, "p r"]:
    return u / jnp.maximum(jnp.linalg.norm(u, axis=0), jnp.finfo(u.dtype).tiny)


def relabelled(
    white: Float[Array, "p d"],
    order: Int[Array, " r"],
    signs: Float[Array, " r"],
    count: int,
) -> Float[Array, "p d"]:
    """White noise of a mode with its components in another order and with other signs.

    Args:
        white: the states of one function after another.
        order: which component comes at each place.
        signs: of these.
        count: the number of functions, the main effect, which stays the last, among them.
    """
    p, d = white.shape
    by_function = white.reshape(p, count, d // count)
    r = len(order)
    moved = by_function[:, order] * signs[None, :, None]
    return jnp.concatenate([moved, by_function[:, r:]], axis=1).reshape(p, d)
