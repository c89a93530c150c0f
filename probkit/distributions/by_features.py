"""The normal distribution of a few features with normal weights, plus noise."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from probkit.distributions.leave_one_out import given_others


@jax.custom_jvp
def _determinant_and_form(A, b):
    r"""$\log|A|$ and $b^T A^{-1} b$."""
    root = jnp.linalg.cholesky(A)
    return _of_root(root, solve_triangular(root, b, lower=True))


def _of_root(root, white):
    return 2 * jnp.log(jnp.diagonal(root)).sum(), white @ white


@_determinant_and_form.defjvp
def _(primals, tangents):
    # d log|A| = tr A⁻¹ dA and, with a = A⁻¹ b, d(bᵀ a) = 2 aᵀ db - aᵀ dA a: less work than
    # the derivative of a Cholesky factor.
    (A, b), (dA, db) = primals, tangents
    root = jnp.linalg.cholesky(A)
    white = solve_triangular(root, b, lower=True)
    a = solve_triangular(root, white, lower=True, trans=1)
    inverse = cho_solve((root, True), jnp.eye(len(A), dtype=A.dtype))
    slopes = jnp.vdot(inverse, dA), 2 * a @ db - a @ (dA @ a)
    return _of_root(root, white), slopes


class FeatureNormal(Distribution):
    r"""$y \sim N(m, Φ\, \mathrm{diag}(λ)\, Φ^T + σ² I)$ with $p$ features, $p < n$.

    The first feature is 1 everywhere. $Φ$ is never formed here. With $G = Φ^T Φ$,
    $R = \mathrm{diag}(\sqrt λ)$ and $A = R G R + σ² I$, of size $p$,

    $$\log|Σ| = (n - p) \log σ² + \log|A|, \qquad
      r^T Σ^{-1} r = \{r^T r - (R Φ^T r)^T A^{-1} (R Φ^T r)\} / σ².$$

    Args:
        loc: $m$, one number, in units of the values.
        gram: $G$, `(p, p)`, dimensionless.
        variance: $λ > 0$, `(p,)`, in squared units of the values. One that is zero would
            have no derivative.
        noise: $σ² > 0$, one number, in the same units.
        features: an object with `project(r)`, which is $Φ^T r$ for $r$ of shape `(n,)`,
            `expand(w)`, which is $Φ w$ for $w$ of shape `(p,)`, and `of_each(f)`, which is
            $f$ of each row of $Φ$.
        size: $n$.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    pytree_data_fields = ("loc", "gram", "root_variance", "noise", "features")

    def __init__(
        self,
        loc: Any,
        gram: Float[Array, "p p"],
        variance: Float[Array, " p"],
        noise: Any,
        features: Any,
        size: int,
        *,
        validate_args: bool | None = None,
    ):
        self.loc, self.gram, self.noise = jnp.asarray(loc), gram, jnp.asarray(noise)
        self.root_variance, self.features = jnp.sqrt(variance), features
        super().__init__((), (size,), validate_args=validate_args)

    def inner(self) -> Float[Array, "p p"]:
        """$A$, in squared units of the values."""
        R = self.root_variance
        return R[:, None] * self.gram * R + self.noise * jnp.eye(len(R), dtype=R.dtype)

    def log_prob(self, value, intermediates=None):
        if jnp.ndim(value) != 1:
            lead = jnp.shape(value)[:-1]
            flat = jnp.reshape(value, (-1, *self.event_shape))
            return jnp.stack([self.log_prob(one) for one in flat]).reshape(lead)
        n, p = self.event_shape[0], len(self.root_variance)
        # Derivatives in the level go through the first feature, and not through all
        # projections of the values: Φᵀ 1 is the first column of G.
        level = jax.lax.stop_gradient(self.loc)
        left, moved = value - level, self.loc - level
        scores = self.features.project(left) - moved * self.gram[:, 0]
        whole = left @ left - 2 * moved * left.sum() + n * moved**2
        logdet, form = _determinant_and_form(self.inner(), self.root_variance * scores)
        logdet = logdet + (n - p) * jnp.log(self.noise)
        form = (whole - form) / self.noise
        return -0.5 * (logdet + form + n * math.log(2 * math.pi))

    def weights(self, value: Float[Array, " n"]):
        r"""The posterior of the standardised weights, $w = R^{-1}$ times the weights.

        Returns:
            Their mean, `(p,)`, and the lower root $L$ of $A$: the covariance is
            $σ² A^{-1}$.
        """
        root = jnp.linalg.cholesky(self.inner())
        scores = self.root_variance * self.features.project(value - self.loc)
        return cho_solve((root, True), scores), root

    def variances(self, root: Float[Array, "p p"], features: Any) -> Float[Array, " k"]:
        r"""The posterior variance of $Φ_* w$ at other places, in squared units.

        Args:
            root: the lower root of $A$.
            features: those of the places.
        """

        def of_row(row):
            white = solve_triangular(root, self.root_variance * row, lower=True)
            return self.noise * (white @ white)

        return features.of_each(of_row)

    def weighted(self, value: Float[Array, " n"]):
        r"""$Σ^{-1}(y - m)$ and the diagonal of $Σ^{-1}$, each `(n,)`."""
        mean, root = self.weights(value)
        signal = self.features.expand(self.root_variance * mean)
        share = self.variances(root, self.features) / self.noise
        return (value - self.loc - signal) / self.noise, (1 - share) / self.noise

    def leave_one_out(self, value: Float[Array, " n"]) -> Float[Array, " n"]:
        r"""$\log p(y_i \mid y_{-i})$ of each entry given all the others, in nats."""
        return given_others(*self.weighted(value))

    def precision_times(self, value: Float[Array, " n"]) -> Float[Array, " p"]:
        r"""$Φ^T Σ^{-1} (y - m)$, in one over the units of the values."""
        left = self.features.project(value - self.loc)
        mean, _ = self.weights(value)
        return (left - self.gram @ (self.root_variance * mean)) / self.noise

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        if sample_shape:
            keys = jax.random.split(key, sample_shape)
            flat = jax.lax.map(self.sample, keys.reshape(-1))
            return flat.reshape(*sample_shape, *self.event_shape)
        of_weights, of_noise = jax.random.split(key)
        dtype = self.gram.dtype
        w = jax.random.normal(of_weights, self.root_variance.shape, dtype)
        e = jax.random.normal(of_noise, self.event_shape, dtype)
        signal = self.features.expand(self.root_variance * w)
        return self.loc + signal + jnp.sqrt(self.noise) * e

    @property
    def mean(self):
        return jnp.broadcast_to(self.loc, self.event_shape)
