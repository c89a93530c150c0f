"""A PDE problem: an equation on a box, conditions on its faces, and observations."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.model import AbstractData
from probkit.models.pde import interfaces
from probkit.models.pde.aliases import AliasWarning, warn_of_aliases
from probkit.models.pde.box import (
    between,
    finer,
    finer_counts,
    grid_of,
    read_box,
    read_counts,
    read_unknown,
    refinement,
    refuse_float32,
    sets_of_points,
)
from probkit.models.pde.chart import Chart, read_charts, stretched
from probkit.models.pde.conditions import Condition, read_conditions, read_observations
from probkit.models.pde.equation import Equation, Monomial
from probkit.models.pde.interfaces import Interface, read_interfaces
from probkit.models.pde.residual import (
    coordinates,
    equations,
    evaluate,
    refuse_without_u,
)
from probkit.models.pde.spectrum import Pieces, Tones, of_problem
from probkit.models.pde.varying import Expansion
from probkit.validate import as_array


class Problem(AbstractData):
    r"""A differential equation on a box, with conditions on faces and values at points.

    $$P(u, ∂u, ∂²u, …; θ)(x) = 0 \quad (x \text{ on the grid}), \qquad B u = g.$$

    Args:
        domain: `(low, high)` of each axis by its name, in the units of the axis; one to
            three axes, whose order is that of arrays on the grid.
        residual: a function of `u` and the coordinates that is zero for the solution,
            such as `lambda u, x: u.dxx - f(x)`. It is called with a stand-in for u, once
            for each set of points, and must be a polynomial in `u` and its derivatives of
            order up to four in each variable. Derivatives of products follow by the product
            rule, `(k(x) * u.dx).dx`, if k is smooth. In one dimension the coordinates are
            one array; in more they are a named tuple of arrays, `p.x`, `p.y`. With
            `unknown` it has a third argument: `lambda u, x, c: u.dx + c.rate * u`.
        boundary: `pde.Dirichlet`, `pde.Neumann`, `pde.Robin`, `pde.Derivative`,
            `pde.Periodic`, `pde.Initial`, or a list of them.
        shape: the number of grid points along each axis, end points included; one number
            for all.
        observations: `pde.Observations`, values of u at points.
        unknown: `(low, high)` of each unknown coefficient by its name, in its units as
            they follow from the residual; a priori it is uniform between them. It may
            also be in the values of conditions, `pde.Initial(lambda t, c: c.start)`.
        breaks: where coefficients or the source jump or have a corner, a list of places for
            each axis by its name, `{"x": [0.5]}`, in units of the axis. The solution is
            smooth on each side. What the residual differentiates is continuous:
            `(k * u.dx).dx` keeps u and the flux k u', `k * u.dxx` keeps u and u'.
        layers: thin parts of an axis in which the solution changes, a list of places and
            widths for each axis by its name, `{"x": [(1.0, 0.001)]}`, in units of the axis.
            About half of the points of an axis with one layer are then in and near it. The
            width need not be exact. Frequencies and lengthscales of the kernel along the
            axis are in units of its stretched coordinate (`probkit.models.pde.chart`).

    Attributes:
        axes: names of the axes.
        grid: coordinates along each axis, one array of shape `(n,)` per axis.
        equation: the residual on the grid.
        held_out: the same equation on the midpoints of the grid.
        fine_source: the part of the residual without u, on a finer grid (`fine_grid`),
            with unknown coefficients in the middle of their ranges; a number if it is
            the same everywhere.
        conditions: the conditions on faces, on the grid.
        charts: the breaks and layers of each axis; None for one that has none.
        interfaces: the conditions at breaks.
        points: where u was observed, shape `(m, d)`, in units of the axes, or None.
        values: what was observed, shape `(m,)`, in units of u, or None.
        noise_sd: standard deviation of the noise, in units of u, shape `()` or `(m,)`; None
            to estimate it.
        unknown: name, low and high of each unknown number, those among them that are the
            weights of a coefficient that varies.
        varying: the coefficients that vary along an axis.
        tones: the frequencies along each axis that the source, the conditions and the
            observations have.
        size: size of the solution, in units of u, estimated from the source, the
            conditions and the observations; 1 if they do not determine it.

    Raises:
        ValueError: if the residual is not such a polynomial; if a source, value or
            observation is NaN, infinite or of the wrong shape; if a face does not exist
            or has two conditions of the same kind; if the grid has fewer than 8 points
            per axis, or per piece between breaks; if a break or layer is not on its axis,
            or what would be continuous at a break is not linear in u; and in float32.

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
    noise_sd: Float[Array, "..."] | None
    unknown: tuple[tuple[str, float, float], ...] = eqx.field(static=True)
    varying: tuple[Expansion, ...] = eqx.field(static=True)
    charts: tuple[Chart | None, ...] = eqx.field(static=True)
    interfaces: tuple[Interface, ...]
    written: "Written" = eqx.field(static=True, repr=False)
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
        breaks: Mapping[str, Any] | None = None,
        layers: Mapping[str, Any] | None = None,
    ):
        refuse_float32("Problem(...)")
        box = read_box(domain)
        self.axes = tuple(box)
        counts = read_counts(shape, self.axes)
        self.charts = read_charts(breaks, layers, box, counts)
        grid = grid_of(box.values(), counts, self.charts)
        self.grid = tuple(map(jnp.asarray, grid))
        self.unknown, self.varying = read_unknown(unknown, box)
        polynomials = [
            evaluate(
                residual,
                self.axes,
                points,
                counts,
                self.unknown,
                self.varying,
                self.charts,
            )
            for points in sets_of_points(grid, self.charts)
        ]
        self.equation, self.held_out, finest = equations(polynomials)
        self.conditions = read_conditions(
            boundary, self.axes, grid, self.equation.highest, self.numbers
        )
        observed = read_observations(observations, self.axes, grid)
        refuse_without_u(
            residual,
            self.equation,
            {name for c in self.conditions for name in c.equation.unknowns},
            self.unknown,
            observed is not None,
        )
        highest = self.equation.highest
        self.interfaces = read_interfaces(polynomials[0], self.charts, highest)
        self.fine_source = finest.source(self.middle)
        self.points, self.values, self.noise_sd = observed or (None, None, None)
        if not self.conditions and observed is None:
            raise ValueError(
                "`Problem(boundary=..., observations=...)` are both empty, so that the "
                "equation has many solutions. Give one of them."
            )
        self.tones, self.size = self._spectrum()
        warn_of_aliases(
            self.fine_source, self.axes, self.shape, self._fine_pieces(), self.nyquist
        )
        self.written = Written(
            domain,
            residual,
            boundary,
            {
                "shape": shape,
                "observations": observations,
                "unknown": unknown,
                "breaks": breaks,
            },
        )

    def _spectrum(self, first: bool = False) -> tuple[tuple[Tones, ...], Float[Array, ""]]:
        """Frequencies and size of the solution, estimated from the problem.

        Args:
            first: whether as in files of the first format, which do not have the tones:
                without those of observations and of ordinary equations.
        """
        tones, size = of_problem(
            self.length,
            self.nyquist,
            self.equation,
            self.fine_source,
            self.conditions,
            self.middle,
            self._pieces(1),
            self._fine_pieces(),
            None if self.values is None else (self._stretched_points(), self.values),
            first=first,
        )
        return tones, jnp.asarray(size if size > 0 else 1.0)

    def _pieces(self, times: int) -> tuple[Pieces, ...]:
        """Each axis as its pieces, with steps that are shorter by a factor."""
        found = []
        for chart, n, length in zip(self.charts, self.shape, self.length, strict=True):
            if chart is None:
                found.append(Pieces((times * (n - 1) + 1,), (length,)))
                continue
            counts, slope = finer_counts(chart, n, times), None
            if chart.layers:
                slope = stretched(chart, chart.points(counts), 1)[1]
            found.append(Pieces(counts, tuple(chart.lengths.tolist()), slope))
        return tuple(found)

    def _fine_pieces(self) -> tuple[Pieces, ...]:
        return self._pieces(refinement(self.shape))

    def _stretched_points(self) -> np.ndarray:
        """Where u was observed, in the coordinates of the kernels."""
        columns = np.asarray(self.points).T
        return np.stack(
            [
                x if chart is None else stretched(chart, x)[0]
                for x, chart in zip(columns, self.charts, strict=True)
            ],
            1,
        )

    @property
    def num_pieces(self) -> int:
        """The number of pieces of all axes."""
        return math.prod(1 if c is None else c.num_pieces for c in self.charts)

    @property
    def breaks(self) -> dict[str, tuple[float, ...]]:
        """Where each axis that breaks does."""
        pairs = zip(self.axes, self.charts, strict=True)
        return {a: chart.breaks for a, chart in pairs if chart is not None and chart.breaks}

    @property
    def layers(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """Places and widths of the layers of each axis that has some."""
        pairs = zip(self.axes, self.charts, strict=True)
        return {a: chart.layers for a, chart in pairs if chart is not None and chart.layers}

    @property
    def numbers(self) -> tuple[tuple[str, float, float], ...]:
        """Those of `unknown` that are no weights: coefficients that do not vary."""
        weights = {name for one in self.varying for name in one.weights}
        return tuple(one for one in self.unknown if one[0] not in weights)

    @property
    def middle(self) -> dict[str, float]:
        """Each unknown coefficient in the middle of its range."""
        return {name: (low + high) / 2 for name, low, high in self.unknown}

    @property
    def is_homogeneous(self) -> bool:
        """Whether u = 0 solves it: nothing says how large the solution is."""
        given = [self.fine_source, *(c.given(self.middle) for c in self.conditions)]
        return self.values is None and not any(np.any(np.asarray(g)) for g in given)

    def __len__(self) -> int:
        on_faces = sum(condition.values.size for condition in self.conditions)
        observed = 0 if self.values is None else self.values.size
        return math.prod(self.shape) + on_faces + observed

    def with_layers(self, layers: Mapping[str, Any]) -> "Problem":
        """The same problem, with its points and functions where these layers are.

        It does not warn of aliases.

        Args:
            layers: as for `Problem`.

        Raises:
            ValueError: for a problem from a file, whose residual is not kept.
        """
        if self.written.residual is None:
            raise ValueError(
                "`Problem.with_layers` needs the residual, which a file does not hold; "
                "make the problem again."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AliasWarning)
            return Problem(
                self.written.domain,
                self.written.residual,
                self.written.boundary,
                **self.written.others,
                layers=layers,
            )

    def take(self, indices) -> "Problem":
        """Not possible: an equation on its grid is one observation."""
        raise ValueError(
            "A `Problem` is one observation and cannot be divided into batches; fit it "
            "with `SVI(batch_size=None)`."
        )

    # What follows from these.

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
        """The highest frequency that the grid resolves, in cycles per unit of each axis.

        With layers it is that of the stretched axis.
        """
        return tuple(
            (n - 1) / (2 * length) if chart is None else 1 / (2 * chart.step(n))
            for chart, n, length in zip(self.charts, self.shape, self.length, strict=True)
        )

    @property
    def steps(self) -> tuple[Any, ...]:
        """The step of the grid along each axis; with layers, of the stretched axis."""
        return tuple(
            x[1] - x[0] if chart is None else chart.step(len(x))
            for x, chart in zip(self.grid, self.charts, strict=True)
        )

    @property
    def longest(self) -> tuple[Any, ...]:
        """The length of the longest piece of each axis; of the stretched axis."""
        return tuple(
            x[-1] - x[0] if chart is None else float(max(chart.lengths))
            for x, chart in zip(self.grid, self.charts, strict=True)
        )

    @property
    def midpoints(self) -> tuple[Float[Array, " _n"], ...]:
        """Coordinates of `held_out` along each axis."""
        return tuple(between(x, c) for x, c in zip(self.grid, self.charts, strict=True))

    @property
    def fine_grid(self) -> tuple[Float[Array, " _n"], ...]:
        """Coordinates of `fine_source` along each axis, if it is an array."""
        grid = [np.asarray(x) for x in self.grid]
        return tuple(map(jnp.asarray, finer(grid, refinement(self.shape), self.charts)))

    def coordinates(self, grid: Sequence[Any] | None = None) -> Any:
        """Coordinates of a tensor grid's points, as the residual gets them.

        Args:
            grid: an array for each axis; by default those of the problem.
        """
        return coordinates(self.axes, [np.asarray(x) for x in grid or self.grid])

    def inputs(self, given: Any) -> "Inputs":
        """Points at which to predict, from what the user gave.

        Args:
            given: points, shape `(n, d)`, one row per point and one column per axis, in
                units of the axes; in one dimension also `(n,)`. Or a problem on the same
                axes: its observed points, or its grid if it has no observations.

        Returns:
            The points, shape `(n, d)`, and this problem.

        Raises:
            ValueError: for another shape, and for values that are not finite numbers.
        """
        if isinstance(given, Problem):
            mesh = jnp.meshgrid(*given.grid, indexing="ij")
            points = given.points
            if points is None:
                points = jnp.stack([x.reshape(-1) for x in mesh], 1)
            return Inputs(points, self)
        d = len(self.axes)
        points = as_array(given, "predict(..., inputs)")
        if d == 1 and points.ndim < 2:
            points = points.reshape(-1, 1)
        if points.ndim != 2 or points.shape[1] != d:
            raise ValueError(
                f"`predict(..., inputs)` has shape {jnp.shape(given)}; it takes one row "
                f"per point and one column per axis ({', '.join(self.axes)})."
            )
        return Inputs(points, self)

    # In a file, and in a labelled tree.

    def arrays(self) -> dict[str, Array]:
        # Without the grid, because a tree holds the coordinates of an axis as its labels.
        named = {f"term_{k}": c for k, c in enumerate(self.equation.coefficients)}
        named |= {f"held_out_{k}": c for k, c in enumerate(self.held_out.coefficients)}
        named["source"] = self.fine_source
        for k, condition in enumerate(self.conditions):
            named[f"condition_{k}"] = condition.values
            if condition.more is not None:
                more = enumerate(condition.more.coefficients)
                named |= {f"condition_{k}_{j}": c for j, c in more}
        named |= interfaces.arrays(self.interfaces)
        others = {"points": self.points, "values": self.values, "noise_sd": self.noise_sd}
        return named | {k: v for k, v in others.items() if v is not None}

    def fields(self) -> dict[str, Any]:
        ends = [(float(x[0]), float(x[-1])) for x in self.grid]
        placed = {
            "charts": [None if c is None else [c.breaks, c.layers] for c in self.charts],
            "interfaces": interfaces.listed(self.interfaces),
        }
        return (placed if any(self.charts) else {}) | {
            "domain": [[a, *b] for a, b in zip(self.axes, ends, strict=True)],
            "shape": list(self.shape),
            "monomials": _listed(self.equation),
            "conditions": [
                [c.axis, c.side, c.order, *([] if c.more is None else [_listed(c.more)])]
                for c in self.conditions
            ],
            "unknown": [list(one) for one in self.unknown],
            "varying": [[*one[:2], list(one.ends), *one[3:]] for one in self.varying],
            "tones": [[np.asarray(a).tolist() for a in tones] for tones in self.tones],
        }

    @classmethod
    def restore(cls, arrays, fields) -> "Problem":
        refuse_float32("Problem.restore")
        arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
        ends = [(low, high) for _, low, high in fields["domain"]]
        charts = tuple(
            None
            if one is None
            else Chart(low, high, tuple(one[0]), tuple(map(tuple, one[1])))
            for (low, high), one in zip(
                ends, fields.get("charts", [None] * len(ends)), strict=True
            )
        )
        grid = grid_of(ends, fields["shape"], charts)
        equations = [
            _of_list(fields["monomials"], name, arrays) for name in ("term", "held_out")
        ]
        conditions = tuple(
            _condition_of(one, f"condition_{k}", arrays)
            for k, one in enumerate(fields["conditions"])
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
            "varying": tuple(
                Expansion(name, axis, tuple(ends), *rest)
                for name, axis, ends, *rest in fields.get("varying", ())
            ),
            "charts": charts,
            "interfaces": interfaces.of_list(fields.get("interfaces", ()), arrays),
            "written": Written(),
        }
        # The residual is not kept, so that the constructor cannot be used.
        for name, value in known.items():
            object.__setattr__(problem, name, value)
        _refuse_other_shapes(problem)
        tones, size = problem._spectrum(first="tones" not in fields)
        if "tones" in fields:
            tones = tuple(Tones(*map(jnp.asarray, parts)) for parts in fields["tones"])
        for name, value in {"tones": tones, "size": size}.items():
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
            named[f"condition_{k}"] = face = tuple(others)
            if condition.more is not None:
                count = len(condition.more.monomials)
                named |= {f"condition_{k}_{j}": face for j in range(count)}
        for name in interfaces.arrays(self.interfaces):
            one = self.interfaces[int(name.split("_")[1])]
            named[name] = tuple(a for i, a in enumerate(self.axes) if i != one.axis)
        if self.points is not None:
            named |= {"points": ("observation", "axis"), "values": ("observation",)}
        if self.noise_sd is not None:
            named["noise_sd"] = ("observation",) * self.noise_sd.ndim
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


class Written:
    """What the user wrote, from which the same problem is made on other points.

    All are equal, because programs depend on the coefficients alone. A problem from a file
    has none.
    """

    def __init__(self, domain=None, residual=None, boundary=None, others=None):
        self.domain, self.residual, self.boundary = domain, residual, boundary
        self.others = others or {}

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Written)

    def __hash__(self) -> int:
        return hash(Written)


class Inputs(eqx.Module):
    """Points at which to predict, and the problem that was fitted."""

    points: Float[Array, "n d"]
    problem: Problem


def _listed(equation: Equation) -> list[list[Any]]:
    return [[list(m.factors), list(m.unknowns)] for m in equation.monomials]


def _of_list(listed: Sequence[Any], name: str, arrays: Mapping[str, Array]) -> Equation:
    monomials = tuple(
        Monomial(tuple(tuple(orders) for orders in factors), tuple(unknowns))
        for factors, unknowns in listed
    )
    return Equation(monomials, tuple(arrays[f"{name}_{k}"] for k in range(len(monomials))))


def _condition_of(listed: Sequence[Any], name: str, arrays) -> Condition:
    axis, side, order, *rest = listed
    # Only a condition that adds something to the derivative has a fourth entry.
    more = _of_list(rest[0], name, arrays) if rest else None
    return Condition(axis, side, order, arrays[name], more)


def _refuse_other_shapes(problem: Problem) -> None:
    dims, coords = problem.dims(), problem.coords()
    for name, array in problem.arrays().items():
        wanted = tuple(len(coords[axis]) for axis in dims[name])
        if array.shape != wanted:
            raise ValueError(
                f"`Problem.restore`: `{name}` has shape {array.shape}, where {wanted} "
                "belongs; the arrays are not those of the settings."
            )
