"""One step of BFGS up an objective that changes a little between the steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The longest step, in unconstrained coordinates, and how it is shortened until it rises.
LONGEST, SHORTER, TRIES = 1.0, 0.3, 5
ENOUGH = 1e-4


class Ascent(NamedTuple):
    """What is remembered from step to step.

    Attributes:
        inverse: the approximate inverse of minus the Hessian.
    """

    inverse: Float[Array, "m m"]

    @classmethod
    def start(cls, z: Float[Array, " m"]) -> "Ascent":
        return cls(0.01 * jnp.eye(len(z), dtype=z.dtype))


def ascended(
    objective: Callable[[Array], Float[Array, ""]], z: Float[Array, " m"], ascent: Ascent
) -> tuple[Float[Array, " m"], Ascent]:
    """A point where the objective is higher, or the same point if none was found.

    Args:
        objective: in nats, of unconstrained coordinates.
        z: where it starts.
        ascent: what is remembered of earlier steps.

    Source: Nocedal & Wright (2006), "Numerical optimization", section 6.1.
    """
    value, slope = jax.value_and_grad(objective)(z)
    direction = ascent.inverse @ slope
    up = direction @ slope > 0
    direction = jnp.where(up, direction, 0.01 * slope)
    direction = direction * jnp.minimum(1.0, LONGEST / (jnp.abs(direction).max() + 1e-30))
    promised = direction @ slope

    def is_low(carry):
        size, found, tries = carry
        return ~(found >= value + ENOUGH * size * promised) & (tries < TRIES)

    def shorten(carry):
        size, _, tries = carry
        size = size * SHORTER
        return size, objective(z + size * direction), tries + 1

    start = (jnp.ones((), z.dtype), objective(z + direction), 0)
    size, found, _ = jax.lax.while_loop(is_low, shorten, start)
    rose = found >= value
    step = jnp.where(rose, size, 0.0) * direction
    there = z + step
    change = slope - jax.grad(objective)(there)  # of minus the slope
    curvature = change @ step
    eye = jnp.eye(len(z), dtype=z.dtype)
    ρ = 1 / jnp.where(curvature > 0, curvature, 1.0)
    V = eye - ρ * jnp.outer(step, change)
    updated = V @ ascent.inverse @ V.T + ρ * jnp.outer(step, step)
    good = rose & (curvature > 1e-12) & jnp.isfinite(updated).all()
    # A step that failed says that what is remembered is wrong.
    kept = jnp.where(rose, ascent.inverse, 0.1 * ascent.inverse)
    return there, Ascent(jnp.where(good, updated, kept))
