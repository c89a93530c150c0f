r"""Gaussian priors of the factors of one mode, and their posteriors given Gaussian sites.

A prior is over the values of $c$ independent functions of variance one at the $n$ distinct
coordinates of a mode. Each is a linear map of white noise, which is what NUTS samples and
what a draw is reported as.
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, Int, PRNGKeyArray

from probkit.gp import state_space
from probkit.gp.state_space import AbstractProcess, Sites, Smoothed


class AbstractPrior(eqx.Module):
    """Independent Gaussian functions of variance one at the coordinates of a mode."""

    @property
    @abstractmethod
    def white_shape(self) -> tuple[int, ...]:
        """The shape of the white noise that makes a draw."""

    @abstractmethod
    def color(self, white: Array) -> Float[Array, "n c"]:
        """The values that white noise makes."""

    @abstractmethod
    def smooth(self, sites: Sites) -> Smoothed:
        """Mean and covariance at each coordinate, given sites, and their log evidence."""

    @abstractmethod
    def sample(self, sites: Sites, key: PRNGKeyArray) -> Array:
        """One joint draw given sites, as the white noise that makes it."""

    @abstractmethod
    def white_mean(self, sites: Sites) -> Array:
        """The mean, given sites, of the white noise."""

    @abstractmethod
    def at(
        self, sites: Sites, points: Array, seen: Int[Array, " q"]
    ) -> tuple[Float[Array, "q c"], Float[Array, "q c c"]]:
        """Mean and covariance at other coordinates, given sites at those of the data.

        Args:
            sites: one term per point of the data.
            points: the other coordinates.
            seen: which point of the data each of them is, or -1.
        """

    @abstractmethod
    def between(
        self, white: Array, points: Array, seen: Int[Array, " q"], key: PRNGKeyArray
    ) -> Float[Array, "q c"]:
        """A joint draw at other coordinates, given the white noise of a draw at the data.

        Args:
            white: the white noise.
            points: the other coordinates.
            seen: which point of the data each of them is, or -1.
            key: a JAX random key.
        """

    def smooth_with_evidence(self, sites: Sites) -> Smoothed:
        """As `smooth`, where only the log evidence is differentiated."""
        return self.smooth(sites)

    def log_evidence(self, sites: Sites) -> Float[Array, ""]:
        """Log of the integral of the sites under the prior, in nats."""
        return self.smooth(sites).log_evidence

    def white_of(self, values: Float[Array, "n c"]) -> Array:
        """White noise that makes nearly these values: its mean given precise ones."""
        precision = 1 / jnp.sqrt(jnp.finfo(values.dtype).eps)
        n, c = values.shape
        each = jnp.broadcast_to(precision * jnp.eye(c, dtype=values.dtype), (n, c, c))
        return self.white_mean(Sites(each, precision * values))


class Chain(AbstractPrior):
    """Functions of one ordered coordinate, as a Markov chain.

    Attributes:
        process: of `c` values.
        x: the sorted coordinates.
    """

    process: AbstractProcess
    x: Float[Array, " n"]

    @property
    def white_shape(self):
        return (len(self.x), jax.eval_shape(self.process.stationary).shape[0])

    def color(self, white):
        return state_space.color(self.process, self.x, white)

    def smooth(self, sites):
        return state_space.smooth(self.process, self.x, sites)

    def smooth_with_evidence(self, sites):
        return state_space.smooth_with_evidence(self.process, self.x, sites)

    def sample(self, sites, key):
        return state_space.sample_white(self.process, self.x, sites, key)

    def white_mean(self, sites):
        return state_space.white_mean(self.process, self.x, sites)

    def log_evidence(self, sites):
        return state_space.log_evidence(self.process, self.x, sites)

    def at(self, sites, points, seen):
        found = state_space.at(self.process, self.x, sites, points)
        return found.mean, found.covariance

    def between(self, white, points, seen, key):
        return state_space.bridge(self.process, self.x, white, points, key)


class Dense(AbstractPrior):
    """Functions of a few points, by the roots of their covariance matrices.

    Attributes:
        root: lower triangular, one per function.
        across: the covariance of other points, and of these with those of the data, one
            per function: `across(points) -> (c, q, q), (c, n, q)`.
    """

    root: Float[Array, "c n n"]
    across: Callable[[Array], tuple[Array, Array]]

    @property
    def white_shape(self):
        c, n, _ = self.root.shape
        return (n, c)

    def color(self, white):
        return jnp.einsum("cij,jc->ic", self.root, white)

    def smooth(self, sites):
        mean, known, log_evidence = self._posterior(sites)
        c, n, _ = self.root.shape
        # The rows of L at one point for one function, in the joint vector of white noise.
        L = _joint(self.root)
        white = solve_triangular(known, L.T, lower=True).reshape(-1, n, c)
        covariance = jnp.einsum("anc,and->ncd", white, white)
        return Smoothed((L @ mean).reshape(n, c), covariance, log_evidence)

    def sample(self, sites, key):
        mean, known, _ = self._posterior(sites)
        c, n, _ = self.root.shape
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        white = mean + solve_triangular(known, noise, lower=True, trans=1)
        return white.reshape(n, c)

    def white_mean(self, sites):
        c, n, _ = self.root.shape
        return self._posterior(sites)[0].reshape(n, c)

    def _across(self, points):
        """The map from the white noise to other points, and the covariance of the rest."""
        prior, both = self.across(points)
        solve = jax.vmap(lambda L, K: solve_triangular(L, K, lower=True))
        into = jnp.swapaxes(solve(self.root, both), 1, 2)
        return into, prior - into @ jnp.swapaxes(into, 1, 2)

    def at(self, sites, points, seen):
        mean, known, _ = self._posterior(sites)
        c, n, _ = self.root.shape
        into, rest = self._across(points)
        values = jnp.einsum("cqj,jc->qc", into, mean.reshape(n, c))
        # One row per query and function, in the joint vector of white noise.
        eye = jnp.eye(c, dtype=into.dtype)
        rows = jnp.einsum("cqj,cd->qcjd", into, eye).reshape(-1, n * c)
        white = solve_triangular(known, rows.T, lower=True).reshape(n * c, -1, c)
        covariance = jnp.einsum("aqc,aqd->qcd", white, white)
        own = jnp.maximum(jnp.diagonal(rest, axis1=1, axis2=2), 0.0)
        return values, covariance + jnp.einsum("cq,cd->qcd", own, eye)

    def between(self, white, points, seen, key):
        into, rest = self._across(points)
        values, vectors = jnp.linalg.eigh(rest)
        root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[:, None]
        noise = jax.random.normal(key, root.shape[:2], root.dtype)
        drawn = jnp.einsum("cqj,jc->qc", into, white)
        return drawn + jnp.einsum("cqj,cj->qc", root, noise)

    def _posterior(self, sites: Sites):
        """Of the white noise: its mean, the root of its precision, and the evidence."""
        c, n, _ = self.root.shape
        L = _joint(self.root)
        L3 = L.reshape(n, c, n * c)
        weighted = jnp.einsum("ncd,ndj->ncj", sites.precision, L3).reshape(n * c, n * c)
        known = jnp.linalg.cholesky(jnp.eye(n * c, dtype=L.dtype) + L.T @ weighted)
        right = L.T @ sites.shift.reshape(-1)
        mean = cho_solve((known, True), right)
        log_evidence = right @ mean / 2 - jnp.log(jnp.diagonal(known)).sum()
        return mean, known, log_evidence


def _joint(root: Float[Array, "c n n"]) -> Float[Array, "m m"]:
    """The root of the covariance of all values, point by point, function by function."""
    c, n, _ = root.shape
    eye = jnp.eye(c, dtype=root.dtype)
    return jnp.einsum("cij,cd->icjd", root, eye).reshape(n * c, n * c)


class Unordered(AbstractPrior):
    """Values that are independent from one coordinate to the next.

    Attributes:
        num_points: the number of coordinates.
        num_values: the number of functions.
    """

    num_points: int = eqx.field(static=True)
    num_values: int = eqx.field(static=True)

    @property
    def white_shape(self):
        return (self.num_points, self.num_values)

    def color(self, white):
        return white

    def smooth(self, sites):
        root, mean, log_evidence = jax.vmap(_given)(sites.precision, sites.shift)
        eye = jnp.eye(self.num_values, dtype=mean.dtype)
        covariance = jax.vmap(lambda L: cho_solve((L, True), eye))(root)
        return Smoothed(mean, covariance, log_evidence.sum())

    def sample(self, sites, key):
        root, mean, _ = jax.vmap(_given)(sites.precision, sites.shift)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        back = jax.vmap(lambda L, e: solve_triangular(L, e, lower=True, trans=1))
        return mean + back(root, noise)

    def white_mean(self, sites):
        return jax.vmap(_given)(sites.precision, sites.shift)[1]

    def at(self, sites, points, seen):
        found, known = self.smooth(sites), (seen >= 0)[:, None]
        mean = jnp.where(known, found.mean[seen], 0.0)
        eye = jnp.eye(self.num_values, dtype=mean.dtype)
        return mean, jnp.where(known[:, None], found.covariance[seen], eye)

    def between(self, white, points, seen, key):
        new = jax.random.normal(key, (len(seen), self.num_values), white.dtype)
        return jnp.where((seen >= 0)[:, None], white[seen], new)


def _given(precision, shift):
    """A standard normal vector given one site: root of its precision, mean, evidence."""
    root = jnp.linalg.cholesky(jnp.eye(len(shift), dtype=shift.dtype) + precision)
    mean = cho_solve((root, True), shift)
    return root, mean, shift @ mean / 2 - jnp.log(jnp.diagonal(root)).sum()
