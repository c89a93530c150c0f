"""The normal distribution of a few factors plus noise, with full precision."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from probkit.distributions.leave_one_out import given_others
from probkit.linalg.least_squares import decomposed, regress


@jax.custom_jvp
def _log_evidence(M, y):
    root, _, misfit = regress(M, y)
    return -0.5 * misfit - jnp.log(jnp.abs(jnp.diagonal(root))).sum()


@_log_evidence.defjvp
def _(primals, tangents):
    # With C = I + M Mᵀ = (I - M (RᵀR)⁻¹ Mᵀ)⁻¹ and r = C⁻¹ y = y - M ẑ, and as
    # Mᵀ C⁻¹ y = ẑ and C⁻¹ M = M (RᵀR)⁻¹,
    #   d log N(y; 0, C) = rᵀ dM ẑ - tr (C⁻¹ M)ᵀ dM - rᵀ dy.
    # The derivative of QR itself would take many products. Both r and C⁻¹ M come from the
    # orthogonal factor, because rounding makes a computed y - M ẑ no longer orthogonal to
    # M, and dM is as large as M.
    (M, y), (dM, dy) = primals, tangents
    n = len(y)
    Q, R, along, left = decomposed(M, y)
    z = jax.scipy.linalg.solve_triangular(R, along)
    r = left[:n]
    solved = jax.scipy.linalg.solve_triangular(R, Q[:n].T).T
    value = -0.5 * left @ left - jnp.log(jnp.abs(jnp.diagonal(R))).sum()
    return value, r @ (dM @ z) - jnp.vdot(solved, dM) - r @ dy


class FactorNormal(Distribution):
    r"""$y \sim N(m,\; F F^T + \mathrm{diag}(σ^2))$.

    NumPyro's `LowRankMultivariateNormal` has the same density by the normal equations. It
    loses precision if $σ$ is small relative to $F$; this class does not.

    Args:
        loc: $m$, `(n,)`, in units of the values.
        factor: $F$, `(n, p)`, in units of the values. If the ratios of rows to `noise_sd`
            differ by many orders of magnitude, sort the rows by falling ratio.
        noise_sd: $σ > 0$, `(n,)`, in units of the values.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    pytree_data_fields = ("loc", "factor", "noise_sd")

    def __init__(self, loc, factor, noise_sd, *, validate_args: bool | None = None):
        self.loc, self.factor, self.noise_sd = loc, factor, noise_sd
        super().__init__((), jnp.shape(loc), validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        M = self.factor / self.noise_sd[:, None]
        scale = jnp.log(self.noise_sd).sum() + 0.5 * len(M) * math.log(2 * math.pi)
        density = _log_evidence
        for _ in range(jnp.ndim(value) - 1):
            density = jax.vmap(density, (None, 0))
        return density(M, (value - self.loc) / self.noise_sd) - scale

    def leave_one_out(self, value: Float[Array, " n"]) -> Float[Array, " n"]:
        r"""$\log p(y_i \mid y_{-i})$ of each entry given all the others.

        It is computed in units of the noise, with $C = I + M M^T$: see `given_others`.

        Args:
            value: $y$, `(n,)`.

        Returns:
            One log density per entry, `(n,)`, in nats.
        """
        M = self.factor / self.noise_sd[:, None]
        Q, _, _, left = decomposed(M, (value - self.loc) / self.noise_sd)
        n = len(value)
        κ = 1 - jnp.sum(Q[:n] ** 2, 1)
        return given_others(left[:n], κ) - jnp.log(self.noise_sd)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        key_factor, key_noise = jax.random.split(key)
        n, p = self.factor.shape
        z = jax.random.normal(key_factor, (*sample_shape, p), self.loc.dtype)
        noise = jax.random.normal(key_noise, (*sample_shape, n), self.loc.dtype)
        return self.loc + z @ self.factor.T + noise * self.noise_sd

    @property
    def mean(self):
        return self.loc

    @property
    def variance(self):
        return jnp.sum(self.factor**2, 1) + self.noise_sd**2
