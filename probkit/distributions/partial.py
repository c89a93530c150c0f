"""The normal distribution of a tensor of which some entries are not observed."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import lineax as lx
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from probkit import linalg
from probkit.distributions.leave_one_out import given_others


class PartialKroneckerNormal(Distribution):
    r"""The observed entries of $Y$ with $\mathrm{vec}\,Y ∼ N(m, Σ)$, $Σ = ⊗G_p + σ² I$.

    It is exact. With $P = Σ^{-1}$, $o$ the observed and $u$ the unobserved entries,

    $$\log|Σ_{oo}| = \log|Σ| + \log|P_{uu}|, \qquad
      y^T Σ_{oo}^{-1} y = \tilde y^T P \tilde y - z_u^T P_{uu}^{-1} z_u, \qquad
      z = P \tilde y,$$

    where $\tilde y$ is $y - m$ on $o$ and zero on $u$. One solution with $Σ$ for each
    unobserved entry, and one Cholesky decomposition of their number, take the place of one
    of the number of observed ones.

    Args:
        loc: $m$, one number, in units of the values.
        factors: symmetric positive semi-definite arrays $G_p$, `(m_p, m_p)`, whose product
            is in squared units of the values.
        noise: $σ² > 0$, a variance, one number.
        missing: the flat indices of the entries that are not observed, `(u,)`.

    Values are tensors of shape `(m_1, …, m_P)`; their unobserved entries are not used.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("loc", "covariance", "missing")

    def __init__(self, loc, factors, noise, missing, *, validate_args: bool | None = None):
        self.loc, self.missing = jnp.asarray(loc), jnp.asarray(missing)
        self.covariance = linalg.KroneckerPlusNoise(factors, noise)
        shape = tuple(len(G) for G in self.covariance.factors)
        super().__init__((), shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value, intermediates=None):
        density = self._log_density
        for _ in range(jnp.ndim(value) - len(self.event_shape)):
            density = jax.vmap(density)
        return density(jnp.asarray(value))

    def _log_density(self, value):
        left = self._left(value)
        z = linalg.solve(self.covariance, left)
        form, logdet = left @ z, linalg.logdet(self.covariance)
        if self.missing.size:
            unseen = lx.MatrixLinearOperator(
                self.columns()[:, self.missing], lx.positive_semidefinite_tag
            )
            z = z[self.missing]
            form = form - z @ linalg.solve(unseen, z)
            logdet = logdet + linalg.logdet(unseen)
        count = math.prod(self.event_shape) - self.missing.size
        return -0.5 * (form + logdet + count * math.log(2 * math.pi))

    def _left(self, value):
        left = (value - self.loc).reshape(-1)
        return left.at[self.missing].set(0.0)

    def columns(self) -> Float[Array, "u n"]:
        """The rows of $P$ of the unobserved entries, each over the whole grid."""
        n = self.covariance.shape[0]
        units = jnp.zeros((self.missing.size, n), self.covariance.dtype)
        units = units.at[jnp.arange(self.missing.size), self.missing].set(1.0)
        return jax.vmap(lambda e: linalg.solve(self.covariance, e))(units)

    def weights(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$Σ_{oo}^{-1}(y - m)$ on the observed entries, and zero elsewhere.

        Args:
            value: $Y$, of shape `event_shape`; more axes may come before.
        """
        lead = jnp.shape(value)[: jnp.ndim(value) - len(self.event_shape)]
        left = jax.vmap(self._left)(value.reshape(-1, *self.event_shape))
        z = jax.vmap(lambda y: linalg.solve(self.covariance, y))(left)
        if self.missing.size:
            columns = self.columns()
            root = jnp.linalg.cholesky(columns[:, self.missing]), True
            filled = jax.scipy.linalg.cho_solve(root, z[:, self.missing].T)
            z = z - filled.T @ columns
            z = z.at[:, self.missing].set(0.0)
        return z.reshape(*lead, *self.event_shape)

    def precision(self) -> Float[Array, "..."]:
        r"""The diagonal of $Σ_{oo}^{-1}$, and zero at entries that are not observed."""
        d, U = linalg.eigh(self.covariance)
        squares = [linalg.abs2(u) for u in U.factors]
        diagonal = linalg.mode_products(1 / d, squares).reshape(-1)
        if self.missing.size:
            columns = self.columns()
            root = jnp.linalg.cholesky(columns[:, self.missing])
            white = solve_triangular(root, columns, lower=True)
            diagonal = (diagonal - jnp.sum(white**2, 0)).at[self.missing].set(0.0)
        return diagonal.reshape(self.event_shape)

    def leave_one_out(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$\log p(y_i \mid y_{-i})$ of each observed entry, in nats; zero elsewhere.

        Args:
            value: $Y$, of shape `event_shape`.
        """
        precision = self.precision()
        seen = precision > 0
        logs = given_others(self.weights(value), jnp.where(seen, precision, 1.0))
        return jnp.where(seen, logs, 0.0)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """The whole tensor: entries that are not observed are drawn as well."""
        draws = linalg.sample(self.covariance, key, sample_shape)
        return self.loc + draws.reshape(*sample_shape, *self.event_shape)

    @property
    def mean(self):
        return jnp.broadcast_to(self.loc, self.event_shape)
