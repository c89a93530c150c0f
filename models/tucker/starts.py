r"""Where message passing starts.

A start is random, or comes from least squares: main effects are fitted first, one mode
after the other, and then one product of functions after the other to what is left. Each
product is the best of several. These begin at random along two modes, and constant along
the others, because few interactions are of all modes. The pair that grows first is the
leading singular pair of the table of these two modes, weighted by its entries.

A point has few entries, so that it borrows those of its neighbours on a line, and its value
has the ridge of a prior of variance one.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.method.programs import jit_for_one_run
from probkit.method.protocol import either
from probkit.model.density import Sites
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.model import AbstractTucker, Tucker
from probkit.models.tucker.observations import RESIDUAL, Noise
from probkit.models.tucker.parameters import centres
from probkit.models.tucker.posterior import (
    Factor,
    Gaussian,
    Posterior,
    core_given,
    local_at,
    surface_at,
)
from probkit.settings import with_all_digits
from probkit.validate import as_key, short

# What a lane is told of its start, in place of a draw: whether it is by least squares.
KIND = "by_least_squares"
# Variance of the functions at a start, and sd of the noise, standardised.
VARIANCE, NOISE = 0.01, 0.5
# Rounds of main effects, and of each product.
ROUNDS = 8
# Entries that a point on a line has at least, with those that it borrows.
ENOUGH = 8
# Candidates of each product, over all pairs of modes.
CANDIDATES = 12
# Scales of a start are at least this large, standardised, so that no part is lost.
LEAST = 0.03


class Parts(NamedTuple):
    """A surface, standardised, without its level.

    Attributes:
        effects: the main effect of each mode at its points.
        functions: those of the products at the points of each mode, of mean square one.
        scale: of each product.
    """

    effects: list[Float[Array, " _p"]]
    functions: list[Float[Array, "_p r"]]
    scale: Float[Array, " r"]


def started(
    model: AbstractTucker, data: Entries, sites: Sites, key: PRNGKeyArray
) -> Posterior:
    """Random functions of the prior, of a small variance; a normal core; noise."""
    count = len(data.axes)
    keys = jax.random.split(key, count + 1)
    factors = []
    for k in range(count):
        prior = model.prior(sites, data, k)
        white = jax.random.normal(keys[k], prior.white_shape, data.dtype)
        mean = prior.color(white)
        if model.effects:
            mean = mean.at[:, -1].set(0.0)
        p, c = mean.shape
        covariance = jnp.broadcast_to(VARIANCE * jnp.eye(c, dtype=data.dtype), (p, c, c))
        # Nothing is known yet of what they follow from.
        none = jnp.zeros((), data.dtype)
        factors.append(Factor(mean, covariance, 0 * covariance, 0 * mean, none))
    m = int(np.prod(model.ranks(count))) if isinstance(model, Tucker) else 0
    core = Gaussian(
        jax.random.normal(keys[count], (m,), data.dtype),
        VARIANCE * jnp.eye(m, dtype=data.dtype),
    )
    one = jnp.ones((), data.dtype)
    level = Gaussian(jnp.zeros(1, data.dtype), VARIANCE * jnp.eye(1, dtype=data.dtype))
    half = len(data) / 2
    noise = Noise(half * one, half * NOISE**2 * one)
    flat = jnp.zeros(len(data), data.dtype)
    local = local_at(model, data, flat, flat + 1.0, noise)
    return Posterior(sites, tuple(factors), level, core, noise, local.weight, local.shift)


def kinds(count: int) -> Sites:
    """The first of so many lanes, and every other one after it, is by least squares."""
    return {KIND: jnp.arange(count) % 2 == 0}


def chosen(
    model: AbstractTucker, data: Entries, kind: Sites, key: PRNGKeyArray
) -> Posterior:
    """The start of a lane, at the centres of the priors of kernels."""
    key_random, key_parts = jax.random.split(key)
    at_random = started(model, data, centres(model, data), key_random)
    at_least = by_least_squares(model, data, at_random, key_parts)
    return either(kind[KIND], at_least, at_random)


def at_entries(model: AbstractTucker, data: Entries, post: Posterior) -> Posterior:
    """A posterior of other entries at the same points, as a start for these."""
    mean, second = surface_at(model, data, post, data.places)
    local = local_at(model, data, mean, second, post.noise)
    return replace(post, weight=local.weight, shift=local.shift)


@with_all_digits
def start_at(
    function: Callable[[Any], Any], model: AbstractTucker, data: Entries, *, key: Any
) -> Posterior:
    """A start of message passing near a known function, `pk.fit(..., start=...)`.

    Effects and products are fitted to its values at the entries by least squares.

    Args:
        function: of points, `(n, k)` in units of the coordinates, one column per mode (per
            coordinate for a space), to `(n,)` values in units of the surface; such as a
            `tucker.Chebyshev`. Dates are days since the first. Where it is NaN it counts
            as unknown.
        model: the model.
        data: the data.
        key: a JAX random key.

    Returns:
        The start.

    Raises:
        ValueError: for modes of labels, and values of another shape or all unknown.
    """
    key = as_key(key, "start_at(key=...)")
    labels = [axis.name for axis in data.axes if axis.kind == "labels"]
    if labels:
        raise ValueError(
            f"`start_at`: the mode `{labels[0]}` has labels, of which a function of "
            "numbers knows nothing; fit without `start`."
        )
    columns = [axis.points[data.places[:, k]] for k, axis in enumerate(data.axes)]
    points = jnp.concatenate([c.reshape(len(data), -1) for c in columns], 1)
    values = jnp.asarray(function(points), data.dtype)
    if values.shape != (len(data),) or not bool(jnp.isfinite(values).any()):
        raise ValueError(
            f"`start_at(function={short(function)})` returned the shape {values.shape} for "
            f"points of shape {points.shape}, or no finite value; it takes one value per "
            "point."
        )
    return _at_values(model, data, values, key)


@jit_for_one_run
def _at_values(model, data, values, key) -> Posterior:
    unit = model.units(data)
    post = started(model, data, centres(model, data), key)
    known = jnp.isfinite(values)
    y = jnp.where(known, (values - unit.loc) / unit.scale, 0.0)
    weight = known / RESIDUAL**2  # values without noise
    seen = replace(post, weight=weight, shift=weight * y)
    return at_entries(model, data, by_least_squares(model, data, seen, key))


def by_least_squares(
    model: AbstractTucker, data: Entries, post: Posterior, key: PRNGKeyArray
) -> Posterior:
    """A start with means from least squares; see the head of this module.

    Args:
        model: the model.
        data: the data.
        post: another start, for weights and shifts of the entries, and all else.
        key: a JAX random key.
    """
    ranks = model.ranks(len(data.axes))
    weight = post.weight
    y = post.shift / jnp.where(weight > 0, weight, 1.0)
    level = jnp.sum(weight * y) / weight.sum()
    parts = fitted(data, y - level, weight, max(ranks), model.effects, key)
    unit, sites = model.units(data).scale, dict(post.sites)
    factors = []
    for k, axis in enumerate(data.axes):
        columns = [parts.functions[k][:, : ranks[k]]]
        if isinstance(model, Tucker):
            # So that the core is of order one.
            own = jnp.maximum(parts.scale, LEAST) ** (1 / len(ranks))
            sites[f"scale_{axis.name}"] = own[: ranks[k]]
        if model.effects:
            g = parts.effects[k]
            sd = jnp.maximum(jnp.sqrt(jnp.mean(g**2)), LEAST)
            sites[f"sd_effect_{axis.name}"] = unit * sd
            columns.append((g / sd)[:, None])
        factors.append(replace(post.factors[k], mean=jnp.concatenate(columns, 1)))
    if not isinstance(model, Tucker):
        sites["scale"] = unit * jnp.maximum(parts.scale, LEAST)
    post = replace(
        post,
        sites=sites,
        factors=tuple(factors),
        level=replace(post.level, mean=level[None]),
    )
    if isinstance(model, Tucker):
        post = replace(post, core=core_given(model, data, post))
    return post


def fitted(
    data: Entries,
    y: Float[Array, " n"],
    weight: Float[Array, " n"],
    rank: int,
    effects: bool,
    key: PRNGKeyArray,
) -> Parts:
    """Main effects and products, one after the other.

    Args:
        data: the coordinates.
        y: the values, standardised, of mean zero.
        weight: of each.
        rank: the number of products.
        effects: whether there are main effects.
        key: a JAX random key.
    """
    count, sizes = len(data.axes), [len(axis) for axis in data.axes]
    gs = [jnp.zeros(p, data.dtype) for p in sizes]

    def by_effects(_, gs):
        gs = list(gs)
        for k in range(count):
            left = y - sum(gs[j][data.places[:, j]] for j in range(count) if j != k)
            ones = jnp.ones((len(y), 1), data.dtype)
            gs[k] = _solved(data, k, ones, left, weight)[:, 0]
            gs[k] = gs[k] - gs[k].mean()
        return tuple(gs)

    if effects:
        gs = list(jax.lax.fori_loop(0, ROUNDS, by_effects, tuple(gs)))
    left = y - sum(g[data.places[:, k]] for k, g in enumerate(gs))

    def one_more(left, key):
        us, scale = _product(data, left, weight, key)
        whole = scale * _times(data, us)
        return left - whole, (us, scale)

    _, (us, scale) = jax.lax.scan(one_more, left, jax.random.split(key, rank))
    return Parts(gs, [u.T for u in us], scale)


def _product(data: Entries, left, weight, key):
    """One function per mode, of mean square one, and the scale of their product."""
    count = len(data.axes)
    pairs: list[tuple[int, ...]] = [*combinations(range(count), 2)] or [(0,)]
    each = max(1, CANDIDATES // len(pairs))
    us = []
    for k, axis in enumerate(data.axes):
        free = np.repeat([k in pair for pair in pairs], each)
        drawn = jax.random.normal(
            jax.random.fold_in(key, k), (len(axis), len(free)), data.dtype
        )
        us.append(jnp.where(free, drawn, 1.0))

    def around(_, us):
        us = list(us)
        for k in range(count):
            others = _times(data, us, without=k)
            u = _solved(data, k, others, left, weight)
            us[k] = u / jnp.maximum(jnp.sqrt(jnp.mean(u**2, 0)), 1e-12)
        return tuple(us)

    us = jax.lax.fori_loop(0, ROUNDS, around, tuple(us))
    whole = _times(data, us)
    along = weight @ (whole * left[:, None])
    norm = weight @ whole**2
    # What is left of the squares is less by along^2 / norm.
    best = jnp.argmax(along**2 / (norm + 1.0))
    return tuple(u[:, best] for u in us), along[best] / (norm[best] + 1.0)


def _times(data: Entries, us, without: int | None = None):
    """The products of functions at the entries."""
    found = [u[data.places[:, k]] for k, u in enumerate(us) if k != without]
    out = jnp.ones_like(us[0][data.places[:, 0]]) if not found else found[0]
    for u in found[1:]:
        out = out * u
    return out


def _solved(
    data: Entries,
    k: int,
    others: Float[Array, "n c"],
    left: Float[Array, " n"],
    weight: Float[Array, " n"],
) -> Float[Array, "p c"]:
    """One function of a mode for each column of what multiplies it."""
    axis, w = data.axes[k], weight[:, None]
    both = jnp.concatenate([w * others * left[:, None], w * others**2], 1)
    sums = jax.ops.segment_sum(both, data.places[:, k], len(axis))
    p = len(axis)
    aside = round((ENOUGH * p / len(data) - 1) / 2)
    if axis.kind == "line" and aside > 0:
        whole = jnp.pad(jnp.cumsum(sums, 0), ((1, 0), (0, 0)))
        at = np.arange(p)
        sums = whole[np.minimum(at + aside + 1, p)] - whole[np.maximum(at - aside, 0)]
    shift, precision = jnp.split(sums, 2, axis=1)
    return shift / (precision + 1.0)
