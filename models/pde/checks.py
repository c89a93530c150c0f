"""Checks of the solution of one draw."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.residuals import LEAST_EXPLAINED, STANDARD_ERRORS
from probkit.models.pde import system
from probkit.models.pde.chart import in_pieces
from probkit.models.pde.problem import Problem
from probkit.models.pde.solution import Misfit, Solution, break_size, face_size, some

# Limits of the residual and of the misfit, relative to their sizes; and about how many
# points there are at which combinations of u are looked at.
LARGEST_RESIDUAL, LARGEST_MISFIT, WATCHED = 1e-4, 1e-5, 200
# Of coefficients of the highest derivatives: the change from point to point that counts,
# relative to their size, and the largest share of it within half a step.
LEAST_CHANGE, LARGEST_JUMP = 0.1, 0.9
# How much of the prior sd of a combination of u may be left. Exact conditions leave 1e-10
# to 1e-5 in a problem that is well posed, and 1e-4 to 1 in one that is not. Noisy
# observations may leave more.
OPEN_EXACT, OPEN_NOISY = 3e-5, 0.5


@jit_for_one_run
def measured(found: Solution, problem: Problem) -> dict[str, Float[Array, ""]]:
    """The numbers that the checks compare with their limits."""
    θ = found.parameters
    between = {o: found.derivative(problem.midpoints, o) for o in problem.held_out.orders}
    residual = problem.held_out(between, θ.unknowns)
    if found.weights is not None:
        residual = found.weights * residual
    # Combinations of u by their prior sd, and the sd that the conditions leave them.
    places = some(problem.midpoints, math.ceil(WATCHED ** (1 / len(problem.axes))))
    prior = system.kron([s(x) for s, x in zip(found.spans, places, strict=True)])
    after = jax.scipy.linalg.solve_triangular(found.root, prior.T, trans=1)
    widest = jnp.linalg.norm(prior, ord=2)
    open_share = OPEN_EXACT if problem.values is None else OPEN_NOISY
    left = jnp.linalg.svd(after, compute_uv=False)
    highest = [
        jnp.max(jnp.abs(k.frequency) + 2 / (2 * jnp.pi * k.lengthscale)) * 2 * step
        for k, step in zip(θ.kernels, problem.steps, strict=True)
    ]
    seen = {} if problem.values is None else Misfit.of(found, problem)._asdict()
    return seen | {
        "held_out": jnp.sqrt(jnp.mean(residual**2)) / found.residual_size,
        "faces": _off_faces(found, problem),
        "frequency": jnp.max(jnp.stack(highest)),
        "open": jnp.sum(left > open_share * widest),
        "jump": _jump(problem),
    }


def _jump(problem: Problem) -> Float[Array, ""]:
    """How much of a coefficient's change over a cell of the grid comes within half of it.

    It is about a half for a smooth coefficient, and one for one that jumps. Looked at are
    the coefficients of the highest derivatives, if they change by much in any cell.
    """
    highest = max(sum(orders) for orders in problem.equation.orders)
    shares = [jnp.zeros(())]
    every = zip(
        problem.equation.monomials,
        problem.equation.coefficients,
        problem.held_out.coefficients,
        strict=True,
    )
    for monomial, at, between in every:
        is_highest = any(sum(orders) == highest for orders in monomial.factors)
        if highest < 2 or not is_highest or at.ndim == 0:
            continue
        corners = _corners(at, problem)
        whole = jnp.max(jnp.max(corners, 0) - jnp.min(corners, 0))
        half = jnp.max(jnp.abs(corners - between))
        is_large = whole > LEAST_CHANGE * jnp.max(jnp.abs(at))
        shares.append(jnp.where(is_large, half / whole, 0.0))
    return jnp.max(jnp.stack(shares))


def _corners(values: Array, problem: Problem) -> Array:
    """Values at the corners of each cell of the grid; no cell is across a break."""
    found = [values]
    for j, (chart, n) in enumerate(zip(problem.charts, problem.shape, strict=True)):
        ends: Sequence[Any] = (slice(None, -1), slice(1, None))
        if chart is not None:
            first = in_pieces(chart.counts(n))
            ends = (first, first + 1)
        along = (slice(None),) * j
        found = [one[(*along, end)] for one in found for end in ends]
    return jnp.stack(found)


def _off_faces(found: Solution, problem: Problem) -> Float[Array, ""]:
    """Root mean square of what is missed of the conditions, relative to what they give.

    Of those on faces and at breaks.
    """
    squares, count, θ = jnp.zeros(()), 0, found.parameters
    for condition in problem.conditions:
        at = system.on_face(condition, found.mean, found.spans, problem.grid, θ.unknowns)
        size = face_size(condition, problem, θ, found.spans[condition.axis].num_nodes)
        squares += jnp.sum(((at - condition.given(θ.unknowns)) / size) ** 2)
        count += condition.values.size
    for one in problem.interfaces:
        off = system.across(one, found.mean, found.spans, problem.grid, θ.unknowns)
        size = break_size(one, problem, θ, found.spans[one.axis].num_nodes)
        squares += jnp.sum((off / size) ** 2)
        count += off.size
    return jnp.sqrt(squares / max(1, count)) / problem.size


def limits_of(tolerance: float) -> dict[str, float]:
    """The largest residual between the points, and misfit on faces, that pass."""
    return {"held_out": max(3 * tolerance, LARGEST_RESIDUAL), "faces": LARGEST_MISFIT}


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
    limits = limits_of(tolerance)
    seen = _of_observations(found, num_observations) if num_observations else ()
    return (
        *seen,
        Check(
            "residual between the points",
            found["held_out"],
            "at most",
            limits["held_out"],
            remedy,
            "rms at midpoints, relative to its size a priori",
        ),
        Check(
            "misfit on faces",
            found["faces"],
            "at most",
            limits["faces"],
            "the conditions contradict each other or the equation, or the kernel "
            "cannot follow them: raise `rank` or `num_nodes`",
            "rms, relative to what is given on them a priori",
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
            "jump of the leading coefficient",
            found["jump"],
            "at most",
            LARGEST_JUMP,
            "the coefficient of the highest derivative jumps, where the residual does not "
            "say what happens to the flux: write `(k * u.dx).dx` and say where it jumps "
            "(`breaks=`), or raise `shape`",
            "share of its change over a cell of the grid that comes within half a cell",
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
