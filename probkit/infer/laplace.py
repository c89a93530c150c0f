"""The Laplace approximation: a normal distribution around a maximum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.model import Data, Sites
from probkit.model.check import Check
from probkit.model.density import Program, constrain, unconstrain

# The smallest curvature, relative to the largest, of a direction that the data or the prior
# identify.
IDENTIFIED = 1e-8


def laplace(
    objective: Callable[[Sites], Float[Array, ""]],
    program: Program,
    data: Data,
    sites: Sites,
    num_draws: int,
    key: PRNGKeyArray,
) -> tuple[Sites, Float[Array, ""]]:
    """Draws of $N(z, -H^{-1})$, $H$ the Hessian of the objective at its maximum $z$.

    Args:
        objective: in nats, of unconstrained coordinates.
        program: the model's program.
        data: its data.
        sites: the maximum, in constrained space.
        num_draws: the number of draws.
        key: a JAX random key.

    Returns:
        The draws, `{site: array[draw, ...]}` in constrained space, and the smallest
        curvature relative to the largest.
    """
    maximum, unravel = ravel_pytree(unconstrain(program, data, sites))
    flat = lambda z: objective(unravel(z))  # noqa: E731
    values, vectors = jnp.linalg.eigh(-jax.hessian(flat)(maximum))
    root = vectors / jnp.sqrt(jnp.maximum(values, IDENTIFIED * values[-1]))
    noise = jax.random.normal(key, (num_draws, maximum.size), maximum.dtype)
    positions = maximum + noise @ root.T
    draws = jax.vmap(lambda z: constrain(program, data, unravel(z)))(positions)
    return draws, values[0] / values[-1]


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
