r"""How the values of an episode follow from the outputs of a network."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from probkit.validate import optional, positive


class AbstractOutcome(eqx.Module):
    """The likelihood of one row given the outputs of the network there."""

    @abstractmethod
    def loss(
        self, f: Float[Array, " o"], y: Float[Array, ""], precision: Array, log: Array
    ) -> Float[Array, ""]:
        r"""Minus the log likelihood of a row, in nats.

        Args:
            f: the outputs.
            y: the value.
            precision: of the noise.
            log: the logarithm of the precision, in expectation.
        """

    @abstractmethod
    def root(self, f: Float[Array, " o"], precision: Array) -> Float[Array, "o r"]:
        r"""$R$, where $R R^T$ is the Hessian of the loss in the outputs."""

    @abstractmethod
    def distribution(self, f: Float[Array, "*b o"], noise_sd: Any) -> dist.Distribution:
        """Of the values, standardised if there is a noise."""


class Normal(AbstractOutcome):
    """Values with normal noise, and one output per row.

    Attributes:
        noise_sd: its sd in units of the values, or None (default) to have it learned.
    """

    noise_sd: float | None = eqx.field(
        default=None, converter=optional(positive("Normal(noise_sd"))
    )

    def loss(self, f, y, precision, log):
        return (precision * (y - f[0]) ** 2 - log + math.log(2 * math.pi)) / 2

    def root(self, f, precision):
        return jnp.sqrt(precision) * jnp.ones((1, 1), f.dtype)

    def distribution(self, f, noise_sd):
        return dist.Normal(f[..., 0], noise_sd)


class Categorical(AbstractOutcome):
    """Classes 0, 1, ..., with one output per class: its logit, up to a constant."""

    def loss(self, f, y, precision, log):
        return -jax.nn.log_softmax(f)[y.astype(int)]

    def root(self, f, precision):
        p = jax.nn.softmax(f)
        half = jnp.sqrt(p)
        return jnp.diag(half) - jnp.outer(p, half)

    def distribution(self, f, noise_sd):
        return dist.Categorical(logits=f)


class Poisson(AbstractOutcome):
    """Counts, whose rate has the one output as its logarithm."""

    def loss(self, f, y, precision, log):
        return jnp.exp(f[0]) - y * f[0] + jax.scipy.special.gammaln(y + 1)

    def root(self, f, precision):
        return jnp.exp(f / 2)[:, None]

    def distribution(self, f, noise_sd):
        return dist.Poisson(jnp.exp(f[..., 0]))
