"""A PDE problem: an equation on a box, and what is known besides."""

import keyword
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.model import AbstractData
from probkit.models.pde.conditions import Condition, read_conditions, read_observations
from probkit.models.pde.equation import Equation, Monomial
from probkit.models.pde.residual import (
    coordinates,
    equations,
    evaluate,
    refuse_without_u,
)
from probkit.models.pde.spectrum import Tones, of_problem, power
from probkit.validate import short, whole

FEWEST_POINTS = 8
MOST_AXES = 3
# Of an axis: fourth powers of its length stay finite, and points on it stay apart.
LONGEST = 1e60
NARROWEST = 1e-6
# Of the finer grid on which the source is looked at: how much finer, how many points it
# has at least on a line, and at most in all.
FINER = 4
FEWEST_FINE = 1000
MOST_FINE = 2_000_000
# A thousandth of the amplitude: what is above Nyquist comes back as a lower frequency,
# which the inverse of the equation enlarges. Less could be a nonlinear term's, such as the
# 1e-9 of u^3 in the Allen-Cahn examples, whose aliases in u and in the source are the same.
ALIASED_POWER = 1e-6
# Of a source that varies by less than rounding, nothing can be said.
ROUNDING_POWER = 1e-20
# Up to which share of its own Nyquist frequency the fine grid is believed.
SEEN = 0.9
# A warning is for the line of the user's that made the problem.
_INSIDE = (str(Path(__file__).parents[2]), str(Path(eqx.__file__).parent))

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


class AliasWarning(UserWarning):
    """The grid is too coarse for the source: frequencies above Nyquist fold to lower ones.

    The residual does not tell: it is zero at every grid point for the false frequency.
    """


class Problem(AbstractData):
    r"""A differential equation on a box, with conditions on faces and values at points.

    $$P(u, ∂u, ∂²u; θ)(x) = 0 \quad (x \text{ on the grid}), \qquad B u = g.$$

    Args:
        domain: `(low, high)` of each axis by its name, in their order; one to three axes.
        residual: a function of `u` and the coordinates that is zero for the solution,
            such as `lambda u, x: u.dxx - f(x)`. It is called with a stand-in for u, once
            for each set of points, and must be a polynomial in `u` and its derivatives of
            order up to two in each variable. Coordinates are the array itself in one
            dimension, and a named tuple of arrays, `p.x`, `p.y`, in more. With `unknown`
            it has a third argument: `lambda u, x, c: u.dx + c.rate * u`.
        boundary: `pde.Dirichlet`, `pde.Neumann`, `pde.Periodic`, `pde.Initial`, or a list
            of them.
        shape: the number of grid points along each axis, end points included; one number
            for all.
        observations: `pde.Observations`, values of u at points.
        unknown: `(low, high)` of each unknown coefficient by its name; a priori it is
            uniform between them.

    Attributes:
        axes: names of the axes.
        grid: coordinates along each axis.
        equation: the residual on the grid.
        held_out: the same equation on the midpoints of the grid.
        fine_source: the part of the residual that is free of u, unknown coefficients in
            the middle of their ranges, on a finer grid (`fine_grid`); a number if it is
            the same everywhere.
        conditions: what is told on faces.
        points: where u was observed, shape `(m, d)`, or None.
        values: what was observed, shape `(m,)`, or None.
        noise_sd: standard deviation of its noise, or None to learn it.
        unknown: name, low and high of each unknown coefficient.
        tones: along each axis, frequencies that the source and the conditions tell of.
        size: of the solution, as far as these tell it.

    Raises:
        ValueError: for a residual that is no such polynomial; a source, value or
            observation that is NaN, infinite or of the wrong shape; a face that does not
            exist or is told twice; a grid of fewer than 8 points an axis; in float32.

    Warns:
        AliasWarning: if the source has frequencies above the grid's Nyquist frequency.
    """

    axes: tuple[str, ...] = eqx.field(static=True)
    grid: tuple[Float[Array, " _n"], ...]
    equation: Equation
    held_out: Equation
    fine_source: Float[Array, "..."]
    conditions: tuple[Condition, ...]
    points: Float[Array, "m d"] | None
    values: Float[Array, " m"] | None
    noise_sd: Float[Array, ""] | None
    unknown: tuple[tuple[str, float, float], ...] = eqx.field(static=True)
    tones: tuple[Tones, ...]
    size: Float[Array, ""]

    def __init__(
        self,
        domain: Mapping[str, Any],
        residual: Callable[..., Any],
        boundary: Any = (),
        *,
        shape: Any,
        observations: Any = None,
        unknown: Mapping[str, Any] | None = None,
    ):
        _refuse_float32("Problem(...)")
        box = _box(domain)
        self.axes = tuple(box)
        counts = _counts(shape, self.axes)
        grid = _grid(box.values(), counts)
        self.grid = tuple(map(jnp.asarray, grid))
        self.unknown = _unknown(unknown, self.axes)
        on_grid, between, fine = _sets_of_points(grid)
        polynomials = [
            evaluate(residual, self.axes, points, counts, self.unknown)
            for points in (on_grid, between, fine)
        ]
        self.equation, self.held_out, finest = equations(polynomials)
        refuse_without_u(self.equation, self.unknown)
        middle = {name: (low + high) / 2 for name, low, high in self.unknown}
        self.fine_source = finest.source(middle)
        self.conditions = read_conditions(boundary, self.axes, grid)
        observed = read_observations(observations, self.axes, grid)
        self.points, self.values, self.noise_sd = observed or (None, None, None)
        if not self.conditions and observed is None:
            raise ValueError(
                "`Problem(boundary=..., observations=...)` are both empty: nothing tells "
                "the solutions of the equation apart. Give one of them."
            )
        self.tones, self.size = self._spectrum()
        _warn_of_aliases(self)

    def _spectrum(self) -> tuple[tuple[Tones, ...], Float[Array, ""]]:
        """What the problem tells of its solution's frequencies and size."""
        middle = {name: (low + high) / 2 for name, low, high in self.unknown}
        tones, size = of_problem(
            self.length,
            self.nyquist,
            self.equation,
            self.fine_source,
            self.conditions,
            middle,
        )
        if self.values is not None:
            size = max(size, float(jnp.sqrt(jnp.mean(self.values**2))))
        return tones, jnp.asarray(size if size > 0 else 1.0)

    def __len__(self) -> int:
        on_faces = sum(condition.values.size for condition in self.conditions)
        observed = 0 if self.values is None else self.values.size
        return math.prod(self.shape) + on_faces + observed

    def take(self, indices) -> "Problem":
        """Not possible: an equation on its grid is one observation."""
        raise ValueError(
            "A `Problem` is one observation, and no part stands for the whole; fit it with "
            "`SVI(batch_size=None)`."
        )

    # What follows from the fields.

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of grid points along each axis."""
        return tuple(len(x) for x in self.grid)

    @property
    def length(self) -> tuple[float, ...]:
        """The length of each axis."""
        return tuple(float(x[-1]) - float(x[0]) for x in self.grid)

    @property
    def nyquist(self) -> tuple[float, ...]:
        """The highest frequency that the grid can tell, in cycles per unit of each axis."""
        pairs = zip(self.shape, self.length, strict=True)
        return tuple((n - 1) / (2 * length) for n, length in pairs)

    @property
    def midpoints(self) -> tuple[Float[Array, " _n"], ...]:
        """Coordinates of `held_out` along each axis."""
        return tuple((x[1:] + x[:-1]) / 2 for x in self.grid)

    @property
    def fine_grid(self) -> tuple[Float[Array, " _n"], ...]:
        """Coordinates of `fine_source` along each axis, if it is an array."""
        grid = [np.asarray(x) for x in self.grid]
        return tuple(map(jnp.asarray, _finer(grid, _refinement(self.shape))))

    def coordinates(self, grid: Sequence[Any] | None = None) -> Any:
        """Coordinates of a tensor grid's points, as the residual gets them.

        Args:
            grid: an array for each axis; by default those of the problem.
        """
        return coordinates(self.axes, [np.asarray(x) for x in grid or self.grid])

    # In a file, and in a labelled tree.

    def arrays(self) -> dict[str, Array]:
        # Not the grid: what is called after an axis is its label in a tree, no variable.
        named = {f"term_{k}": c for k, c in enumerate(self.equation.coefficients)}
        named |= {f"held_out_{k}": c for k, c in enumerate(self.held_out.coefficients)}
        named["source"] = self.fine_source
        named |= {f"condition_{k}": c.values for k, c in enumerate(self.conditions)}
        others = {"points": self.points, "values": self.values, "noise_sd": self.noise_sd}
        return named | {k: v for k, v in others.items() if v is not None}

    def fields(self) -> dict[str, Any]:
        ends = [(float(x[0]), float(x[-1])) for x in self.grid]
        return {
            "domain": [[a, *b] for a, b in zip(self.axes, ends, strict=True)],
            "shape": list(self.shape),
            "monomials": [
                [list(m.factors), list(m.unknowns)] for m in self.equation.monomials
            ],
            "conditions": [[c.axis, c.side, c.order] for c in self.conditions],
            "unknown": [list(one) for one in self.unknown],
        }

    @classmethod
    def restore(cls, arrays, fields) -> "Problem":
        _refuse_float32("Problem.restore")
        arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
        ends = [(low, high) for _, low, high in fields["domain"]]
        grid = _grid(ends, fields["shape"])
        monomials = tuple(
            Monomial(tuple(tuple(orders) for orders in factors), tuple(unknowns))
            for factors, unknowns in fields["monomials"]
        )
        equations = [
            Equation(monomials, tuple(arrays[f"{name}_{k}"] for k in range(len(monomials))))
            for name in ("term", "held_out")
        ]
        conditions = tuple(
            Condition(axis, side, order, arrays[f"condition_{k}"])
            for k, (axis, side, order) in enumerate(fields["conditions"])
        )
        problem = object.__new__(cls)
        known = {
            "axes": tuple(name for name, _, _ in fields["domain"]),
            "grid": tuple(map(jnp.asarray, grid)),
            "equation": equations[0],
            "held_out": equations[1],
            "fine_source": arrays["source"],
            "conditions": conditions,
            "points": arrays.get("points"),
            "values": arrays.get("values"),
            "noise_sd": arrays.get("noise_sd"),
            "unknown": tuple((name, low, high) for name, low, high in fields["unknown"]),
        }
        # The residual is not kept, so the constructor cannot be asked.
        for name, value in known.items():
            object.__setattr__(problem, name, value)
        _refuse_other_shapes(problem)
        spectrum = zip(("tones", "size"), problem._spectrum(), strict=True)
        for name, value in spectrum:
            object.__setattr__(problem, name, value)
        return problem

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every array of `arrays`."""
        named: dict[str, tuple[str, ...]] = {}
        sets = [("term", "", self.equation), ("held_out", "_mid", self.held_out)]
        for name, suffix, equation in sets:
            for k, coefficient in enumerate(equation.coefficients):
                named[f"{name}_{k}"] = self._dims_of(coefficient, suffix)
        named["source"] = self._dims_of(self.fine_source, "_fine")
        for k, condition in enumerate(self.conditions):
            others = (axis for i, axis in enumerate(self.axes) if i != condition.axis)
            named[f"condition_{k}"] = tuple(others)
        if self.points is not None:
            named |= {"points": ("observation", "axis"), "values": ("observation",)}
        if self.noise_sd is not None:
            named["noise_sd"] = ()
        return named

    def _dims_of(self, array: Array, suffix: str) -> tuple[str, ...]:
        return tuple(axis + suffix for axis in self.axes) if array.ndim else ()

    def coords(self) -> dict[str, Any]:
        """Labels along the axes that `dims` names."""
        dims = self.dims()
        used = {*self.axes, *(axis for name in dims for axis in dims[name])}
        labels: dict[str, Any] = dict(zip(self.axes, self.grid, strict=True))
        for suffix, grid in (("_mid", self.midpoints), ("_fine", self.fine_grid)):
            labels |= {a + suffix: x for a, x in zip(self.axes, grid, strict=True)}
        if self.values is not None:
            labels |= {"observation": np.arange(self.values.size), "axis": list(self.axes)}
        return {name: np.asarray(x) for name, x in labels.items() if name in used}


def _refuse_other_shapes(problem: Problem) -> None:
    dims, coords = problem.dims(), problem.coords()
    for name, array in problem.arrays().items():
        wanted = tuple(len(coords[axis]) for axis in dims[name])
        if array.shape != wanted:
            raise ValueError(
                f"`Problem.restore`: `{name}` has shape {array.shape}, where {wanted} "
                "belongs; the arrays are not those of the fields."
            )


# The box and its points.


def _refuse_float32(what: str) -> None:
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            f"`{what}` needs float64: kernel matrices here have condition numbers of 1e10 "
            "and more. Call `pk.enable_x64()` first."
        )


def _box(domain: Any) -> dict[str, tuple[float, float]]:
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
            f"`{what}` has the name {short(name)}; it takes names as of variables, such as "
            f"`{such_as}`."
        )
    stem, _, end = name.rpartition("_")
    numbered = stem in ("term", "held_out", "condition") and end.isdigit()
    if name in RESERVED or end in ("mid", "fine") or numbered:
        raise ValueError(
            f"`{what}` has the name {name!r}, which names something else of a fit; call it "
            "something else."
        )


def _ends(ends: Any, argument: str, name: str) -> tuple[float, float]:
    told = f"Problem({argument}={{{name!r}: {short(ends)}}})"
    try:
        low, high = (float(end) for end in ends)
    except (TypeError, ValueError):
        raise ValueError(f"`{told}`: it takes two numbers, (low, high).") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"`{told}`: it takes two finite numbers, the lower one first.")
    return low, high


def _counts(shape: Any, axes: tuple[str, ...]) -> tuple[int, ...]:
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


def _grid(ends, counts) -> list[np.ndarray]:
    pairs = zip(ends, counts, strict=True)
    return [np.linspace(low, high, n) for (low, high), n in pairs]


def _refinement(shape: Sequence[int]) -> int:
    """How many times finer the fine grid is."""
    times = FINER
    if len(shape) == 1:
        times = max(times, math.ceil((FEWEST_FINE - 1) / (shape[0] - 1)))
    while times > 1 and math.prod(times * (n - 1) + 1 for n in shape) > MOST_FINE:
        times -= 1
    return times


def _finer(grid: Sequence[np.ndarray], times: int) -> list[np.ndarray]:
    return [np.linspace(x[0], x[-1], times * (len(x) - 1) + 1) for x in grid]


def _sets_of_points(grid: list[np.ndarray]) -> tuple[list[np.ndarray], ...]:
    between = [(x[1:] + x[:-1]) / 2 for x in grid]
    return grid, between, _finer(grid, _refinement([len(x) for x in grid]))


def _unknown(given: Any, axes: tuple[str, ...]) -> tuple[tuple[str, float, float], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise ValueError(
            f"`Problem(unknown={short(given)})`: it takes the range of each unknown "
            'coefficient by its name, such as `{"rate": (0, 1)}`.'
        )
    for name in given:
        _refuse_name(name, "Problem(unknown=...)", "rate")
        if name in axes:
            raise ValueError(
                f"`Problem(unknown=...)` has the name {name!r}, which is an axis; call it "
                "something else."
            )
    return tuple((name, *_ends(ends, "unknown", name)) for name, ends in given.items())


# Frequencies that the grid cannot tell.


def _warn_of_aliases(problem: Problem) -> None:
    source = np.asarray(problem.fine_source)
    if source.ndim == 0:
        return
    for i, axis in enumerate(problem.axes):
        length, nyquist = problem.length[i], problem.nyquist[i]
        lines = np.moveaxis(source, i, -1).reshape(-1, source.shape[i])
        frequency, level = power(lines, length)
        bearable = ALIASED_POWER * level.sum()
        rounding = ROUNDING_POWER * np.sum(lines**2) / lines.shape[-1]
        if level[frequency > nyquist].sum() <= max(bearable, rounding):
            continue
        peak = frequency[np.argmax(np.where(frequency > nyquist, level, 0.0))]
        # The lowest frequency with no more than the bearable share above it.
        beyond = np.flip(np.cumsum(np.flip(level))) - level
        enough = frequency[np.argmax(beyond <= bearable)]
        count = math.ceil(2 * length * enough) + 2
        resolved = enough < SEEN * frequency[-1]
        points = f"{count} points would do" if resolved else f"{count} are too few"
        warnings.warn(
            f"The source has a frequency of {peak:.4g} cycles per unit of `{axis}`, but "
            f"`Problem(shape=...)` with {problem.shape[i]} points tells frequencies only "
            f"up to {nyquist:.4g} (Nyquist): a lower, false frequency fits the equation at "
            f"every grid point as well. Along `{axis}`, {points}.",
            AliasWarning,
            skip_file_prefixes=_INSIDE,
        )
