"""Checks of what can go wrong in a regression."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from probkit.gp import state_space
from probkit.model.check import Check
from probkit.model.density import Sites, unconstrain
from probkit.model.residuals import LEAST_EXPLAINED, STANDARD_ERRORS, of_neighbours
from probkit.models.gp import by_waves
from probkit.models.gp.grid import Grid
from probkit.models.gp.marginal import Marginal, gain_left
from probkit.models.gp.observed import Observed
from probkit.models.gp.series import Series

# The share of the series that is predicted from the rest; the least number in it.
HELD_OUT, LEAST_HELD_OUT = 0.2, 4
# In prior sds, the furthest that a lengthscale may be from the centre of its prior.
FURTHEST = 3.5
# The largest relative error of the smallest eigenvalue of the covariance.
DIGITS = 1e-3
# The largest error of the kernel by fixed waves, relative to its variance.
WRONG = 0.01
# The largest error of a log evidence, and gain left to the search of the function, in nats.
LOST, LEFT = 0.1, 0.01


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
    return (
        _of_explained(float(found["explained"])),
        *_of_residuals(found["white"], found["neighbours"], data.x.shape[1] == 1),
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


def checks_of_series(model: Any, sites: Sites, data: Series) -> tuple[Check, ...]:
    """Those of a temporal regression; of the residuals with normal noise only."""
    scaled = model.scaled(data)
    found = {k: np.asarray(v) for k, v in _measured_of_series(model, sites, data).items()}
    first: tuple[Check, ...] = (
        Check(
            "gain over a constant",
            float(found["gain"]),
            "at least",
            0.0,
            "observations are predicted worse than by a constant: look at the data, raise "
            "`num_starts`, or use another kernel",
            "in nats per observation, each predicted from all the others",
        ),
    )
    if "white" in found:
        white = found["white"][np.asarray(data.seen)]
        beside = float(np.mean(white[1:] * white[:-1]) / np.mean(white**2))
        first = (
            _of_explained(float(found["explained"])),
            *_of_residuals(white, beside, True),
        )
    return (
        *first,
        *_of_sites(model, sites, scaled),
        Check(
            "nats lost to rounding",
            float(found["lost"]),
            "at most",
            LOST,
            "use float64 (`pk.enable_x64()`)",
            "of the log evidence",
        ),
        *_of_periods(found),
        *_of_mode(found),
    )


def _of_periods(found: dict[str, np.ndarray]) -> tuple[Check, ...]:
    if "missing" not in found:
        return ()
    return (
        Check(
            "share of a periodic kernel in waves that are left out",
            float(found["missing"]),
            "at most",
            WRONG,
            "the function repeats with more detail than its waves have: raise `num_waves` "
            "of `Temporal`",
            "of its variance",
        ),
    )


def _of_mode(found: dict[str, np.ndarray]) -> tuple[Check, ...]:
    if "left" not in found:
        return ()
    return (
        Check(
            "gain left to the search of the function",
            float(found["left"]),
            "at most",
            LEFT,
            "Laplace's approximation is not at the maximum: use `function='sampled'`, or "
            "float64",
            "in nats",
        ),
    )


def _of_residuals(white: np.ndarray, neighbours: Any, on_a_line: bool) -> tuple[Check, ...]:
    """Of whitened residuals, in the order of the first input."""
    n = len(white)
    last = math.ceil(HELD_OUT * n)
    more: tuple[Check, ...] = ()
    if on_a_line and last >= LEAST_HELD_OUT:
        more = (
            Check(
                "mean square of the last fifth given the rest",
                float(np.mean(white[-last:] ** 2)),
                "at most",
                1 + STANDARD_ERRORS * math.sqrt(2 / last),
                "the end of the data differs from what the rest of them predicts, so that "
                "an extrapolation will, too: look there, or add a kernel for a trend",
                "of standardised errors; 1 under the model",
            ),
        )
    return (
        Check(
            "correlation of neighbouring residuals",
            float(neighbours),
            "at most",
            STANDARD_ERRORS / math.sqrt(n),
            "the kernel leaves a pattern in what it does not explain: add a kernel, or use "
            "one of shorter lengthscale",
            "of whitened residuals; 0 under the model",
        ),
        Check(
            "mean square of the residuals",
            float(np.mean(white**2)),
            "at most",
            1 + STANDARD_ERRORS * math.sqrt(2 / n),
            "the observations are further from the function than their noise: raise "
            "`noise_sd`, or leave it out",
            "of whitened residuals; 1 under the model",
        ),
        *more,
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


def _of_sites(
    model: Any, sites: Sites, data: Observed | Grid | Series
) -> tuple[Check, ...]:
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
def _measured_of_series(model, draw: Sites, data: Series) -> dict[str, Array]:
    y, seen, n = data.y, data.seen, data.seen.sum()
    terms, process = model.terms(draw, data), model.process(draw, data)
    marginal = Marginal(process, data.t, terms)
    center = jnp.where(seen, y, 0.0).sum() / n
    found = {}
    if model.observations.is_normal:
        ahead, covariance = state_space.predicted(process, data.t, marginal.sites(y))
        noise = terms.noise_sd**2
        mean, _ = marginal.without_own(y)
        errors = jnp.where(seen, y - terms.level - mean, 0.0)
        spread = jnp.where(seen, (y - center) ** 2, 0.0).sum()
        found["explained"] = 1 - jnp.sum(errors**2) / spread
        sd = jnp.sqrt(covariance[:, 0, 0] + noise)
        found["white"] = (y - terms.level - ahead[:, 0]) / sd
    elif model.function == "integrated":
        found["left"] = gain_left(process, data.t, terms, y)
    score = model.pointwise(draw, data)["y"].sum() / n
    alone = eqx.tree_at(lambda one: one.level, terms, model.scaled(data).units.y_mean)
    found["gain"] = score - alone.log_density(y, jnp.zeros_like(y)).sum() / n
    # Squares in units of the noise are added up, and may cancel.
    sites = terms.sites(y, jnp.zeros_like(y))
    square = jnp.where(seen, (y - center) ** 2, 0.0) * sites.precision[:, 0, 0]
    found["lost"] = jnp.finfo(y.dtype).eps * square.sum()
    periods = [
        name for name, leaf in model.structure().leaves.items() if leaf.kind == "periodic"
    ]
    if periods:
        shares = [
            state_space.Periodic(
                draw[f"period_{name}"], draw[f"lengthscale_{name}"], 1.0, model.num_waves
            ).missing()
            for name in periods
        ]
        found["missing"] = jnp.max(jnp.stack(shares))
    return found


@eqx.filter_jit
def _unconstrained(model, data, sites):
    return unconstrain(model, data, sites)


def _coordinates(
    model, sites: Sites, data: Observed | Grid | Series
) -> dict[str, np.ndarray]:
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


def _finest(model, sites: Sites, data: Observed | Grid | Series) -> tuple[str, float]:
    """The lengthscale that is shortest relative to the spacing, where there is one."""
    found = {"no lengthscale": math.inf}
    for name, spacing in model.structure().spacings(data).items():
        found[f"`{name}`"] = float(np.min(np.asarray(sites[name]) / np.asarray(spacing)))
    name = min(found, key=lambda name: found[name])
    return name, found[name]
