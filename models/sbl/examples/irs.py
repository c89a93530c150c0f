r"""A radio channel by way of a reflecting surface, as Kronecker-structured measurements.

A mobile of $T$ antennas reaches a base station of $R$ antennas over an intelligent
reflecting surface (IRS) of $L$ elements, whose pattern $θ$ can be set:

$$H(θ) = H_2 \,\mathrm{diag}(θ)\, H_1, \qquad
  Y_i = H_2 \,\mathrm{diag}(θ_i)\, H_1 X + N, \quad i = 1, …, K.$$

Few directions carry the waves. On a grid of $G$ directions at each end, the products of
arrival and departure at the surface take only $G$ values, and for all patterns together

$$y = (Θ^T K ⊗ X^T \bar A_T ⊗ A_R)\, x + n,$$

with the steering vectors of mobile and station as columns of $A_T$ and $A_R$. What is
learned of $x$ from a few patterns holds for every pattern.

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
    """What both ends agree on before: arrays, grid, pilots and patterns.

    Attributes:
        pilots: $X$, a column a pilot vector, each of unit norm.
        patterns: $Θ$, a column a pattern of the surface, each of unit norm.
        station: $R$, antennas of the base station.
        grid: $G$, directions of the grid.
    """

    pilots: Complex[Array, "mobile pilots"]
    patterns: Float[Array, "elements patterns"]
    station: int = eqx.field(static=True)
    grid: int = eqx.field(static=True)

    def dictionaries(self) -> tuple[Array, Array, Array]:
        r"""$Θ^T K$, $X^T \bar A_T$ and $A_R$: what measures each mode of $x$."""
        mobile = self.pilots.T @ steering(self.pilots.shape[0], self.grid).conj()
        return self.responses(self.patterns), mobile, steering(self.station, self.grid)

    def responses(self, patterns: Array) -> Complex[Array, "patterns grid"]:
        r"""$Θ^T K$, how the surface answers to each difference of directions.

        Column $g$ of $K$ is $a(ψ_0) ∘ \bar a(ψ_g)$: differences of directions on the
        grid wrap round, as the phase of element $k$ is $2πk$ times a multiple of $1/G$.
        """
        a = steering(self.patterns.shape[0], self.grid)
        return patterns.T @ (a[:, :1] * a.conj())


class Link(eqx.Module):
    r"""A channel, and what the base station has measured of it.

    Attributes:
        data: the measurements, with modes `pattern`, `pilot`, `antenna` and known noise.
        coefficients: $x$, the truth, shape `(G, G, G)`.
        training: what was sent.
        first: $H_1$, mobile to surface.
        second: $H_2$, surface to station.
    """

    data: Measurements
    coefficients: Complex[Array, "grid grid grid"]
    training: Training
    first: Complex[Array, "elements mobile"]
    second: Complex[Array, "station elements"]

    def channel(self, patterns: Array) -> Complex[Array, "patterns station mobile"]:
        r"""$H_2 \,\mathrm{diag}(θ)\, H_1$ for each column $θ$ of `patterns`."""
        return jnp.einsum("rl,lp,lt->prt", self.second, patterns, self.first)


def steering(size: int, grid: int) -> Complex[Array, "size grid"]:
    r"""Answers of a half-wavelength line array to the directions of a grid.

    $a_k(ψ) = e^{jπψk} / \sqrt{\text{size}}$ at cosines $ψ_g = 2g/G - 1$, a column a
    direction, each of unit norm.
    """
    cosine = 2 * np.arange(grid) / grid - 1
    phase = np.pi * np.arange(size)[:, None] * cosine
    return jnp.asarray(np.exp(1j * phase) / math.sqrt(size))


def random_patterns(
    key: PRNGKeyArray, count: int, elements: int = 256
) -> Float[Array, "elements count"]:
    r"""Patterns of the surface with entries $±1/\sqrt L$, a column a pattern."""
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
    """Random pilots, QPSK over the antennas of the mobile, and random patterns.

    Args:
        key: a JAX random key.
        mobile: $T$, antennas of the mobile.
        station: $R$, antennas of the base station.
        elements: $L$, elements of the surface.
        grid: $G$, directions.
        num_pilots: pilot vectors sent under each pattern.
        num_patterns: patterns of the surface, $K$.
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

    The waves leave the mobile and the surface in one direction each, and arrive at
    surface and station over `cells` neighbouring ones, with gains $CN(0, 1)$:
    $x = c\; x_1 ⊗ e_k ⊗ β$, $c = \sqrt{TL/\text{cells}}\,\sqrt{RL/\text{cells}}$.

    Args:
        key: a JAX random key.
        snr_db: ten times the log of the power of the noiseless measurements over that
            of the noise.
        training: what is sent; None draws it anew, with the default sizes.
        cells: neighbouring directions of arrival at the surface and at the station.

    Raises:
        ValueError: for more cells than the grid has.
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
    # Neighbouring cells do not wrap round; the single directions may lie anywhere.
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
    r"""$\hat H(θ)$ that coefficients stand for, for any pattern of the surface.

    Args:
        coefficients: $x$, true or estimated, shape `(G, G, G)`.
        patterns: $θ$ as columns, shape `(L, k)`; they need not have been trained with.
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
    """
    error = jnp.sum(abs2(estimate - truth), axis=(1, 2))
    return jnp.mean(error / jnp.sum(abs2(truth), axis=(1, 2)))


def _beam_gain(estimate: Array, truth: Array) -> Complex[Array, " patterns"]:
    """$u^H H v$ with the first singular vectors $u, v$ of the estimated channel."""
    u, _, vh = jnp.linalg.svd(estimate, full_matrices=False)
    return jnp.einsum("pr,prt,pt->p", u[:, :, 0].conj(), truth, vh[:, 0].conj())


@jax.jit
def symbol_error_rate(estimate: Array, truth: Array, snr_db: Any) -> Float[Array, ""]:
    r"""Share of QPSK symbols misread by a receiver that trusts an estimated channel.

    With the first singular vectors of $\hat H$ at both ends, a symbol $s$ comes in as
    $g s + n$, $g = u^H H v$, and the symbol nearest to it times $\hat g = u^H \hat H v >
    0$ is read: the one in whose quarter of the plane it lies. So only the phase $φ$ of
    $g$ misleads. With noise relative to the power received, as in the paper, the
    borders of the right quarter are crossed independently, and no symbol need be sent:

    $$1 - Φ\bigl(\sqrt{2\,\text{snr}} \cos(φ - π/4)\bigr)\,
          Φ\bigl(\sqrt{2\,\text{snr}} \cos(φ + π/4)\bigr).$$

    Args:
        estimate, truth: channels, shape `(k, R, T)`; the result is the mean over `k`.
        snr_db: a number, power of $g s$ over that of the noise at the receiver.
    """
    phase = jnp.angle(_beam_gain(estimate, truth))
    root = jnp.sqrt(2 * 10 ** (snr_db / 10))
    miss = [ndtr(-root * jnp.cos(phase + turn)) for turn in (jnp.pi / 4, -jnp.pi / 4)]
    # One less the product of the two hits, without the loss of digits.
    return jnp.mean(miss[0] + miss[1] - miss[0] * miss[1])


@jax.jit
def spectral_efficiency(estimate: Array, truth: Array, noise_sd: Any) -> Float[Array, ""]:
    r"""$\log_2(1 + |u^H H v|^2 / σ^2)$, in bits per second and hertz, mean over patterns.

    Args:
        estimate, truth: channels, shape `(k, R, T)`. Beams are set by the estimate.
        noise_sd: $σ$ at each antenna of the base station, for symbols of unit power.
    """
    power = abs2(_beam_gain(estimate, truth))
    return jnp.mean(jnp.log2(1 + power / jnp.asarray(noise_sd) ** 2))
