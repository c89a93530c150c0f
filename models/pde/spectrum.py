"""The frequencies in a problem's own data, at which the search for a kernel starts.

The likelihood of a frequency has a basin about one over the length of the domain wide. A
search that starts outside ends at another frequency. The source of a linear equation has
the frequencies of its solution, and so have initial and boundary values, and observations.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.gp.periodogram import waves

MOST_TONES = 7
# Peaks below this share of the power of the lines are the rest of a smooth trend, or side
# lobes.
LEAST_POWER = 1e-6
PADDING = 16
MOST_LINES = 256
# A wave of fewer cycles over the domain is a trend, which the component at frequency zero
# represents.
SLOWEST = 2.0
# A product of waves is harder to represent, so that slower ones count.
SLOWEST_PRODUCT = 0.75
# Weaker waves in observations, relative to the strongest, are what is left of it.
WEAKEST = 0.1
# Tones closer than this many cycles over the domain are one.
CLOSEST = 0.9

# Lengthscales, in lengths of the domain, of a wave whose amplitude does not change, and of
# one in the observations, whose amplitude may.
STEADY, OBSERVED = 8.0, 1.0

BLACKMAN_HARRIS = (0.35875, -0.48829, 0.14128, -0.01168)


class Tones(NamedTuple):
    """Frequencies along one axis, strongest first.

    Attributes:
        frequency: in cycles per unit of the axis.
        amplitude: of the solution's waves, in units of the solution.
        lengthscale: over which the amplitude changes, in units of the axis.
    """

    frequency: Float[Array | np.ndarray, " q"]
    amplitude: Float[Array | np.ndarray, " q"]
    lengthscale: Float[Array | np.ndarray, " q"]

    @classmethod
    def steady(cls, frequency, amplitude, length) -> "Tones":
        """Of an amplitude that hardly changes along an axis of that length."""
        return cls(frequency, amplitude, np.ones(np.shape(frequency)) * STEADY * length)


class Pieces(NamedTuple):
    """An axis as its pieces, on each of which some points are even.

    Attributes:
        counts: the number of points of each piece.
        lengths: the length of each, in units of the axis, stretched if it has layers.
        slope: of the stretched coordinate at the points; None if it has no layers.
    """

    counts: tuple[int, ...]
    lengths: tuple[float, ...]
    slope: np.ndarray | None = None

    def split(self, values: np.ndarray, axis: int) -> list[np.ndarray]:
        """The lines of each piece along an axis of an array on the points."""
        lines = np.moveaxis(values, axis, -1)
        lines = lines.reshape(-1, lines.shape[-1])
        return np.split(lines, np.cumsum(self.counts)[:-1], 1)

    def mean(self, values: np.ndarray, axis: int) -> list[complex]:
        """The mean on each piece."""
        if np.ndim(values) == 0:
            return [complex(values)] * len(self.counts)
        return [complex(np.mean(lines)) for lines in self.split(values, axis)]

    def scaled(
        self, values: np.ndarray, axis: int, power: int, num_axes: int
    ) -> np.ndarray:
        """Values, on all axes or a number, times a power of the slope along this one."""
        if self.slope is None or power == 0:
            return values
        shape = [-1 if i == axis else 1 for i in range(num_axes)]
        return values * self.slope.reshape(shape) ** float(power)


def power(lines: np.ndarray, length: float, padding: int = 1):
    """Power by frequency of lines along an even grid, summed over the lines.

    The linear trend is removed, and the rest multiplied by the Blackman-Harris window. Its
    side lobes are below 1e-9 in power, so that lines that are not periodic leak no more.

    Args:
        lines: shape `(lines, n)`, both ends of the axis included.
        length: length of the axis, in its units.
        padding: number of frequencies per one over the length.

    Returns:
        Frequencies in cycles per unit of the axis, and the power at each, which is the
        squared amplitude for a sine. Both have shape `(padding * n // 2 + 1,)`.

    Source: Harris (1978), "On the use of windows for harmonic analysis with the discrete
    Fourier transform".
    """
    n = lines.shape[-1]
    t = np.linspace(-1.0, 1.0, n)
    trend = np.linalg.qr(np.polynomial.legendre.legvander(t, 1))[0]
    angle = np.pi * (t + 1)
    window = np.cos(np.outer(angle, np.arange(4))) @ np.array(BLACKMAN_HARRIS)
    rest = (lines - (lines @ trend) @ trend.T) * window
    waves = np.abs(np.fft.rfft(rest, padding * n)) * 2 / window.sum()
    # An axis is n - 1 steps long.
    frequency = np.arange(waves.shape[-1]) * (n - 1) / (padding * n * length)
    return frequency, (waves**2).sum(0)


def tones(lines: np.ndarray, length: float, symbol=lambda s: np.ones_like(s)) -> Tones:
    """The peaks of the spectrum of lines, as waves of the solution.

    Args:
        lines: shape `(lines, n)`, both ends of the axis included.
        length: length of the axis, in its units.
        symbol: the factor by which the equation multiplies the amplitude of a wave, as a
            function of its frequency.

    Returns:
        The tones, strongest first.
    """
    lines = lines[:: -(-len(lines) // MOST_LINES)]
    frequency, level = power(lines, length, PADDING)
    inner = level[1:-1]
    is_peak = (inner > level[:-2]) & (inner >= level[2:])
    strongest = max(level.max(), np.sum(lines**2) / lines.shape[-1])
    is_peak &= inner > LEAST_POWER * strongest
    is_peak &= frequency[1:-1] * length > SLOWEST
    places = np.flatnonzero(is_peak) + 1
    places = places[np.argsort(-level[places])]
    found = frequency[places] + frequency[1] * _vertex(level, places)
    amplitude = np.sqrt(level[places] / len(lines)) / symbol(found)
    return _apart(Tones.steady(found, amplitude, length), length)


def _vertex(level: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Where between its neighbours a peak has its top, by a parabola through the three."""
    # Of the logarithm: the window's main lobe is nearly a normal curve.
    before, at, after = (np.log(level[places + k]) for k in (-1, 0, 1))
    return 0.5 * (before - after) / (before - 2 * at + after)


def periodic_tones(lines: np.ndarray, length: float) -> Tones:
    """The waves of lines along a periodic axis, by their Fourier series."""
    n = lines.shape[-1] - 1  # the last point is the first
    level = (np.abs(np.fft.rfft(lines[:, :-1])) ** 2).sum(0) * (2 / n) ** 2 / len(lines)
    level[0] = 0.0
    places = np.flatnonzero(level > LEAST_POWER * level.max())
    places = places[np.argsort(-level[places])][:MOST_TONES]
    return Tones.steady(places / length, np.sqrt(level[places]), length)


def merged(parts: list[Tones], length: float) -> Tones:
    """Tones of several sources, the strongest of those that are close, in order."""
    arrays = zip(*parts, strict=True) if parts else ([], [], [])
    every = Tones(*(np.concatenate([np.zeros(0), *map(np.asarray, a)]) for a in arrays))
    order = np.argsort(-every.amplitude)
    kept = _apart(Tones(*(a[order] for a in every)), length)
    return Tones(*(jnp.asarray(a) for a in kept))


def _apart(tones: Tones, length: float) -> Tones:
    """The first of those that are close to each other, and not too many."""
    kept: list[int] = []
    for i, s in enumerate(tones.frequency):
        if all(abs(s - tones.frequency[j]) * length > CLOSEST for j in kept):
            kept.append(i)
    kept = kept[:MOST_TONES]
    return Tones(*(np.asarray(a)[kept] for a in tones))


def of_problem(
    length,
    nyquist,
    equation,
    source,
    conditions,
    unknowns,
    pieces,
    fine,
    observed=None,
    first=False,
):
    r"""The tones of each axis, and the size of the solution, estimated from a problem.

    Args:
        length: length of each axis, in its units.
        nyquist: highest frequency that the grid resolves, in cycles per unit of each axis.
        equation: the equation of the problem.
        source: the part of its residual without $u$, on a fine even grid, or a number.
        conditions: the conditions on faces.
        unknowns: a value of each unknown coefficient.
        pieces: those of each axis, with the points of the grid.
        fine: the same with those of the fine grid.
        observed: points and values of the observations, or None.
        first: whether to leave out the tones of observations and those of an ordinary
            equation itself, as the first version did.

    Returns:
        One `Tones` per axis, and the size in units of the solution; 0 if neither source
        nor conditions determine it.
    """
    d = len(length)
    zero = {orders: jnp.zeros(()) for orders in equation.orders}
    operator = equation.jacobian(zero, unknowns)
    operator = {orders: np.asarray(c) for orders, c in operator.items()}
    source = np.asarray(source)
    faces = _on_faces(conditions, unknowns, length)
    turning = {c.axis for c in conditions if c.side == "periodic"}
    every, sizes = [], [float(np.sqrt(np.mean(values**2))) for _, values in faces]
    for axis in range(d):
        found = []
        if source.ndim:
            # Along s(x) the highest derivative is s' to that power times the one by s.
            highest = max(orders[axis] for orders in operator)
            lines = fine[axis].split(fine[axis].scaled(source, axis, -highest, d), axis)
            symbols = _symbols(operator, axis, pieces[axis])
            for part, n, symbol in zip(lines, pieces[axis].lengths, symbols, strict=True):
                own = tones(part, n, symbol)
                if axis in turning and len(lines) == 1:
                    series = periodic_tones(part, n)
                    own = series._replace(
                        amplitude=series.amplitude / symbol(series.frequency)
                    )
                found.append(own)
        for across, values in faces:
            if across != axis:
                lines = pieces[axis].split(values, axis - (across < axis))
                of = periodic_tones if axis in turning and len(lines) == 1 else tones
                parts = zip(lines, pieces[axis].lengths, strict=True)
                found += [of(part, n) for part, n in parts]
        every.append(merged(found, length[axis]))
        sizes += [float(a) for tone in found for a in tone.amplitude[:1]]
    size = max(sizes, default=0.0)
    allowed = [
        [
            _allowed(operator, axis, other, every[other], length, nyquist, size, pieces)
            for other in range(d)
            if not (first and d == 1)
        ]
        for axis in range(d)
    ]
    if observed is not None:
        size = max(size, float(np.sqrt(np.mean(np.asarray(observed[1]) ** 2))))
    if observed is not None and not first:
        points, values = observed
        seen = of_observations(points, values, length, nyquist)
        # Waves along the axes at once; what the equation allows depends on the unknowns.
        allowed = (
            [[tones] for tones in seen]
            if equation.unknowns
            else [[*waves, tones] for waves, tones in zip(allowed, seen, strict=True)]
        )
    both = [
        merged([own, *waves], n)
        for own, waves, n in zip(every, allowed, length, strict=True)
    ]
    return tuple(both), size


def _on_faces(conditions, unknowns, length) -> list[tuple[int, np.ndarray]]:
    """Axis and values of u of each face on which they are given, at least about.

    Where u_x + w u = g, u is of the size of g over w, unless the axis is too short for it.
    """
    found = []
    for c in conditions:
        given, weight = np.asarray(c.given(unknowns)), np.ones(())
        if c.more is not None and c.more.orders:
            (weight,) = c.more.jacobian({}, unknowns).values()
            weight = np.abs(np.asarray(weight)) + 1 / length[c.axis]
        elif c.order > 0:
            continue
        if c.side != "periodic":
            found.append((c.axis, np.asarray(given / weight)))
    return found


def of_observations(points, values, length, nyquist) -> list[Tones]:
    """The tones of each axis in observations at scattered points.

    Args:
        points: shape `(n, d)`, in units of the axes.
        values: shape `(n,)`.
        length: length of each axis, in its units.
        nyquist: highest frequency that the grid resolves, in cycles per unit of each axis.
    """
    found = waves(points, values, max_frequency=nyquist)
    slowest = SLOWEST if len(length) == 1 else SLOWEST_PRODUCT
    tones = []
    for n, s in zip(length, found.frequency.T, strict=True):
        is_wave = (s * n > slowest) & (found.amplitude > WEAKEST * found.amplitude[:1])
        a = found.amplitude[is_wave]
        tones.append(Tones(s[is_wave], a, np.full(a.shape, OBSERVED * n)))
    return tones


def _allowed(
    operator, axis: int, other: int, tones: Tones, length, nyquist, size: float, pieces
) -> Tones:
    """Frequencies along one axis that the equation ties to those along another.

    A wave of frequency s on the other axis solves the equation without its source if its
    rate τ on this axis is a root of the equation's symbol: the dispersion relation. On a
    single axis the roots are the rates of the solutions without a source.
    """
    if other == axis:
        alone = len(length) == 1
        return _own(operator, pieces[0], nyquist[0], size) if alone else merged([], 1.0)
    slow = np.array([1.0]) / length[other]
    waves = np.concatenate([np.asarray(tones.frequency), slow])
    sizes = np.concatenate([np.asarray(tones.amplitude), [size]])
    found, amplitude = [], []
    for s, a in zip(waves, sizes, strict=True):
        symbol = np.zeros(1 + max(orders[axis] for orders in operator), complex)
        for orders, coefficient in operator.items():
            if sum(orders) == orders[axis] + orders[other]:
                rate = (2j * np.pi * s) ** orders[other]
                symbol[len(symbol) - 1 - orders[axis]] += (
                    complex(np.mean(coefficient)) * rate
                )
        for frequency, _ in _turning(symbol, length[axis], nyquist[axis]):
            found.append(frequency)
            amplitude.append(a)
    return Tones.steady(np.array(found), np.array(amplitude), length[axis])


def _own(operator, pieces: Pieces, nyquist: float, size: float) -> Tones:
    """The frequencies of an ordinary differential equation without its source."""
    found = []
    # Along a stretched coordinate its waves do not have one frequency each.
    for i, length in enumerate(pieces.lengths if pieces.slope is None else ()):
        symbol = np.zeros(1 + max(orders[0] for orders in operator), complex)
        for orders, coefficient in operator.items():
            symbol[len(symbol) - 1 - orders[0]] += pieces.mean(coefficient, 0)[i]
        found += [
            (frequency, min(STEADY * length, 1 / max(rate, 1e-300)))
            for frequency, rate in _turning(symbol, length, nyquist)
        ]
    frequency, lengthscale = np.array(found).reshape(-1, 2).T
    return Tones(frequency, np.full(frequency.shape, size or 1.0), lengthscale)


def _turning(symbol, length: float, nyquist: float):
    """Frequency and rate of decay of each root of a symbol that is a wave."""
    for root in np.roots(np.trim_zeros(symbol, "f")):
        frequency = abs(root.imag) / (2 * np.pi)
        # A root that grows or decays faster than it oscillates is not a wave.
        if 1 < frequency * length < nyquist * length and abs(root.real) < abs(root.imag):
            yield frequency, abs(root.real)


def _symbols(operator, axis: int, pieces: Pieces):
    """For each piece the factor of the amplitude of a wave along it, under the equation."""
    highest = max(orders[axis] for orders in operator)
    own = {
        orders[axis]: pieces.mean(
            pieces.scaled(coefficient, axis, orders[axis] - highest, len(orders)), axis
        )
        for orders, coefficient in operator.items()
        if sum(orders) == orders[axis]
    }
    return [_symbol({k: c[i] for k, c in own.items()}) for i in range(len(pieces.counts))]


def _symbol(own):
    def symbol(s):
        waves = sum(c * (2j * np.pi * s) ** k for k, c in own.items())
        size = np.abs(waves * np.ones_like(s))
        return np.where(size > 0, size, 1.0)

    return symbol
