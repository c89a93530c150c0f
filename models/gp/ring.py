"""Waves around a ring: sums over places, from which all products of waves follow."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The length after which the waves repeat, in lengths of the data. Predictions may be one
# length of the data beyond their ends.
AROUND = 6.0


class Ring(eqx.Module):
    """Sums over the observations, from which all products of waves follow.

    Attributes:
        low: the smallest place.
        length: $B$, in units of the input.
        cosine: $\\sum_i \\cos(2π l x_i / B)$ for $l$ from 0 to $2m$.
        sine: the same of sines.
        cosine_line: $\\sum_i t_i \\cos(2π j x_i / B)$ for $j$ from 0 to $m$, where $t$ is
            the distance from the middle of the data in half their lengths.
        sine_line: the same of sines.
        line: $\\sum_i t_i^2$.
    """

    low: Float[Array, ""]
    length: Float[Array, ""]
    cosine: Float[Array, " l"]
    sine: Float[Array, " l"]
    cosine_line: Float[Array, " j"]
    sine_line: Float[Array, " j"]
    line: Float[Array, ""]

    @property
    def num_waves(self) -> int:
        return len(self.cosine_line) - 1


def ring_of(x: Float[Array, " n"], num_waves: int) -> Ring:
    """The sums of places on a line."""
    low, extent = x.min(), x.max() - x.min()
    length = AROUND * extent
    t = _from_middle(x, low, length)
    cosine, sine = _sums(x, jnp.ones_like(x), low, length, 2 * num_waves)
    cosine_line, sine_line = _sums(x, t, low, length, num_waves)
    return Ring(low, length, cosine, sine, cosine_line, sine_line, t @ t)


def _from_middle(x, low, length):
    half = length / AROUND / 2
    return (x - low - half) / half


@eqx.filter_jit
def _sums(x, weights, low, length, highest: int):
    """Sums of weighted cosines and sines, of 0 to `highest` waves around the ring."""
    turn = jnp.exp(2j * math.pi * (x - low) / length)

    def step(phase, _):
        total = (weights * phase).sum()
        return phase * turn, (total.real, total.imag)

    start = jnp.ones_like(turn)
    return jax.lax.scan(step, start, None, length=highest + 1)[1]


class Features(eqx.Module):
    """The waves, and a line, at places: columns $1, \\sqrt2 \\cos, \\sqrt2 \\sin, t$.

    Attributes:
        x: the places, in units of the input.
        ring: the sums of the data.
    """

    x: Float[Array, " n"]
    ring: Ring

    def project(self, r: Float[Array, " n"]) -> Float[Array, " p"]:
        """$Φ^T r$, in memory of a few vectors of the places."""
        ring = self.ring
        cosine, sine = _sums(self.x, r, ring.low, ring.length, ring.num_waves)
        return _columns(cosine, sine, _from_middle(self.x, ring.low, ring.length) @ r)

    def expand(self, w: Float[Array, " p"]) -> Float[Array, " n"]:
        """$Φ w$, in memory of a few vectors of the places."""
        ring, m = self.ring, self.ring.num_waves
        t = _from_middle(self.x, ring.low, ring.length)
        turn = jnp.exp(2j * math.pi * (self.x - ring.low) / ring.length)

        def step(carry, pair):
            phase, total = carry
            a, b = pair
            phase = phase * turn
            return (phase, total + a * phase.real + b * phase.imag), None

        pairs = (math.sqrt(2) * w[1 : m + 1], math.sqrt(2) * w[m + 1 : 2 * m + 1])
        start = (jnp.ones_like(turn), w[0] + w[-1] * t)
        return jax.lax.scan(step, start, pairs)[0][1]

    def of_each(self, function: Callable) -> Float[Array, " n"]:
        """A function of each row of $Φ$, which is never there as a whole."""
        ring = self.ring
        j = jnp.arange(ring.num_waves + 1)

        def of_place(x):
            phase = 2 * math.pi * j * (x - ring.low) / ring.length
            line = _from_middle(x, ring.low, ring.length)
            return function(_columns(jnp.cos(phase), jnp.sin(phase), line))

        return jax.lax.map(of_place, self.x, batch_size=256)


def _columns(cosine, sine, line):
    """The columns in their order, from sums from zero waves up."""
    waves = [cosine[:1], math.sqrt(2) * cosine[1:], math.sqrt(2) * sine[1:]]
    return jnp.concatenate([*waves, line[None]])


def gram(ring: Ring) -> Float[Array, "p p"]:
    """$Φ^T Φ$ of the data."""
    m = ring.num_waves
    j = jnp.arange(m + 1)
    apart, both = j - j[:, None], j + j[:, None]
    # cos a cos b = (cos(a - b) + cos(a + b)) / 2, and so on
    near, far = ring.cosine[jnp.abs(apart)], ring.cosine[both]
    cc, ss = (near + far) / 2, (near - far) / 2
    cs = (ring.sine[both] + jnp.sign(apart) * ring.sine[jnp.abs(apart)]) / 2
    scale = jnp.where(j == 0, 1.0, math.sqrt(2))
    outer = scale[:, None] * scale
    cc, ss, cs = cc * outer, ss * outer, cs * outer
    waves = jnp.block([[cc, cs[:, 1:]], [cs[:, 1:].T, ss[1:, 1:]]])
    line = _columns(ring.cosine_line, ring.sine_line, ring.line)
    return jnp.block([[waves, line[:-1, None]], [line[None]]])
