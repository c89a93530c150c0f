"""Draws about the maximum, and what they say of the unknowns."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy

from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.density import Sites, constrain, unconstrain
from probkit.models.pde.linearised import Linearised, collocation
from probkit.models.pde.model import SpectralGP
from probkit.models.pde.problem import Problem
from probkit.models.pde.solution import Fields

# For the Hessian there: the step of its differences, and the least curvature. Coordinates
# are standardised by the priors, which alone have a curvature of about one.
STEP, LEAST_CURVATURE = 1e-3, 0.1
# How far from the maximum the noise may be, in sds of its logarithm.
SPREAD = 8.0
# Checks of the unknowns: the widest posterior, relative to the range, and the least
# distance from an end of the range, in posterior sds.
WIDEST, NEAREST_END = 0.7, 2.0


def of_unknowns(data: Problem, draws: Sites) -> dict[str, float]:
    """How wide the posterior of the unknowns is, and how near to the ends of the ranges."""
    widths, ends = [], []
    for name, low, high in data.numbers:
        values = np.asarray(draws[name])
        sd = max(float(values.std()), 1e-12 * (high - low))
        widths.append(sd * math.sqrt(12) / (high - low))
        middle = float(np.median(values))
        ends.append(min(middle - low, high - middle) / sd)
    if not widths or values.size < 2:  # one draw has no sd
        return {}
    return {"width": max(widths), "sds_to_end": min(ends)}


def checks_of_draws(facts) -> tuple[Check, ...]:
    checks = [
        Check(
            "least curvature at the optimum",
            facts["least_curvature"],
            "at least",
            0.0,
            "it is no maximum along some direction: use `pk.NUTS()`, from this fit "
            "(`start=`)",
            "in standardised coordinates",
        )
    ]
    if "width" in facts:
        checks += [
            Check(
                "width of the unknowns",
                facts["width"],
                "at most",
                WIDEST,
                "the observations do not determine an unknown coefficient, and its "
                "posterior is as wide as its range: use more observations",
                "largest sd, relative to that of the range",
            ),
            Check(
                "unknowns from the ends of their ranges",
                facts["sds_to_end"],
                "at least",
                NEAREST_END,
                "an unknown coefficient is at an end of its range: widen the range",
                "in posterior sds, the nearest one",
            ),
        ]
    return tuple(checks)


def around(
    model: SpectralGP, data: Problem, fields: Fields, sites: Sites, num_draws: int, key
) -> tuple[Sites, float]:
    """Draws about the maximum, and its least curvature. The first is the centre.

    In unconstrained coordinates they are normal given the noise: see `_steps`.

    The Hessian is one of differences of slopes, because to compile that of the slope takes
    three times as long as all of the search.
    """
    program = Linearised(model, fields, collocation(model, data))
    position, unravel = ravel_pytree(_position(program, data, sites))
    steps = STEP * np.eye(position.size)
    places = np.concatenate([position + steps, position - steps, position[None]])
    *both, slope = np.asarray(_slopes(program, data, unravel, jnp.asarray(places)))
    ahead, behind = np.split(np.stack(both), 2)
    hessian = (ahead - behind) / (2 * STEP)
    hessian = (hessian + hessian.T) / 2
    # NumPy's, because those of JAX are compiled for each shape.
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    white = random.normal(size=(num_draws, position.size))
    white[0] = 0.0
    noise = None
    if "noise_sd" in sites:
        # Coordinates are in the order of the sites' names.
        noise = sum(v.size for name, v in sites.items() if name < "noise_sd")
    apart = _steps(hessian, slope, noise, white)
    draws = _constrained(program, data, unravel, position + jnp.asarray(apart))
    return draws, float(np.linalg.eigvalsh(hessian)[0])


def _steps(
    hessian: np.ndarray, slope: np.ndarray, noise: int | None, white: np.ndarray
) -> np.ndarray:
    r"""Steps to draws of a density, from its curvature and slope at a point near its top.

    With $s$ the step of the logarithm of the noise and $H$ the Hessian, the density of the
    others given $s$ is normal, of precision $1 + (H - 1) e^{-2s}$: the prior does not
    depend on the noise, and the rest goes with its inverse square. So the density of $s$
    alone is that of the logarithm of a chi variable times the root of the determinant of
    their covariance. A normal for all at once would be too narrow, as if no degrees of
    freedom were spent on the others.

    Args:
        hessian: of minus the log density.
        slope: of minus the log density.
        noise: the place of the logarithm of the noise among the coordinates, or None if the
            noise is known.
        white: standard normal numbers, a row per step; a row of zeros is the centre.

    Returns:
        The steps, a row for each.

    Source: for a linear model this is the posterior with its t distribution; Box and Tiao
    (1973), "Bayesian inference in statistical analysis", section 2.7.
    """
    places = np.arange(len(hessian))
    others = places if noise is None else np.delete(places, noise)
    values, vectors = np.linalg.eigh(hessian[np.ix_(others, others)])
    values = np.maximum(values, LEAST_CURVATURE)
    back = (vectors / values) @ vectors.T  # their inverse Hessian
    steps = np.zeros_like(white)
    if noise is None:
        steps[:] = -back @ slope + (white / np.sqrt(values)) @ vectors.T
        return steps
    lean = hessian[others, noise]
    # Minus the log density of s, at the best of the others, is a s + b exp(-2s) / 2.
    b = max((hessian[noise, noise] - lean @ back @ lean) / 2, 0.5)
    a = max(slope[noise] - lean @ back @ slope[others] + b, 0.5)
    from_data, own = np.maximum(values - 1, 0), np.minimum(values, 1)

    def precision(s):
        return own + from_data * np.exp(-2 * s)

    top = 0.5 * math.log(b / a)
    at = top + np.linspace(-SPREAD, 3 * SPREAD, 8001) / math.sqrt(2 * a)
    height = -(a * at + 0.5 * b * np.exp(-2 * at))
    height -= 0.5 * np.log(precision(at[:, None])).sum(1)
    below = np.cumsum(np.exp(height - height.max()))
    s = np.interp(scipy.stats.norm.cdf(white[:, noise]), below / below[-1], at)
    across = white[:, others] / np.sqrt(precision(s[:, None]))
    steps[:, noise] = s
    steps[:, others] = across @ vectors.T - (slope[others] + s[:, None] * lean) @ back
    return steps


@jit_for_one_run
def _position(program, data, sites: Sites) -> Sites:
    return unconstrain(program, data, sites)


@jit_for_one_run
def _slopes(program, data, unravel, places):
    """Gradients of minus the log density of unconstrained coordinates, in nats."""

    def loss(flat):
        return potential_energy(program, (data,), {}, unravel(flat))

    return jax.lax.map(jax.grad(loss), places)


@jit_for_one_run
def _constrained(program, data, unravel, places) -> Sites:
    return jax.vmap(lambda flat: constrain(program, data, unravel(flat)))(places)
