r"""A radio channel over a reflecting surface, as Kronecker-structured measurements.

A mobile of $T$ antennas reaches a base station of $R$ antennas over an intelligent
reflecting surface (IRS) of $L$ elements, whose pattern $θ$ can be set:

$$H(θ) = H_2 \,\mathrm{diag}(θ)\, H_1, \qquad
  Y_i = H_2 \,\mathrm{diag}(θ_i)\, H_1 X + N, \quad i = 1, …, K.$$

The waves travel in few directions. Directions lie on a grid of size $G$. At the surface
only the difference of arrival and departure matters, which takes $G$ values, so that
for all patterns together

$$y = (Θ^T K ⊗ X^T \bar A_T ⊗ A_R)\, x + n,$$

where the columns of $A_T$ and $A_R$ are the steering vectors of mobile and station. An
estimate of $x$ from few patterns gives the channel for every pattern.

Source: He & Joseph (2024), arXiv 2307.14719, section on IRS-aided MIMO channels.
"""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from probkit.linalg import abs2, mode_products
from probkit.models.sbl.measurements import Measurements
from probkit.validate import as_key, short

MODES = ("pattern", "pilot", "antenna")


class Training(eqx.Module):
    """What both ends know before the measurement: arrays, grid, pilots and patterns.

    Attributes:
        pilots: $X$, one column of unit norm per pilot vector.
        patterns: $Θ$, one column of unit norm per pattern of the surface.
        station: $R$, number of antennas of the base station.
        grid: $G$, number of directions.
    """

    pilots: Complex[Array, "mobile pilots"]
    patterns: Float[Array, "elements patterns"]
    station: int = eqx.field(static=True)
    grid: int = eqx.field(static=True)

    def dictionaries(self) -> tuple[Array, Array, Array]:
        r"""$Θ^T K$, $X^T \bar A_T$ and $A_R$: the dictionaries of the modes."""
        mobile = self.pilots.T @ steering(self.pilots.shape[0], self.grid).conj()
        return self.responses(self.patterns), mobile, steering(self.station, self.grid)

    def responses(self, patterns: Array) -> Complex[Array, "patterns grid"]:
        r"""$Θ^T K$: the response of the surface to each difference of directions.

        Column $g$ of $K$ is $a(ψ_0) ∘ \bar a(ψ_g)$. Differences of directions are modulo
        $G$, because the phase of element $k$ is $2πk$ times a multiple of $1/G$.

        Args:
            patterns: one column per pattern, shape `(L, k)`.

        Returns:
            Shape `(k, G)`, dimensionless.
        """
        a = steering(self.patterns.shape[0], self.grid)
        return patterns.T @ (a[:, :1] * a.conj())


class Link(eqx.Module):
    r"""A channel, and what the base station has measured of it.

    Attributes:
        data: the measurements, with modes `pattern`, `pilot`, `antenna` and known noise.
        coefficients: $x$, the truth, shape `(G, G, G)`.
        training: what both ends knew before.
        first: $H_1$, mobile to surface.
        second: $H_2$, surface to station.
    """

    data: Measurements
    coefficients: Complex[Array, "grid grid grid"]
    training: Training
    first: Complex[Array, "elements mobile"]
    second: Complex[Array, "station elements"]

    def channel(self, patterns: Array) -> Complex[Array, "patterns station mobile"]:
        r"""$H_2 \,\mathrm{diag}(θ)\, H_1$ for each column $θ$ of `patterns`.

        Args:
            patterns: one column per pattern, shape `(L, k)`.

        Returns:
            Shape `(k, R, T)`.
        """
        return jnp.einsum("rl,lp,lt->prt", self.second, patterns, self.first)


def steering(size: int, grid: int) -> Complex[Array, "size grid"]:
    r"""Response of a line array with half a wavelength between its antennas.

    $a_k(ψ) = e^{jπψk} / \sqrt{\text{size}}$ at the cosines $ψ_g = 2g/G - 1$.

    Args:
        size: number of antennas.
        grid: $G$, number of directions.

    Returns:
        One column of unit norm per direction, shape `(size, G)`, dimensionless.
    """
    cosine = 2 * np.arange(grid) / grid - 1
    phase = np.pi * np.arange(size)[:, None] * cosine
    return jnp.asarray(np.exp(1j * phase) / math.sqrt(size))


def random_patterns(
    key: PRNGKeyArray, count: int, elements: int = 256
) -> Float[Array, "elements count"]:
    r"""Patterns of the surface with random entries $±1/\sqrt L$.

    Args:
        key: a JAX random key.
        count: number of patterns.
        elements: $L$, number of elements of the surface.

    Returns:
        One column per pattern, shape `(L, count)`, dimensionless.
    """
    return jax.random.rademacher(key, (elements, count), float) / math.sqrt(elements)


def draw_training(
    key: PRNGKeyArray,
    *,
    mobile: int = 6,
    station: int = 16,
    elements: int = 256,
    grid: int = 18,
    num_pilots: int = 3,
    num_patterns: int = 6,
) -> Training:
    """Random QPSK pilots, one symbol per antenna of the mobile, and random patterns.

    Args:
        key: a JAX random key.
        mobile: $T$, number of antennas of the mobile.
        station: $R$, number of antennas of the base station.
        elements: $L$, number of elements of the surface.
        grid: $G$, number of directions.
        num_pilots: number of pilot vectors per pattern.
        num_patterns: $K$, number of patterns.

    Returns:
        The training.

    Raises:
        ValueError: if `key` is not a JAX random key.
    """
    key_pilots, key_patterns = jax.random.split(as_key(key, "draw_training(key=...)"))
    signs = jax.random.rademacher(key_pilots, (2, mobile, num_pilots), float)
    pilots = (signs[0] + 1j * signs[1]) / math.sqrt(2 * mobile)
    patterns = random_patterns(key_patterns, num_patterns, elements)
    return Training(pilots, patterns, station, grid)


def simulate(
    key: PRNGKeyArray,
    snr_db: float,
    training: Training | None = None,
    *,
    cells: int = 3,
) -> Link:
    r"""A channel of few directions, and noisy measurements of it.

    The waves leave the mobile in one direction and the surface in one direction. They
    arrive at surface and station from `cells` neighbouring directions, with gains
    $CN(0, 1)$:
    $x = c\; x_1 ⊗ e_k ⊗ β$, $c = \sqrt{TL/\text{cells}}\,\sqrt{RL/\text{cells}}$.

    Args:
        key: a JAX random key.
        snr_db: power of the noiseless measurements over the power of the noise, in dB.
        training: what both ends know before. None draws one of the default sizes.
        cells: number of neighbouring directions of arrival, at surface and station each.

    Returns:
        The channel and its measurements.

    Raises:
        ValueError: if `key` is not a JAX random key, or `cells` is not in 1 to $G$.
    """
    key_training, key_link = jax.random.split(as_key(key, "simulate(key=...)"))
    training = draw_training(key_training) if training is None else training
    if not 1 <= cells <= training.grid:
        raise ValueError(
            f"`simulate(cells={short(cells)})`: it takes 1 to {training.grid}, the size of "
            "the grid."
        )
    first, second, x, y, σ = _draw(key_link, snr_db, training, cells)
    data = Measurements(y, training.dictionaries(), noise_sd=σ, modes=MODES)
    return Link(data, x, training, first, second)


@partial(jax.jit, static_argnames="cells")
def _draw(key, snr_db, training: Training, cells: int):
    grid, station = training.grid, training.station
    mobile, elements = training.pilots.shape[0], training.patterns.shape[0]
    keys = jax.random.split(key, 4)
    α, β = jax.random.normal(keys[0], (2, cells), complex)
    # Neighbouring cells do not cross the end of the grid; single directions may be any.
    arrive, receive = jax.random.randint(keys[1], (2,), 0, grid - cells + 1)
    leave, depart = jax.random.randint(keys[2], (2,), 0, grid)
    near = jnp.arange(cells)
    scale = np.sqrt(elements / cells * np.array([mobile, station]))
    A_T, A_L, A_R = (steering(n, grid) for n in (mobile, elements, station))
    first = scale[0] * jnp.outer(A_L[:, arrive + near] @ α, A_T[:, leave].conj())
    second = scale[1] * jnp.outer(A_R[:, receive + near] @ β, A_L[:, depart].conj())
    difference = (depart - arrive - near) % grid
    gains = scale[0] * scale[1] * jnp.outer(α, β)
    x = jnp.zeros((grid, grid, grid), gains.dtype)
    x = x.at[difference[:, None], leave, receive + near].set(gains)
    signal = mode_products(x, training.dictionaries())
    σ = jnp.sqrt(jnp.mean(abs2(signal)) / 10 ** (snr_db / 10))
    y = signal + σ * jax.random.normal(keys[3], signal.shape, complex)
    return first, second, x, y, σ


@jax.jit
def channel(
    coefficients: Any, patterns: Array, training: Training
) -> Complex[Array, "patterns station mobile"]:
    r"""$\hat H(θ)$ from coefficients, for any pattern of the surface.

    Args:
        coefficients: $x$, true or estimated, shape `(G, G, G)`.
        patterns: one column $θ$ per pattern, shape `(L, k)`. They may be other patterns
            than those of the training.
        training: arrays and grid.

    Returns:
        Shape `(k, R, T)`.
    """
    A_T = steering(training.pilots.shape[0], training.grid)
    rows = [
        training.responses(patterns),
        A_T.conj(),
        steering(training.station, training.grid),
    ]
    return mode_products(jnp.asarray(coefficients), rows).transpose(0, 2, 1)


@jax.jit
def channel_nmse(estimate: Array, truth: Array) -> Float[Array, ""]:
    r"""Mean over patterns of $\|\hat H - H\|_F^2 / \|H\|_F^2$.

    Args:
        estimate, truth: channels, shape `(k, R, T)`: see `channel` and `Link.channel`.

    Returns:
        A number, dimensionless.
    """
    error = jnp.sum(abs2(estimate - truth), axis=(1, 2))
    return jnp.mean(error / jnp.sum(abs2(truth), axis=(1, 2)))


def _beam_gain(estimate: Array, truth: Array) -> Complex[Array, " patterns"]:
    """$u^H H v$ with the first singular vectors $u, v$ of the estimated channel."""
    u, _, vh = jnp.linalg.svd(estimate, full_matrices=False)
    return jnp.einsum("pr,prt,pt->p", u[:, :, 0].conj(), truth, vh[:, 0].conj())


@jax.jit
def symbol_error_rate(estimate: Array, truth: Array, snr_db: Any) -> Float[Array, ""]:
    r"""Share of QPSK symbols that a receiver with an estimated channel gets wrong.

    Both ends use the first singular vectors of $\hat H$. A symbol $s$ is received as
    $g s + n$ with $g = u^H H v$. Because $\hat g = u^H \hat H v > 0$, the receiver decides
    by the quarter of the plane, so that an error of the channel acts through the phase $φ$
    of $g$ alone. The noise is relative to the received power, as in the paper. Then the two
    borders of the right quarter are crossed independently, and the rate is exact, without
    simulation:

    $$1 - Φ\bigl(\sqrt{2\,\text{snr}} \cos(φ - π/4)\bigr)\,
          Φ\bigl(\sqrt{2\,\text{snr}} \cos(φ + π/4)\bigr).$$

    Args:
        estimate, truth: channels, shape `(k, R, T)`.
        snr_db: power of $g s$ over the power of the noise at the receiver, in dB.

    Returns:
        The mean over the `k` channels, a number in [0, 1].
    """
    phase = jnp.angle(_beam_gain(estimate, truth))
    root = jnp.sqrt(2 * 10 ** (snr_db / 10))
    miss = [ndtr(-root * jnp.cos(phase + turn)) for turn in (jnp.pi / 4, -jnp.pi / 4)]
    # One minus the product of the two hits, without cancellation.
    return jnp.mean(miss[0] + miss[1] - miss[0] * miss[1])


@jax.jit
def spectral_efficiency(estimate: Array, truth: Array, noise_sd: Any) -> Float[Array, ""]:
    r"""$\log_2(1 + |u^H H v|^2 / σ^2)$, in bits per second and hertz, mean over patterns.

    Args:
        estimate, truth: channels, shape `(k, R, T)`. The beams are those of the estimate.
        noise_sd: $σ$ at each antenna of the base station, in the units of the channels,
            for symbols of unit power.

    Returns:
        The mean over the `k` channels, in bits per second and hertz.
    """
    power = abs2(_beam_gain(estimate, truth))
    return jnp.mean(jnp.log2(1 + power / jnp.asarray(noise_sd) ** 2))
