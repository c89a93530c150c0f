r"""What is believed of a mean and a covariance: a prior, a posterior, and steps between.

Episode parameters $θ_i \sim N(μ, Σ)$ have a normal-inverse-Wishart posterior
$q(μ, Σ) = N(μ; m, Σ/l)\, IW(Σ; V, n)$, whose covariance is full, or one number per
parameter. All arrays are for one component of a mixture; the model maps over components.
A `Posterior` holds beliefs whose arrays have an axis of components in front, `*k`.

Given the posteriors $N(m_i, V_i)$ of the episodes, with $δ_i = m_i - m$, all that a step
needs are the averages of $δ_i$ and of $V_i + δ_i δ_i^T$. They are taken about the present
$m$, because $V + l m m^T$, which the textbook has, loses the digits of $V$.
"""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from probkit.distributions import HalfTCovariance, NormalInverseWishart, half_t
from probkit.distributions.normal_inverse_wishart import (
    divergence_of_means,
    divergence_of_scales,
    logdet,
    multidigamma,
)
from probkit.models.meta.spreads import AbstractSpread, Dense, Independent

# Degrees of freedom of the half-t distribution of sds: with two, correlations are uniform.
DF = 2.0


class Averages(NamedTuple):
    """Of a batch of episodes, weighted by how far each belongs to the component.

    Attributes:
        share: of the weights.
        first: of $δ_i$, `(d,)`.
        second: of $V_i + δ_i δ_i^T$: a matrix, or what the belief needs of it.
    """

    share: Float[Array, ""]
    first: Float[Array, " d"]
    second: Any


class AbstractBelief(eqx.Module):
    """A posterior, or a prior, of a mean and a covariance."""

    @abstractmethod
    def location(self) -> Float[Array, " d"]:
        """$m$."""

    @abstractmethod
    def spread(self) -> Float[Array, "d d"]:
        r"""$V / n = E[Σ^{-1}]^{-1}$, as a matrix."""

    @abstractmethod
    def prior_of_episode(self) -> AbstractSpread:
        """The same, as it is."""

    @abstractmethod
    def reduced(self, second: Float[Array, "d d"]) -> Any:
        """What of a second moment a step needs."""

    @abstractmethod
    def penalty(self) -> Float[Array, ""]:
        r"""What an episode pays because the mean and covariance are not known:
        $\tfrac12 (d \ln(n/2) - ψ_d(n/2) + d/l)$, in nats.
        """

    @abstractmethod
    def moved(
        self, prior: Any, averages: Averages, num: float | Array, rate: float | Array
    ) -> "AbstractBelief":
        """A step towards the posterior given the episodes.

        Args:
            prior: the prior.
            averages: of a batch.
            num: the number of all episodes, for which the batch stands.
            rate: the length of the step; with one the posterior is reached.
        """

    @abstractmethod
    def divergence(self, prior: Any) -> Float[Array, ""]:
        """Kullback-Leibler divergence from the prior, in nats."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        """A draw of the mean and of the covariance."""

    @abstractmethod
    def supports(self) -> list[constraints.Constraint]:
        """What each of the arrays may be, in their order."""


# A covariance matrix.


class FullPrior(eqx.Module):
    r"""The prior of a mean and a covariance matrix.

    Attributes:
        loc: of the mean, `(d,)`.
        strength: the mean is known as from so many episodes.
        scale: $V_0$, `(d, d)`, or None if the sds are half-t.
        dof: $n_0$, if there is a scale.
        sd: the scale of half-t sds, `(d,)`, or None.
    """

    loc: Float[Array, " d"]
    strength: Float[Array, ""]
    scale: Float[Array, "d d"] | None = None
    dof: Float[Array, ""] | None = None
    sd: Float[Array, " d"] | None = None

    def covariance(self) -> dist.Distribution:
        """The prior of the covariance."""
        return covariance_prior(self)

    def degrees(self) -> Float[Array, ""]:
        if self.dof is not None:
            return self.dof
        return jnp.asarray(DF + len(self.loc) - 1, self.loc.dtype)

    def belief(self, spread: Float[Array, "d d"], num: float | Array) -> "Full":
        """The belief that has this spread, as if from so many episodes."""
        n = self.degrees() + num
        niw = NormalInverseWishart(self.loc, self.strength + num, n * spread, n)
        rate = None if self.sd is None else jnp.ones_like(self.loc)
        return Full(niw, rate)


class Full(AbstractBelief):
    """The posterior of a mean and a covariance matrix.

    Attributes:
        niw: the posterior.
        rate: of the precisions $1/a_k$ of half-t sds, `(d,)`, or None; see
            `probkit.distributions.HalfTCovariance`.
    """

    niw: NormalInverseWishart
    rate: Float[Array, "*k d"] | None

    def location(self):
        return self.niw.loc

    def spread(self):
        return self.niw.covariance()

    def prior_of_episode(self):
        return Dense(self.spread())

    def reduced(self, second):
        return second

    def penalty(self):
        d, n = self.niw.size, self.niw.dof
        free = d * jnp.log(n / 2) - multidigamma(n / 2, d)
        return 0.5 * (free + d / self.niw.strength)

    def moved(self, prior, averages, num, rate):
        if self.rate is not None:
            precision = jnp.diagonal(self.niw.precision())
            self = replace(self, rate=prior.sd**-2 + DF * precision)
        before, _ = scale_before(prior.scale, self.rate)
        old, away = self.niw, prior.loc - self.niw.loc
        strength = some_way(old.strength, prior.strength + num * averages.share, rate)
        dof = some_way(old.dof, prior.degrees() + num * averages.share, rate)
        first = prior.strength * away + num * averages.first
        step = rate * first / strength
        second = before + prior.strength * jnp.outer(away, away) + num * averages.second
        scale = some_way(old.scale, second, rate) - strength * jnp.outer(step, step)
        niw = NormalInverseWishart(old.loc + step, strength, scale, dof)
        return replace(self, niw=niw)

    def divergence(self, prior):
        before, mean_log = scale_before(prior.scale, self.rate)
        d = self.niw.size
        found = divergence_of_scales(
            self.niw.scale, self.niw.dof, before, mean_log, prior.degrees(), d
        )
        # Only the location and strength of the prior count for the mean.
        mean = eqx.tree_at(
            lambda q: (q.loc, q.strength), self.niw, (prior.loc, prior.strength)
        )
        found = found + divergence_of_means(self.niw, mean)
        if self.rate is not None:
            found = found + of_gammas(gamma_shape(d), self.rate, prior.sd)
        return found

    def sample(self, key):
        return self.niw.sample(key)

    def supports(self):
        (V, n, *rate) = supports_of_scale(self.niw.size, self.rate)
        return [constraints.real_vector, constraints.positive, V, n, *rate]


class Within(eqx.Module):
    r"""The posterior of a covariance matrix $W$ whose prior sds are half-t, about a mean of
    zero: of rows within episodes.

    Attributes:
        scale: $V$, `(d, d)`, of $IW(V, n)$.
        dof: $n$.
        rate: of the precisions $1/a_k$ of the half-t sds, `(d,)`.
    """

    scale: Float[Array, "d d"]
    dof: Float[Array, ""]
    rate: Float[Array, " d"]

    @classmethod
    def at(cls, spread: Float[Array, "d d"], num: float | Array) -> "Within":
        """The belief that has this spread, as if from so many rows."""
        n = jnp.asarray(DF + len(spread) - 1 + num, spread.dtype)
        return cls(n * spread, n, jnp.ones(len(spread), spread.dtype))

    def spread(self) -> Float[Array, "d d"]:
        r"""$V / n = E[W^{-1}]^{-1}$."""
        return self.scale / self.dof

    def mean_logdet(self) -> Float[Array, ""]:
        r"""$E[\ln |W|]$."""
        d = len(self.scale)
        free = logdet(self.scale) - d * math.log(2)
        return free - multidigamma(self.dof / 2, d)

    def moved(
        self, sd: Array, count: Array, misfit: Array, rate: float | Array
    ) -> "Within":
        """A step towards the posterior.

        Args:
            sd: the scales of the prior, `(d,)`.
            count: the number of rows.
            misfit: the expected sum of the outer products of their residuals, `(d, d)`.
            rate: the length of the step.
        """
        d = len(sd)
        precision = self.dof * jnp.diagonal(jnp.linalg.inv(self.scale))
        hyper = sd**-2 + DF * precision
        new = scale_before(None, hyper)[0] + misfit
        dof = some_way(self.dof, DF + d - 1 + count, rate)
        return Within(some_way(self.scale, new, rate), dof, hyper)

    def divergence(self, sd: Array) -> Float[Array, ""]:
        """Kullback-Leibler divergence from the prior, in nats."""
        d = len(sd)
        before, mean_log = scale_before(None, self.rate)
        given = divergence_of_scales(self.scale, self.dof, before, mean_log, DF + d - 1, d)
        return given + of_gammas(gamma_shape(d), self.rate, sd)

    def sample(self, key: PRNGKeyArray) -> Float[Array, "d d"]:
        """A draw of the covariance."""
        return dist.InverseWishart(self.dof, scale_matrix=self.scale).sample(key)

    def supports(self) -> list[constraints.Constraint]:
        """What each of the arrays may be, in their order."""
        return supports_of_scale(len(self.scale), self.rate)


# One variance per parameter.


class DiagonalPrior(eqx.Module):
    """The prior of a mean and of one variance per parameter, all independent.

    Attributes:
        loc: of the means, `(d,)`.
        strength: each mean is known as from so many episodes.
        scale: $V_0$, `(d,)`, or None if the sds are half-t.
        dof: $n_0 > 0$, if there is a scale.
        sd: the scale of half-t sds, `(d,)`, or None.
    """

    loc: Float[Array, " d"]
    strength: Float[Array, ""]
    scale: Float[Array, " d"] | None = None
    dof: Float[Array, ""] | None = None
    sd: Float[Array, " d"] | None = None

    def degrees(self) -> Float[Array, ""]:
        return jnp.asarray(DF, self.loc.dtype) if self.dof is None else self.dof

    def deviation(self) -> dist.Distribution:
        """The prior of the sds, one event per parameter."""
        if self.sd is not None:
            return half_t(self.sd, DF)
        assert self.dof is not None
        assert self.scale is not None
        variance = dist.InverseGamma(self.dof / 2, self.scale / 2)
        root = dist.transforms.PowerTransform(0.5)
        return dist.TransformedDistribution(variance, root)

    def belief(self, spread: Float[Array, " d"], num: float | Array) -> "Diagonal":
        """The belief that has this spread, as if from so many episodes."""
        n = self.degrees() + num
        rate = None if self.sd is None else jnp.ones_like(self.loc)
        return Diagonal(self.loc, self.strength + num, n * spread, n, rate)


class Diagonal(AbstractBelief):
    """The posterior of a mean and of one variance per parameter.

    Attributes:
        loc: $m$, `(d,)`.
        strength: $l$.
        scale: $V$, `(d,)`.
        dof: $n > 0$.
        rate: as for `Full`.
    """

    loc: Float[Array, "*k d"]
    strength: Float[Array, "*k"]
    scale: Float[Array, "*k d"]
    dof: Float[Array, "*k"]
    rate: Float[Array, "*k d"] | None

    def location(self):
        return self.loc

    def variance(self) -> Float[Array, " d"]:
        """$V / n$."""
        return self.scale / self.dof

    def spread(self):
        return jnp.diag(self.variance())

    def prior_of_episode(self):
        return Independent(self.variance())

    def reduced(self, second):
        return jnp.diagonal(second)

    def penalty(self):
        each = jnp.log(self.dof / 2) - digamma(self.dof / 2) + 1 / self.strength
        return 0.5 * len(self.loc) * each

    def _scale(self, prior: DiagonalPrior) -> tuple[Array, Array]:
        if self.rate is None:
            assert prior.scale is not None
            return prior.scale, jnp.log(prior.scale)
        shape = gamma_shape(1)
        mean_log = digamma(shape) - jnp.log(self.rate)
        return 2 * DF * shape / self.rate, math.log(2 * DF) + mean_log

    def moved(self, prior, averages, num, rate):
        if self.rate is not None:
            self = replace(self, rate=prior.sd**-2 + DF * self.dof / self.scale)
        before, _ = self._scale(prior)
        away = prior.loc - self.loc
        strength = some_way(self.strength, prior.strength + num * averages.share, rate)
        dof = some_way(self.dof, prior.degrees() + num * averages.share, rate)
        step = rate * (prior.strength * away + num * averages.first) / strength
        second = before + prior.strength * away**2 + num * averages.second
        scale = some_way(self.scale, second, rate) - strength * step**2
        return Diagonal(self.loc + step, strength, scale, dof, self.rate)

    def divergence(self, prior):
        before, mean_log = self._scale(prior)
        n, n0, ratio = self.dof, prior.degrees(), prior.strength / self.strength
        along = (self.loc - prior.loc) ** 2 / self.scale
        means = ratio - 1 - jnp.log(ratio) + prior.strength * n * along
        scales = (
            n0 * (jnp.log(self.scale) - mean_log)
            + n * before / self.scale
            - n
            + 2 * (gammaln(n0 / 2) - gammaln(n / 2))
            + (n - n0) * digamma(n / 2)
        )
        found = 0.5 * (means + scales).sum()
        if self.rate is not None:
            found = found + of_gammas(gamma_shape(1), self.rate, prior.sd)
        return found

    def sample(self, key):
        key_mean, key_variance = jax.random.split(key)
        gamma = jax.random.gamma(key_variance, self.dof / 2, self.loc.shape, self.loc.dtype)
        variance = self.scale / (2 * gamma)
        white = jax.random.normal(key_mean, self.loc.shape, self.loc.dtype)
        return self.loc + jnp.sqrt(variance / self.strength) * white, variance

    def supports(self):
        count = 3 if self.rate is None else 4
        return [constraints.real_vector, *[constraints.positive] * count]


def covariance_prior(prior: Any) -> dist.Distribution:
    """Of a covariance: an inverse Wishart, or with half-t sds."""
    if prior.sd is not None:
        return HalfTCovariance(prior.sd, DF)
    return dist.InverseWishart(prior.dof, scale_matrix=prior.scale)


def scale_before(scale: Array | None, rate: Array | None) -> tuple[Array, Array]:
    r"""$E[V_0]$ and $E[\ln|V_0|]$ of the prior $IW(V_0, n_0)$ of a covariance.

    Args:
        scale: $V_0$, if sds are not half-t.
        rate: of the precisions of half-t sds, or None.
    """
    if rate is None:
        assert scale is not None
        return scale, logdet(scale)
    d, shape = len(rate), gamma_shape(len(rate))
    mean_log = digamma(shape) - jnp.log(rate)
    return jnp.diag(2 * DF * shape / rate), d * math.log(2 * DF) + mean_log.sum()


def supports_of_scale(d: int, rate: Array | None) -> list[constraints.Constraint]:
    """What $V$ and $n$ of $IW(V, n)$ may be, and the rate of half-t sds if there is one."""
    found = [constraints.positive_definite, constraints.greater_than(d - 1)]
    return found if rate is None else [*found, constraints.positive]


def gamma_shape(d: int) -> float:
    """Of the gamma posterior of each precision of half-t sds."""
    return (DF + d) / 2


def some_way(old: Array, new: Array, rate: float | Array) -> Array:
    return old + rate * (new - old)


def of_gammas(shape: float, rate: Array, sd: Array) -> Float[Array, ""]:
    r"""Divergence of the precisions of half-t sds from $Γ(1/2, A^{-2})$."""
    before = sd**-2
    each = (
        (shape - 0.5) * digamma(shape)
        - gammaln(shape)
        + gammaln(0.5)
        + 0.5 * (jnp.log(rate) - jnp.log(before))
        + shape * (before - rate) / rate
    )
    return each.sum()
