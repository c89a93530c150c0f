"""The Laplace approximation: a normal distribution around a maximum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from probkit.method import AbstractApproximation
from probkit.model import Data, Sites
from probkit.model.check import Check
from probkit.model.density import Program, constrain, unconstrain, zero_position

# The smallest curvature, relative to the largest, of a direction that the data or the prior
# identify.
IDENTIFIED = 1e-8


class Normal(AbstractApproximation):
    """A normal distribution in unconstrained coordinates.

    Attributes:
        maximum: its mean, in the order of `zero_position` as one vector.
        root: a root of its covariance, `root @ root.T`.
    """

    maximum: Float[Array, " p"]
    root: Float[Array, "p p"]

    @classmethod
    def at(
        cls,
        objective: Callable[[Sites], Float[Array, ""]],
        program: Program,
        data: Data,
        sites: Sites,
    ) -> tuple["Normal", Float[Array, ""]]:
        """The Laplace approximation $N(z, -H^{-1})$, $H$ the Hessian at the maximum $z$.

        Args:
            objective: in nats, of unconstrained coordinates.
            program: the model's program.
            data: its data.
            sites: the maximum, in constrained space.

        Returns:
            The distribution, and the smallest curvature relative to the largest.
        """
        maximum, unravel = ravel_pytree(unconstrain(program, data, sites))
        flat = lambda z: objective(unravel(z))  # noqa: E731
        values, vectors = jnp.linalg.eigh(-jax.hessian(flat)(maximum))
        root = vectors / jnp.sqrt(jnp.maximum(values, IDENTIFIED * values[-1]))
        return cls(maximum, root), values[0] / values[-1]

    def sample(self, model, data, key, num):
        _, unravel = ravel_pytree(zero_position(model, data))
        noise = jax.random.normal(key, (num, self.maximum.size), self.maximum.dtype)
        positions = self.maximum + noise @ self.root.T
        return jax.vmap(lambda z: constrain(model, data, unravel(z)))(positions)


def check_curvature(least: float) -> Check:
    """Check that every direction is identified at the maximum.

    Args:
        least: the smallest curvature relative to the largest.
    """
    return Check(
        "least curvature at the optimum",
        least,
        "at least",
        IDENTIFIED,
        "a direction is not identified, so that the Laplace draws are wrong along it: use "
        "`pk.NUTS()`",
        "relative to the largest",
    )
