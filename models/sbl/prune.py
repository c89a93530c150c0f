"""Pruning: atoms that add too little evidence are taken out of the model."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.method.variances import fewer
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.updates import (
    Evidence,
    Scales,
    bound_sweep,
    moved_noise,
    noise_variance,
)
from probkit.validate import positive, short

# At most so many steps of the bound after atoms were taken out.
AFTER = 500

Worth = Any  # "bic", a number of nats, or None


def as_worth(given: Any) -> Worth:
    """The setting `prune`, checked."""
    if given is None or (isinstance(given, str) and given == "bic"):
        return given
    try:
        return positive("prune", zero=True)(given)
    except ValueError:
        raise ValueError(
            f'`prune={short(given)}`: it takes "bic", nats (0 or a positive number), or '
            "None."
        ) from None


def nats(worth: Worth, data: Measurements) -> float:
    """The evidence that an atom must add, in nats.

    For "bic" half the log of the number of measurements, for None 0.
    """
    if worth == "bic":
        return 0.5 * math.log(len(data))
    return worth or 0.0


@eqx.filter_jit
def pruned(
    data: Measurements, scales: Scales, noise: Float[Array, ""], worth, atol
) -> tuple[Scales, Float[Array, ""], Float[Array, ""]]:
    """Take out the atoms that add less than `worth` to the evidence.

    See `fewer`, with one group per mode. At the end the bound moves the variances that are
    left, until a step gains at most `atol`.

    Args:
        data: the measurements.
        scales: the prior variances, in squared units of the coefficients.
        noise: $σ^2$, in squared units of `y`.
        worth: the evidence that an atom must add to stay, in nats.
        atol: tolerance on the evidence, in nats.

    Returns:
        The new variances, the new noise variance, and the log evidence there.
    """
    post = posterior(data, scales.variance(), noise)
    best = post.log_evidence()
    free = [p for p, frozen in enumerate(scales.frozen) if not frozen]
    if not free:
        return scales, noise, best
    sizes = [scales.local[p].size for p in free]
    cuts = np.cumsum(sizes)[:-1]
    mode = jnp.asarray(np.repeat(np.arange(len(free)), sizes))

    def split(flat):
        parts = dict(zip(free, jnp.split(flat, cuts), strict=True))
        return tuple(parts.get(p, g) for p, g in enumerate(scales.local))

    def evidence(flat):
        γ = scales.at(scales.total, split(flat)).variance()
        return posterior(data, γ, noise).log_evidence()

    joined = jnp.concatenate([scales.local[p] for p in free])
    flat, best = fewer(evidence, joined, mode, len(free), worth)
    local = split(flat)

    def rising(carry):
        _, _, post, before, step = carry
        return (post.log_evidence() > before + atol) & (step < AFTER)

    def rise(carry):
        total, local, post, _, step = carry
        new = bound_sweep(scales.at(total, local), Evidence.of(post)).normalised()
        noise = noise_variance(moved_noise("mm", post), data)
        there = posterior(data, new.variance(), noise)
        return new.total, new.local, there, post.log_evidence(), step + 1

    post = posterior(data, scales.at(scales.total, local).variance(), noise)
    start = (scales.total, local, post, best - 2 * atol, jnp.zeros((), jnp.int32))
    total, local, post, *_ = jax.lax.while_loop(rising, rise, start)
    return scales.at(total, local), post.noise, post.log_evidence()
