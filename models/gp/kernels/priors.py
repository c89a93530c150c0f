"""Priors in the units of the data."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits, log_normal
from probkit.models.gp.observed import Units

# Where the prior density of a term's sd is highest, and that of the noise, in sds of y.
SD, NOISE = 0.5, 0.25
# The prior of a lengthscale has 98 % between one spacing of the points and this many
# lengths of the data.
LONGEST = 2.0
TWO_SIDED = 2.326
# Width of the prior of the frequency of a wave about its start, in cycles over the data.
WAVE_WIDTH = 0.2

Priors = dict[str, dist.Distribution]


def scale_prior(mode: Float[Array, "*q"]) -> dist.Distribution:
    """The prior of an sd: gamma of shape 2, with the highest density at `mode`.

    Its density is zero at zero, but only in proportion, so that a maximum of the posterior
    density does not end there, and data that need a small sd can have one.

    Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), "A nondegenerate penalized
    likelihood estimator for variance parameters in multilevel models".
    """
    base = dist.Gamma(2.0 * jnp.ones_like(mode), 1.0).to_event(mode.ndim)
    return InUnits(base, [AffineTransform(0.0, mode, dist.constraints.positive)])


def level_prior(units: Units) -> dist.Distribution:
    """The prior of the level: normal about the mean of the output, with its sd."""
    around = [AffineTransform(units.y_mean, units.y_sd)]
    return InUnits(dist.Normal(jnp.zeros_like(units.y_mean), 1.0), around)


def lengthscale_prior(
    spacing: Float[Array, " k"], length: Float[Array, " k"]
) -> dist.Distribution:
    """The prior of one lengthscale per input, or of a number if there is one input only.

    Args:
        spacing: the mean distance of neighbours along each input.
        length: the range of each input.
    """
    low, high = jnp.log(spacing), jnp.log(LONGEST * length)
    center, spread = jnp.exp((low + high) / 2), (high - low) / (2 * TWO_SIDED)
    one = len(spacing) == 1
    return log_normal(center[0], spread[0]) if one else log_normal(center, spread)
