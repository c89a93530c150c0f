"""A scale whose square has an F distribution."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints


class RootF(Distribution):
    r"""$σ > 0$ with $σ^2 \sim F(ν_1, ν_2)$, Snedecor's distribution.

    The density is a power law at either end: $σ^{ν_1 - 1}$ far below one, and
    $σ^{-ν_2 - 1}$ far above. So it does not hold a noise sd to its scale if the data say
    that it is much smaller or much larger. With $ν_1 = 1$ it is the half-t distribution;
    for large $ν_1$ the square is inverse gamma, which has no such lower end.

    Args:
        low: $ν_1 > 0$.
        high: $ν_2 > 0$.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.positive
    pytree_data_fields = ("low", "high")

    def __init__(self, low, high, *, validate_args: bool | None = None):
        self.low, self.high = jnp.broadcast_arrays(*map(jnp.asarray, (low, high)))
        super().__init__(self.low.shape, validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        shape = (*sample_shape, *self.batch_shape)
        above, below = (
            # In logarithms, since the gamma variables of few degrees may underflow.
            jax.random.loggamma(k, df / 2, shape, df.dtype) - jnp.log(df / 2)
            for k, df in zip(jax.random.split(key), (self.low, self.high), strict=True)
        )
        return jnp.exp((above - below) / 2)

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        a, b, log = self.low / 2, self.high / 2, jnp.log(value)
        ratio = jnp.log(a / b)
        tail = (a + b) * jnp.logaddexp(0.0, ratio + 2 * log)
        return math.log(2) + a * ratio + (2 * a - 1) * log - tail - betaln(a, b)
