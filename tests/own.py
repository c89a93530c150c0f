"""Families as users bring them: a data class and a program, nothing more."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from probkit.model import AbstractData, AbstractModel


class Counts(AbstractData):
    x: Array
    y: Array


class PoissonRegression(AbstractModel):
    """y ~ Poisson(exp(intercept + slope x))."""

    scale: float = 1.0

    def __call__(self, data):
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 3.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, self.scale))
        with numpyro.plate("observation", len(data)):
            rate = jnp.exp(intercept + slope * data.x)
            numpyro.sample("y", dist.Poisson(rate), obs=data.y)


class Values(AbstractData):
    y: Array


class NormalMean(AbstractModel):
    """y_i ~ N(mean, 1) with two columns, mean ~ N(0, 3): the posterior is normal."""

    def __call__(self, data):
        mean = numpyro.sample("mean", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=data.y)
