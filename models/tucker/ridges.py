r"""Draws along directions in which the surface hardly changes.

A constant can move from the level to a main effect. With two modes a component can take a
constant, or a part of another component, if the other mode makes up for it; with a core,
the core does. Blocks that are drawn one after the other hardly move along such a direction
where the noise is small. The surface is linear along each of them, so that the draw is
exact. After
$c$ steps from the white noise $x$ along $d$, which change the surface by $c\, δ$,

$$c \sim N(m / p,\, 1 / p), \quad p = d^T d + \sum_n w_n δ_n^2, \quad
m = \sum_n (h_n - w_n f_n)\, δ_n - d^T x.$$

A poor direction costs time, and makes no draw wrong.

Source: Liu & Sabatti (2000), "Generalised Gibbs sampler and multigrid Monte Carlo for
Bayesian computation".
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.models.tucker.entries import Entries
from probkit.models.tucker.model import AbstractTucker, Tucker
from probkit.models.tucker.posterior import Gaussian, Posterior, level_prior
from probkit.models.tucker.priors import AbstractPrior

# Of a step of Metropolis, of the logarithm of a scale.
LOG_STEP = 0.7


class Draw(NamedTuple):
    """What is normal and independent a priori, and the functions it makes; or a direction.

    Attributes:
        whites: the white noise of each mode, `(p, d)`.
        factors: components and main effect at the points of each mode, `(p, c)`.
        level: standardised, of the variance of `level_prior`.
        core: of `Tucker`; of no number for `CP`.
    """

    whites: tuple[Array, ...]
    factors: tuple[Array, ...]
    level: Float[Array, ""]
    core: Array


def slid(
    model: AbstractTucker,
    data: Entries,
    post: Posterior,
    whites: Sequence[Array],
    key: Any,
) -> tuple[Posterior, list[Array]]:
    """A draw after a step along each direction, and of the scales of a core.

    Args:
        model: the model.
        data: the data.
        post: a draw, as a posterior without variances.
        whites: the white noise of its functions.
        key: a JAX random key.

    Returns:
        The next draw, and its white noise.
    """
    count = len(data.axes)
    ranks = model.ranks(count)
    priors = [model.prior(post.sites, data, k) for k in range(count)]
    factors = tuple(factor.mean for factor in post.factors)
    draw = Draw(tuple(whites), factors, post.level.mean[0], post.core.mean)
    keys = iter(jax.random.split(key, 1 + 2 * count + sum(ranks)))

    def stepped(draw: Draw, directions: list[Draw]) -> Draw:
        """A step along each; none of them may depend on what the others move."""
        stacked = jax.tree.map(lambda *a: jnp.stack(a), *directions)

        def one(draw, given):
            return _step(model, data, post, draw, *given), None

        each = jax.random.split(next(keys), len(directions))
        return jax.lax.scan(one, draw, (stacked, each))[0]

    still = jax.tree.map(jnp.zeros_like, draw)
    if model.effects:
        ones = [prior.white_of(jnp.ones_like(factors[k])) for k, prior in enumerate(priors)]
        to_effect = [
            _level_to_effect(model, data, post, still, priors[k], ones[k], k)
            for k in range(count)
        ]
        draw = stepped(draw, to_effect)
        for k in range(count) if count == 2 else ():
            moves = _constants(model, data, post, draw, still, priors, ones[k], k)
            draw = stepped(draw, moves)
    # With a core in each mode; without one the two modes have the same directions.
    mixed = range(count) if isinstance(model, Tucker) else range(count == 2)
    for k in mixed:
        for r in range(ranks[k]) if ranks[k] > 1 else ():
            draw = stepped(draw, _mixtures(model, data, post, draw, still, k, r))
    if isinstance(model, Tucker):
        for k in range(count):
            post, draw = _scaled(model, data, post, draw, next(keys), k)
    pairs = zip(post.factors, draw.factors, strict=True)
    level = replace(post.level, mean=draw.level[None])
    post = replace(
        post,
        factors=tuple(replace(factor, mean=mean) for factor, mean in pairs),
        level=level,
        core=Gaussian(draw.core, post.core.covariance),
    )
    return post, list(draw.whites)


def _step(model, data, post: Posterior, draw: Draw, direction: Draw, key) -> Draw:
    """A draw of the number of steps."""
    unit, variance = model.units(data), level_prior(model, post).covariance[0, 0]

    def f(draw):
        sites = post.sites | {"level": unit.loc + unit.scale * draw.level}
        if isinstance(model, Tucker):
            sites["core"] = draw.core.reshape(model.ranks(len(data.axes)))
        found = model.surface(sites, data, list(draw.factors), data.places)
        return (found - unit.loc) / unit.scale

    def inner(a: Draw, b: Draw):
        both = sum(jnp.vdot(v, w) for v, w in zip(a.whites, b.whites, strict=True))
        return both + jnp.vdot(a.core, b.core) + a.level * b.level / variance

    now = f(draw)
    change = f(jax.tree.map(jnp.add, draw, direction)) - now
    precision = jnp.sum(post.weight * change**2) + inner(direction, direction)
    pull = jnp.sum((post.shift - post.weight * now) * change) - inner(draw, direction)
    noise = jax.random.normal(key, (), data.dtype)
    steps = pull / precision + noise / jnp.sqrt(precision)
    return jax.tree.map(lambda a, d: a + steps * d, draw, direction)


def _moved(still: Draw, prior: AbstractPrior, k: int, white: Array) -> Draw:
    """A direction of the functions of one mode."""
    whites = (*still.whites[:k], white, *still.whites[k + 1 :])
    factors = (*still.factors[:k], prior.color(white), *still.factors[k + 1 :])
    return still._replace(whites=whites, factors=factors)


def _only(white: Array, count: int, r: int, source: int | None = None) -> Array:
    """White noise of one function alone, or of function `source` in its place."""
    by_function = white.reshape(len(white), count, -1)
    one = by_function[:, r if source is None else source]
    return jnp.zeros_like(by_function).at[:, r].set(one).reshape(white.shape)


def _level_to_effect(model, data, post, still, prior, ones, k) -> Draw:
    sd = post.sites[f"sd_effect_{data.axes[k].name}"] / model.units(data).scale
    count = still.factors[k].shape[1]
    return _moved(still, prior, k, _only(ones, count, count - 1))._replace(level=-sd)


def _constants(model, data, post, draw, still, priors, ones, k) -> list[Draw]:
    """Constants to each component of one of two modes, and what they do from the other."""
    other = 1 - k
    count = draw.factors[k].shape[1]
    directions = []
    for r in range(model.ranks(2)[k]):
        moved = _moved(still, priors[k], k, _only(ones, count, r))
        # The change of the surface along the points of the other mode.
        slope = _slopes(model, data, post, draw, k)[:, r]
        sd = post.sites[f"sd_effect_{data.axes[other].name}"]
        wanted = jnp.zeros_like(draw.factors[other]).at[:, -1].set(-slope / sd)
        beside = _moved(moved, priors[other], other, priors[other].white_of(wanted))
        directions.append(beside)
    return directions


def _slopes(model, data, post, draw, k) -> Float[Array, "p r"]:
    """The derivative of the surface by each component of a mode, at the other's points."""
    other = 1 - k
    ranks = model.ranks(2)
    u = draw.factors[other][:, : ranks[other]]
    if not isinstance(model, Tucker):
        return u * post.sites["scale"]
    names = [axis.name for axis in data.axes]
    W = draw.core.reshape(ranks) * model.units(data).scale
    W = W if k == 1 else W.T
    scales = post.sites[f"scale_{names[other]}"], post.sites[f"scale_{names[k]}"]
    return (u * scales[0]) @ W * scales[1]


def _mixtures(model, data, post, draw, still, k, r) -> list[Draw]:
    """Each other component of a mode is added to one, and taken from what they multiply."""
    axis, count = data.axes[k], draw.factors[k].shape[1]
    has_core = isinstance(model, Tucker)
    scale = post.sites[f"scale_{axis.name}" if has_core else "scale"]
    directions = []
    for q in range(model.ranks(len(data.axes))[k]):
        if q == r:
            continue
        whites, factors = list(still.whites), list(still.factors)
        whites[k] = scale[q] * _only(draw.whites[k], count, r, q)
        factors[k] = scale[q] * _only(draw.factors[k], count, r, q)
        core = still.core
        if has_core:
            W = jnp.moveaxis(draw.core.reshape(model.ranks(len(data.axes))), k, 0)
            taken = jnp.zeros_like(W).at[q].set(-scale[r] * W[r])
            core = jnp.moveaxis(taken, 0, k).reshape(-1)
        else:
            beside = draw.factors[1].shape[1]
            whites[1] = -scale[r] * _only(draw.whites[1], beside, q, r)
            factors[1] = -scale[r] * _only(draw.factors[1], beside, q, r)
        directions.append(Draw(tuple(whites), tuple(factors), still.level, core))
    return directions


def _scaled(model, data, post, draw, key, k) -> tuple[Posterior, Draw]:
    """Each scale of a mode times a factor, and the core divided by it: Metropolis steps."""
    name, ranks = f"scale_{data.axes[k].name}", model.ranks(len(data.axes))
    prior = model.priors(data)[name]
    scale, W = post.sites[name], jnp.moveaxis(draw.core.reshape(ranks), k, 0)
    for r, each in enumerate(jax.random.split(key, ranks[k])):
        key_step, key_accept = jax.random.split(each)
        log_a = LOG_STEP * jax.random.normal(key_step, (), data.dtype)
        new_scale = scale.at[r].multiply(jnp.exp(log_a))
        new_W = W.at[r].multiply(jnp.exp(-log_a))
        ratio = prior.log_prob(new_scale) - prior.log_prob(scale)
        ratio = ratio - (jnp.sum(new_W[r] ** 2) - jnp.sum(W[r] ** 2)) / 2
        ratio = ratio + (1 - W[r].size) * log_a  # the volume of the map
        took = jnp.log(jax.random.uniform(key_accept, (), data.dtype)) < ratio
        scale, W = jnp.where(took, new_scale, scale), jnp.where(took, new_W, W)
    post = replace(post, sites=post.sites | {name: scale})
    return post, draw._replace(core=jnp.moveaxis(W, 0, k).reshape(-1))
