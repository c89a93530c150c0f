r"""Covariances whose sds are half-t, and sds of their own."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, multigammaln
from jaxtyping import Array
from numpyro.distributions import (
    Distribution,
    InverseWishart,
    StudentT,
    constraints,
)


class HalfT(Distribution):
    r"""A half-t distribution of an sd, $p(s) ∝ (1 + (s/A)^2/ν)^{-(ν + 1)/2}$ for $s > 0$.

    Its mode is at zero. NumPyro's `FoldedDistribution` of a Student-t has the same values,
    but its coordinates have two signs.

    Args:
        scale: $A > 0$, an array of any shape, in units of the sd.
        df: $ν > 0$, degrees of freedom.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.positive
    pytree_data_fields = ("scale", "df")

    def __init__(self, scale, df=2.0, *, validate_args: bool | None = None):
        self.scale, self.df = jnp.asarray(scale), df
        super().__init__(self.scale.shape, (), validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        return math.log(2) + StudentT(self.df, 0.0, self.scale).log_prob(value)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        shape = (*sample_shape, *self.batch_shape)
        drawn = jax.random.t(key, self.df, shape, self.scale.dtype)
        return self.scale * jnp.abs(drawn)


def half_t(scale: float | Array, df: float = 2.0) -> HalfT:
    """A half-t distribution of an sd, with its mode at zero.

    Args:
        scale: its scale, an array of any shape, in units of the sd.
        df: degrees of freedom. With two, four in ten sds are above the scale.
    """
    return HalfT(scale, df)


class HalfTCovariance(Distribution):
    r"""A covariance matrix with half-t sds, $σ_k \sim t^+_ν(0, A_k)$.

    It is the mixture $Σ \mid a \sim IW(2 ν \,\mathrm{diag}(1/a), ν + d - 1)$ with
    $a_k \sim IG(1/2, 1/A_k^2)$, with $a$ integrated out:

    $$p(Σ) ∝ |Σ|^{-(ν + 2d)/2} \prod_k (ν (Σ^{-1})_{kk} + A_k^{-2})^{-(ν + d)/2}.$$

    With $ν = 2$ each correlation is uniform on (-1, 1). Unlike an inverse Wishart it does
    not keep sds away from zero.

    Args:
        scale: $A > 0$, `(d,)`, in units of the sds.
        df: $ν > 0$.

    Source: Huang & Wand (2013), "Simple marginally noninformative prior distributions for
    covariance matrices", equations 2 and 3.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.positive_definite
    pytree_data_fields = ("scale", "df")

    def __init__(self, scale, df=2.0, *, validate_args: bool | None = None):
        self.scale, self.df = jnp.asarray(scale), df
        d = self.scale.shape[-1]
        super().__init__(self.scale.shape[:-1], (d, d), validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        d, v = self.event_shape[0], jnp.asarray(self.df, self.scale.dtype)
        n, after = v + d - 1, (v + d) / 2
        root = jnp.linalg.cholesky(value)
        half = jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
        eye = jnp.broadcast_to(jnp.eye(d, dtype=value.dtype), root.shape)
        inverse = jax.lax.linalg.triangular_solve(root, eye, left_side=True, lower=True)
        # The diagonal of the inverse covariance.
        rate = v * jnp.sum(inverse**2, -2) + self.scale**-2
        free = gammaln(after) - math.lgamma(0.5)
        each = free - after * jnp.log(rate) - jnp.log(self.scale)
        constant = d * n / 2 * jnp.log(v) - multigammaln(n / 2, d)
        return constant - (n + d + 1) * half + each.sum(-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        key_rate, key_own = jax.random.split(key)
        d, v = self.event_shape[0], self.df
        shape = (*sample_shape, *self.scale.shape)
        dtype = self.scale.dtype
        # 1/a is gamma with a shape of 1/2 and a rate of 1/A^2.
        rate = self.scale**2 * jax.random.gamma(key_rate, 0.5, shape, dtype)
        scale = 2 * v * rate[..., None] * jnp.eye(d, dtype=dtype)
        # NumPyro draws in the default dtype.
        return InverseWishart(v + d - 1.0, scale_matrix=scale).sample(key_own).astype(dtype)
