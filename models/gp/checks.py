"""Checks of what can go wrong in a regression."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from probkit.model.check import Check
from probkit.model.density import Sites, unconstrain
from probkit.model.residuals import LEAST_EXPLAINED, STANDARD_ERRORS, of_neighbours
from probkit.models.gp.observed import Observed

# The share of the series that is predicted from the rest; the least number in it.
HELD_OUT, LEAST_HELD_OUT = 0.2, 4
# In prior sds, the furthest that a site may be from the centre of its prior.
FURTHEST = 3.5
# The largest relative error of the smallest eigenvalue of the covariance.
DIGITS = 1e-3


def checks(model: Any, sites: Sites, data: Observed) -> tuple[Check, ...]:
    """The verdicts.

    Args:
        model: the regression.
        sites: one draw.
        data: the data.

    Returns:
        One check per way in which a regression can be wrong.
    """
    found = {k: np.asarray(v) for k, v in _measured(model, sites, data).items()}
    n = len(data)
    name, furthest = _furthest(_coordinates(model, sites, data))
    site, finest = _finest(model, sites, data)
    last = math.ceil(HELD_OUT * n)
    more: tuple[Check, ...] = ()
    if data.x.shape[1] == 1 and last >= LEAST_HELD_OUT:
        more = (
            Check(
                "mean square of the last fifth given the rest",
                float(np.mean(found["white"][-last:] ** 2)),
                "at most",
                1 + STANDARD_ERRORS * math.sqrt(2 / last),
                "the end of the data differs from what the rest of them predicts, so that "
                "an extrapolation will, too: look there, or add a kernel for a trend",
                "of standardised errors; 1 under the model",
            ),
        )
    return (
        Check(
            "share of the observations explained",
            float(found["explained"]),
            "at least",
            LEAST_EXPLAINED,
            "the function is next to nothing and all is noise: look at the data, raise "
            "`num_starts`, or use another kernel",
            "of their squares, each predicted from all the others",
        ),
        Check(
            "correlation of neighbouring residuals",
            float(found["neighbours"]),
            "at most",
            STANDARD_ERRORS / math.sqrt(n),
            "the kernel leaves a pattern in what it does not explain: add a kernel, or use "
            "one of shorter lengthscale",
            "of whitened residuals; 0 under the model",
        ),
        Check(
            "mean square of the residuals",
            float(np.mean(found["white"] ** 2)),
            "at most",
            1 + STANDARD_ERRORS * math.sqrt(2 / n),
            "the observations are further from the function than their noise: raise "
            "`noise_sd`, or leave it out",
            "of whitened residuals; 1 under the model",
        ),
        *more,
        Check(
            "shortest lengthscale over the spacing",
            finest,
            "at least",
            1.0,
            "a function that varies between neighbours cannot be distinguished from noise: "
            "use fewer components, or observe more finely",
            site,
        ),
        Check(
            "furthest site from its prior",
            furthest,
            "at most",
            FURTHEST,
            "the data contradict the prior, or do not determine the site: look at it, and "
            "at the scale of the data",
            f"in prior sds; {name}",
        ),
        Check(
            "digits lost to the range of signal over noise",
            float(found["contrast"] * jnp.finfo(data.y.dtype).eps),
            "at most",
            DIGITS,
            "use float64 (`pk.enable_x64()`), or give `noise_sd`",
            "relative error of the smallest eigenvalue",
        ),
    )


@eqx.filter_jit
def _measured(model, sites: Sites, data: Observed) -> dict[str, Array]:
    # In the order of the first input, because a whitened residual is that of a prediction
    # from those before it.
    order = jnp.argsort(data.x[:, 0])
    distribution = model.evidence(sites, data)
    weighted, precision = distribution.weighted(data.y)
    errors = weighted / precision
    white = distribution.sorted(order).whitened(data.y[order])
    places = data.x[order] / data.units.length
    noise = model.noise_sd(sites, data) ** 2
    return {
        "explained": 1 - jnp.sum(errors**2) / jnp.sum((data.y - data.y.mean()) ** 2),
        "white": white,
        "neighbours": of_neighbours(places, white),
        "contrast": jnp.trace(distribution.covariance) / noise,
    }


@eqx.filter_jit
def _unconstrained(model, data, sites):
    return unconstrain(model, data, sites)


def _coordinates(model, sites: Sites, data: Observed) -> dict[str, np.ndarray]:
    """The sites in sds of their priors, but for those of heavy tails."""
    latent = jax.device_get(_unconstrained(model, data, sites))
    return {
        name: np.atleast_1d(value)
        for name, value in latent.items()
        if not name.startswith(("frequency_", "period_"))
    }


def _furthest(coordinates: dict[str, np.ndarray]) -> tuple[str, float]:
    name = max(coordinates, key=lambda name: np.abs(coordinates[name]).max())
    return f"`{name}`", float(np.abs(coordinates[name]).max())


def _finest(model, sites: Sites, data: Observed) -> tuple[str, float]:
    """The lengthscale that is shortest relative to the spacing, where there is one."""
    found = {"no lengthscale": math.inf}
    for name, spacing in model.structure().spacings(data).items():
        found[f"`{name}`"] = float(np.min(np.asarray(sites[name]) / np.asarray(spacing)))
    name = min(found, key=lambda name: found[name])
    return name, found[name]
