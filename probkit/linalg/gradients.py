"""Conjugate gradients, judged by what is left of the equation and not by the recursion."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

# A solution counts as found if what is left is so many rounding units of the product A x.
ROUNDING_UNITS = 10


class Progress(NamedTuple):
    """Where the iteration is.

    Attributes:
        x: the solution so far.
        left: $b - A x$.
        step: the number of steps.
    """

    x: Array
    left: Array
    step: Array


class Equation(NamedTuple):
    """$A x = b$ for a positive definite $A$, and what is near enough to a solution.

    Attributes:
        mv: the product with $A$.
        b: the right-hand side.
        rtol: tolerance on $|b - A x| / |b|$.
        largest: an eigenvalue of $A$ or more, which gives the rounding of $A x$.
    """

    mv: Callable[[Array], Array]
    b: Array
    rtol: float
    largest: Array

    def begin(self) -> Progress:
        return Progress(jnp.zeros_like(self.b), self.b, jnp.zeros((), int))

    def over(self, x: Array, left: Array) -> Array:
        """How often what is left exceeds what may be left; NaN if something is NaN."""
        size = jnp.linalg.norm(self.b)
        product = self.largest * jnp.linalg.norm(x) + size
        rounding = ROUNDING_UNITS * jnp.finfo(self.b.dtype).eps * product
        most = jnp.maximum(self.rtol * size, rounding)
        return jnp.where(size > 0, jnp.linalg.norm(left) / most, 0 * most)

    def verdict(self, end: Progress) -> Array:
        """The solution, or NaN if it is not found."""
        return jnp.where(self.over(end.x, end.left) <= 1, end.x, jnp.nan)

    def steps(self, begin: Progress, precondition: Callable, until: int) -> Progress:
        """Steps until it is solved, or until step `until`."""

        def unfinished(state):
            x, left, _, _, step = state
            return (self.over(x, left) > 1) & (step < until)

        def advance(state):
            x, left, direction, rho, step = state
            moved = self.mv(direction)
            length = rho / jnp.vdot(direction, moved).real
            x, left = x + length * direction, left - length * moved
            preconditioned = precondition(left)
            new = jnp.vdot(left, preconditioned).real
            return x, left, preconditioned + new / rho * direction, new, step + 1

        x, left, step = begin
        first = precondition(left)
        start = (x, left, first, jnp.vdot(left, first).real, step)
        x, _, _, _, step = jax.lax.while_loop(unfinished, advance, start)
        # In the recursion rounding adds up, and `left` becomes smaller than what is left.
        return Progress(x, self.b - self.mv(x), step)

    def rounds(self, begin: Progress, precondition: Callable, until: int) -> Progress:
        """Steps that begin again from what is left, as long as that becomes smaller."""

        def unfinished(state):
            now, before = state
            over = self.over(now.x, now.left)
            return (over > 1) & (over < before / 2) & (now.step < until)

        def again(state):
            now, _ = state
            return self.steps(now, precondition, until), self.over(now.x, now.left)

        far = jnp.full_like(self.largest, jnp.inf)
        return jax.lax.while_loop(unfinished, again, (begin, far))[0]
