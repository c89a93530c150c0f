"""A vector with heavy tails that looks alike in all directions."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints


class IsotropicT(Distribution):
    r"""A multivariate t distribution, $p(b) ∝ (1 + |b|^2 / (ν s^2))^{-(ν + d)/2}$.

    NumPyro's `MultivariateStudentT` takes any covariance, for which it solves a system.

    Args:
        df: $ν > 0$.
        scale: $s > 0$, an array of any shape, one per vector.
        dim: $d \ge 0$.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    pytree_data_fields = ("df", "scale")

    def __init__(self, df, scale, dim: int, *, validate_args: bool | None = None):
        self.scale = jnp.asarray(scale)
        self.df = jnp.asarray(df, self.scale.dtype)
        super().__init__(self.scale.shape, (dim,), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        key_normal, key_scale = jax.random.split(key)
        shape, dtype = (*sample_shape, *self.batch_shape), self.scale.dtype
        normal = jax.random.normal(key_normal, (*shape, *self.event_shape), dtype)
        wide = jax.random.gamma(key_scale, self.df / 2, shape, dtype) / (self.df / 2)
        return normal * (self.scale / jnp.sqrt(wide))[..., None]

    def log_prob(self, value: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        (d,), half = self.event_shape, self.df / 2
        each = jnp.log(jnp.pi * self.df) / 2 + jnp.log(self.scale)
        constant = gammaln(half + d / 2) - gammaln(half) - d * each
        square = (value**2).sum(-1) / (self.df * self.scale**2)
        return constant - (half + d / 2) * jnp.log1p(square)
