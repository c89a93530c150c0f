r"""A second look at the mean and covariance of a hierarchy, for draws that are worth more.

Given the coefficients $θ_i$, the mean and covariance fit them closely, and the reverse:
where data sets hardly differ, a chain that draws them in turn moves slowly. So the
hierarchy moves once more, and takes the coefficients along. Of a component with mean $μ$
and covariance $Σ$, $θ_i - μ \to A (θ_i - μ)$ and $Σ \to A Σ A^T$, where $A$ stretches one
coefficient, or adds to it a multiple of another; then all $θ_i$ are shifted with $μ$. How
probable the coefficients are given the hierarchy does not change; the data and the prior
decide.

Source: Liu & Sabatti (2000), "Generalised Gibbs sampler and multigrid Monte Carlo for
Bayesian computation", theorem 1; Yu & Meng (2011), "To center or not to center".
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.models.meta.beliefs import DiagonalPrior, FullPrior
from probkit.models.meta.evidence import Rows

# Proposals for each number, and how far a usual one goes, relative to what it multiplies. A
# Cauchy distribution has near ones and far ones.
ROUNDS = 6
WIDTH = 1.0


def rescaled(
    prior: FullPrior | DiagonalPrior,
    rows: Rows,
    own: Float[Array, " n"],
    theta: Float[Array, "n p"],
    mean: Float[Array, " p"],
    covariance: Float[Array, "p p"],
    precision: Float[Array, ""],
    key: PRNGKeyArray,
) -> tuple[Float[Array, "n p"], Float[Array, " p"], Float[Array, "p p"]]:
    """Coefficients, mean and covariance of one component, moved.

    Args:
        prior: of mean and covariance.
        rows: the data.
        own: one for the data sets of the component, zero for others, whose coefficients are
            of no account.
        theta: the coefficients.
        mean: of the component.
        covariance: of the component.
        precision: of the noise.
        key: a JAX random key.
    """
    key_pairs, key_moves, key_mean = jax.random.split(key, 3)
    p = len(mean)
    to = by = jnp.arange(p)
    if isinstance(prior, FullPrior) and p > 1:
        # To each coefficient a multiple of another is added.
        other = (to + jax.random.randint(key_pairs, (p,), 1, p)) % p
        to, by = jnp.concatenate([to, to]), jnp.concatenate([by, other])

    def move(place, inputs):
        δ, residual, covariance = place
        j, k, key = inputs
        # Along A = I + s e_j e_kᵀ, what the data say is quadratic in s.
        change = rows.design[:, :, j] * δ[:, k, None]
        weighted = precision * own[:, None] * change
        linear, square = jnp.sum(weighted * residual), jnp.sum(weighted * change)

        def moved(t):
            s = jnp.where(j == k, jnp.expm1(t), t)
            after = covariance.at[j].add(s * covariance[k])
            return s, after.at[:, j].add(s * after[:, k])

        def log_density(t):
            s, after = moved(t)
            met = s * linear - s**2 * square / 2
            # The Jacobian of Σ, or of the sds, in the logarithm of the stretch.
            volume = p + 1 if isinstance(prior, FullPrior) else 1
            jacobian = jnp.where(j == k, volume * t, 0.0)
            return met + jacobian + _log_prior(prior, mean, after)

        s, covariance = moved(_walked(log_density, _width(covariance, j, k), key))
        δ = δ.at[:, j].add(s * δ[:, k])
        return (δ, residual - s * change, covariance), None

    δ = theta - mean
    residual = rows.y - jnp.einsum("nmp,np->nm", rows.design, theta)
    keys = jax.random.split(key_moves, len(to))
    (δ, residual, covariance), _ = jax.lax.scan(
        move, (δ, residual, covariance), (to, by, keys)
    )

    # The shift of the mean is normal.
    known = prior.strength * _inverse(covariance)
    gram = precision * jnp.einsum("n,nmp,nmq->pq", own, rows.design, rows.design)
    pull = precision * jnp.einsum("n,nmp,nm->p", own, rows.design, residual)
    pull = pull + known @ (prior.loc - mean)
    root = jnp.linalg.cholesky(gram + known)
    white = jax.random.normal(key_mean, mean.shape, mean.dtype)
    pull = solve_triangular(root, pull, lower=True)
    shift = solve_triangular(root, pull + white, lower=True, trans=1)
    return mean + shift + δ, mean + shift, covariance


def _inverse(matrix: Float[Array, "p p"]) -> Float[Array, "p p"]:
    root = jnp.linalg.cholesky(matrix)
    return cho_solve((root, True), jnp.eye(len(matrix), dtype=matrix.dtype))


def _width(covariance: Float[Array, "p p"], j: Array, k: Array) -> Float[Array, ""]:
    """How far proposals go, which must not change with the move itself: what others leave
    of the sd of a coefficient, over the sd of what is added.
    """
    left = 1 / jnp.sqrt(_inverse(covariance)[j, j])
    return WIDTH * jnp.where(j == k, 1.0, left / jnp.sqrt(covariance[k, k]))


def _log_prior(
    prior: FullPrior | DiagonalPrior,
    mean: Float[Array, " p"],
    covariance: Float[Array, "p p"],
) -> Float[Array, ""]:
    """The log density of the mean and of the covariance, or of the sds."""
    found = dist.MultivariateNormal(prior.loc, covariance / prior.strength).log_prob(mean)
    if isinstance(prior, FullPrior):
        return found + prior.covariance().log_prob(covariance)
    sd = jnp.sqrt(jnp.diagonal(covariance))
    return found + prior.deviation().log_prob(sd).sum()


def _walked(log_density, width: Float[Array, ""], key: PRNGKeyArray) -> Float[Array, ""]:
    """Where Metropolis steps lead from zero."""
    start = jnp.zeros_like(width)

    def propose(place, key):
        t, lp = place
        key_step, key_accept = jax.random.split(key)
        new = t + width * jax.random.cauchy(key_step, dtype=t.dtype)
        new_lp = log_density(new)
        chance = jax.random.uniform(key_accept, dtype=t.dtype)
        accept = jnp.log(chance) < new_lp - lp
        return (jnp.where(accept, new, t), jnp.where(accept, new_lp, lp)), None

    keys = jax.random.split(key, ROUNDS)
    (t, _), _ = jax.lax.scan(propose, (start, log_density(start)), keys)
    return t
