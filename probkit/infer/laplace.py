"""The Laplace approximation: a normal distribution about a maximum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.model import Data, Sites
from probkit.model.check import Check
from probkit.model.density import Program, constrain, unconstrain

# The least curvature, relative to the largest, of a direction that is identified.
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
        num_draws: how many draws.
        key: a JAX random key.

    Returns:
        The draws, in constrained space, and the least curvature relative to the largest.
    """
    mode, unravel = ravel_pytree(unconstrain(program, data, sites))
    flat = lambda z: objective(unravel(z))  # noqa: E731
    values, vectors = jnp.linalg.eigh(-jax.hessian(flat)(mode))
    root = vectors / jnp.sqrt(jnp.maximum(values, IDENTIFIED * values[-1]))
    noise = jax.random.normal(key, (num_draws, mode.size), mode.dtype)
    positions = mode + noise @ root.T
    draws = jax.vmap(lambda z: constrain(program, data, unravel(z)))(positions)
    return draws, values[0] / values[-1]


def check_curvature(least: float) -> Check:
    """That every direction is identified at the maximum."""
    return Check(
        "least curvature at the optimum",
        least,
        "at least",
        IDENTIFIED,
        "some direction is not identified: the Laplace draws along it mean nothing; use "
        "`pk.NUTS()`",
        "relative to the largest",
    )
