r"""The process $\cos(2π μ x)$ with random amplitude and phase, as a Markov chain."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.gp.state_space import AbstractProcess


class Cosine(AbstractProcess):
    r"""Variance one and covariance $\cos(2π μ d)$: the state turns, and nothing is added.

    Attributes:
        frequency: $μ$, in cycles per unit of the coordinate. Its sign does not matter.
    """

    frequency: Float[Array, ""]

    def readout(self):
        return jnp.eye(1, 2, dtype=self.frequency.dtype)

    def stationary(self):
        return jnp.eye(2, dtype=self.frequency.dtype)

    def transition(self, step):
        # In turns from the nearest whole number of them, because rounding of an angle
        # grows with it.
        turns = self.frequency * step
        angle = 2 * math.pi * (turns - jnp.round(turns))
        c, s = jnp.cos(angle), jnp.sin(angle)
        return jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])

    def noise(self, step):
        return 0 * step * self.stationary()
