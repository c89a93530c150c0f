"""What an atom must be worth to be in the model, and the removal of those that are not."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from probkit.method.climb import rounding
from probkit.model.density import Sites
from probkit.models.sbl.kronecker import KroneckerSBL
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.updates import either
from probkit.validate import positive, short

# Atoms below these shares of their mode's largest variance are tried for removal at once.
SHARES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
# The most steps to settle after atoms were taken out.
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
    """In nats: for "bic" half the log of the number of measurements, for None nothing."""
    if worth == "bic":
        return 0.5 * math.log(len(data))
    return worth or 0.0


@eqx.filter_jit
def pruned(model: KroneckerSBL, data: Measurements, sites: Sites, best, worth, atol):
    """The sites without the atoms that are not worth their nats, and the evidence.

    `best` is the evidence of the sites. Mode by mode, first all atoms below a share of the
    largest at once, so that most of the work is done in a few steps; then one by one from
    the smallest, twice over, since what an atom is worth depends on which others are in.
    What is left then climbs by the bound until a step gains no more than `atol`.
    """
    names = [name for name in sites if name.startswith("local_scale_")]
    if not names:  # every mode is frozen
        return sites, best
    sizes = [sites[name].size for name in names]
    cuts = np.cumsum(sizes)[:-1]
    mode = jnp.asarray(np.repeat(np.arange(len(names)), sizes))

    def joined(sites):
        return jnp.concatenate([sites[name] for name in names])

    def without(sites, out):
        parts = jnp.split(jnp.where(out, 0.0, joined(sites)), cuts)
        return {**sites, **dict(zip(names, parts, strict=True))}

    def attempt(carry, trial):
        sites, best = carry
        which, share, atom = trial
        scale = joined(sites)
        here = mode == which
        largest = scale.max(where=here, initial=0.0)
        small = here & (scale**2 < share * largest**2)
        out = (small | (jnp.arange(scale.size) == atom)) & (scale > 0)

        def remove(carry):
            fewer = without(sites, out)
            new = model.posterior(fewer, data).log_evidence()
            # What is as good as zero is worth nothing, though rounding may disagree.
            keep = new >= best - worth * out.sum() - rounding(best)
            return either(keep, (fewer, new), carry)

        return jax.lax.cond(out.any(), remove, lambda carry: carry, carry), None

    pairs = [(m, share) for m in range(len(names)) for share in SHARES]
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
        _, best, before, step = carry
        return (best > before + atol) & (step < AFTER)

    def rise(carry):
        sites, best, _, step = carry
        moments, _ = model.e_step(sites, data)
        new = model.m_step(moments, sites, data, use_prior=False)
        return new, model.posterior(new, data).log_evidence(), best, step + 1

    sites, best = jax.lax.scan(sweep, (sites, best), None, length=2)[0]
    start = (sites, best, best - 2 * atol, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(rising, rise, start)[:2]
