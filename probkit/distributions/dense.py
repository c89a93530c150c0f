"""The normal distribution with a dense covariance, with a derivative of its own."""

import copy
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, Int
from numpyro.distributions import Distribution, constraints

from probkit.distributions.leave_one_out import given_others
from probkit.linalg import with_jitter


@jax.custom_jvp
def _log_density(S, r):
    root = jnp.linalg.cholesky(S)
    return _of_root(root, solve_triangular(root, r, lower=True))


def _of_root(root, white):
    return -0.5 * white @ white - jnp.log(jnp.diagonal(root)).sum()


@_log_density.defjvp
def _(primals, tangents):
    # With a = S⁻¹ r, d log N(r; 0, S) = (aᵀ dS a - tr S⁻¹ dS) / 2 - aᵀ dr. The derivative
    # of a Cholesky factor would take three solutions with a matrix in place of one.
    (S, r), (dS, dr) = primals, tangents
    root = jnp.linalg.cholesky(S)
    white = solve_triangular(root, r, lower=True)
    a = solve_triangular(root, white, lower=True, trans=1)
    inverse = cho_solve((root, True), jnp.eye(len(S), dtype=S.dtype))
    slope = 0.5 * (a @ (dS @ a) - jnp.vdot(inverse, dS)) - a @ dr
    return _of_root(root, white), slope


class DenseNormal(Distribution):
    r"""$y \sim N(m, S)$ with a dense covariance matrix.

    `jitter` of the size of rounding is added to $S$, see `linalg.with_jitter`. NumPyro's
    `MultivariateNormal` has the same density; its derivative goes through that of the
    Cholesky factor, which takes longer.

    Args:
        loc: $m$, `(n,)`, in units of the values.
        covariance: $S$, `(n, n)`, in squared units of the values.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    pytree_data_fields = ("loc", "covariance")

    def __init__(self, loc, covariance, *, validate_args: bool | None = None):
        self.loc, self.covariance = loc, with_jitter(covariance)
        super().__init__((), jnp.shape(loc), validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        density = _log_density
        for _ in range(jnp.ndim(value) - 1):
            density = jax.vmap(density, (None, 0))
        n = self.event_shape[0]
        constant = 0.5 * n * math.log(2 * math.pi)
        return density(self.covariance, value - self.loc) - constant

    def leave_one_out(self, value: Float[Array, " n"]) -> Float[Array, " n"]:
        r"""$\log p(y_i \mid y_{-i})$ of each entry given all the others, in nats.

        Args:
            value: $y$, `(n,)`.
        """
        return given_others(*self.weighted(value))

    def weighted(self, value: Float[Array, " n"]):
        r"""$S^{-1}(y - m)$ and the diagonal of $S^{-1}$, each `(n,)`.

        Args:
            value: $y$, `(n,)`.
        """
        root = jnp.linalg.cholesky(self.covariance), True
        identity = jnp.eye(len(self.covariance), dtype=self.covariance.dtype)
        inverse = cho_solve(root, identity)
        return cho_solve(root, value - self.loc), jnp.diagonal(inverse)

    def whitened(self, value: Float[Array, " n"]) -> Float[Array, " n"]:
        r"""$L^{-1}(y - m)$ with $S = L L^T$: each entry given those before it.

        Under the distribution the entries are independent and standard normal.

        Args:
            value: $y$, `(n,)`.
        """
        root = jnp.linalg.cholesky(self.covariance)
        return solve_triangular(root, value - self.loc, lower=True)

    def sorted(self, order: Int[Array, " n"]) -> "DenseNormal":
        """The distribution of the entries in another order."""
        distribution = copy.copy(self)
        distribution.loc = self.loc[order]
        distribution.covariance = self.covariance[order][:, order]
        return distribution

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        shape = (*sample_shape, *self.event_shape)
        z = jax.random.normal(key, shape, self.covariance.dtype)
        return self.loc + z @ jnp.linalg.cholesky(self.covariance).T

    @property
    def mean(self):
        return self.loc

    @property
    def variance(self):
        return jnp.diagonal(self.covariance)
