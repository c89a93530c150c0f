"""Pruning: atoms that add too little evidence are taken out of the model."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.method import either
from probkit.method.climb import rounding
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

# All atoms below one of these shares of their mode's largest variance are tried together.
SHARES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
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

    In each mode, all atoms below a share of the largest variance are tried together, so
    that few trials do most of the work. Then atoms are tried one by one, from the smallest.
    Both are done twice, because what an atom adds depends on which others are in. At the
    end the bound moves the variances that are left, until a step gains at most `atol`.

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

    def joined(local):
        return jnp.concatenate([local[p] for p in free])

    def without(local, out):
        parts = jnp.split(jnp.where(out, 0.0, joined(local)), cuts)
        fewer = dict(zip(free, parts, strict=True))
        return tuple(fewer.get(p, g) for p, g in enumerate(local))

    def attempt(carry, trial):
        local, best = carry
        which, share, atom = trial
        variance = joined(local)
        here = mode == which
        small = here & (variance < share * variance.max(where=here, initial=0.0))
        out = (small | (jnp.arange(variance.size) == atom)) & (variance > 0)

        def remove(carry):
            fewer = without(local, out)
            γ = scales.at(scales.total, fewer).variance()
            new = posterior(data, γ, noise).log_evidence()
            # An atom that is zero up to rounding adds only rounding.
            keep = new >= best - worth * out.sum() - rounding(best)
            return either(keep, (fewer, new), carry)

        return jax.lax.cond(out.any(), remove, lambda carry: carry, carry), None

    pairs = [(m, share) for m in range(len(free)) for share in SHARES]
    modes, shares = (jnp.asarray(column) for column in zip(*pairs, strict=True))

    def sweep(carry, _):
        order = jnp.argsort(joined(carry[0]))
        none = jnp.full(len(pairs), -1, order.dtype)
        trials = (
            jnp.concatenate([modes, jnp.zeros_like(order, modes.dtype)]),
            jnp.concatenate([shares.astype(best.dtype), jnp.zeros(order.size, best.dtype)]),
            jnp.concatenate([none, order]),
        )
        return jax.lax.scan(attempt, carry, trials)[0], None

    def rising(carry):
        _, _, post, before, step = carry
        return (post.log_evidence() > before + atol) & (step < AFTER)

    def rise(carry):
        total, local, post, _, step = carry
        new = bound_sweep(scales.at(total, local), Evidence.of(post)).normalised()
        noise = noise_variance(moved_noise("mm", post), data)
        there = posterior(data, new.variance(), noise)
        return new.total, new.local, there, post.log_evidence(), step + 1

    local, best = jax.lax.scan(sweep, (scales.local, best), None, length=2)[0]
    post = posterior(data, scales.at(scales.total, local).variance(), noise)
    start = (scales.total, local, post, best - 2 * atol, jnp.zeros((), jnp.int32))
    total, local, post, *_ = jax.lax.while_loop(rising, rise, start)
    return scales.at(total, local), post.noise, post.log_evidence()
