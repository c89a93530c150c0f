"""Exchanges: one atom of a mode for another, where that has more evidence.

With several modes a wrong atom of one mode can have the right ones of all others beside it.
No small change of the variances leaves such an optimum, and all restarts may end there.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.method.climb import SAME_OPTIMUM
from probkit.method.programs import jit_for_one_run
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.prune import Pruned, Worth, prices, pruned
from probkit.models.sbl.updates import Scales, bound_step, is_small

# Pairs of atoms that are tried in a round, steps of the bound after each, rounds, and how
# many of the best pairs of a round are pruned.
PAIRS, STEPS, ROUNDS, BEST = 128, 20, 5, 2
# With more coefficients, or seen entries of an incomplete grid, a round takes too long.
MOST_COEFFICIENTS, MOST_SEEN = 100_000, 300


def exchanged(data: Measurements, found: Pruned, worth: Worth, atol: float) -> Pruned:
    """Exchange atoms of one mode after another while the evidence less the prices rises.

    Args:
        data: the measurements.
        found: an optimum, pruned.
        worth: the setting `prune`.
        atol: tolerance on the evidence, in nats.

    Returns:
        The optimum itself, or a better one.
    """
    several = sum(not frozen for frozen in found.scales.frozen) > 1
    too_large = math.prod(data.num_atoms) > MOST_COEFFICIENTS
    too_dense = data.places is not None and len(data) > MOST_SEEN
    if worth is None or not several or too_large or too_dense:
        return found
    random = np.random.default_rng(0)
    highest = max(prices(worth, data, [g.size for g in found.scales.local]))
    for _ in range(ROUNDS):
        better = None
        out, into = _pairs(found.scales, random)
        tried = np.array(_evidences(data, found.scales, found.noise, out, into))
        for k in np.argsort(-tried)[:BEST]:
            # What pruning can still add is the price of an atom or two.
            if not tried[k] > float(found.climb.objective) - 2 * highest:
                break
            scales, noise = _after(data, found.scales, found.noise, out[k], into[k])
            new = pruned(data, scales, noise, worth, atol)
            if float(new.worth) > float(found.worth) + SAME_OPTIMUM:
                better = new
                break
        if better is None:
            return found
        found = better
    return found


def _pairs(scales: Scales, random) -> tuple[np.ndarray, np.ndarray]:
    """Places, in all modes in a row, of atoms that are in and of others that are not."""
    pairs: list[tuple[int, int]] = []
    first = 0
    for g, frozen in zip(scales.local, scales.frozen, strict=True):
        inside = np.asarray(g) > 0
        places = first + np.arange(inside.size)
        if not frozen:
            pairs += itertools.product(places[inside], places[~inside])
        first += inside.size
    if not pairs:
        pairs = [(0, 0)]
    chosen = random.permutation(len(pairs))[:PAIRS]
    # Of one size, so that one program serves all rounds.
    chosen = np.resize(chosen, PAIRS)
    out, into = np.array(pairs)[chosen].T
    return out, into


def _swapped(scales: Scales, out: Int[Array, ""], into: Int[Array, ""]) -> Scales:
    joined = jnp.concatenate(scales.local)
    joined = joined.at[into].set(joined[out]).at[out].set(0.0)
    cuts = np.cumsum([g.size for g in scales.local])[:-1]
    return scales.at(scales.total, jnp.split(joined, cuts))


def _risen(data: Measurements, scales: Scales, noise) -> tuple[Scales, Float[Array, ""]]:
    def step(_, carry):
        scales, noise = carry
        return bound_step(scales, posterior(data, scales.variance(), noise), data)

    return jax.lax.fori_loop(0, STEPS, step, (scales, noise))


@partial(jit_for_one_run, is_short=lambda data, *_: is_small(data))
def _evidences(data, scales, noise, out, into) -> Float[Array, " k"]:
    """The evidence after each exchange, in nats."""

    def one(pair):
        new, moved = _risen(data, _swapped(scales, *pair), noise)
        return posterior(data, new.variance(), moved).log_evidence()

    return jax.lax.map(one, (jnp.asarray(out), jnp.asarray(into)))


@partial(jit_for_one_run, is_short=lambda data, *_: is_small(data))
def _after(data, scales, noise, out, into) -> tuple[Scales, Float[Array, ""]]:
    return _risen(data, _swapped(scales, out, into), noise)
