"""Checks of the solution of one draw."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.model.check import Check
from probkit.model.residuals import LEAST_EXPLAINED, STANDARD_ERRORS
from probkit.models.pde import system
from probkit.models.pde.solution import Solver, some

# Limits of the residual and of the misfit, relative to their sizes; and about how many
# points there are at which combinations of u are looked at.
LARGEST_RESIDUAL, LARGEST_MISFIT, WATCHED = 1e-4, 1e-5, 200
# How much of the prior sd of a combination of u may be left. Exact conditions leave 1e-10
# to 1e-5 in a problem that is well posed, and 1e-4 to 1 in one that is not. Noisy
# observations may leave more.
OPEN_EXACT, OPEN_NOISY = 3e-5, 0.5


def measured(solver: Solver) -> dict[str, Float[Array, ""]]:
    """The numbers that the checks compare with their limits."""
    problem, θ = solver.problem, solver.parameters
    found = solver.solution(solver.fields())
    between = {o: found.derivative(problem.midpoints, o) for o in problem.held_out.orders}
    residual = problem.held_out(between, θ.unknowns)
    squares = jnp.zeros(())
    for rows in solver.faces:
        squares += jnp.sum((rows.factor @ found.mean + rows.loc - rows.value) ** 2)
    count = sum(condition.values.size for condition in problem.conditions)
    # Combinations of u by their prior sd, and the sd that the conditions leave them.
    places = some(problem.midpoints, math.ceil(WATCHED ** (1 / len(problem.axes))))
    prior = system.kron([s(x) for s, x in zip(found.spans, places, strict=True)])
    after = jax.scipy.linalg.solve_triangular(found.root, prior.T, trans=1)
    widest = jnp.linalg.norm(prior, ord=2)
    open_share = OPEN_EXACT if problem.values is None else OPEN_NOISY
    left = jnp.linalg.svd(after, compute_uv=False)
    highest = [
        jnp.max(jnp.abs(k.frequency) + 2 / (2 * jnp.pi * k.lengthscale)) * 2 * (x[1] - x[0])
        for k, x in zip(θ.kernels, problem.grid, strict=True)
    ]
    seen = {}
    if problem.values is not None:
        seen = solver.fit_to_observations(found)._asdict()
    return seen | {
        "held_out": jnp.sqrt(jnp.mean(residual**2))
        / solver.collocation.residual_size(θ.unknowns),
        "faces": jnp.sqrt(squares / max(1, count)) / problem.size,
        "frequency": jnp.max(jnp.stack(highest)),
        "open": jnp.sum(left > open_share * widest),
    }


def checks(
    found: dict[str, float], tolerance: float, num_observations: int = 0
) -> tuple[Check, ...]:
    """The verdicts.

    Args:
        found: the numbers of `measured`.
        tolerance: tolerance of the equation, relative to the size of the residual.
        num_observations: the number of observations.

    Returns:
        One check per way in which a solution can be wrong.
    """
    remedy = (
        "the grid is too coarse, so that a false frequency fits it as well, or the "
        "kernel does not reach the solution: raise `shape`, `rank` or `num_nodes`, "
        "search (`Closed(learn=True)`), or give `frequencies=`"
    )
    seen = _of_observations(found, num_observations) if num_observations else ()
    return (
        *seen,
        Check(
            "residual between the points",
            found["held_out"],
            "at most",
            max(3 * tolerance, LARGEST_RESIDUAL),
            remedy,
            "rms at midpoints, relative to its size a priori",
        ),
        Check(
            "misfit on faces",
            found["faces"],
            "at most",
            LARGEST_MISFIT,
            "the conditions contradict each other or the equation, or the kernel "
            "cannot follow them: raise `rank` or `num_nodes`",
            "rms, relative to the solution",
        ),
        Check(
            "highest frequency over the grid's",
            found["frequency"],
            "at most",
            1.0,
            "the grid cannot distinguish this frequency from a lower one: raise `shape`",
            "of the kernel, with two widths of its bump",
        ),
        Check(
            "directions left open",
            int(found["open"]),
            "at most",
            0,
            "the conditions do not determine the solution: give it on more faces (an "
            "inflow, an initial velocity), or add observations",
            "combinations of u of which little is known",
        ),
    )


def _of_observations(found: dict[str, float], count: int) -> tuple[Check, ...]:
    elsewhere = (
        "look at the fit beside the observations; another start (`start=`), narrower "
        "ranges of unknowns, `frequencies=`, or another equation"
    )
    return (
        Check(
            "share of the observations explained",
            found["explained"],
            "at least",
            LEAST_EXPLAINED,
            f"the solution is next to nothing and all is noise: {elsewhere}",
            "of their sum of squares",
        ),
        Check(
            "correlation of neighbouring residuals",
            found["neighbours"],
            "at most",
            STANDARD_ERRORS / math.sqrt(count),
            f"the solution leaves a pattern in what it does not explain: {elsewhere}",
            "0 for independent noise",
        ),
        Check(
            "mean square of the residuals",
            found["chi_square"],
            "at most",
            1 + STANDARD_ERRORS * math.sqrt(2 / count),
            f"the observations are further from the solution than their noise: {elsewhere}",
            "in units of the noise",
        ),
    )
