"""Pruning: atoms that add too little evidence are taken out of the model."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.method.climb import Climb, at_foot, climbed, is_done
from probkit.method.programs import jit_for_one_run
from probkit.method.variances import fewer
from probkit.model.check import Check
from probkit.models.sbl.coordinates import Vectors
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.updates import NOISE_FLOOR, Scales, bound_step, is_small
from probkit.validate import positive, short

# At most so many steps of the bound after atoms were taken out.
AFTER = 500
# Noise variances that are compared, relative to the power of `y`.
NOISES = np.geomspace(NOISE_FLOOR, 1.3, 61)
# Atoms are tried again after the others have moved, at most so many times.
MOST_ROUNDS = 5
# What was kept must beat noise alone by this many nats.
LEAST_SURPLUS = 1.0

Worth = Any  # "ebic", "bic", a number of nats, or None
NAMED = ("ebic", "bic")


def as_worth(given: Any) -> Worth:
    """The setting `prune`, checked."""
    if given is None or (isinstance(given, str) and given in NAMED):
        return given
    try:
        return positive("prune", zero=True)(given)
    except ValueError:
        raise ValueError(
            f'`prune={short(given)}`: it takes "ebic", "bic", nats (0 or a positive '
            "number), or None."
        ) from None


def prices(worth: Worth, data: Measurements, sizes: Sequence[int]) -> tuple[float, ...]:
    r"""The evidence that an atom of each mode must add, in nats.

    For "bic" it is $\tfrac12 \log M$ for $M$ measurements. "ebic" adds $\log N$ for $N$
    atoms: with so many to choose from, some fit noise by chance. For None it is 0.

    Args:
        worth: the setting `prune`.
        data: the measurements.
        sizes: the number of variances of each mode.

    Source: Chen & Chen (2008), "Extended Bayesian information criteria for model selection
    with large model spaces": a prior that is even over the numbers of atoms, and over the
    supports of each number.
    """
    if worth not in NAMED:
        return (float(worth or 0.0),) * len(sizes)
    each = 0.5 * math.log(len(data))
    return tuple(each + (math.log(n) if worth == "ebic" else 0.0) for n in sizes)


def surplus(data: Measurements, scales: Scales, evidence: float, worth: Worth) -> float:
    """By how much the evidence and the prices of the atoms beat noise alone, in nats.

    Args:
        data: the measurements.
        scales: the prior variances of the fit.
        evidence: the evidence there.
        worth: the setting `prune`. Prices are at least those of "ebic", unless it is None.
    """
    alone = float(_noise_alone(data))
    price = prices(None if worth is None else "ebic", data, [g.size for g in scales.local])
    counts = [
        0 if frozen else int(np.count_nonzero(g))
        for g, frozen in zip(scales.local, scales.frozen, strict=True)
    ]
    return evidence - alone - sum(p * n for p, n in zip(price, counts, strict=True))


@jit_for_one_run
def _noise_alone(data):
    silent = tuple(jnp.zeros(n, data.power.dtype) for n in data.num_atoms)
    return best_noise(data, silent)[1]


def check_surplus(facts: Mapping[str, Any]) -> tuple[Check, ...]:
    """Check that what was kept can be told from noise.

    Args:
        facts: with `surplus`; fits in older files have none, and get no check.
    """
    if "surplus" not in facts:
        return ()
    return (
        Check(
            "evidence for what was kept",
            facts["surplus"],
            "at least",
            LEAST_SURPLUS,
            "the data look like noise: measure more, or use a dictionary of fewer atoms",
            "nats over noise alone, less the prices of the atoms",
        ),
    )


class Pruned(NamedTuple):
    """What pruning left.

    Attributes:
        scales: the prior variances, in squared units of the coefficients.
        noise: $σ^2$, in squared units of `y`.
        worth: the evidence less the prices of the atoms, in nats.
        climb: the last moves of the variances; its objective is the evidence.
    """

    scales: Scales
    noise: Float[Array, ""]
    worth: Float[Array, ""]
    climb: Climb


def best_noise(
    data: Measurements, variance: Vectors
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""The $σ^2$ with the largest evidence for given variances, and that evidence in nats.

    The eigenvectors of the signal's covariance do not depend on it, so that it costs one
    eigenproblem. If the noise is known, it stays.
    """
    post = posterior(data, variance, jnp.zeros((), data.power.dtype))
    signal = jnp.maximum(post.spectrum, 0.0)

    def evidence(noise):
        at = dataclasses.replace(post, noise=noise, spectrum=signal + noise)
        return at.log_evidence()

    if data.noise_sd is not None:
        return data.noise_sd**2, evidence(data.noise_sd**2)
    logs = jnp.log(jnp.asarray(NOISES, data.power.dtype) * data.power)
    found = jax.vmap(lambda log: evidence(jnp.exp(log)))(logs)
    # The top of the parabola through the best and its neighbours.
    i = jnp.clip(jnp.argmax(found), 1, len(NOISES) - 2)
    below, here, above = found[i - 1], found[i], found[i + 1]
    bend = 2 * here - below - above
    share = jnp.where(bend > 0, (above - below) / jnp.where(bend > 0, 2 * bend, 1.0), 0.0)
    top = jnp.exp(logs[i] + jnp.clip(share, -1, 1) * (logs[1] - logs[0]))
    best = evidence(top)
    largest = jnp.argmax(found)
    is_top = best >= found[largest]
    return jnp.where(is_top, top, jnp.exp(logs[largest])), jnp.maximum(best, found[largest])


@partial(jit_for_one_run, is_short=lambda data, *_: is_small(data))
def pruned(
    data: Measurements, scales: Scales, noise: Float[Array, ""], worth: Worth, atol: float
) -> Pruned:
    """Take out the atoms that add less than their price to the evidence.

    Each trial has the best noise for it. With the noise held, a model that took noise for
    signal would keep nearly all of its atoms: each one explains much of the little noise
    that is left. See `fewer`, with one group per mode. Then the bound moves the variances
    that are left, and both are done again until no atom leaves.

    Args:
        data: the measurements.
        scales: the prior variances, in squared units of the coefficients.
        noise: $σ^2$, in squared units of `y`.
        worth: the setting `prune`.
        atol: tolerance on the evidence, in nats.
    """
    free = [p for p, frozen in enumerate(scales.frozen) if not frozen]
    if worth is None or not free:
        evidence = posterior(data, scales.variance(), noise).log_evidence()
        climb = at_foot(data.power.dtype)._replace(objective=evidence)
        return Pruned(scales, noise, evidence, climb)
    sizes = [scales.local[p].size for p in free]
    price = prices(worth, data, [g.size for g in scales.local])
    cuts = np.cumsum(sizes)[:-1]
    mode = jnp.asarray(np.repeat(np.arange(len(free)), sizes))
    cost = jnp.asarray(np.repeat([price[p] for p in free], sizes), data.power.dtype)

    def joined(local):
        return jnp.concatenate([local[p] for p in free])

    def split(flat):
        parts = dict(zip(free, jnp.split(flat, cuts), strict=True))
        return tuple(parts.get(p, g) for p, g in enumerate(scales.local))

    def sweep(total, local):
        def evidence(flat):
            return best_noise(data, scales.at(total, split(flat)).variance())[1]

        return split(fewer(evidence, joined(local), mode, len(free), cost)[0])

    def rise(carry):
        total, local, noise, climb = carry
        post = posterior(data, scales.at(total, local).variance(), noise)
        new, moved = bound_step(scales.at(total, local), post, data)
        climb = climbed(climb, post.log_evidence(), slack=post.rounding())
        return new.total, new.local, moved, climb

    def rising(carry):
        climb = carry[-1]
        return ~is_done(climb, atol) & (climb.num_steps < AFTER)

    def round_of(carry):
        total, local, _, _, _, number = carry
        left = sweep(total, local)
        noise, _ = best_noise(data, scales.at(total, left).variance())
        foot = at_foot(data.power.dtype)
        total, moved, noise, climb = jax.lax.while_loop(
            rising, rise, (total, left, noise, foot)
        )
        changed = jnp.any((joined(left) > 0) != (joined(local) > 0))
        return total, moved, noise, climb, changed, number + 1

    def unfinished(carry):
        *_, changed, number = carry
        return changed & (number < MOST_ROUNDS)

    foot, none = at_foot(data.power.dtype), jnp.zeros((), jnp.int32)
    begin = (scales.total, scales.local, noise, foot, jnp.ones((), bool), none)
    total, local, noise, climb, *_ = jax.lax.while_loop(unfinished, round_of, begin)
    chosen = scales.at(total, local)
    evidence = posterior(data, chosen.variance(), noise).log_evidence()
    spent = (cost * (joined(local) > 0)).sum()
    return Pruned(chosen, noise, evidence - spent, climb._replace(objective=evidence))
