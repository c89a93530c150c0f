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
from probkit.models.gp import by_waves
from probkit.models.gp.grid import Grid
from probkit.models.gp.observed import Observed

# The share of the series that is predicted from the rest; the least number in it.
HELD_OUT, LEAST_HELD_OUT = 0.2, 4
# In prior sds, the furthest that a lengthscale may be from the centre of its prior.
FURTHEST = 3.5
# The largest relative error of the smallest eigenvalue of the covariance.
DIGITS = 1e-3
# The largest error of the kernel by fixed waves, relative to its variance.
WRONG = 0.01


def checks_of_grid(model: Any, sites: Sites, data: Grid) -> tuple[Check, ...]:
    """Those that need neither an order of the observations nor the dense matrix."""
    explained = float(_explained_of_grid(model, sites, data))
    return (_of_explained(explained), *_of_sites(model, sites, data))


def checks_by_waves(model: Any, sites: Sites, data: Observed) -> tuple[Check, ...]:
    """Those that need no dense matrix; and how far the waves are from the kernel."""
    explained, wrong = map(float, _measured_by_waves(model, sites, data))
    return (
        _of_explained(explained),
        *_of_sites(model, sites, data),
        Check(
            "error of the kernel by waves",
            wrong,
            "at most",
            WRONG,
            "the fixed waves are not the kernel: raise `num_waves` of `Observed` for fast "
            "waves and short lengthscales; lengthscales beyond 1.5 times the data need an "
            "exact fit of 10,000 observations or fewer",
            "largest at lags within the data, relative to the variance of the function",
        ),
    )


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
        _of_explained(float(found["explained"])),
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
        *_of_sites(model, sites, data),
        Check(
            "digits lost to the range of signal over noise",
            float(found["contrast"] * jnp.finfo(data.y.dtype).eps),
            "at most",
            DIGITS,
            "use float64 (`pk.enable_x64()`), or give `noise_sd`",
            "relative error of the smallest eigenvalue",
        ),
    )


def _of_explained(share: float) -> Check:
    return Check(
        "share of the observations explained",
        share,
        "at least",
        LEAST_EXPLAINED,
        "the function is next to nothing and all is noise: look at the data, raise "
        "`num_starts`, or use another kernel",
        "of their squares, each predicted from all the others",
    )


def _of_sites(model: Any, sites: Sites, data: Observed | Grid) -> tuple[Check, ...]:
    name, furthest = _furthest(_coordinates(model, sites, data))
    site, finest = _finest(model, sites, data)
    return (
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
            "furthest lengthscale from its prior",
            furthest,
            "at most",
            FURTHEST,
            "the function is nearly constant, or nearly noise, along an input: leave the "
            "kernel out, or look at the scale of the data",
            f"in prior sds; {name}",
        ),
    )


@eqx.filter_jit
def _explained_of_grid(model, sites: Sites, data: Grid):
    distribution = model.evidence(sites, data)
    precision = distribution.precision()
    seen = precision > 0
    errors = distribution.weights(data.y) / jnp.where(seen, precision, 1.0)
    # The mean and the sd of the units may be those of other data.
    center = jnp.sum(jnp.where(seen, data.y, 0.0)) / len(data)
    spread = jnp.sum(jnp.where(seen, data.y - center, 0.0) ** 2)
    return 1 - jnp.sum(errors**2) / spread


@eqx.filter_jit
def _measured_by_waves(model, sites: Sites, data: Observed):
    errors, precision = model.evidence(sites, data).weighted(data.y)
    missed = jnp.sum((errors / precision) ** 2)
    explained = 1 - missed / jnp.sum((data.y - data.y.mean()) ** 2)
    return explained, by_waves.error(model.structure(), sites, data)


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


def _coordinates(model, sites: Sites, data: Observed | Grid) -> dict[str, np.ndarray]:
    """The lengthscales, in sds of their priors about their centres."""
    latent = jax.device_get(_unconstrained(model, data, sites))
    return {
        name: np.atleast_1d(value)
        for name, value in latent.items()
        if name.startswith("lengthscale_")
    }


def _furthest(coordinates: dict[str, np.ndarray]) -> tuple[str, float]:
    found = {f"`{name}`": float(np.abs(z).max()) for name, z in coordinates.items()}
    name = max(found, key=lambda name: found[name], default="no lengthscale")
    return name, found.get(name, 0.0)


def _finest(model, sites: Sites, data: Observed | Grid) -> tuple[str, float]:
    """The lengthscale that is shortest relative to the spacing, where there is one."""
    found = {"no lengthscale": math.inf}
    for name, spacing in model.structure().spacings(data).items():
        found[f"`{name}`"] = float(np.min(np.asarray(sites[name]) / np.asarray(spacing)))
    name = min(found, key=lambda name: found[name])
    return name, found[name]
