"""Spectral mixtures: sums of waves under an envelope, with exact derivatives."""

import math
import operator
from collections.abc import Callable
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from probkit.validate import as_array, short

Envelope = Literal["student_t", "gaussian"]
# The Matérn-5/2 envelope has four derivatives at zero; the fifth jumps.
HIGHEST = 4


def as_envelope(name: str) -> Callable[[Any], Envelope]:
    """A field converter that refuses other envelopes, for a class of that name."""

    def convert(value: Any) -> Envelope:
        if value not in get_args(Envelope):
            raise ValueError(
                f"`{name}(envelope={short(value)})`: it takes "
                f"{' or '.join(map(repr, get_args(Envelope)))}."
            )
        return value

    return convert


class SpectralMixture(eqx.Module):
    r"""A stationary kernel in one dimension whose spectrum is a sum of bumps.

    $$k(d) = \sum_q w_q\, E(d / ℓ_q) \cos(2π μ_q d)$$

    with $E(r) = e^{-r²/2}$, a Gaussian bump, or Matérn-5/2,
    $E(r) = (1 + \sqrt5 |r| + 5 r²/3)\, e^{-\sqrt5 |r|}$, a bump with the density of
    Student's t of five degrees of freedom. Its heavy tails reach frequencies that are many
    widths away.

    Args:
        weight: $w_q ≥ 0$, shape `(q,)`, squared units of the output.
        frequency: $μ_q$, shape `(q,)`, cycles per unit of the input.
        lengthscale: $ℓ_q > 0$, shape `(q,)`, units of the input. A bump has scale
            $1 / (2π ℓ_q)$ cycles.
        envelope: "student_t" or "gaussian".

    Raises:
        ValueError: for vectors of unequal lengths, NaN, negative weights, lengthscales
            that are not positive, or another envelope. Traced values are checked for their
            shape only.

    Source: Wilson & Adams (2013) for the Gaussian mixture; Fang et al. (2024), arXiv
    2311.04465, for Student-t, with $e^{\mathrm{ls}} = 1/ℓ$ where it has Student-t bumps
    and $1/(2ℓ²)$ where Gaussian.
    """

    weight: Float[Array, " q_weight"]
    frequency: Float[Array, " q_frequency"]
    lengthscale: Float[Array, " q_lengthscale"]
    envelope: Envelope = eqx.field(static=True)

    def __init__(
        self,
        weight: Any,
        frequency: Any,
        lengthscale: Any,
        envelope: Any = "student_t",
    ):
        self.weight = _vector(weight, "weight")
        self.frequency = _vector(frequency, "frequency")
        self.lengthscale = _vector(lengthscale, "lengthscale")
        self.envelope = as_envelope("SpectralMixture")(envelope)

    def __check_init__(self):
        sizes = len(self.weight), len(self.frequency), len(self.lengthscale)
        if len(set(sizes)) > 1 or not sizes[0]:
            raise ValueError(
                f"`SpectralMixture(weight, frequency, lengthscale)` got {sizes[0]}, "
                f"{sizes[1]} and {sizes[2]} values; it takes one of each per "
                "component, and one component or more."
            )
        if is_known(self.weight) and (np.asarray(self.weight) < 0).any():
            raise ValueError(
                "`SpectralMixture(weight=...)` has negative values; weights are variances, "
                "0 or more."
            )
        if is_known(self.lengthscale) and (np.asarray(self.lengthscale) <= 0).any():
            raise ValueError(
                "`SpectralMixture(lengthscale=...)` has values that are not positive; it "
                "takes lengths, in units of the input."
            )

    def __call__(self, lag: ArrayLike, order: Any = 0) -> Float[Array, "..."]:
        r"""$k^{(n)}(d)$, the derivative of order $n$ with respect to the signed lag.

        Args:
            lag: $d = x - x'$, any shape, units of the input.
            order: $n$, 0 to 4. Even orders are even in $d$, odd ones odd.

        Returns:
            Shape of `lag`; squared units of the output over units of the input to the
            power $n$. Exact at $d = 0$ as well, and differentiable there in the
            parameters.

        Raises:
            ValueError: for another order.
        """
        n = _order(order)
        d = jnp.asarray(lag)[..., None]
        m = 2 * math.pi * self.frequency
        # dʲ cos(m d) / ddʲ = mʲ cos(m d + j π/2)
        turns = (jnp.cos(m * d), -jnp.sin(m * d), -jnp.cos(m * d), jnp.sin(m * d))
        # Leibniz: (E C)⁽ⁿ⁾ = Σ_j (n over j) E⁽ⁿ⁻ʲ⁾ C⁽ʲ⁾
        terms = (
            math.comb(n, j) * self._envelope(d, n - j) * m**j * turns[j % 4]
            for j in range(n + 1)
        )
        return jnp.sum(self.weight * sum(terms), axis=-1)

    def _envelope(self, d, order: int):
        """A derivative of E(d / ℓ) in d, with components along the last axis."""
        of = _matern if self.envelope == "student_t" else _gaussian
        return of(d, self.lengthscale, order)

    def spectrum(self, frequency: ArrayLike) -> Float[Array, "..."]:
        r"""The spectral density $S(s)$, with $k(d) = \int S(s) \cos(2π s d)\, ds$.

        $$S(s) = \tfrac12 \sum_q w_q \{b_q(s - μ_q) + b_q(s + μ_q)\}$$

        with $b_q$ the density of a normal, or Student-t, variable of scale
        $1 / (2π ℓ_q)$. It is even, and its integral over the whole line is $k(0)$.

        Args:
            frequency: $s$, any shape, cycles per unit of the input.

        Returns:
            Shape of `frequency`; squared units of the output per cycle.
        """
        s = jnp.asarray(frequency)[..., None]
        scale = 1 / (2 * math.pi * self.lengthscale)

        def bump(t):
            if self.envelope == "student_t":
                return 8 / (3 * math.pi * math.sqrt(5)) * (1 + t**2 / 5) ** -3
            return jnp.exp(-0.5 * t**2) / math.sqrt(2 * math.pi)

        both = bump((s - self.frequency) / scale) + bump((s + self.frequency) / scale)
        return 0.5 * jnp.sum(self.weight / scale * both, axis=-1)

    def power_above(self, frequency: ArrayLike) -> Float[Array, "..."]:
        r"""The share of the variance $k(0)$ at frequencies above $s ≥ 0$, of either sign.

        At the Nyquist frequency of a grid, $1 / (2 \mathrm{step})$, it is the share that
        appears on the grid as lower frequencies.

        Args:
            frequency: $s$, any shape, cycles per unit of the input.

        Returns:
            Shape of `frequency`, between 0 and 1, without units; accurate to the rounding
            of 1.
        """
        s = jnp.asarray(frequency)[..., None]
        scale = 1 / (2 * math.pi * self.lengthscale)

        def tail(t):
            if self.envelope == "gaussian":
                return 0.5 * jax.scipy.special.erfc(t / math.sqrt(2))
            # Abramowitz & Stegun 26.7.4 with five degrees of freedom and φ = π/2 - θ
            φ = jnp.arctan2(math.sqrt(5), t)
            return (φ - jnp.cos(φ) * (jnp.sin(φ) + 2 / 3 * jnp.sin(φ) ** 3)) / math.pi

        both = tail((s - self.frequency) / scale) + tail((s + self.frequency) / scale)
        return jnp.sum(self.weight * both, axis=-1) / jnp.sum(self.weight)


def covariance(
    mixture: SpectralMixture, x: Any, x2: Any, orders: tuple[int, int] = (0, 0)
) -> Float[Array, "n m"]:
    r"""$\mathrm{cov}(u^{(i)}(x), u^{(j)}(x')) = (-1)^j k^{(i+j)}(x - x')$.

    Args:
        mixture: $k$.
        x: points of the derivative of order $i$, shape `(n,)`, in units of the input.
        x2: points of the derivative of order $j$, shape `(m,)`, in the same units.
        orders: $(i, j)$, whose sum is at most 4.

    Returns:
        The matrix of all pairs, `(n, m)`, in squared units of the output over units of the
        input to the power $i + j$. It costs $n m$ evaluations of every component; on an
        even grid `gram` needs $n$.

    Raises:
        ValueError: if the points are not vectors, or the orders are too high.
    """
    x, x2 = jnp.asarray(x), jnp.asarray(x2)
    for name, value in (("x", x), ("x2", x2)):
        if value.ndim != 1:
            raise ValueError(
                f"`covariance({name}=...)` has shape {value.shape}; it takes a vector of "
                "points in one dimension."
            )
    i, j = orders
    return (-1) ** j * mixture(x[:, None] - x2, order=i + j)


def _gaussian(d, lengthscale, order: int):
    # (e^{-r²/2})⁽ⁿ⁾ = (-1)ⁿ He_n(r) e^{-r²/2}, with the Hermite polynomials of probability
    r = d / lengthscale
    hermite = (1.0, r, r**2 - 1, (r**2 - 3) * r, (r**2 - 6) * r**2 + 3)[order]
    return (-1) ** order * hermite * jnp.exp(-0.5 * r**2) / lengthscale**order


def _matern(d, lengthscale, order: int):
    # With r = √5 d / ℓ and z = |r|, each from the one before:
    #   E = (1 + z + z²/3) e^{-z},  E' = -r (1 + z) e^{-z} / 3,
    #   E'' = -(1 + z - z²) e^{-z} / 3,  E''' = r (3 - z) e^{-z} / 3,
    #   E'''' = (3 - 5z + z²) e^{-z} / 3.
    # The signed r makes odd orders odd, and zero at zero.
    scale = lengthscale / math.sqrt(5)
    r = d / scale
    z = jnp.abs(r)
    polynomial = (
        1 + z + z**2 / 3,
        -r * (1 + z) / 3,
        (z**2 - z - 1) / 3,
        r * (3 - z) / 3,
        (3 - 5 * z + z**2) / 3,
    )[order]
    return polynomial * jnp.exp(-z) / scale**order


def _order(order: Any) -> int:
    try:
        number = operator.index(order)
    except TypeError:
        number = -1
    if not 0 <= number <= HIGHEST:
        raise ValueError(
            f"`order={short(order)}`: kernels have derivatives of order 0 to {HIGHEST}; "
            "the Matérn-5/2 envelope has no more."
        )
    return number


def is_known(array: Any) -> bool:
    return not isinstance(array, jax.core.Tracer)


def _vector(value: Any, name: str) -> Array:
    what = f"SpectralMixture({name}=...)"
    array = as_array(value, what) if is_known(value) else jnp.asarray(value)
    if array.ndim != 1:
        raise ValueError(
            f"`{what}` has shape {array.shape}; it takes a vector, one value per component."
        )
    return array
