"""The box of a problem: its ends, names and grids, from what the user gave."""

import keyword
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from probkit.models.pde.chart import Chart, in_pieces
from probkit.models.pde.varying import WIDEST, Expansion, Varying
from probkit.models.pde.varying import read as varies
from probkit.validate import short, whole

FEWEST_POINTS = 8
MOST_AXES = 3
# Limits of an axis, so that fourth powers of its length are finite and its points differ.
LONGEST = 1e60
NARROWEST = 1e-6
# The finer grid on which the source is evaluated: how much finer it is, its least number of
# points in one dimension, and its largest number of points in all.
FINER = 4
FEWEST_FINE = 1000
MOST_FINE = 2_000_000
RESERVED = {
    "axis",
    "chain",
    "draw",
    "noise_sd",
    "observation",
    "points",
    "source",
    "u",
    "values",
}


def refuse_float32(what: str) -> None:
    """Refuse to work without float64."""
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            f"`{what}` needs float64, because kernel matrices here have condition numbers "
            "of 1e10 and more. Call `pk.enable_x64()` first."
        )


def read_box(domain: Any) -> dict[str, tuple[float, float]]:
    """The ends of each axis by its name, from what the user gave as `domain`."""
    if not isinstance(domain, Mapping) or not domain:
        raise ValueError(
            f"`Problem(domain={short(domain)})`: it takes the ends of each axis by its "
            'name, such as `{"x": (0, 1)}`.'
        )
    if len(domain) > MOST_AXES:
        raise ValueError(
            f"`Problem(domain=...)` has {len(domain)} axes; it takes up to {MOST_AXES}."
        )
    for name in domain:
        _refuse_name(name, "Problem(domain=...)", "x")
    box = {name: _ends(ends, "domain", name) for name, ends in domain.items()}
    for name, (low, high) in box.items():
        _refuse_extreme(name, low, high)
    return box


def _refuse_extreme(name: str, low: float, high: float) -> None:
    length, far = high - low, max(abs(low), abs(high))
    if not (1 / LONGEST < length < LONGEST and length > NARROWEST * far):
        raise ValueError(
            f"`Problem(domain=...)`: the length of `{name}`, from {low:.6g} to {high:.6g}, "
            "is beyond what float64 resolves there; use other units, or another origin."
        )


def _refuse_name(name: Any, what: str, such_as: str) -> None:
    fits = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    if not fits or name.startswith("_"):
        raise ValueError(
            f"`{what}` has the name {short(name)}; it takes names that a "
            f"variable can have, such as `{such_as}`."
        )
    end = name.rpartition("_")[2]
    numbered = re.fullmatch(
        r"(term|held_out|condition)(_\d+)+|interface_\d+_\d+_(low|high)", name
    )
    if name in RESERVED or end in ("mid", "fine") or numbered:
        raise ValueError(
            f"`{what}` has the name {name!r}, which names something else of a fit; call it "
            "something else."
        )


def _ends(ends: Any, argument: str, name: str) -> tuple[float, float]:
    what = f"Problem({argument}={{{name!r}: {short(ends)}}})"
    try:
        low, high = (float(end) for end in ends)
    except (TypeError, ValueError):
        raise ValueError(f"`{what}`: it takes two numbers, (low, high).") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"`{what}`: it takes two finite numbers, the lower one first.")
    return low, high


def read_counts(shape: Any, axes: tuple[str, ...]) -> tuple[int, ...]:
    """How many points each axis has, from what the user gave as `shape`."""
    listed = list(shape) if np.ndim(shape) == 1 else [shape] * len(axes)
    if len(listed) != len(axes):
        raise ValueError(
            f"`Problem(shape={short(shape)})` has length {len(listed)}; it takes a number "
            f"for each axis ({', '.join(f'`{axis}`' for axis in axes)}), or one for all."
        )
    counts = []
    for axis, given in zip(axes, listed, strict=True):
        count = _count(given)
        if count < FEWEST_POINTS:
            raise ValueError(
                f"`Problem(shape={short(shape)})`: grid too coarse, {count} points along "
                f"`{axis}`; it takes {FEWEST_POINTS} or more."
            )
        counts.append(count)
    return tuple(counts)


def _count(given: Any) -> int:
    try:
        return whole("Problem(shape", 0)(given)
    except ValueError:
        raise ValueError(
            f"`Problem(shape={short(given)})`: it takes whole numbers, {FEWEST_POINTS} or "
            "more."
        ) from None


def grid_of(ends, counts, charts: Sequence[Chart | None]) -> list[np.ndarray]:
    """Points along each axis, both ends included; even ones, unless it has a chart."""
    return [
        np.linspace(low, high, n) if chart is None else chart.points(chart.counts(n))
        for (low, high), n, chart in zip(ends, counts, charts, strict=True)
    ]


def refinement(shape: Sequence[int]) -> int:
    """How many times finer the fine grid is."""
    times = FINER
    if len(shape) == 1:
        times = max(times, math.ceil((FEWEST_FINE - 1) / (shape[0] - 1)))
    while times > 1 and math.prod(times * (n - 1) + 1 for n in shape) > MOST_FINE:
        times -= 1
    return times


def finer(
    grid: Sequence[np.ndarray], times: int, charts: Sequence[Chart | None]
) -> list[np.ndarray]:
    """The grid with each of its steps divided by `times`."""
    return [
        np.linspace(x[0], x[-1], times * (len(x) - 1) + 1)
        if chart is None
        else chart.points(finer_counts(chart, len(x), times))
        for x, chart in zip(grid, charts, strict=True)
    ]


def finer_counts(chart: Chart, count: int, times: int) -> tuple[int, ...]:
    """How many points of the fine grid each piece has."""
    return tuple(times * (n - 1) + 1 for n in chart.counts(count))


def between(x: Any, chart: Chart | None) -> Any:
    """The midpoints of the steps of an axis, none of them across a break."""
    if chart is None:
        return (x[1:] + x[:-1]) / 2
    first = in_pieces(chart.counts(len(x)))
    return (x[first + 1] + x[first]) / 2


def sets_of_points(
    grid: list[np.ndarray], charts: Sequence[Chart | None]
) -> tuple[list[np.ndarray], ...]:
    """The grid, its midpoints and the fine grid."""
    middle = [between(x, chart) for x, chart in zip(grid, charts, strict=True)]
    return grid, middle, finer(grid, refinement([len(x) for x in grid]), charts)


def read_unknown(
    given: Any, box: Mapping[str, tuple[float, float]]
) -> tuple[tuple[tuple[str, float, float], ...], tuple[Expansion, ...]]:
    """Name, low and high of each unknown number, and the coefficients that vary."""
    if given is None:
        return (), ()
    if not isinstance(given, Mapping):
        raise ValueError(
            f"`Problem(unknown={short(given)})`: it takes the range of each unknown "
            'coefficient by its name, such as `{"rate": (0, 1)}`.'
        )
    numbers: list[tuple[str, float, float]] = []
    varying: list[Expansion] = []
    for name, one in given.items():
        _refuse_name(name, "Problem(unknown=...)", "rate")
        if name in box:
            raise ValueError(
                f"`Problem(unknown=...)` has the name {name!r}, which is an axis; call it "
                "something else."
            )
        if isinstance(one, Varying):
            varying.append(varies(name, one, dict(box)))
            numbers += [(weight, -WIDEST, WIDEST) for weight in varying[-1].weights]
        else:
            numbers.append((name, *_ends(one, "unknown", name)))
    names = [name for name, _, _ in numbers] + [one.name for one in varying]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"`Problem(unknown=...)` has the name {twice[0]!r}, which is a weight of one "
            "that varies; call it something else."
        )
    return tuple(numbers), tuple(varying)
