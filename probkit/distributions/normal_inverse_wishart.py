r"""The normal-inverse-Wishart distribution of a mean and a covariance, as a value."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, multigammaln
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import (
    InverseWishart,
    MultivariateNormal,
    MultivariateStudentT,
)

Matrix = Float[Array, "d d"]
Vector = Float[Array, " d"]


class NormalInverseWishart(eqx.Module):
    r"""$μ \mid Σ \sim N(m, Σ / l)$ and $Σ \sim IW(V, n)$.

    The density of $IW(V, n)$ is proportional to
    $|Σ|^{-(n + d + 1)/2} \exp(-\tfrac12 \mathrm{tr}\, V Σ^{-1})$.

    Attributes:
        loc: $m$, `(d,)`.
        strength: $l > 0$: the mean is known as from so many draws.
        scale: $V$, `(d, d)`, positive definite.
        dof: $n > d - 1$, degrees of freedom. The covariance has a mean if $n > d + 1$.

    Several of them in one value have an axis in front of each array, `*k`. Its methods are
    for one, and are mapped.
    """

    loc: Float[Array, "*k d"]
    strength: Float[Array, "*k"]
    scale: Float[Array, "*k d d"]
    dof: Float[Array, "*k"]

    @property
    def size(self) -> int:
        return self.loc.shape[-1]

    def precision(self) -> Matrix:
        r"""$E[Σ^{-1}] = n V^{-1}$."""
        return self.dof * jnp.linalg.inv(self.scale)

    def covariance(self) -> Matrix:
        """$V / n$, the inverse of the mean precision."""
        return self.scale / self.dof

    def mean_logdet(self) -> Float[Array, ""]:
        r"""$E[\ln |Σ|]$."""
        d = self.size
        return logdet(self.scale) - d * math.log(2) - multidigamma(self.dof / 2, d)

    def sample(self, key: PRNGKeyArray) -> tuple[Vector, Matrix]:
        """One draw of the mean and of the covariance."""
        key_mean, key_covariance = jax.random.split(key)
        Σ = InverseWishart(self.dof, scale_matrix=self.scale).sample(key_covariance)
        Σ = Σ.astype(self.scale.dtype)  # NumPyro draws in the default dtype
        root = jnp.linalg.cholesky(Σ / self.strength)
        white = jax.random.normal(key_mean, self.loc.shape, self.loc.dtype)
        return self.loc + root @ white, Σ

    def log_prob(self, mean: Vector, covariance: Matrix) -> Float[Array, ""]:
        """The joint log density, in nats."""
        prior = InverseWishart(self.dof, scale_matrix=self.scale)
        given = MultivariateNormal(self.loc, covariance / self.strength)
        found = prior.log_prob(covariance) + given.log_prob(mean)
        return found.astype(self.scale.dtype)

    def predictive(self) -> MultivariateStudentT:
        """The distribution of a draw of $N(μ, Σ)$, with both integrated out: Student-t
        with $n - d + 1$ degrees of freedom.
        """
        df = self.dof - self.size + 1
        root = jnp.linalg.cholesky(self.scale * (self.strength + 1) / (self.strength * df))
        return MultivariateStudentT(df, self.loc, root)

    def divergence(self, other: "NormalInverseWishart") -> Float[Array, ""]:
        """Kullback-Leibler divergence from `other` to this distribution, in nats."""
        d = self.size
        return divergence_of_means(self, other) + divergence_of_scales(
            self.scale, self.dof, other.scale, logdet(other.scale), other.dof, d
        )

    def transformed(self, matrix: Matrix, shift: Vector) -> "NormalInverseWishart":
        """The distribution of $A μ + b$ and $A Σ A^T$."""
        loc = matrix @ self.loc + shift
        return NormalInverseWishart(
            loc, self.strength, matrix @ self.scale @ matrix.T, self.dof
        )


def divergence_of_means(
    q: NormalInverseWishart, p: NormalInverseWishart
) -> Float[Array, ""]:
    """The part of the divergence that is due to the mean."""
    d, away = q.size, q.loc - p.loc
    along = away @ jnp.linalg.solve(q.scale, away)
    ratio = p.strength / q.strength
    return 0.5 * (d * (ratio - 1 - jnp.log(ratio)) + p.strength * q.dof * along)


def divergence_of_scales(
    scale: Matrix,
    dof: Float[Array, ""],
    before: Matrix,
    logdet_before: Float[Array, ""],
    dof_before: Float[Array, ""] | float,
    d: int,
) -> Float[Array, ""]:
    r"""From $IW(V_0, n_0)$ to $IW(V, n)$; of $V_0$ only its mean and mean $\ln|V_0|$ count.

    Args:
        scale: $V$.
        dof: $n$.
        before: $V_0$, or its expectation.
        logdet_before: $\ln |V_0|$, or its expectation.
        dof_before: $n_0$.
        d: the number of rows.
    """
    n, n0 = dof, dof_before
    return (
        n0 / 2 * (logdet(scale) - logdet_before)
        + n / 2 * jnp.trace(jnp.linalg.solve(scale, before))
        - n * d / 2
        + multigammaln(jnp.asarray(n0) / 2, d)
        - multigammaln(n / 2, d)
        + (n - n0) / 2 * multidigamma(n / 2, d)
    )


def logdet(matrix: Matrix) -> Float[Array, ""]:
    """Of a positive definite matrix."""
    return 2 * jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix))).sum()


def multidigamma(a: Float[Array, ""], d: int) -> Float[Array, ""]:
    r"""$ψ_d(a) = \sum_{j=1}^d ψ(a + (1 - j)/2)$, the derivative of $\ln Γ_d$."""
    return digamma(a - jnp.arange(d, dtype=jnp.result_type(a)) / 2).sum()
