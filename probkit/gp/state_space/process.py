r"""Gaussian processes of one coordinate as Markov chains.

A process $u(x) = H z(x)$ reads a state $z$ of a few numbers, which is Markov:

$$z(x + d) = A(d)\, z(x) + ε, \qquad ε \sim N(0, Q(d)), \qquad Q(d) = P - A(d) P A(d)^T,$$

where $P$ is the covariance of the state at any one place. States are scaled, so that all of
their entries are of order one, and $Q$ is not computed as the difference that defines it,
which has no correct digits for short steps.

Source: Hartikainen & Särkkä (2010), "Kalman filtering and smoothing solutions to temporal
Gaussian process regression models"; Särkkä & Solin (2019), "Applied stochastic differential
equations", section 12.3.
"""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Float

from probkit.validate import several, short

# Below this step a power series takes the place of a difference that loses digits.
SHORT, TERMS = 2.0, 24


class AbstractProcess(eqx.Module):
    """A stationary Gaussian process with a Markov state."""

    @abstractmethod
    def readout(self) -> Float[Array, "r d"]:
        """$H$, from the state to the values of the process."""

    @abstractmethod
    def stationary(self) -> Float[Array, "d d"]:
        """$P$, the covariance of the state at any one place."""

    @abstractmethod
    def transition(self, step: Float[Array, ""]) -> Float[Array, "d d"]:
        """$A(d)$.

        Args:
            step: $d ≥ 0$, in units of the coordinate.
        """

    @abstractmethod
    def noise(self, step: Float[Array, ""]) -> Float[Array, "d d"]:
        """$Q(d)$, positive semidefinite, with full relative accuracy for short steps.

        Args:
            step: $d ≥ 0$, in units of the coordinate.
        """

    def covariance(self, lag: Float[Array, ""]) -> Float[Array, "r r"]:
        """$H A(d) P H^T$, the covariance of the values at two places.

        Args:
            lag: $d$, the later place minus the earlier one; rows belong to the later one.
        """
        H = self.readout()
        return H @ self.transition(jnp.abs(lag)) @ self.stationary() @ H.T


def remainder(order: int, x: Float[Array, ""]) -> Float[Array, ""]:
    r"""$1 - e^{-x} \sum_{j < order} x^j / j!$ for $x ≥ 0$, without cancellation.

    It is the regularised lower incomplete gamma function $P(order, x)$.
    """
    # The two branches get arguments of their own, so that neither spoils the gradient.
    small = jnp.where(x < SHORT, x, 0.0)
    factors = [math.factorial(order) / math.factorial(order + j) for j in range(TERMS)]
    series = small**order / math.factorial(order) * _polynomial(factors, small)
    large = jnp.where(x < SHORT, SHORT, x)
    head = _polynomial([1 / math.factorial(j) for j in range(order)], large)
    # A product that overflows times zero is no number.
    direct = 1 - jnp.exp(-large + jnp.log(head))
    return jnp.where(x < SHORT, jnp.exp(-small) * series, direct)


def _polynomial(coefficients: list[float], x: Array) -> Array:
    """By Horner's rule; the first coefficient is the constant."""
    total = jnp.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def _power_exp(x: Array, power: int) -> Array:
    """$x^p e^{-x}$, which does not overflow."""
    return (x * jnp.exp(-x / power)) ** power


def _matrix(rows: list[list[Any]]) -> Array:
    return jnp.stack([jnp.stack([jnp.asarray(a) for a in row]) for row in rows])


class Matern(AbstractProcess):
    r"""$s\, e^{-z}$, $s (1 + z) e^{-z}$ or $s (1 + z + z²/3) e^{-z}$.

    Here $z = \sqrt{2ν}\, d / ℓ$. The state has the process and its first $ν - 1/2$
    derivatives, in units of $ℓ / \sqrt{2ν}$.

    Args:
        smoothness: $ν$: 0.5, 1.5 or 2.5.
        lengthscale: $ℓ > 0$, in units of the coordinate.
        variance: $s > 0$, in squared units of the values.

    Raises:
        ValueError: for another smoothness.
    """

    lengthscale: Float[Array, ""]
    variance: Float[Array, ""]
    smoothness: float = eqx.field(static=True)

    def __init__(self, smoothness: float, lengthscale: Any, variance: Any = 1.0):
        if smoothness not in (0.5, 1.5, 2.5):
            raise ValueError(
                f"`Matern(smoothness={short(smoothness)})`: it takes 0.5, 1.5 or 2.5."
            )
        self.smoothness = float(smoothness)
        self.lengthscale = jnp.asarray(lengthscale)
        self.variance = jnp.asarray(variance)

    @property
    def _dimension(self) -> int:
        return round(self.smoothness + 0.5)

    def _dtype(self):
        return jnp.result_type(self.lengthscale, self.variance, float)

    def readout(self):
        return jnp.eye(1, self._dimension, dtype=self._dtype())

    def stationary(self):
        P = {
            1: [[1.0]],
            2: [[1.0, 0.0], [0.0, 1.0]],
            3: [[1.0, 0.0, -1 / 3], [0.0, 1 / 3, 0.0], [-1 / 3, 0.0, 1.0]],
        }[self._dimension]
        return self.variance * jnp.array(P, self._dtype())

    def transition(self, step):
        z = math.sqrt(2 * self.smoothness) * step / self.lengthscale
        e = jnp.exp(-z)
        ze = _power_exp(z, 1)
        if self._dimension == 1:
            return _matrix([[e]])
        if self._dimension == 2:
            return _matrix([[e + ze, ze], [-ze, e - ze]])
        zze = _power_exp(z, 2)
        return _matrix(
            [
                [e + ze + zze / 2, ze + zze, zze / 2],
                [-zze / 2, e + ze - zze, ze - zze / 2],
                [zze / 2 - ze, zze - 3 * ze, e - 2 * ze + zze / 2],
            ]
        )

    def noise(self, step):
        x = 2 * math.sqrt(2 * self.smoothness) * step / self.lengthscale
        if self._dimension == 1:
            return self.variance * _matrix([[-jnp.expm1(-x)]])
        if self._dimension == 2:
            below = remainder(3, x)
            Q = [
                [below, _power_exp(x, 2) / 2],
                [_power_exp(x, 2) / 2, below + 2 * _power_exp(x, 1)],
            ]
            return self.variance * _matrix(Q)
        below = remainder(5, x)
        x1, x2, x3, x4 = (_power_exp(x, p) for p in (1, 2, 3, 4))
        q01 = x4 / 24
        q11 = below / 3 + 2 * x3 / 9 - x4 / 36
        q12 = 2 * x2 / 3 - x3 / 3 + x4 / 24
        # 1/3 - e^{-x} (...) of the formula, as a sum of what is left of it for short steps
        q02 = -below / 3 + x3 / 9 - x4 / 18
        q22 = below + (8 / 3) * x1 - (4 / 3) * x2 + (2 / 3) * x3
        return self.variance * _matrix(
            [[below, q01, q02], [q01, q11, q12], [q02, q12, q22]]
        )


class Constant(AbstractProcess):
    """A level: the same value everywhere.

    Args:
        variance: its variance, in squared units of the values.
    """

    variance: Float[Array, ""]

    def __init__(self, variance: Any = 1.0):
        self.variance = jnp.asarray(variance)

    def _one(self):
        return jnp.ones((1, 1), jnp.result_type(self.variance, float))

    def readout(self):
        return self._one()

    def stationary(self):
        return self.variance * self._one()

    def transition(self, step):
        return self._one() + 0 * step

    def noise(self, step):
        return 0 * step * self._one()


class Periodic(AbstractProcess):
    r"""$s\, e^{-2 \sin²(π d / p) / ℓ²}$ by its first waves.

    The kernel is a sum of cosines, $\sum_j q_j \cos(2π j d / p)$. The state has the cosine
    and sine parts of the waves up to `num_waves`; the variance of those beyond is spread
    over these, so that the variance of the process is $s$. `missing()` is their share.

    Args:
        period: $p > 0$, in units of the coordinate.
        lengthscale: $ℓ > 0$, in radians of the circle with radius one.
        variance: $s > 0$, in squared units of the values.
        num_waves: the number of waves. Seven are enough to one part in a million for
            $ℓ ≥ 1$.

    Source: Solin & Särkkä (2014), "Explicit link between periodic covariance functions and
    state space models".
    """

    period: Float[Array, ""]
    lengthscale: Float[Array, ""]
    variance: Float[Array, ""]
    num_waves: int = eqx.field(static=True)

    def __init__(
        self, period: Any, lengthscale: Any, variance: Any = 1.0, num_waves: int = 7
    ):
        self.period = jnp.asarray(period)
        self.lengthscale = jnp.asarray(lengthscale)
        self.variance = jnp.asarray(variance)
        self.num_waves = num_waves

    def _shares(self) -> tuple[Float[Array, " j"], Float[Array, ""]]:
        """$q_j$ for $s = 1$, and the share of the waves beyond."""
        # The trapezoidal rule is exact to rounding for so smooth a function of an angle.
        angle = 2 * math.pi * np.arange(CIRCLE) / CIRCLE
        value = jnp.exp(-2 * (np.sin(angle / 2) / self.lengthscale) ** 2)
        j = np.arange(self.num_waves + 1)
        weights = np.where(j == 0, 1.0, 2.0)[:, None] * np.cos(np.outer(j, angle)) / CIRCLE
        q = jnp.maximum(jnp.asarray(weights, value.dtype) @ value, 0.0)
        return q / q.sum(), 1 - q.sum()

    def missing(self) -> Float[Array, ""]:
        """The share of the variance of the kernel in waves that are left out."""
        return self._shares()[1]

    def readout(self):
        row = np.concatenate([[1.0], np.tile([1.0, 0.0], self.num_waves)])
        return jnp.asarray(row[None], jnp.result_type(self.variance, float))

    def stationary(self):
        q, _ = self._shares()
        return self.variance * jnp.diag(jnp.concatenate([q[:1], jnp.repeat(q[1:], 2)]))

    def transition(self, step):
        turns = step / self.period
        angle = 2 * math.pi * (turns - jnp.round(turns)) * np.arange(1, self.num_waves + 1)
        c, s = jnp.cos(angle), jnp.sin(angle)
        waves = [_matrix([[c[i], -s[i]], [s[i], c[i]]]) for i in range(self.num_waves)]
        return block_diag(jnp.ones((1, 1), c.dtype), *waves)

    def noise(self, step):
        d = 2 * self.num_waves + 1
        return 0 * step * jnp.eye(d, dtype=jnp.result_type(self.variance, float))


# Points on the circle, at which the periodic kernel is evaluated.
CIRCLE = 256


class Sum(AbstractProcess):
    """$u_1 + u_2 + …$ of independent processes."""

    parts: tuple[AbstractProcess, ...] = eqx.field(
        converter=several("Sum", AbstractProcess, "process")
    )

    def readout(self):
        return jnp.concatenate([p.readout() for p in self.parts], axis=1)

    def stationary(self):
        return block_diag(*(p.stationary() for p in self.parts))

    def transition(self, step):
        return block_diag(*(p.transition(step) for p in self.parts))

    def noise(self, step):
        return block_diag(*(p.noise(step) for p in self.parts))


class Product(AbstractProcess):
    """The process whose kernel is the product of two kernels of one value each.

    $Q = Q_1 ⊗ P_2 + A_1 P_1 A_1^T ⊗ Q_2$, a sum without cancellation.
    """

    first: AbstractProcess
    second: AbstractProcess

    def readout(self):
        return jnp.kron(self.first.readout(), self.second.readout())

    def stationary(self):
        return jnp.kron(self.first.stationary(), self.second.stationary())

    def transition(self, step):
        return jnp.kron(self.first.transition(step), self.second.transition(step))

    def noise(self, step):
        A, P = self.first.transition(step), self.first.stationary()
        left = jnp.kron(self.first.noise(step), self.second.stationary())
        return left + jnp.kron(A @ P @ A.T, self.second.noise(step))


class Independent(AbstractProcess):
    """Several values, $(u_1, u_2, …)$, each a process of its own."""

    parts: tuple[AbstractProcess, ...] = eqx.field(
        converter=several("Independent", AbstractProcess, "process")
    )

    def readout(self):
        return block_diag(*(p.readout() for p in self.parts))

    def stationary(self):
        return block_diag(*(p.stationary() for p in self.parts))

    def transition(self, step):
        return block_diag(*(p.transition(step) for p in self.parts))

    def noise(self, step):
        return block_diag(*(p.noise(step) for p in self.parts))


def steps(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """The distance of each place from the one before it, zero for the first.

    Args:
        x: sorted places. Places may repeat.
    """
    return jnp.diff(x, prepend=x[:1])


def along(process: AbstractProcess, x: Float[Array, " n"]):
    """$A$ and $Q$ of each step to a place, `(n, d, d)` each."""
    d = steps(x)
    return jax.vmap(process.transition)(d), jax.vmap(process.noise)(d)
