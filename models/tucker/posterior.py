"""The approximate posterior: Gaussian chains, a Gaussian core and level, a gamma noise."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from probkit.gp.state_space import Sites as Terms
from probkit.method import AbstractApproximation
from probkit.model.density import Sites
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.model import LEVEL, AbstractTucker, Tucker
from probkit.models.tucker.moments import (
    AbstractInteraction,
    Diagonal,
    Full,
    Moments,
    design,
    surface,
)
from probkit.models.tucker.observations import Local, Noise
from probkit.models.tucker.queries import Queries

# Entries at a time, so that memory does not grow with their number.
CHUNK = 16_384


class Gaussian(eqx.Module):
    """Of a vector: its mean and covariance."""

    mean: Float[Array, " m"]
    covariance: Float[Array, "m m"]

    @property
    def second(self):
        return self.covariance + jnp.outer(self.mean, self.mean)

    def picked(self, key: Any) -> "Gaussian":
        """One draw, as a vector without variance."""
        root = jnp.linalg.cholesky(self.covariance)
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return Gaussian(self.mean + root @ noise, jnp.zeros_like(self.covariance))

    @classmethod
    def white(cls, count: int, variance: float, dtype: Any) -> "Gaussian":
        """$N(0, v I)$."""
        eye = jnp.eye(count, dtype=dtype)
        return cls(jnp.zeros(count, dtype), variance * eye)

    @classmethod
    def given(cls, prior: "Gaussian", linear: "Linear") -> "Gaussian":
        """A vector given a term of the likelihood, and what was known of it before."""
        inverse = _inverse(prior.covariance)
        covariance = _inverse(inverse + linear.precision)
        return cls(covariance @ (linear.shift + inverse @ prior.mean), covariance)

    def divergence(self, prior: "Gaussian") -> Float[Array, ""]:
        """Kullback-Leibler divergence from what was known before, in nats."""
        apart, inverse = self.mean - prior.mean, _inverse(prior.covariance)
        inside = jnp.sum(inverse * (self.covariance + jnp.outer(apart, apart)))
        volumes = (jnp.linalg.slogdet(C)[1] for C in (prior.covariance, self.covariance))
        before, now = volumes
        return (inside - len(apart) + before - now) / 2


class Linear(NamedTuple):
    """A Gaussian term of the likelihood of a vector: its precision, and its shift."""

    precision: Float[Array, "m m"]
    shift: Float[Array, " m"]


def _inverse(covariance: Float[Array, "m m"]) -> Float[Array, "m m"]:
    if len(covariance) == 1:
        return 1 / covariance
    eye = jnp.eye(len(covariance), dtype=covariance.dtype)
    return cho_solve((jnp.linalg.cholesky(covariance), True), eye)


class Factor(eqx.Module):
    """Of the functions of one mode, of variance one, at its points.

    Attributes:
        mean: `(p, c)`.
        covariance: `(p, c, c)`, at one point.
        precision: of the terms from which they follow, `(p, c, c)`.
        shift: and their shift, `(p, c)`.
        divergence: Kullback-Leibler divergence from the prior, in nats.
    """

    mean: Float[Array, "p c"]
    covariance: Float[Array, "p c c"]
    precision: Float[Array, "p c c"]
    shift: Float[Array, "p c"]
    divergence: Float[Array, ""]

    @property
    def terms(self) -> Terms:
        return Terms(self.precision, self.shift)


class Before(eqx.Module):
    """What was known before the entries: the posterior given earlier ones.

    Attributes:
        terms: of the functions of each mode at its points, for loads of one.
        core: of the core.
        level: of the level.
        noise: of the noise.
        evidence: of these terms under the prior, and the log prior of the parameters then,
            in nats. A bound is relative to it.
    """

    terms: tuple[Terms, ...]
    core: Gaussian
    level: Gaussian
    noise: Noise
    evidence: Float[Array, ""]


class Posterior(AbstractApproximation):
    """All of it. Values are standardised: in sds of the data, from their mean.

    Attributes:
        sites: the parameters that are estimated as points, in the units of the data.
        factors: one per mode.
        level: of one number.
        core: of the core as one vector; of no number for `CP`.
        noise: the precision of the noise.
        weight: what each entry counts, `(n,)`.
        shift: and where it draws the surface to, `(n,)`.
        before: what was known before the entries, or None for the priors of the model.
    """

    sites: Sites
    factors: tuple[Factor, ...]
    level: Gaussian
    core: Gaussian
    noise: Noise
    weight: Float[Array, " n"]
    shift: Float[Array, " n"]
    before: Before | None = None

    def fits(self, model: AbstractTucker, data: Entries) -> bool:
        """Whether it is one of this model, at as many points per mode as the data have."""
        ranks = model.ranks(len(data.axes))
        wanted = [
            (len(axis), rank + model.effects)
            for axis, rank in zip(data.axes, ranks, strict=True)
        ]
        size = math.prod(ranks) if isinstance(model, Tucker) else 0
        found = [factor.mean.shape for factor in self.factors]
        return found == wanted and self.core.mean.shape == (size,)

    def sample(self, model, data, key, num):
        def one(key):
            k_level, k_core, k_noise, *keys = jax.random.split(key, 3 + len(self.factors))
            gamma = jax.random.gamma(k_noise, self.noise.shape, dtype=data.dtype)
            drawn = replace(
                self,
                level=self.level.picked(k_level),
                core=self.core.picked(k_core),
                noise=Noise(self.noise.shape, self.noise.shape * self.noise.rate / gamma),
            )
            whites = [
                model.prior(self.sites, data, k).sample(factor.terms, keys[k])
                for k, factor in enumerate(self.factors)
            ]
            return sites_of(model, data, drawn, whites)

        return jax.lax.map(one, jax.random.split(key, num))

    def moments(
        self, model: AbstractTucker, data: Entries, asked: Queries
    ) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """Mean and variance of the surface at queries, in its units.

        Args:
            model: the model.
            data: the data of the fit.
            asked: where.
        """
        factors = []
        for k, factor in enumerate(self.factors):
            prior = model.prior(self.sites, data, k)
            mean, covariance = prior.at(factor.terms, asked.axes[k].points, asked.seen[k])
            none = factor.divergence
            factors.append(Factor(mean, covariance, 0 * covariance, 0 * mean, none))
        elsewhere = replace(self, factors=tuple(factors))
        mean, second = surface_at(model, data, elsewhere, asked.places)
        unit = model.units(data)
        variance = unit.scale**2 * jnp.maximum(second - mean**2, 0.0)
        return unit.loc + unit.scale * mean, variance


def sites_of(
    model: AbstractTucker, data: Entries, drawn: "Posterior", whites: list[Array]
) -> Sites:
    """The sites of the program at one draw, in the units of the data.

    Args:
        model: the model.
        data: the data.
        drawn: the draw: level, core and noise are their means.
        whites: the white noise of the functions of each mode.
    """
    unit, sites = model.units(data), dict(drawn.sites)
    sites["level"] = unit.loc + unit.scale * drawn.level.mean[0]
    if model.observation.in_units:
        sites["noise_sd"] = unit.scale / jnp.sqrt(drawn.noise.mean)
    if isinstance(model, Tucker):
        sites["core"] = drawn.core.mean.reshape(model.ranks(len(data.axes)))
    named = zip(data.axes, whites, strict=True)
    return sites | {f"white_{axis.name}": white for axis, white in named}


def loads(
    model: AbstractTucker, sites: Sites, data: Entries, k: int, own: bool
) -> Float[Array, " c"]:
    """What the functions of a mode are multiplied by in the surface.

    Args:
        model: the model.
        sites: the parameters.
        data: the data.
        k: the number of the mode.
        own: whether the scales of the interaction of `CP` are those of this mode.
    """
    axis, unit = data.axes[k], model.units(data).scale
    rank = model.ranks(len(data.axes))[k]
    if isinstance(model, Tucker):
        scale = sites[f"scale_{axis.name}"]
    else:
        scale = sites["scale"] / unit if own else jnp.ones(rank, data.dtype)
    if not model.effects:
        return scale
    return jnp.append(scale, sites[f"sd_effect_{axis.name}"] / unit)


def moments_at(
    model: AbstractTucker, data: Entries, post: Posterior, places: Array
) -> list[Moments]:
    """Those of each mode at entries with these places, with their loads."""
    found = []
    for k, factor in enumerate(post.factors):
        load = loads(model, post.sites, data, k, own=False)
        mean = factor.mean * load
        second = factor.covariance * load[:, None] * load + mean[:, :, None] * mean[:, None]
        if not model.effects:
            mean = jnp.pad(mean, ((0, 0), (0, 1)))
            second = jnp.pad(second, ((0, 0), (0, 1), (0, 1)))
        found.append(Moments(mean[places[:, k]], second[places[:, k]]))
    return found


def interaction(
    model: AbstractTucker, data: Entries, post: Posterior, unscaled: bool = False
) -> AbstractInteraction:
    """$I$ under the posterior.

    Args:
        model: the model.
        data: the data.
        post: the posterior.
        unscaled: whether to leave out the scales of `CP`.
    """
    ranks = model.ranks(len(data.axes))
    if isinstance(model, Tucker):
        second = post.core.second.reshape(*ranks, *ranks)
        return Full(post.core.mean.reshape(ranks), second)
    scale = post.sites["scale"] / model.units(data).scale
    return Diagonal(jnp.ones_like(scale) if unscaled else scale)


def level_moments(post: Posterior) -> tuple[Array, Array]:
    return post.level.mean[0], post.level.second[0, 0]


def total(function, data: Entries, rows: Any) -> Any:
    """The sum over entries of what a function returns for a part of them.

    Args:
        function: `function(places, rows, counts)` of some entries, to arrays. `counts` is
            zero for entries that fill up the last part.
        data: the data.
        rows: arrays with one row per entry.
    """
    n = len(data)
    if n <= CHUNK:
        return function(data.places, rows, jnp.ones(n, data.dtype))
    parts = -(-n // CHUNK)
    index = jnp.minimum(jnp.arange(parts * CHUNK), n - 1).reshape(parts, CHUNK)
    counts = (jnp.arange(parts * CHUNK) < n).astype(data.dtype).reshape(parts, CHUNK)

    def one(index, counts):
        taken = jax.tree.map(lambda a: a[index], rows)
        return function(data.places[index], taken, counts)

    zero = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(one, index[0], counts[0])
    )

    def step(sums, given):
        return jax.tree.map(jnp.add, sums, one(*given)), None

    return jax.lax.scan(step, zero, (index, counts))[0]


def each(function, places: Array, n: int) -> Any:
    """A function of the places of some entries, part by part, for all of them."""
    if n <= CHUNK:
        return function(places)
    parts = -(-n // CHUNK)
    index = jnp.minimum(jnp.arange(parts * CHUNK), n - 1).reshape(parts, CHUNK)
    out = jax.lax.map(lambda i: function(places[i]), index)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], out)


def surface_at(
    model: AbstractTucker, data: Entries, post: Posterior, places: Array
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """$E[f]$ and $E[f^2]$ at entries, standardised."""
    of = interaction(model, data, post)
    level = level_moments(post)

    def part(places):
        def one(modes):
            return surface(design(of, 0, modes, level), modes[0])

        return jax.vmap(one)(moments_at(model, data, post, places))

    return each(part, places, len(places))


def messages(model: AbstractTucker, data: Entries, post: Posterior, k: int) -> Terms:
    """The Gaussian terms for the functions of a mode, for loads of one.

    All entries at one point add up to one term, with what was known before.

    Source: the messages of Fang et al. (2024), averaged over all other blocks.
    """
    found = messages_of_entries(model, data, post, k)
    return (
        found if post.before is None else jax.tree.map(jnp.add, found, post.before.terms[k])
    )


def messages_of_entries(
    model: AbstractTucker, data: Entries, post: Posterior, k: int
) -> Terms:
    """The same of these entries only."""
    of = interaction(model, data, post, unscaled=True)
    level = level_moments(post)
    points = len(data.axes[k].points)
    c = post.factors[k].mean.shape[1]

    def part(places, rows, counts):
        weight, shift = rows
        modes = moments_at(model, data, post, places)
        d = jax.vmap(lambda modes: design(of, k, modes, level))(modes)
        w, h = weight * counts, shift * counts
        precision = w[:, None, None] * d.second[:, :c, :c]
        drawn = h[:, None] * d.mean[:, :c] - w[:, None] * d.with_offset[:, :c]
        add = lambda a: jax.ops.segment_sum(a, places[:, k], points)  # noqa: E731
        return Terms(add(precision), add(drawn))

    return total(part, data, (post.weight, post.shift))


def core_prior(model: Tucker, data: Entries, post: Posterior) -> Gaussian:
    """What was known of the core before the entries."""
    if post.before is not None:
        return post.before.core
    return Gaussian.white(len(post.core.mean), 1.0, data.dtype)


def core_given(model: Tucker, data: Entries, post: Posterior) -> Gaussian:
    """The core given all else: normal."""
    prior = core_prior(model, data, post)
    return Gaussian.given(prior, core_messages(model, data, post))


def core_messages(model: Tucker, data: Entries, post: Posterior) -> Linear:
    """The Gaussian term for the core."""
    ranks = model.ranks(len(data.axes))
    K, m = len(ranks), post.core.mean.size

    def outer(vectors):
        args: list[Any] = []
        for k, v in enumerate(vectors):
            args += [v, [K, k]]
        return jnp.einsum(*args, [K, *range(K)], optimize="greedy")

    def part(places, rows, counts):
        weight, shift = rows
        w, h = weight * counts, shift * counts
        modes = moments_at(model, data, post, places)
        args: list[Any] = [w, [2 * K]]
        for k, x in enumerate(modes):
            args += [x.second[:, :-1, :-1], [2 * K, k, K + k]]
        precision = jnp.einsum(*args, [*range(2 * K)], optimize="greedy")
        means = [x.mean[:, :-1] for x in modes]
        # E[z o]: the main effect of a mode is correlated with its components.
        offset = post.level.mean[0]
        drawn = jnp.tensordot(h - w * offset, outer(means), 1)
        for k, x in enumerate(modes):
            across = [*means[:k], x.second[:, :-1, -1], *means[k + 1 :]]
            drawn = drawn - jnp.tensordot(w, outer(across), 1)
        return Linear(precision.reshape(m, m), drawn.reshape(m))

    return total(part, data, (post.weight, post.shift))


def level_prior(model: AbstractTucker, post: Posterior) -> Gaussian:
    """What was known of the level before the entries, standardised."""
    if post.before is not None:
        return post.before.level
    variance = 1.0 if model.observation.in_units else LEVEL**2
    return Gaussian.white(1, variance, post.weight.dtype)


def level_messages(post: Posterior, mean: Array) -> Linear:
    """The Gaussian term for the level, where the surface has this mean at the entries."""
    left = jnp.sum(post.shift - post.weight * (mean - post.level.mean[0]))
    return Linear(post.weight.sum()[None, None], left[None])


def level_given(model: AbstractTucker, post: Posterior, mean: Array) -> Gaussian:
    """The level given all else, where the surface has this mean at the entries."""
    return Gaussian.given(level_prior(model, post), level_messages(post, mean))


def noise_prior(post: Posterior) -> Noise:
    """What was known of the noise before the entries."""
    if post.before is not None:
        return post.before.noise
    return Noise.prior(post.weight.dtype)


def shifted(post: Posterior, level: Gaussian, mean: Array, second: Array):
    """The moments of the surface with another level."""
    (old, old_second), (new, new_second) = (
        (g.mean[0], g.second[0, 0]) for g in (post.level, level)
    )
    rest = mean - old
    rest_second = second - old_second - 2 * old * rest
    return rest + new, rest_second + new_second + 2 * new * rest


def standardised(model: AbstractTucker, data: Entries) -> Float[Array, " n"]:
    """The values in the units of the surface in a sweep."""
    unit = model.units(data)
    return (data.y - unit.loc) / unit.scale


def local_at(
    model: AbstractTucker, data: Entries, mean: Array, second: Array, noise: Noise
) -> Local:
    """What replaces each entry where the surface has these moments."""
    offset = model.offset(data)
    second = second + 2 * offset * mean + offset**2
    y = standardised(model, data)
    found = model.observation.local(y, mean + offset, second, noise)
    return found._replace(shift=found.shift - found.weight * offset)


def loaded(terms: Terms, load: Float[Array, " c"]) -> Terms:
    """The terms for functions of variance one, which are multiplied by their loads."""
    return Terms(terms.precision * load[:, None] * load, terms.shift * load)
