"""The posterior of earlier entries: as a start at other points, and as a prior of new ones.

A term of zero changes nothing, so that a posterior at some points is one at more of them.
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.gp.state_space import Sites as Terms
from probkit.models.tucker.axes import Placed, placed
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.model import AbstractTucker, Tucker
from probkit.models.tucker.parameters import all_names
from probkit.models.tucker.posterior import (
    Before,
    Factor,
    Gaussian,
    Posterior,
    loaded,
    loads,
)


def _is_of(model: AbstractTucker, data: Entries, post: Posterior) -> bool:
    """Whether a posterior has the parameters and components of a model of some data."""
    priors = model.priors(data)
    shapes = {name: priors[name].shape() for name in all_names(model, data)}
    own = {name: jnp.shape(value) for name, value in post.sites.items()}
    ranks = model.ranks(len(data.axes))
    widths = [rank + model.effects for rank in ranks]
    core = int(np.prod(ranks)) if isinstance(model, Tucker) else 0
    return (
        shapes == own
        and widths == [factor.mean.shape[1] for factor in post.factors]
        and core == len(post.core.mean)
    )


def moved(model: Any, earlier: Any, data: Any, post: Any) -> Posterior | None:
    """A posterior at the points of other entries, in their units, as a start for these.

    Args:
        model: the model of both.
        earlier: the entries of the posterior.
        data: the other entries.
        post: the posterior.

    Returns:
        The posterior, or None if it is not one of this model and these modes.

    Raises:
        ValueError: for coordinates of another kind.
    """
    if not (isinstance(post, Posterior) and isinstance(earlier, Entries)):
        return None
    ours, theirs = ([axis.name for axis in d.axes] for d in (earlier, data))
    if ours != theirs or not _is_of(model, data, post):
        return None
    points = [
        placed(old, new.column(np.arange(len(new))), "fit(start=...)")
        for old, new in zip(earlier.axes, data.axes, strict=True)
    ]
    return _moved(model, earlier, data, post, points)


@eqx.filter_jit
def _moved(model, earlier, data, post: Posterior, points: list[Placed]) -> Posterior:
    factors = []
    for k, (factor, (axis, places, seen)) in enumerate(
        zip(post.factors, points, strict=True)
    ):
        prior = model.prior(post.sites, earlier, k)
        mean, covariance = prior.at(factor.terms, axis.points, seen)
        mean, covariance = mean[places], covariance[places]
        none = jnp.zeros_like(factor.divergence)
        factors.append(Factor(mean, covariance, 0 * covariance, 0 * mean, none))
    old, new = model.units(earlier), model.units(data)
    ratio = old.scale / new.scale
    level = Gaussian(
        (post.level.mean * old.scale + old.loc - new.loc) / new.scale,
        post.level.covariance * ratio**2,
    )
    core = Gaussian(post.core.mean * ratio, post.core.covariance * ratio**2)
    noise = replace(post.noise, rate=post.noise.rate * ratio**2)
    return replace(
        post, factors=tuple(factors), level=level, core=core, noise=noise, before=None
    )


def prior_of(
    model: AbstractTucker, earlier: Entries, data: Entries, post: Posterior
) -> tuple[Entries, Posterior]:
    """New entries at the points of both, and the posterior of the earlier ones as a prior.

    Args:
        model: the model of both.
        earlier: the entries of the posterior.
        data: the new entries, with the same modes, in any units.
        post: the posterior.

    Returns:
        The new entries, in the units of the earlier ones; and the posterior at these
        points, with itself as what was known before.

    Raises:
        ValueError: for other modes, or coordinates of another kind.
    """
    merged = earlier.merged(data, "update(fit, ...)")
    places = [one.second[data.places[:, k]] for k, one in enumerate(merged)]
    new = Entries._of(
        axes=tuple(one.axis for one in merged),
        places=jnp.stack(places, 1),
        y=data.y.astype(earlier.dtype),
        exposure=data.exposure,
        y_mean=earlier.y_mean,
        y_sd=earlier.y_sd,
    )
    return new, _known(model, new, post, [one.first for one in merged])


@eqx.filter_jit
def _known(model, data, post: Posterior, old: list[Int[Array, " _p"]]) -> Posterior:
    factors, every = [], []
    priors = model.priors(data)
    evidence = sum(priors[name].log_prob(value) for name, value in post.sites.items())
    for k, (factor, rows) in enumerate(zip(post.factors, old, strict=True)):
        count = len(data.axes[k].points)
        own = Terms(*(_spread(a, rows, count) for a in (factor.precision, factor.shift)))
        found = model.prior(post.sites, data, k).smooth(own)
        evidence = evidence + found.log_evidence
        none = jnp.zeros_like(factor.divergence)
        factors.append(Factor(found.mean, found.covariance, own.precision, own.shift, none))
        every.append(unloaded(own, loads(model, post.sites, data, k, own=True)))
    before = Before(tuple(every), post.core, post.level, post.noise, evidence)
    return replace(post, factors=tuple(factors), before=before)


def _spread(a: Array, rows: Int[Array, " p"], count: int) -> Array:
    return jnp.zeros((count, *a.shape[1:]), a.dtype).at[rows].set(a)


def unloaded(terms: Terms, load: Float[Array, " c"]) -> Terms:
    """The terms for loads of one. Those of a load of zero say nothing."""
    inverse = jnp.where(load > 0, 1 / jnp.where(load > 0, load, 1.0), 0.0)
    return loaded(terms, inverse)


def expected_before(
    model: AbstractTucker, data: Entries, post: Posterior
) -> Float[Array, ""]:
    """The expected log of the terms of the functions that were known before, in nats."""
    assert post.before is not None
    total = jnp.zeros((), data.dtype)
    for k, (factor, terms) in enumerate(zip(post.factors, post.before.terms, strict=True)):
        known = loaded(terms, loads(model, post.sites, data, k, own=True))
        second = factor.covariance + factor.mean[:, :, None] * factor.mean[:, None]
        total = total + jnp.sum(known.shift * factor.mean)
        total = total - jnp.sum(known.precision * second) / 2
    return total
