r"""How entries follow from the surface: normal, with heavy tails, counts, or yes and no.

Message passing needs of each entry a quadratic in $f$ below, or close to, its expected log
likelihood: a *weight* $w$ and a *shift* $h$, so that the entry counts as
$\exp(-\tfrac12 w f^2 + h f)$.
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform, PowerTransform

from probkit.distributions import InUnits
from probkit.validate import positive, unlike_counts, unlike_truth_values

# The noise has a prior as of one observation with this residual, in sds of the values:
# so weak that data without noise are fitted as such.
SHAPE, RESIDUAL = 0.5, 0.01


class Noise(eqx.Module):
    """The precision of the noise in standardised units: gamma of this shape and rate."""

    shape: Float[Array, ""]
    rate: Float[Array, ""]

    @property
    def mean(self):
        return self.shape / self.rate

    @property
    def mean_log(self):
        return digamma(self.shape) - jnp.log(self.rate)

    @classmethod
    def prior(cls, dtype: Any) -> "Noise":
        """What is known of it before all data."""
        one = jnp.ones((), dtype)
        return cls(SHAPE * one, SHAPE * RESIDUAL**2 * one)

    def divergence(self, prior: "Noise") -> Float[Array, ""]:
        """Kullback-Leibler divergence from what was known before, in nats."""
        a, b, a0, b0 = self.shape, self.rate, prior.shape, prior.rate
        return (
            (a - a0) * digamma(a)
            - gammaln(a)
            + gammaln(a0)
            + a0 * (jnp.log(b) - jnp.log(b0))
            + a * (b0 - b) / b
        )


class Local(NamedTuple):
    """What each entry is replaced by.

    Attributes:
        weight: $w$, zero for an entry that does not count.
        shift: $h$.
        bound: the expected log likelihood, or a bound of it, in nats.
    """

    weight: Float[Array, " n"]
    shift: Float[Array, " n"]
    bound: Float[Array, " n"]


class AbstractObservation(eqx.Module):
    """The likelihood of one entry given the surface there."""

    in_units: ClassVar[bool] = False
    """Whether the surface is in units of the values, with noise in these units."""
    exact: ClassVar[bool] = True
    """Whether message passing maximises a lower bound of the evidence."""
    has_draws: ClassVar[bool] = False
    """Whether Gibbs sampling has draws of weights and shifts."""

    @abstractmethod
    def likelihood(self, f: Float[Array, " n"], noise_sd: Any) -> dist.Distribution:
        """The distribution of the values, in the units of `f`."""

    @abstractmethod
    def local(
        self,
        y: Float[Array, " n"],
        mean: Float[Array, " n"],
        second: Float[Array, " n"],
        noise: Noise,
    ) -> Local:
        """What replaces each entry where the surface has these moments.

        Args:
            y: the values, standardised if `in_units`.
            mean: $E[f]$.
            second: $E[f^2]$.
            noise: what is known of the noise.
        """

    def draw(
        self,
        y: Float[Array, " n"],
        f: Float[Array, " n"],
        noise: Noise,
        prior: Noise,
        key: Any,
    ) -> tuple[Noise, Float[Array, " n"], Float[Array, " n"]]:
        """A draw of the noise, and the weight and shift of each entry, given the surface.

        Raises:
            NotImplementedError: if the observations have no such draws.
        """
        raise NotImplementedError

    def noise(
        self,
        y: Float[Array, " n"],
        mean: Float[Array, " n"],
        second: Float[Array, " n"],
        counts: Float[Array, " n"],
        noise: Noise,
        prior: Noise,
    ) -> Noise:
        """What is known of the noise after a sweep. By default there is none.

        Args:
            y, mean, second: as for `local`.
            counts: how often each entry counts.
            noise: what was known in the sweep.
            prior: what was known before these entries.
        """
        return noise

    def mean(self, f: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The expected value of an observation where the surface is `f`."""
        return f

    def wanted(self, y: np.ndarray) -> str:
        """What values it takes, if these are not such."""
        return ""


def _squares(y, mean, second):
    """$E[(y - f)^2]$, which rounding must not make negative."""
    return jnp.maximum(y**2 - 2 * y * mean + second, 0.0)


def noise_prior(unit: Float[Array, ""]) -> dist.Distribution:
    """Of the sd of the noise: its inverse square is gamma."""
    base = dist.Gamma(SHAPE * jnp.ones_like(unit), 1.0)
    scale = unit * jnp.sqrt(SHAPE) * RESIDUAL
    power = PowerTransform(-0.5)
    return InUnits(base, [power, AffineTransform(0.0, scale, dist.constraints.positive)])


class Normal(AbstractObservation):
    r"""$y = f + ε$ with $ε \sim N(0, σ^2)$. Site: `noise_sd` $σ$, in their units."""

    in_units: ClassVar[bool] = True
    has_draws: ClassVar[bool] = True

    def likelihood(self, f, noise_sd):
        return dist.Normal(f, noise_sd)

    def local(self, y, mean, second, noise):
        w = jnp.broadcast_to(noise.mean, y.shape)
        bound = (noise.mean_log - jnp.log(2 * jnp.pi) - w * _squares(y, mean, second)) / 2
        return Local(w, w * y, bound)

    def noise(self, y, mean, second, counts, noise, prior):
        total = jnp.sum(counts * _squares(y, mean, second))
        return Noise(prior.shape + counts.sum() / 2, prior.rate + total / 2)

    def draw(self, y, f, noise, prior, key):
        noise = known(self.noise(y, f, f**2, jnp.ones_like(y), noise, prior), key)
        w = jnp.broadcast_to(noise.mean, y.shape)
        return noise, w, w * y


def known(noise: Noise, key: Any) -> Noise:
    """A draw of the precision, as noise of that mean."""
    precision = jax.random.gamma(key, noise.shape, dtype=noise.rate.dtype) / noise.rate
    return Noise(noise.shape, noise.shape / precision)


class StudentT(AbstractObservation):
    r"""$y = f + σ t$ with $t$ from Student's distribution, for values with outliers.

    Site: `noise_sd` $σ$, the scale, in units of the values.

    Attributes:
        df: degrees of freedom.
    """

    df: float = eqx.field(default=4.0, converter=positive("StudentT(df"))

    in_units: ClassVar[bool] = True
    has_draws: ClassVar[bool] = True

    def likelihood(self, f, noise_sd):
        return dist.StudentT(self.df, f, noise_sd)

    def _scales(self, y, mean, second, noise):
        """The gamma posterior of the precision of each entry: shape and rate."""
        return (self.df + 1) / 2, (self.df + noise.mean * _squares(y, mean, second)) / 2

    def local(self, y, mean, second, noise):
        a, b = self._scales(y, mean, second, noise)
        e, log_e, half = a / b, digamma(a) - jnp.log(b), self.df / 2
        w = noise.mean * e
        inside = noise.mean_log + log_e - jnp.log(2 * jnp.pi)
        expected = (inside - w * _squares(y, mean, second)) / 2
        divergence = (
            (a - half) * digamma(a)
            - gammaln(a)
            + gammaln(half)
            + half * (jnp.log(b) - jnp.log(half))
            + a * (half - b) / b
        )
        return Local(w, w * y, expected - divergence)

    def noise(self, y, mean, second, counts, noise, prior):
        a, b = self._scales(y, mean, second, noise)
        total = jnp.sum(counts * a / b * _squares(y, mean, second))
        return Noise(prior.shape + counts.sum() / 2, prior.rate + total / 2)

    def draw(self, y, f, noise, prior, key):
        key_each, key_noise = jax.random.split(key)
        a, b = self._scales(y, f, f**2, noise)
        each = jax.random.gamma(key_each, a, y.shape, y.dtype) / b
        total = jnp.sum(each * (y - f) ** 2)
        shape = prior.shape + jnp.asarray(len(y) / 2, y.dtype)
        noise = known(Noise(shape, prior.rate + total / 2), key_noise)
        w = noise.mean * each
        return noise, w, w * y


class Bernoulli(AbstractObservation):
    r"""$y \in \{0, 1\}$ with $\log \frac{p}{1 - p} = f$.

    Source: Jaakkola & Jordan (2000), "Bayesian parameter estimation via variational
    methods", for the bound.
    """

    def likelihood(self, f, noise_sd):
        return dist.Bernoulli(logits=f)

    def local(self, y, mean, second, noise):
        c = jnp.sqrt(jnp.maximum(second, 1e-12))
        bound = jax.nn.log_sigmoid(c) - c / 2 + (y - 0.5) * mean
        return Local(jnp.tanh(c / 2) / (2 * c), y - 0.5, bound)

    def mean(self, f):
        return jax.nn.sigmoid(f)

    def wanted(self, y):
        return unlike_truth_values(y)


class Poisson(AbstractObservation):
    r"""Counts with mean $e^f$.

    The expectation of $e^f$ is that of a normal $f$ with the same mean and variance, so
    that the objective is no bound of the evidence, and may fall.
    """

    exact: ClassVar[bool] = False

    def likelihood(self, f, noise_sd):
        return dist.Poisson(jnp.exp(f))

    def local(self, y, mean, second, noise):
        variance = jnp.maximum(second - mean**2, 0.0)
        rate = jnp.exp(jnp.minimum(mean + variance / 2, 50.0))
        bound = y * mean - rate - gammaln(y + 1)
        return Local(rate, y - rate + rate * mean, bound)

    def mean(self, f):
        return jnp.exp(f)

    def wanted(self, y):
        return unlike_counts(y)
