r"""What is believed of the noise: its precision is gamma, its prior sd half-t."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from probkit.models.meta.beliefs import DF

# Of the precision 1/a of the half-t prior: a gamma of this shape.
AFTER = (DF + 1) / 2


class Noise(eqx.Module):
    r"""$q(σ^{-2})$, gamma, where the prior of $σ$ is half-t with a scale $A$.

    The prior is the mixture of $σ^{-2} \sim Γ(ν/2, ν/a)$ over $1/a \sim Γ(1/2, A^{-2})$, so
    that it does not keep the noise away from zero.

    Attributes:
        shape: of the precision.
        rate: of the precision.
        hyper: the rate of $1/a$.
    """

    shape: Float[Array, ""]
    rate: Float[Array, ""]
    hyper: Float[Array, ""]

    @classmethod
    def at(cls, sd: Float[Array, ""], count: float | Array) -> "Noise":
        """The belief that the sd is this, as if from so many values."""
        shape = jnp.asarray(DF / 2 + count / 2, sd.dtype)
        return cls(shape, shape * sd**2, jnp.ones_like(sd))

    @property
    def precision(self) -> Float[Array, ""]:
        return self.shape / self.rate

    @property
    def mean_log(self) -> Float[Array, ""]:
        """The mean of the logarithm of the precision."""
        return digamma(self.shape) - jnp.log(self.rate)

    def moved(self, sd: Array, count: Array, misfit: Array, rate: float | Array) -> "Noise":
        """A step towards the posterior.

        Args:
            sd: the scale of the prior.
            count: the number of values.
            misfit: the expected sum of their squared residuals.
            rate: the length of the step.
        """
        hyper = sd**-2 + DF * self.precision
        shape = self.shape + rate * (DF / 2 + count / 2 - self.shape)
        new = DF * AFTER / hyper + misfit / 2
        return Noise(shape, self.rate + rate * (new - self.rate), hyper)

    def divergence(self, sd: Array) -> Float[Array, ""]:
        """Kullback-Leibler divergence from the prior, in nats."""
        mean, mean_log = AFTER / self.hyper, digamma(AFTER) - jnp.log(self.hyper)
        given = _gammas(self.shape, self.rate, DF / 2, DF * mean, jnp.log(DF) + mean_log)
        before = sd**-2
        return given + _gammas(AFTER, self.hyper, 0.5, before, jnp.log(before))

    def sample(self, key: PRNGKeyArray) -> Float[Array, ""]:
        """A draw of the sd."""
        precision = jax.random.gamma(key, self.shape, (), self.rate.dtype) / self.rate
        return 1 / jnp.sqrt(precision)

    def supports(self) -> list[constraints.Constraint]:
        """What each of the arrays may be, in their order."""
        return 3 * [constraints.positive]


def _gammas(a, b, a0, b0, log_b0) -> Float[Array, ""]:
    """The divergence of two gammas; of the rate of the second the mean and mean log."""
    return (
        (a - a0) * digamma(a)
        - gammaln(a)
        + gammaln(a0)
        + a0 * (jnp.log(b) - log_b0)
        + a * (b0 - b) / b
    )
