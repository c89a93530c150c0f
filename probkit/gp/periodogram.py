"""The frequencies of values at scattered points, at which a search for a kernel starts.

The likelihood of a frequency has a basin about one over the length of the data wide. A
search that starts outside ends at another frequency, or at "all is noise".
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from probkit.gp.wave_sums import wave_sums

# Steps of the grid of frequencies per one over the length of an axis, by dimension; the
# largest number of frequencies that are tried, in all and, beyond one dimension, per value.
PER_LENGTH, MOST_TRIED, MOST_PER_VALUE = {1: 4, 2: 2, 3: 2}, 40_000, 8
# Waves that are closer, in cycles over the length of each axis, are one whose amplitude
# changes slowly.
CLOSEST = 0.75
# How often the grid is made finer around a peak, each time by a factor of 4.
ZOOMS = 4
# Numbers in the largest array.
MOST_NUMBERS = 2_000_000
# The least square of a direction that is not one of those before, but for rounding, per
# value.
SOUND = 1e-6


class Waves(NamedTuple):
    """Products of waves, the strongest first.

    Attributes:
        frequency: of each wave along each axis, in cycles per unit of the axis.
        amplitude: in units of the values.
    """

    frequency: Float[np.ndarray, "q d"]
    amplitude: Float[np.ndarray, " q"]


def waves(
    x: Any,
    y: Any,
    *,
    max_frequency: Any = None,
    max_waves: int = 5,
    false_alarm: float = 1e-3,
) -> Waves:
    r"""The waves in values at scattered points, found one after the other.

    In one dimension it is the periodogram of Lomb and Scargle. In more, a wave is a
    product of one sine or cosine per axis. A quadratic trend is removed first. Then the
    product that explains most is found on a grid of frequencies, made finer around its
    peak; all found so far are fitted together and removed, until none is left that noise
    would not explain as well.

    Args:
        x: places, shape `(n, d)` or `(n,)`, d at most 3.
        y: values, shape `(n,)`.
        max_frequency: the highest frequency of each axis, in cycles per unit. By default
            one half per distinct coordinate on average.
        max_waves: the largest number of waves.
        false_alarm: a wave is kept if white noise has one as strong with at most this
            probability.

    Returns:
        The waves.

    Source: Scargle (1982), "Studies in astronomical time series analysis II"; the removal
    of one wave after the other is CLEAN, Roberts, Lehar & Dreher (1987).
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    x = x[:, None] if x.ndim == 1 else x
    n, d = x.shape
    low, length = x.min(0), np.ptp(x, 0)
    length = np.where(length > 0, length, 1.0)
    x = (x - low) / length
    distinct = np.array([len(np.unique(column)) for column in x.T])
    highest = (distinct - 1) / 2
    if max_frequency is not None:
        highest = np.minimum(highest, np.asarray(max_frequency) * length)
    trend = np.linalg.qr(_quadratic(x))[0]
    found: list[np.ndarray] = []
    none = Waves(np.zeros((0, d)), np.zeros(0))
    grid = _grid(highest, MOST_TRIED if d == 1 else min(MOST_TRIED, MOST_PER_VALUE * n))
    free = n - trend.shape[1]
    if free < 2**d + 2 or not len(grid):
        return none
    left = y - trend @ (trend.T @ y)
    scale = left @ left
    tried = _on_a_line(x[:, 0], grid[:, 0]) if d == 1 else partial(_gains, x, grid)
    columns, parts = [trend], []
    while len(found) < max_waves and free > 2**d + 1:
        known = np.linalg.qr(np.concatenate(columns, 1))[0]
        left = y - known @ (known.T @ y)
        # What is left of a sum of waves without noise is rounding.
        if left @ left <= 1e-10 * scale:
            break
        gains = tried(left, known)
        best = grid[np.argmax(gains)]
        for zoom in range(1, ZOOMS + 1):
            finer = _around(best, highest, PER_LENGTH[d] * 4.0**zoom)
            gains = _gains(x, finer, left, known)
            best = finer[np.argmax(gains)]
        wave = _products(x, best[None])[0]
        size = np.linalg.matrix_rank(wave)
        share = gains.max() / (left @ left)
        # The share of the squares that as many columns explain of white noise.
        chance = scipy.stats.beta.sf(share, size / 2, (free - size) / 2)
        if len(grid) / math.prod([PER_LENGTH[d]] * d) * chance > false_alarm:
            break
        columns.append(wave)
        free -= size
        if all((abs(best - other) > CLOSEST).any() for other in found):
            found.append(best)
            parts.append(wave)
    if not found:
        return none
    weights = np.linalg.lstsq(np.concatenate([*parts, trend], 1), y, rcond=None)[0]
    sizes = np.linalg.norm(weights[: len(found) * 2**d].reshape(len(found), -1), axis=1)
    order = np.argsort(-sizes)
    return Waves(np.array(found)[order] / length, sizes[order])


def _quadratic(x):
    ones = [np.ones(len(x)), *x.T]
    pairs = itertools.combinations_with_replacement(range(x.shape[1]), 2)
    return np.stack([*ones, *(x[:, i] * x[:, j] for i, j in pairs)], 1)


def _grid(highest, most):
    """Frequencies in cycles over the length of each axis, all zero left out."""
    d = len(highest)
    step = 1 / PER_LENGTH[d]
    counts = np.floor(highest / step).astype(int) + 1
    while np.prod(counts) > most:
        counts = np.maximum(counts * 9 // 10, 1)
    axes = [step * np.arange(count) for count in counts]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d)
    # Slower ones are in the trend.
    return grid[(grid >= 0.75).any(1)]


def _around(best, highest, per_length):
    steps = np.arange(-4, 5) / per_length
    axes = [
        np.unique(np.clip(s + steps if s > 0 else [0.0], 0.0, top))
        for s, top in zip(best, highest, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(best))


def _products(x, frequencies):
    """Products of cosine or sine of each axis, `(f, n, 2^d)`; a sine of zero is zero."""
    total = np.ones((len(frequencies), len(x), 1))
    for column, s in zip(x.T, frequencies.T, strict=True):
        angle = 2 * np.pi * s[:, None] * column
        pair = np.stack([np.cos(angle), np.sin(angle)], -1)
        total = (total[..., :, None] * pair[..., None, :]).reshape(*total.shape[:2], -1)
    return total


def _gains(x, frequencies, left, known):
    """By how much each frequency lowers the sum of squares, `(f,)`."""
    width = 2 ** x.shape[1]
    at_once = max(1, MOST_NUMBERS // (len(x) * width))
    gains = []
    for first in range(0, len(frequencies), at_once):
        B = _products(x, frequencies[first : first + at_once])
        B = B - known @ (known.T @ B)
        gram, along = B.swapaxes(1, 2) @ B, left @ B
        values, vectors = np.linalg.eigh(gram)
        # Columns that the trend or the waves so far contain are zero but for rounding.
        sound = values > SOUND * len(x)
        turned = np.einsum("fij,fi->fj", vectors, along)
        gains.append(np.sum(turned**2 * sound / np.where(sound, values, 1.0), 1))
    return np.concatenate(gains)


def _on_a_line(x, frequencies) -> Callable:
    """`_gains` of even frequencies in one dimension, as sums of waves over the places."""
    step = 1 / PER_LENGTH[1]
    first = round(frequencies[0] / step)
    count = first + len(frequencies)
    n = len(x)

    def sums(columns, x=x):
        return wave_sums(x, columns, count, step)[:, first:]

    # cos² = (1 + cos 2a) / 2, and so on
    twice = sums(np.ones((n, 1)), 2 * x)[0]
    done = np.zeros((0, len(frequencies)), complex)  # of the columns of `known`

    def gains(left, known):
        nonlocal done
        # More columns leave the orthonormal ones before them as they are, but for signs,
        # which do not matter.
        done = np.concatenate([done, sums(known[:, len(done) :])])
        c, s = done.real, done.imag
        a = (n + twice.real) / 2 - (c**2).sum(0)
        d = (n - twice.real) / 2 - (s**2).sum(0)
        b = twice.imag / 2 - (c * s).sum(0)
        along = sums(left[:, None])[0]
        return _explained(a, b, d, along.real, along.imag, SOUND * n)

    return gains


def _explained(a, b, d, p, q, least):
    """$v^T G^{-1} v$ of $G = [[a, b], [b, d]]$ and $v = (p, q)$.

    Only by the eigenvectors with eigenvalues above `least`.
    """
    middle, apart = (a + d) / 2, np.hypot((a - d) / 2, b)
    large, small = middle + apart, middle - apart
    adjugate = d * p**2 - 2 * b * p * q + a * q**2
    # (G - small I) / (large - small) is the projection on the other eigenvector.
    along = (a - small) * p**2 + 2 * b * p * q + (d - small) * q**2
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(large > least, along / (2 * apart * large), 0.0)
        return np.where(small > least, adjugate / (large * small), one)
