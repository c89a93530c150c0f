r"""$p(y)$ of a series with its function integrated out, exactly or by Laplace's method.

With $u$ the function about its level and $\hat u$ the maximum of $p(y \mid u)\, p(u)$, each
log density is replaced by a quadratic, a *site*,

$$\log p(y_i \mid u_i) \approx c_i - \tfrac12 Λ_i u_i^2 + η_i u_i, \qquad
  η_i = Λ_i \hat u_i + \frac{d \log p}{d u_i}, $$

with the same value and slope at $\hat u_i$, and with the information there as $Λ_i$. Its
integral over $u$ is that of a Markov chain. It is exact for normal noise, where $\hat u$
does not matter.

Source: Rasmussen & Williams (2006), section 3.4; Hartmann & Vanhatalo (2019), "Laplace
approximation and natural gradient for Gaussian process regression with heteroscedastic
Student-t model", for the information in the place of the curvature, which may be negative.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from probkit.gp.state_space import AbstractProcess, Sites, color, log_evidence, smooth
from probkit.models.gp.likelihoods import AbstractLikelihood

# Newton's steps, and how often one of them is halved.
MOST_STEPS, MOST_HALVINGS = 100, 20
# A search ends at a gain of this many roundings per observation, in nats.
ROUNDINGS = 32.0
# Nodes of the quadrature over the function at one time.
NODES = 32


class Terms(eqx.Module):
    """The log densities of all observations, as functions of the function about its level.

    Attributes:
        likelihood: the distribution of one.
        level: of the function.
        noise_sd: of the noise, or None.
        exposure: of each count; ones for other values.
        seen: 1 where there is an observation, else 0.
    """

    likelihood: AbstractLikelihood
    level: Float[Array, ""]
    noise_sd: Any
    exposure: Float[Array, " n"]
    seen: Float[Array, " n"]

    def density(self, u: Float[Array, " n"]):
        """The distribution of the values."""
        return self.likelihood.density(self.level + u, self.noise_sd, self.exposure)

    def log_density(self, y, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """One number per time, zero where there is no observation."""
        return jnp.where(self.seen > 0, self.density(u).log_prob(y), 0.0)

    def slope(self, y, u: Float[Array, " n"]) -> Float[Array, " n"]:
        """The derivative of each log density."""
        return jax.grad(lambda u: self.log_density(y, u).sum())(u)

    def sites(self, y, u: Float[Array, " n"]) -> Sites:
        """The quadratics that touch the log densities at `u`."""
        information = self.likelihood.information(
            self.level + u, self.noise_sd, self.exposure
        )
        return self._touching(y, u, information)

    def sites_of_search(self, y, u: Float[Array, " n"]) -> Sites:
        """The same with the curvature of the search."""
        curvature = self.likelihood.curvature(
            y, self.level + u, self.noise_sd, self.exposure
        )
        return self._touching(y, u, curvature)

    def _touching(self, y, u, curvature) -> Sites:
        Λ = self.seen * curvature
        return Sites(Λ[:, None, None], (Λ * u + self.slope(y, u))[:, None])


@jax.custom_jvp
def mode(process: AbstractProcess, t, terms: Terms, y) -> Float[Array, " n"]:
    r"""$\hat u$, the function of highest density given the observations.

    Args:
        process: the process of the function about its level.
        t: sorted times, `(n,)`.
        terms: the log densities.
        y: the observations, `(n,)`.
    """
    return _search(process, t, terms, y).u


@mode.defjvp
def _(primals, tangents):
    # One more step of the search moves the maximum as the arguments do; the maximum as its
    # start does not matter to first order. (For outliers of Student's t the step is not
    # Newton's, and this is approximate; the log evidence is stationary in the maximum
    # there, so that its gradient is exact.)
    u = mode(*primals)
    moved = jax.jvp(lambda p, t, terms, y: _next(p, t, terms, y, u)[0], primals, tangents)[
        1
    ]
    return u, moved


def _next(process, t, terms: Terms, y, u):
    """One step: the maximum of the quadratics at `u`, and $K^{-1}$ times it."""
    sites = terms.sites_of_search(y, u)
    new = smooth(process, t, sites).mean[:, 0]
    return new, sites.shift[:, 0] - sites.precision[:, 0, 0] * new


class _Search(NamedTuple):
    u: Array
    weights: Array  # K^{-1} u
    gain: Array  # twice what the step before promised, in nats
    num_steps: Array


def _search(process, t, terms: Terms, y, most_steps: int = MOST_STEPS) -> _Search:
    """Newton's method, with steps that are halved until the density does not fall."""

    def density(u, weights):
        return terms.log_density(y, u).sum() - weights @ u / 2

    tolerance = ROUNDINGS * jnp.finfo(y.dtype).eps * y.size

    def step(state):
        u, weights = state.u, state.weights
        to, to_weights = _next(process, t, terms, y, u)
        gain = (terms.slope(y, u) - weights) @ (to - u)
        before = density(u, weights)

        def at(size):
            return u + size * (to - u), weights + size * (to_weights - weights)

        def falls(carry):
            size, halvings = carry
            risen = density(*at(size)) >= before - tolerance
            return ~risen & (halvings < MOST_HALVINGS)

        size, halvings = jax.lax.while_loop(
            falls, lambda c: (c[0] / 2, c[1] + 1), (jnp.ones((), u.dtype), 0)
        )
        size = jnp.where(halvings < MOST_HALVINGS, size, 0.0)
        u, weights = at(size)
        return _Search(u, weights, gain, state.num_steps + 1)

    def goes_on(state):
        return (state.gain > tolerance) & (state.num_steps < most_steps)

    zero, infinite = jnp.zeros_like(y), jnp.full((), jnp.inf, y.dtype)
    start = _Search(zero, zero, infinite, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(goes_on, step, start)


def gain_left(process, t, terms: Terms, y, most_steps: int = MOST_STEPS):
    """What the last step of the search gained at most, in nats: about zero at the mode."""
    return _search(process, t, terms, y, most_steps).gain / 2


class Marginal(Distribution):
    r"""$y$ of a series with its function integrated out.

    `log_prob` is exact for normal noise, otherwise Laplace's approximation. Draws are
    exact. Entries where nothing was observed do not count.

    Args:
        process: the process of the function about its level.
        t: sorted times, `(n,)`.
        terms: the densities of the observations given the function.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real_vector
    pytree_data_fields = ("process", "t", "terms")

    def __init__(
        self, process: AbstractProcess, t, terms: Terms, *, validate_args: Any = None
    ):
        self.process, self.t, self.terms = process, t, terms
        super().__init__((), t.shape, validate_args=validate_args)

    def center(self, value: Float[Array, " n"]) -> Float[Array, " n"]:
        """Where the quadratics touch the log densities."""
        if self.terms.likelihood.is_normal:
            return jnp.zeros_like(value)  # anywhere
        return mode(self.process, self.t, self.terms, value)

    def sites(self, value: Float[Array, " n"]) -> Sites:
        """The quadratics in the place of the log densities."""
        return self.terms.sites(value, self.center(value))

    def log_prob(self, value, intermediates=None):
        if jnp.ndim(value) != 1:
            return jax.lax.map(self.log_prob, value)
        u = self.center(value)
        sites = self.terms.sites(value, u)
        Λ, η = sites.precision[:, 0, 0], sites.shift[:, 0]
        constant = self.terms.log_density(value, u) + Λ * u**2 / 2 - η * u
        return constant.sum() + log_evidence(self.process, self.t, sites)

    def without_own(
        self, value: Float[Array, " n"]
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Mean and variance of the function about its level, given all other sites."""
        sites = self.sites(value)
        known = smooth(self.process, self.t, sites)
        m, v = known.mean[:, 0], known.covariance[:, 0, 0]
        Λ, η = sites.precision[:, 0, 0], sites.shift[:, 0]
        left = 1 - Λ * v
        return (m - v * η) / left, v / left

    def leave_one_out(self, value: Float[Array, " n"]) -> Float[Array, " n"]:
        r"""$\log p(y_i \mid y_{-i})$ of each entry given all the others, in nats.

        It is zero where there is no observation.
        """
        mean, variance = self.without_own(value)
        if self.terms.likelihood.is_normal:
            total = eqx.tree_at(
                lambda terms: terms.noise_sd,
                self.terms,
                jnp.sqrt(variance + self.terms.noise_sd**2),
            )
            return total.log_density(value, mean)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        log_weights = np.log(weights / weights.sum())

        def at(node):
            return self.terms.log_density(value, mean + jnp.sqrt(variance) * node)

        every = jax.lax.map(at, jnp.asarray(nodes, value.dtype))
        found = jax.nn.logsumexp(every + log_weights[:, None].astype(value.dtype), axis=0)
        return jnp.where(self.terms.seen > 0, found, 0.0)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        if sample_shape:
            keys = jax.random.split(key, sample_shape)
            flat = jax.lax.map(self.sample, keys.reshape(-1))
            return flat.reshape(*sample_shape, *self.event_shape)
        of_function, of_noise = jax.random.split(key)
        d = self.process.readout().shape[1]
        white = jax.random.normal(of_function, (*self.event_shape, d), self.t.dtype)
        u = color(self.process, self.t, white)[:, 0]
        return self.terms.density(u).sample(of_noise).astype(self.t.dtype)
