"""One step of BFGS up an objective that changes a little between the steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probkit.method.protocol import either

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


class _Search(NamedTuple):
    """A line search. Its first evaluation is that of the start."""

    size: Float[Array, ""]  # of the step that is evaluated next
    value: Float[Array, ""]  # at the start
    slope: Float[Array, " m"]
    beside: Any  # what else the objective returned there
    found: Float[Array, ""]  # at the last step
    slope_there: Float[Array, " m"]
    beside_there: Any
    tries: Int[Array, ""]


def ascended(
    objective: Callable[[Array], tuple[Float[Array, ""], Any]],
    z: Float[Array, " m"],
    ascent: Ascent,
    moves: Bool[Array, ""],
) -> tuple[Float[Array, " m"], Any, Ascent]:
    """A point where the objective is higher, or the same point if none was found.

    The objective and its slope are compiled once, because they are most of the program.

    Args:
        objective: in nats, of unconstrained coordinates; and what else follows from these.
        z: where it starts.
        ascent: what is remembered of earlier steps.
        moves: whether to take a step. If not, the objective is evaluated once.

    Returns:
        The point, what else the objective returned there, and what to remember.

    Source: Nocedal & Wright (2006), "Numerical optimization", section 6.1.
    """

    def direction(slope):
        d = ascent.inverse @ slope
        d = jnp.where(d @ slope > 0, d, 0.01 * slope)
        return d * jnp.minimum(1.0, LONGEST / (jnp.abs(d).max() + 1e-30))

    def is_low(search: _Search) -> Bool[Array, ""]:
        promised = direction(search.slope) @ search.slope
        enough = search.value + ENOUGH * search.size * promised
        low = ~(search.found >= enough) & (search.tries <= TRIES)
        return (low & moves) | (search.tries == 0)

    def evaluate(search: _Search) -> _Search:
        first = search.tries == 0
        size = jnp.where(search.tries <= 1, 1.0, search.size * SHORTER)
        step = jnp.where(first, 0.0, size) * direction(search.slope)
        of_both = jax.value_and_grad(objective, has_aux=True)
        (found, beside), slope = of_both(z + step)
        return _Search(
            size,
            jnp.where(first, found, search.value),
            jnp.where(first, slope, search.slope),
            either(first, beside, search.beside),
            jnp.where(first, -jnp.inf, found),
            slope,
            beside,
            search.tries + 1,
        )

    none = jnp.zeros((), z.dtype)
    shapes = jax.eval_shape(objective, z)[1]
    blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    tries = jnp.zeros((), jnp.int32)
    start = _Search(none, none, 0 * z, blank, none - jnp.inf, 0 * z, blank, tries)
    search = jax.lax.while_loop(is_low, evaluate, start)
    rose = search.found >= search.value
    step = jnp.where(rose, search.size, 0.0) * direction(search.slope)
    change = search.slope - search.slope_there  # of minus the slope
    curvature = change @ step
    ρ = 1 / jnp.where(curvature > 0, curvature, 1.0)
    V = jnp.eye(len(z), dtype=z.dtype) - ρ * jnp.outer(step, change)
    updated = V @ ascent.inverse @ V.T + ρ * jnp.outer(step, step)
    good = rose & (curvature > 1e-12) & jnp.isfinite(updated).all()
    # A step that failed says that what is remembered is wrong.
    kept = jnp.where(rose | ~moves, ascent.inverse, 0.1 * ascent.inverse)
    beside = either(rose, search.beside_there, search.beside)
    return z + step, beside, Ascent(jnp.where(good, updated, kept))
