"""Sources of simulated data sets, other ones in each step, from known distributions."""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.model.source import AbstractSource
from probkit.models.meta.episodes import Episodes, Units
from probkit.validate import as_array, positive, whole


class HeldOut(NamedTuple):
    """Data sets to predict: all points of each, some of them with known values.

    Attributes:
        support_x: inputs of the known rows, `(n, s)`.
        support_y: their values.
        x: inputs of the rows to predict, `(n, q)`.
        y: their values.
        mean: what they are without noise.
    """

    support_x: Float[Array, "n s"]
    support_y: Float[Array, "n s"]
    x: Float[Array, "n q"]
    y: Float[Array, "n q"]
    mean: Float[Array, "n q"]


class AbstractGenerator(AbstractSource):
    """Functions of one input, seen with noise at some points of a grid."""

    key: eqx.AbstractVar[PRNGKeyArray]
    like: eqx.AbstractVar[Episodes]
    num_episodes: eqx.AbstractVar[int]
    num_points: eqx.AbstractVar[int]
    noise_sd: eqx.AbstractVar[float]

    @abstractmethod
    def grid(self) -> Float[Array, " q"]:
        """The points at which values can be seen."""

    @abstractmethod
    def functions(self, key: PRNGKeyArray, x: Float[Array, "n q"]) -> Float[Array, "n q"]:
        """One random function per row, at the inputs of the row."""

    def at(self, step):
        key = jax.random.fold_in(self.key, step)
        x, _, y = self._drawn(key, *self.like.y.shape)
        return self.like.replaced({"x": x[..., None], "y": y})

    def num_rows(self):
        return self.num_episodes

    def held_out(self, key: PRNGKeyArray, num_tasks: int = 1000) -> HeldOut:
        """Data sets that no step has: as many known rows as in a step, and all others.

        Args:
            key: a JAX random key, another one than that of the source.
            num_tasks: the number of data sets.
        """
        support = self.like.y.shape[1]
        x, mean, y = self._drawn(key, num_tasks, self.num_points)
        known, asked = slice(None, support), slice(support, None)
        return HeldOut(x[:, known], y[:, known], x[:, asked], y[:, asked], mean[:, asked])

    def _drawn(self, key, count: int, size: int) -> tuple[Array, Array, Array]:
        """Inputs, without repetition in a data set, means, and values."""
        key_x, key_f, key_noise = jax.random.split(key, 3)
        keys, grid = jax.random.split(key_x, count), self.grid()
        x = jax.vmap(lambda key: jax.random.permutation(key, grid)[:size])(keys)
        mean = self.functions(key_f, x)
        white = jax.random.normal(key_noise, mean.shape, mean.dtype)
        return x, mean, mean + self.noise_sd * white


class SineLine(AbstractGenerator):
    r"""Sines and lines, one or the other with equal probability.

    A sine is $a \sin(x + b)$ with $a \sim U(0.1, 5)$ and $b \sim U(0, π)$; a line is
    $s x + c$ with $s, c \sim U(-3, 3)$. Inputs are equally spaced on [-5, 5].

    Args:
        key: a JAX random key.
        batch_size: the number of data sets per step.
        num_episodes: for how many data sets the source stands.
        num_support: the number of rows of each, at random points.
        num_points: the number of points.
        noise_sd: of the values.

    Source: the data sets of sines and lines of Finn, Xu & Levine (2018), "Probabilistic
    model-agnostic meta-learning".
    """

    key: PRNGKeyArray
    like: Episodes
    num_episodes: int = eqx.field(static=True)
    num_points: int = eqx.field(static=True)
    noise_sd: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        batch_size: int = 20,
        num_episodes: int = 2000,
        num_support: int = 5,
        num_points: int = 50,
        noise_sd: float = 0.3,
    ):
        name = "SineLine"
        self.key = key
        self.num_episodes = whole(f"{name}(num_episodes", 1)(num_episodes)
        self.num_points = _points(name, num_points, num_support)
        self.noise_sd = positive(f"{name}(noise_sd", zero=True)(noise_sd)
        # Of the distribution: a sine has the variance E[a²]/2, a line 3 (1 + E[x²]).
        x_sd = math.sqrt(25 / 3)
        y_sd = math.sqrt((8.5 / 2 + 3 * (1 + 25 / 3)) / 2 + self.noise_sd**2)
        self.like = _like(name, batch_size, num_support, (0.0, x_sd), (0.0, y_sd))

    def grid(self):
        return jnp.linspace(-5.0, 5.0, self.num_points, dtype=self.like.dtype)

    def functions(self, key, x):
        shape, dtype = (len(x), 1), x.dtype
        key_kind, *keys = jax.random.split(key, 5)
        ranges = ((0.1, 5.0), (0.0, math.pi), (-3.0, 3.0), (-3.0, 3.0))
        a, b, s, c = (
            jax.random.uniform(key, shape, dtype, *ends)
            for key, ends in zip(keys, ranges, strict=True)
        )
        is_sine = jax.random.bernoulli(key_kind, 0.5, shape)
        return jnp.where(is_sine, a * jnp.sin(x + b), s * x + c)


class LinearGaussian(AbstractGenerator):
    r"""Lines whose intercept and slope are normal: the model `Linear` itself.

    Inputs are equally spaced on [-2, 2].

    Args:
        key: a JAX random key.
        mean: of intercept and slope, `(2,)`.
        covariance: of intercept and slope, `(2, 2)`.
        batch_size: the number of data sets per step.
        num_episodes: for how many data sets the source stands.
        num_support: the number of rows of each, at random points.
        num_points: the number of points.
        noise_sd: of the values.

    Raises:
        ValueError: if mean and covariance are not of two coefficients.
    """

    key: PRNGKeyArray
    like: Episodes
    mean: Float[Array, " p"]
    covariance: Float[Array, "p p"]
    num_episodes: int = eqx.field(static=True)
    num_points: int = eqx.field(static=True)
    noise_sd: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        mean: Any = (0.0, 0.0),
        covariance: Any = ((1.0, 0.0), (0.0, 1.0)),
        batch_size: int = 20,
        num_episodes: int = 2000,
        num_support: int = 5,
        num_points: int = 50,
        noise_sd: float = 0.3,
    ):
        name = "LinearGaussian"
        self.key = key
        self.mean = as_array(mean, f"{name}(mean=...)")
        self.covariance = as_array(covariance, f"{name}(covariance=...)")
        if self.mean.shape != (2,) or self.covariance.shape != (2, 2):
            raise ValueError(
                f"`{name}(mean=..., covariance=...)` got shapes {self.mean.shape} and "
                f"{self.covariance.shape}; an intercept and a slope have (2,) and (2, 2)."
            )
        self.num_episodes = whole(f"{name}(num_episodes", 1)(num_episodes)
        self.num_points = _points(name, num_points, num_support)
        self.noise_sd = positive(f"{name}(noise_sd", zero=True)(noise_sd)
        m, C = np.asarray(self.mean), np.asarray(self.covariance)
        if np.linalg.eigvalsh(C).min() <= 0:
            raise ValueError(
                f"`{name}(covariance=...)` is not positive definite; give variances and "
                "a covariance that agree."
            )
        x_sd = math.sqrt(4 / 3)
        variance = C[0, 0] + (C[1, 1] + m[1] ** 2) * x_sd**2 + self.noise_sd**2
        y = (float(m[0]), math.sqrt(variance))
        self.like = _like(name, batch_size, num_support, (0.0, x_sd), y)

    def grid(self):
        return jnp.linspace(-2.0, 2.0, self.num_points, dtype=self.like.dtype)

    def functions(self, key, x):
        root = jnp.linalg.cholesky(self.covariance.astype(x.dtype))
        white = jax.random.normal(key, (len(x), 2), x.dtype)
        intercept, slope = jnp.split(self.mean.astype(x.dtype) + white @ root.T, 2, 1)
        return intercept + slope * x


class Harmonics(AbstractGenerator):
    r"""Sums of harmonics, $\sum_h h^{-1} (a_h \sin 2πhx + b_h \cos 2πhx)$.

    Amplitudes are standard normal. Inputs are equally spaced on [0, 1), which is one
    period.

    Args:
        key: a JAX random key.
        num_harmonics: the number of harmonics.
        batch_size: the number of data sets per step.
        num_episodes: for how many data sets the source stands.
        num_support: the number of rows of each, at random points.
        num_points: the number of points.
        noise_sd: of the values.
    """

    key: PRNGKeyArray
    like: Episodes
    num_harmonics: int = eqx.field(static=True)
    num_episodes: int = eqx.field(static=True)
    num_points: int = eqx.field(static=True)
    noise_sd: float = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        num_harmonics: int = 3,
        batch_size: int = 20,
        num_episodes: int = 2000,
        num_support: int = 10,
        num_points: int = 50,
        noise_sd: float = 0.1,
    ):
        name = "Harmonics"
        self.key = key
        self.num_harmonics = whole(f"{name}(num_harmonics", 1)(num_harmonics)
        self.num_episodes = whole(f"{name}(num_episodes", 1)(num_episodes)
        self.num_points = _points(name, num_points, num_support)
        self.noise_sd = positive(f"{name}(noise_sd", zero=True)(noise_sd)
        variance = sum(h**-2 for h in range(1, self.num_harmonics + 1))
        y = (0.0, math.sqrt(variance + self.noise_sd**2))
        x = (0.5, math.sqrt(1 / 12))
        self.like = _like(name, batch_size, num_support, x, y)

    def grid(self):
        return jnp.arange(self.num_points, dtype=self.like.dtype) / self.num_points

    def functions(self, key, x):
        h = jnp.arange(1, self.num_harmonics + 1, dtype=x.dtype)
        phase = 2 * math.pi * h[:, None, None] * x
        a, b = jax.random.normal(key, (2, len(h), len(x), 1), x.dtype) / h[:, None, None]
        return (a * jnp.sin(phase) + b * jnp.cos(phase)).sum(0)


def _points(name: str, num_points: int, num_support: int) -> int:
    """The number of points, of which there are more than known rows."""
    points = whole(f"{name}(num_points", 2)(num_points)
    known = whole(f"{name}(num_support", 1)(num_support)
    if known >= points:
        raise ValueError(
            f"`{name}(num_support={known})` needs more points than `num_points={points}`; "
            "at least one is to be predicted."
        )
    return points


def _like(
    name: str,
    batch_size: int,
    num_support: int,
    x: tuple[float, float],
    y: tuple[float, float],
) -> Episodes:
    """Data of the shapes of a step; means and sds are those of the distribution."""
    size = whole(f"{name}(batch_size", 1)(batch_size)
    nothing = jnp.zeros((size, num_support))
    x_mean, x_sd = (jnp.full(1, one, nothing.dtype) for one in x)
    y_mean, y_sd = (jnp.asarray(one, nothing.dtype) for one in y)
    units = Units(x_mean, x_sd, y_mean, y_sd)
    return Episodes(nothing[..., None], nothing, units=units)
