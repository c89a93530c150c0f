r"""The density of the values of linear episodes, with their coefficients integrated out."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaincc
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.distributions import Distribution, constraints

from probkit.models.meta.local import Local, local


class Believed(NamedTuple):
    """The hierarchy, of one draw or in expectation, standardised.

    Attributes:
        log_weight: of each component, `(k,)`.
        mean: of the coefficients, `(k, p)`.
        root: $L$ with $L L^T$ their covariance, `(k, p, p)`.
        precision: of the noise.
        log_precision: its logarithm.
    """

    log_weight: Float[Array, " k"]
    mean: Float[Array, "k p"]
    root: Float[Array, "k p p"]
    precision: Float[Array, ""]
    log_precision: Float[Array, ""]


class Rows(eqx.Module):
    """The rows of linear episodes, standardised, zero where there is none.

    Attributes:
        design: features, `(n, m, p)`.
        y: values, `(n, m)`.
        seen: which rows there are, `(n, m)`.
    """

    design: Float[Array, "n m p"]
    y: Float[Array, "n m"]
    seen: Bool[Array, "n m"]


def locals_of(rows: Rows, believed: Believed) -> Local:
    """The posterior of each episode under each component, with axes `(n, k)` in front."""
    τ, log_τ = believed.precision, believed.log_precision

    def one(X, y, seen, mean, root):
        residual = y - X @ mean
        constant = seen.sum() * (log_τ - math.log(2 * math.pi)) / 2
        c = τ * residual @ residual / 2 - constant
        return local(c, -τ * X.T @ residual, τ * X.T @ X, root)

    over_components = jax.vmap(one, (None, None, None, 0, 0))
    over_episodes = jax.vmap(over_components, (0, 0, 0, None, None))
    return over_episodes(rows.design, rows.y, rows.seen, believed.mean, believed.root)


def drawn_coefficients(
    rows: Rows, believed: Believed, key: PRNGKeyArray
) -> tuple[Float[Array, "n p"], Int[Array, " n"]]:
    """A draw of the coefficients of each episode given its rows, and of its component."""
    found = locals_of(rows, believed)
    key_kind, key_white = jax.random.split(key)
    kind = jax.random.categorical(key_kind, believed.log_weight - found.cost)
    white = jax.random.normal(
        key_white, (*kind.shape, believed.mean.shape[1]), rows.y.dtype
    )
    own = jnp.arange(len(kind))
    root, shift = found.root[own, kind], found.shift[own, kind]
    return believed.mean[kind] + shift + jnp.einsum("npq,nq->np", root, white), kind


class Predicted(NamedTuple):
    """The function of each episode at new rows, given its own: a mixture of normals.

    Attributes:
        share: the probability of each component, `(n, k)`.
        mean: `(n, k, q)`, standardised.
        variance: without noise, `(n, k, q)`.
    """

    share: Float[Array, "n k"]
    mean: Float[Array, "n k q"]
    variance: Float[Array, "n k q"]


def predicted(rows: Rows, believed: Believed, design: Float[Array, "n q p"]) -> Predicted:
    """The function at new rows, exact given the hierarchy.

    Args:
        rows: the known rows of each episode.
        believed: the hierarchy.
        design: features of the new rows, standardised.
    """
    found = locals_of(rows, believed)
    share = jax.nn.softmax(believed.log_weight - found.cost, axis=1)
    mean = jnp.einsum("nqp,nkp->nkq", design, believed.mean + found.shift)
    spread = jnp.einsum("nqp,nkpr->nkqr", design, found.root)
    return Predicted(share, mean, jnp.sum(spread**2, -1))


def tails(rows: Rows, believed: Believed) -> Float[Array, " n"]:
    """The probability of values less probable than those of each episode, with the same
    inputs, given a hierarchy of one component: of a chi-square as large as theirs.

    Args:
        rows: the rows of the episodes.
        believed: the hierarchy.
    """
    cost = locals_of(rows, believed).cost[:, 0]
    # Of the likeliest values: what is left without the squares.
    middle = jnp.where(rows.seen, rows.design @ believed.mean[0], 0.0)
    least = locals_of(Rows(rows.design, middle, rows.seen), believed).cost[:, 0]
    size = rows.seen.sum(1)
    above = gammaincc(jnp.maximum(size, 1) / 2, jnp.maximum(cost - least, 0.0))
    return jnp.where(size > 0, above, 1.0)


class EpisodeNormal(Distribution):
    r"""$y_i \sim \sum_k π_k N(X_i μ_k, X_i Σ_k X_i^T + σ^2 I)$, one event per episode.

    Args:
        believed: the hierarchy, standardised.
        design: $X$, `(n, m, p)`, standardised.
        seen: which rows there are, `(n, m)`. Values of others count for nothing.
        center: of the values, in their units.
        scale: of the values.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    pytree_data_fields = ("believed", "design", "seen", "center", "scale")

    def __init__(
        self, believed, design, seen, center, scale, *, validate_args: bool | None = None
    ):
        self.believed, self.design, self.seen = believed, design, seen
        self.center, self.scale = center, scale
        n, m = seen.shape
        super().__init__((n,), (m,), validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        y = jnp.where(self.seen, (value - self.center) / self.scale, 0.0)
        cost = locals_of(Rows(self.design, y, self.seen), self.believed).cost
        found = jax.nn.logsumexp(self.believed.log_weight - cost, axis=1)
        return found - self.seen.sum(1) * jnp.log(self.scale)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        if sample_shape:
            keys = jax.random.split(key, math.prod(sample_shape))
            draws = jax.vmap(self.sample)(keys)
            return draws.reshape(*sample_shape, *draws.shape[1:])
        key_theta, key_noise = jax.random.split(key)
        nothing = Rows(
            jnp.zeros_like(self.design), jnp.zeros(self.seen.shape), self.seen & False
        )
        theta, _ = drawn_coefficients(nothing, self.believed, key_theta)
        white = jax.random.normal(key_noise, self.seen.shape, self.design.dtype)
        y = jnp.einsum("nmp,np->nm", self.design, theta)
        y = y + white / jnp.sqrt(self.believed.precision)
        return jnp.where(self.seen, self.center + self.scale * y, 0.0)
