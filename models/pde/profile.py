r"""Where to start a search for unknown coefficients: many of their values, each scored.

The posterior of a coefficient can have several maxima, and "u = 0, all is noise" is one of
them for each homogeneous equation. So the evidence is computed at values spread over the
ranges, with the kernel at its start and the noise at its best value.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array

from probkit.method.batches import map_in_batches
from probkit.method.programs import jit_for_one_run
from probkit.model.density import Sites
from probkit.models.pde import system
from probkit.models.pde.equation import Equation, least_residual
from probkit.models.pde.model import FREQUENCY_SPREAD, SpectralGP
from probkit.models.pde.problem import Problem

# Values of the unknowns that are tried, by the dimension of the problem: powers of two,
# because a Sobol sequence is even at those.
TRIED = {1: 64, 2: 16, 3: 8}
# The lengthscales of the trends relative to their start, by dimension: a solution may
# change faster than a kernel at its start can follow.
SHORTER = {1: (1.0, 0.4), 2: (1.0, 0.5), 3: (1.0, 0.5)}
# Noise sds, relative to the sd of the observations.
NOISES = np.geomspace(1e-3, 1.0, 25)
# Gauss-Newton steps for each value, if the equation is not linear.
FEW_STEPS = 4
# Noise sds of the curves through the observations, relative to their sd.
SMOOTHED = (0.01, 0.05, 0.2)
# Two starts differ if an unknown does by this share of its range, or the kernel does.
DIFFERENT = 0.05


@jit_for_one_run
def start_sites(model: SpectralGP, problem: Problem) -> Sites:
    """The sites at the start of a search: the centre of the priors."""
    return model.start_sites(problem)


def candidates(model: SpectralGP, problem: Problem) -> Sites:
    """Sites at which the evidence is compared, with a leading axis.

    Half of the values are spread evenly over the ranges of the unknowns. The other half
    are closer to the lower ends, because a rate may be a small part of a wide range. A few
    more are those for which the equation agrees best with curves through the observations.
    """
    d, unknown = len(problem.axes), problem.unknown
    middle = start_sites(model, problem)
    if unknown:
        sobol = scipy.stats.qmc.Sobol(len(unknown), scramble=True, rng=0).random(TRIED[d])
        places = np.where(np.arange(TRIED[d])[:, None] % 2 == 0, sobol, sobol**3)
        places = np.concatenate([_matched(model, problem, middle), places])
        # Away from the ends, where an unconstrained coordinate would be infinite.
        places = np.clip(places, 1e-4, 1 - 1e-4)
    else:
        places = np.zeros((1, 0))
    pairs = list(itertools.product(places, SHORTER[d]))
    # In NumPy, because JAX would compile each operation.
    tried = {k: np.repeat(np.asarray(v)[None], len(pairs), 0) for k, v in middle.items()}
    for axis, length in zip(problem.axes, problem.length, strict=True):
        # A trend of frequency zero is where its two signs meet, and no search would
        # leave it.
        tried[f"frequency_{axis}"][:, 0] += 0.5 * FREQUENCY_SPREAD / length
        tried[f"lengthscale_{axis}"][:, 0] *= [shorter for _, shorter in pairs]
    for j, (name, low, high) in enumerate(unknown):
        tried[name] = np.array([low + (high - low) * place[j] for place, _ in pairs])
    return tried


def _matched(model: SpectralGP, problem: Problem, sites: Sites) -> np.ndarray:
    """Shares of the ranges at which the equations agree best with smooth curves.

    They are that of the problem, and the conditions that have unknowns.
    """
    equations, places = _with_unknowns(problem), []
    derivatives = jax.tree.map(np.asarray, _curves(model, problem, sites))
    for k in range(len(SMOOTHED)):
        of_one = jax.tree.map(lambda array, k=k: np.asarray(array[k]), derivatives)
        pairs = [(e, d) for (e, _), d in zip(equations, of_one, strict=True)]
        found = least_residual(pairs, problem.unknown)
        places.append(
            [(found[name] - low) / (high - low) for name, low, high in problem.unknown]
        )
    return np.array(places)


def _with_unknowns(problem: Problem) -> list[tuple[Equation, list[Array]]]:
    """Each equation that has unknowns, and the tensor grid on which it holds.

    A face has the last, or the first, point of its axis.
    """
    found = [(problem.equation, list(problem.grid))]
    for condition in problem.conditions:
        end = slice(-1, None) if condition.side == "high" else slice(1)
        face = list(problem.grid)
        face[condition.axis] = face[condition.axis][end]
        found.append((condition.equation, face))
    return [(equation, grid) for equation, grid in found if equation.unknowns]


@jit_for_one_run
def _curves(model: SpectralGP, problem: Problem, sites: Sites):
    """Curves through the observations, one for each of `SMOOTHED`.

    Returns:
        For each of the equations with unknowns, the derivatives that it has.
    """
    assert problem.values is not None
    solver = model.solver(sites, problem)
    sd = jnp.std(problem.values)
    noises = jnp.where(sd > 0, sd, problem.size) * np.array(SMOOTHED)
    if problem.noise_sd is not None:
        # Observations count by their noise, if it is not the same for all.
        share = problem.noise_sd / jnp.sqrt(jnp.mean(problem.noise_sd**2))
        noises = noises.reshape(-1, *(1,) * share.ndim) * share

    def curve(noise):
        smooth = eqx.tree_at(lambda s: s.parameters.noise_sd, solver, noise)
        z, spans = smooth.curve()[0], solver.spans
        return [
            # Without the axis that a face is across.
            {o: system.derivative(z, spans, grid, o).squeeze() for o in equation.orders}
            for equation, grid in _with_unknowns(problem)
        ]

    return map_in_batches(curve, noises)


@jit_for_one_run
def scored(model: SpectralGP, problem: Problem, tried: Sites):
    """The log evidence of each candidate, in nats, and its best noise sd.

    Args:
        model: the model.
        problem: a problem with observations.
        tried: sites with a leading axis.
    """
    assert problem.values is not None
    # If the noise is known, in units of it.
    noises = jnp.std(problem.values) * NOISES if problem.noise_sd is None else jnp.ones(1)
    unit = jnp.ones(()) if problem.noise_sd is None else problem.noise_sd
    unit = jnp.broadcast_to(unit, problem.values.shape)
    collocation = model.collocation(problem)

    def score(sites):
        solver = model.solver(sites, problem, collocation)
        fields = solver.rough_fields(FEW_STEPS)
        given = solver.given(fields)
        normal = solver.predicted(given)
        # With the eigenvectors of F Fᵀ the evidence of any noise is a sum.
        factor = normal.factor / unit[:, None]
        values, vectors = jnp.linalg.eigh(factor @ factor.T)
        left = vectors.T @ ((problem.values - normal.loc) / unit)
        variance = jnp.maximum(values, 0.0) + noises[:, None] ** 2
        evidence = -0.5 * jnp.sum(left**2 / variance + jnp.log(variance), 1)
        if model.excludes(problem):
            evidence -= 0.5 * jnp.sum(solver.excess(fields, given) ** 2)
        evidence = jnp.where(jnp.isfinite(evidence), evidence, -jnp.inf)
        best = jnp.argmax(evidence)
        return evidence[best], noises[best]

    return map_in_batches(score, tried)


def starts(model: SpectralGP, problem: Problem, count: int) -> Sites:
    """The best candidates that differ, the best first, with a leading axis.

    Args:
        model: the model.
        problem: a problem with observations.
        count: the largest number of starts.
    """
    tried = candidates(model, problem)
    evidence, noise = jax.tree.map(np.asarray, scored(model, problem, tried))
    if "noise_sd" in tried:
        tried["noise_sd"] = noise
    trend = tried[f"lengthscale_{problem.axes[0]}"][:, 0]

    def differ(i: int, j: int) -> bool:
        apart = [
            abs(float(tried[name][i] - tried[name][j])) / (high - low)
            for name, low, high in problem.unknown
        ]
        return max(apart, default=0.0) > DIFFERENT or bool(trend[i] != trend[j])

    chosen: list[int] = []
    for i in np.argsort(-evidence):
        if len(chosen) < count and all(differ(int(i), j) for j in chosen):
            chosen.append(int(i))
    return {name: array[np.array(chosen)] for name, array in tried.items()}
