r"""Where the points and the functions of an axis lie: its breaks and its layers.

An axis may *break* at points where coefficients or the source jump. The functions of one
side are then nothing on the other, and conditions at the break join them. And it may have
*layers*, thin parts in which the solution changes. There the functions and the points are
even in a stretched coordinate

$$s(x) = a + \frac{x - a + \sum_l (b - a) A_l(x)}{1 + m}, \qquad
A_l(x) \propto \operatorname{arsinh}\frac{x - x_l}{w_l}, \; A_l(a) = 0, \; A_l(b) = 1$$

on an axis from $a$ to $b$ with $m$ layers at $x_l$ of widths $w_l$. Near a layer a step of
$s$ is a step of the logarithm of the distance, so that the width need not be exact.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.gp.features import features
from probkit.gp.mixture import SpectralMixture
from probkit.validate import short

# On either side of a break, points are this share of the axis away from it, or so many
# steps of float64, so that the user's functions have the values of that side.
BESIDE, STEPS_BESIDE = 1e-12, 8
# The least number of points of a piece.
FEWEST_IN_PIECE = 8
# The shortest piece and the thinnest layer, relative to the length of the axis.
NARROWEST, THINNEST = 1e-6, 1e-8
# Halvings of an axis by which a stretched coordinate is inverted.
HALVINGS = 60


class Chart(NamedTuple):
    """The pieces of an axis and its stretched coordinate.

    Attributes:
        low: the low end of the axis.
        high: its high end.
        breaks: where it breaks, in order.
        layers: place and width of each layer.
    """

    low: float
    high: float
    breaks: tuple[float, ...] = ()
    layers: tuple[tuple[float, float], ...] = ()

    @property
    def num_pieces(self) -> int:
        return len(self.breaks) + 1

    @property
    def lengths(self) -> np.ndarray:
        """The length of each piece in the stretched coordinate."""
        return np.diff(self._ends())

    def _ends(self) -> np.ndarray:
        ends = np.array([self.low, *self.breaks, self.high])
        return np.asarray(stretched(self, ends)[0])

    def piece(self, x: Float[Array, " n"], side: str = "right"):
        """The number of the piece of each point, that on this side of it at a break."""
        return jnp.searchsorted(jnp.asarray(self.breaks), x, side=side)

    def counts(self, count: int) -> tuple[int, ...]:
        """How many of so many points each piece has: those in which steps are longest."""
        counts = np.full(self.num_pieces, FEWEST_IN_PIECE)
        while counts.sum() < count:
            counts[np.argmax(self.lengths / (counts - 1))] += 1
        return tuple(int(n) for n in counts)

    def step(self, count: int) -> float:
        """The longest step of so many points, in the stretched coordinate."""
        counts = np.array(self.counts(count))
        return float(np.max(self.lengths / (counts - 1)))

    def points(self, counts: tuple[int, ...]) -> np.ndarray:
        """Points that are even in the stretched coordinate, so many on each piece."""
        ends, far = self._ends(), max(abs(self.low), abs(self.high))
        off = max(BESIDE * (self.high - self.low), STEPS_BESIDE * np.spacing(far))
        found = []
        for i, n in enumerate(counts):
            x = self._inverse(np.linspace(ends[i], ends[i + 1], n))
            x[0] = self.breaks[i - 1] + off if i else self.low
            x[-1] = self.breaks[i] - off if i < len(self.breaks) else self.high
            found.append(x)
        return np.concatenate(found)

    def _inverse(self, s: np.ndarray) -> np.ndarray:
        if not self.layers:
            return np.array(s)
        low, high = np.full(s.shape, self.low), np.full(s.shape, self.high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            is_below = stretched(self, middle, xp=np)[0] < s
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        return (low + high) / 2


def in_pieces(counts: tuple[int, ...]) -> np.ndarray:
    """Which points have their successor on the same piece."""
    return np.delete(np.arange(sum(counts) - 1), np.cumsum(counts)[:-1] - 1)


def stretched(chart: Chart, x, order: int = 0, xp=np) -> list:
    """The stretched coordinate of points, and its derivatives up to an order.

    Args:
        chart: that of the axis.
        x: points, in units of the axis.
        order: 0 to 4.
        xp: `numpy` or `jax.numpy`.

    Returns:
        Arrays of the shape of `x`, in units of the axis over units of the axis to the power
        of the order.
    """
    length, share = chart.high - chart.low, 1 / (1 + len(chart.layers))
    found = [chart.low + share * (x - chart.low), share * xp.ones_like(x)]
    found = [*found, *(xp.zeros_like(x) for _ in range(3))][: order + 1]
    for at, width in chart.layers:
        low, high = (np.arcsinh((end - at) / width) for end in (chart.low, chart.high))
        scale = share * length / (high - low)
        r = (x - at) / width
        root = xp.sqrt(1 + r**2)
        parts = (
            lambda r, _, low=low: xp.arcsinh(r) - low,
            lambda r, root: 1 / root,
            lambda r, root: -r / root**3,
            lambda r, root: (2 * r**2 - 1) / root**5,
            lambda r, root: (9 - 6 * r**2) * r / root**7,
        )
        for k in range(order + 1):
            found[k] = found[k] + scale / width**k * parts[k](r, root)
    return found


def by_chain_rule(of_s: list, s: list):
    """The derivative by x of the order of the last of these, by the chain rule.

    Args:
        of_s: functions and their derivatives by s, `(n, r)` each.
        s: s and its derivatives by x, up to the same order, `(n,)` each.

    Source: the formula of Faà di Bruno.
    """
    order = len(of_s) - 1
    if order == 0:
        return of_s[0]
    a, b, c, d = [*(k[:, None] for k in s[1:]), 0.0, 0.0, 0.0][:4]
    factors = {
        1: (a,),
        2: (b, a**2),
        3: (c, 3 * a * b, a**3),
        4: (d, 3 * b**2 + 4 * a * c, 6 * a**2 * b, a**4),
    }[order]
    return sum(f * g for f, g in zip(factors, of_s[1:], strict=True))


def features_on(
    chart: Chart | None,
    mixture: SpectralMixture,
    x: Float[Array, " n"],
    order: int,
    num_nodes: int,
    side: str = "right",
) -> Float[Array, "n r"]:
    """The waves of a mixture on an axis, or a derivative of them: see `features`.

    Args:
        chart: that of the axis, or None for one that is even and without breaks.
        mixture: the kernel, in units of the stretched coordinate.
        x: points, in units of the axis.
        order: of the derivative by x, 0 to 4.
        num_nodes: the number of waves per bump.
        side: the side of a break at which points on it are, "left" or "right".

    Returns:
        One column per wave and piece, zero on the other pieces.
    """
    if chart is None:
        return features(mixture, x, order, num_nodes)
    s = stretched(chart, x, order, jnp)
    of_s = [features(mixture, s[0], k, num_nodes) for k in range(order + 1)]
    waves = by_chain_rule(of_s, s)
    if not chart.breaks:
        return waves
    is_own = chart.piece(x, side)[:, None] == jnp.arange(chart.num_pieces)
    return (is_own[:, :, None] * waves[:, None, :]).reshape(len(x), -1)


# What the user gives.


def read_charts(
    breaks: Any, layers: Any, box: Mapping[str, tuple[float, float]], counts: Sequence[int]
) -> tuple[Chart | None, ...]:
    """The chart of each axis; None for one that is even and without breaks.

    Args:
        breaks: what the user gave.
        layers: what the user gave.
        box: the ends of each axis by its name.
        counts: the number of points of each axis.

    Raises:
        ValueError: for an axis that does not exist, a place outside of its axis or given
            twice, a width out of range, and too few points for the pieces.
    """
    broken = _by_axis(breaks, "breaks", "[0.5]", box)
    thin = _by_axis(layers, "layers", "[(1.0, 0.01)]", box)
    charts: list[Chart | None] = []
    for (axis, (low, high)), count in zip(box.items(), counts, strict=True):
        at = _places(broken.get(axis, ()), axis, low, high)
        wide = _layers(thin.get(axis, ()), axis, low, high)
        if not at and not wide:
            charts.append(None)
            continue
        least = FEWEST_IN_PIECE * (len(at) + 1)
        if count < least:
            raise ValueError(
                f"`Problem(shape=...)`: {count} points along `{axis}` are too few for its "
                f"{len(at) + 1} pieces between `breaks`; it takes {least} or more."
            )
        charts.append(Chart(low, high, at, wide))
    return tuple(charts)


def _by_axis(given: Any, argument: str, such_as: str, box) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"`Problem({argument}={short(given)})`: it takes a list for each axis by its "
            f'name, such as `{{"{next(iter(box))}": {such_as}}}`.'
        )
    for axis in given:
        if axis not in box:
            listed = ", ".join(f"`{name}`" for name in box)
            raise ValueError(
                f"`Problem({argument}=...)` names the axis {short(axis)}; the axes are "
                f"{listed}."
            )
    return given


def _places(given: Any, axis: str, low: float, high: float) -> tuple[float, ...]:
    what = f"Problem(breaks={{{axis!r}: {short(given)}}})"
    array = _numbers(given, what)
    if array.ndim > 1:
        raise ValueError(f"`{what}`: it takes a list of places on the axis.")
    places = np.sort(array.reshape(-1))
    ends = np.array([low, *places, high])
    # Points of the grid are beside a break, and those of the next one beyond them.
    if len(places) and np.diff(ends).min() < NARROWEST * (high - low):
        raise ValueError(
            f"`{what}`: it takes different places inside the axis, from {low:.6g} to "
            f"{high:.6g}, and not next to an end or to each other."
        )
    return tuple(places.tolist())


def _numbers(given: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(given, float)
    except (TypeError, ValueError):  # text, or rows that differ in length
        array = np.array(np.nan)
    if not np.isfinite(array).all():
        raise ValueError(f"`{what}`: it takes finite numbers, in units of the axis.")
    return array


def _layers(given: Any, axis: str, low: float, high: float):
    what = f"Problem(layers={{{axis!r}: {short(given)}}})"
    array = _numbers(given, what)
    if array.size == 0:
        return ()
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(
            f"`{what}`: it takes a list of pairs (where, width), in units of the axis."
        )
    at, width = array.T
    if ((at < low) | (at > high)).any():
        raise ValueError(
            f"`{what}`: a layer lies outside of the axis, from {low:.6g} to {high:.6g}."
        )
    length = high - low
    if ((width < THINNEST * length) | (width > length)).any():
        raise ValueError(
            f"`{what}`: it takes widths from {THINNEST * length:.6g} to {length:.6g}, the "
            "length of the axis."
        )
    return tuple((float(a), float(w)) for a, w in array)
