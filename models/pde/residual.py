"""The residual as the user writes it: a function, called with a stand-in for u on grids."""

import inspect
import math
import operator
import re
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from probkit.models.pde.chart import Chart
from probkit.models.pde.equation import Equation, Monomial, Orders
from probkit.validate import short

HIGHEST = 4
# Of the range of a coefficient, what may be left of its change between two points after
# its derivative; and the largest number of points at which such a derivative is taken.
LARGEST_JUMP = 0.25
MOST_POINTS = 20_000_000

RESIDUAL = "Problem(residual=...)"
_OPERATORS = (
    "made by `+`, `-`, `*`, whole powers, and division by numbers and functions of the "
    "coordinates"
)


ONE = Monomial((), ())


class Stencil(NamedTuple):
    """A few points close to each point of an axis, for derivatives of coefficients.

    The derivative is that of the polynomial through them. With five points within a
    sixteenth of a step its relative error is below 1e-7 for a wave that is eight steps
    long, and falls with the fourth power of the step.

    Attributes:
        points: all of them, point by point, `(5 n,)`.
        own: which of them are the points of the axis, `(n,)`.
        slope: the matrix from values at five points to derivatives there, in units of
            `width`.
        width: half of the part of the axis that the five points of each point are in.
        first: points of the axis whose successor is on the same piece.
    """

    points: np.ndarray
    own: np.ndarray
    slope: np.ndarray
    width: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, chart: Chart | None = None) -> "Stencil":
        """Of the points of an axis, not beyond its ends or across its breaks."""
        nodes, n = -np.cos(np.pi * np.arange(5) / 4), len(x)
        if chart is None:
            pieces, h = np.zeros(n, int), np.full(n, (x[-1] - x[0]) / (n - 1) / 16)
        else:
            pieces, h = _pieces_and_steps(x, chart)
            h = h / 16
        is_first = np.concatenate([[True], np.diff(pieces) > 0])
        is_last = np.concatenate([np.diff(pieces) > 0, [True]])
        middle = np.full(n, 2)
        middle[is_first], middle[is_last] = 0, 4
        low, high = x[is_first][pieces] + h, x[is_last][pieces] - h
        points = np.clip(x, low, high)[:, None] + h[:, None] * nodes
        points[np.arange(n), middle] = x
        powers = np.arange(5)
        values = nodes[:, None] ** powers
        rises = powers * nodes[:, None] ** np.maximum(powers - 1, 0)
        slope = np.linalg.solve(values.T, rises.T).T
        first = np.flatnonzero(np.diff(pieces) == 0)
        return cls(points.ravel(), 5 * np.arange(n) + middle, slope, h, first)


def _pieces_and_steps(x: np.ndarray, chart: Chart) -> tuple[np.ndarray, np.ndarray]:
    """The piece of each point, and the shorter of the steps to its neighbours there."""
    pieces = np.searchsorted(chart.breaks, x, side="right")
    steps = np.where(np.diff(pieces) == 0, np.diff(x), np.inf)
    return pieces, np.fmin([np.inf, *steps], [*steps, np.inf])


class _SlopeAsked(Exception):
    """A polynomial is asked for the derivative of a coefficient, and has no points for it.

    Attributes:
        axis: the axis along which the derivative is asked.
    """

    def __init__(self, axis: int):
        super().__init__(axis)
        self.axis = axis


class Space(NamedTuple):
    """The points at which a polynomial has its coefficients.

    Attributes:
        axes: names of the axes.
        shape: number of these points along each axis.
        grid_shape: number of points of the problem's own grid along each axis.
        what: what is a polynomial there, for messages.
        stencils: of the axes along which the points are those of a stencil.
        differentiated: the axes along which, and the polynomials of which, derivatives
            were taken, if that is kept.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    grid_shape: tuple[int, ...]
    what: str = RESIDUAL
    stencils: Mapping[int, Stencil] = MappingProxyType({})
    differentiated: "list[tuple[int, Polynomial]] | None" = None


class Polynomial:
    """A polynomial in u, its derivatives and unknown coefficients, over points.

    `u` in a residual is one. Derivatives are attributes: `u.dx`, `u.dxx`, `u.dxy`, and
    `u.d_depth_depth` for axes whose names are longer than a letter. Of products they follow
    by the product rule.
    """

    __slots__ = ("space", "terms")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, space: Space, terms: Mapping[Monomial, Any]):
        self.space = space
        # NumPy makes numbers of what it computes from arrays without axes.
        self.terms = {m: np.asarray(coefficient) for m, coefficient in terms.items()}

    def __getattr__(self, name: str) -> "Polynomial":
        if name.startswith("__"):  # what Python, NumPy and JAX ask of any object
            raise AttributeError(name)
        if self.space.what != RESIDUAL:
            raise AttributeError(
                f"`.{name}` is asked of an unknown coefficient, which is a number.",
                name=name,
                obj=self,
            )
        found = self
        for axis, times in enumerate(_orders(name, self)):
            for _ in range(times):
                found = found._slope(axis)
        for total in {orders for monomial in found.terms for orders in monomial.factors}:
            if max(total) > HIGHEST:
                along = self.space.axes[total.index(max(total))]
                raise AttributeError(
                    f"`u.{name}` has order {max(total)} in `{along}`; derivatives go up to "
                    f"order {HIGHEST} in each variable.",
                    name=name,
                    obj=self,
                )
        return found

    def _slope(self, axis: int) -> "Polynomial":
        """The derivative along an axis, by the product rule."""
        if self.space.differentiated is not None:
            self.space.differentiated.append((axis, self))
        terms: dict[Monomial, Any] = {}

        def add(monomial: Monomial, coefficient: Any) -> None:
            terms[monomial] = terms.get(monomial, 0.0) + coefficient

        for (factors, names), coefficient in self.terms.items():
            slope = _slope_of(coefficient, axis, self.space)
            if slope is not None:
                add(Monomial(factors, names), slope)
            for i, orders in enumerate(factors):
                higher = tuple(k + (j == axis) for j, k in enumerate(orders))
                others = factors[:i] + factors[i + 1 :]
                add(Monomial(tuple(sorted((*others, higher))), names), coefficient)
        return Polynomial(self.space, terms)

    def __repr__(self) -> str:
        return f"Polynomial({list(self.terms)})"

    # Arithmetic.

    def _lift(self, other: Any) -> "Polynomial":
        if isinstance(other, Polynomial):
            return other
        return Polynomial(self.space, {ONE: _coefficient(other, self.space)})

    def __add__(self, other: Any) -> "Polynomial":
        terms: dict[Monomial, Any] = dict(self.terms)
        for monomial, coefficient in self._lift(other).terms.items():
            terms[monomial] = terms.get(monomial, 0.0) + coefficient
        return Polynomial(self.space, terms)

    def __neg__(self) -> "Polynomial":
        return Polynomial(self.space, {m: -c for m, c in self.terms.items()})

    def __pos__(self) -> "Polynomial":
        return self

    def __sub__(self, other: Any) -> "Polynomial":
        return self + -self._lift(other)

    def __rsub__(self, other: Any) -> "Polynomial":
        return self._lift(other) - self

    def __mul__(self, other: Any) -> "Polynomial":
        terms: dict[Monomial, Any] = {}
        for (f, a), c in self.terms.items():
            for (g, b), d in self._lift(other).terms.items():
                product = Monomial(tuple(sorted(f + g)), tuple(sorted(a + b)))
                terms[product] = terms.get(product, 0.0) + c * d
        return Polynomial(self.space, terms)

    def __truediv__(self, other: Any) -> "Polynomial":
        divisor = self._lift(other)
        if set(divisor.terms) != {ONE}:
            _refuse("division by `u` or an unknown coefficient", self.space.what)
        return Polynomial(
            self.space, {m: c / divisor.terms[ONE] for m, c in self.terms.items()}
        )

    def __rtruediv__(self, other: Any) -> "Polynomial":
        return self._lift(other) / self

    def __pow__(self, power: Any) -> "Polynomial":
        try:
            times = operator.index(power)
        except TypeError:
            times = -1
        if times < 0:
            _refuse(f"the power {short(power)}", self.space.what)
        result = self._lift(1.0)
        for _ in range(times):
            result = result * self
        return result

    __radd__ = __add__
    __rmul__ = __mul__

    # Operations that would otherwise give a wrong answer.

    def __eq__(self, other: Any) -> Any:
        _refuse("a comparison", self.space.what)

    def __bool__(self) -> bool:
        _refuse("`u` for a condition", self.space.what)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        _refuse("`u` for an array", self.space.what)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs) -> "Polynomial":
        # NumPy asks this too for `array * u`.
        if method != "__call__" or kwargs or ufunc not in _UFUNCS:
            _refuse(f"`{ufunc.__name__}`", self.space.what)
        first, *others = inputs
        return _UFUNCS[ufunc](self._lift(first), *others)

    def __array_function__(self, function, types, args, kwargs) -> NoReturn:
        _refuse(f"`{function.__name__}`", self.space.what)


_UFUNCS: dict[Any, Callable[..., Polynomial]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.power: operator.pow,
    np.negative: operator.neg,
    np.positive: operator.pos,
    np.square: lambda u: u * u,
}


def _refuse(failed: str, what: str) -> NoReturn:
    name, is_one = what, "a value is a polynomial in unknown coefficients"
    if what == RESIDUAL:
        name = "residual"
        is_one = "a residual is a polynomial in `u` and its derivatives"
    raise ValueError(
        f"`{name}`: operator not understood: {failed}; {is_one}, {_OPERATORS}."
    )


def _orders(name: str, u: Polynomial) -> Orders:
    """`dxxy` as `(2, 1)`."""
    axes = u.space.axes
    letters = "|".join(re.escape(axis) for axis in axes if len(axis) == 1)
    # The longest name first: an axis may be called as another and more.
    names = "|".join(re.escape(axis) for axis in sorted(axes, key=len, reverse=True))
    if letters and re.fullmatch(f"d({letters})+", name):
        named = re.findall(letters, name[1:])
    elif re.fullmatch(f"d(_({names}))+", name):
        named = re.findall(f"_({names})(?=_|$)", name[1:])
    else:
        first = axes[0] if len(axes[0]) == 1 else f"_{axes[0]}"
        listed = ", ".join(f"`{axis}`" for axis in axes)
        raise AttributeError(
            f"`u.{name}` is no derivative; the axes are {listed}: `u.d{first}`, "
            f"`u.d{first}{first}`.",
            name=name,
            obj=u,
        )
    return tuple(named.count(axis) for axis in axes)


def _coefficient(value: Any, space: Space) -> np.ndarray:
    array = as_numbers(value, space.what)
    if array.shape in ((), space.shape):
        return array
    if array.shape == space.grid_shape:
        raise ValueError(
            f"`{space.what}` has a coefficient of shape {array.shape}, that of "
            "the grid, but is needed at other points, too; compute it from the coordinates."
        )
    hint = all_at_once(array.shape, len(space.axes), space.shape)
    raise ValueError(
        f"`{space.what}` has a coefficient or source of shape {array.shape}; it takes a "
        f"number, or one per point: {space.shape}.{hint}"
    )


def _slope_of(coefficient: np.ndarray, axis: int, space: Space) -> np.ndarray | None:
    """The derivative of a coefficient along an axis; None if it does not depend on it."""
    if coefficient.ndim == 0 or not np.ptp(coefficient, axis).any():
        return None
    if axis not in space.stencils:
        raise _SlopeAsked(axis)
    stencil = space.stencils[axis]
    values = np.moveaxis(coefficient, axis, -1)
    by_point = values.reshape(*values.shape[:-1], -1, 5)
    slopes = (by_point @ stencil.slope.T) / stencil.width[:, None]
    # Where the coefficient is constant there is no rounding for a next derivative.
    slopes[np.ptp(by_point, -1) == 0] = 0.0
    slopes = slopes.reshape(values.shape)
    _refuse_jump(values[..., stencil.own], slopes[..., stencil.own], axis, space)
    return np.moveaxis(slopes, -1, axis)


def _refuse_jump(values: np.ndarray, slopes: np.ndarray, axis: int, space: Space) -> None:
    """Refuse a coefficient whose derivative does not explain how it changes.

    Between its points a jump has a derivative that no point sees, and the equation would
    be solved as if it were not there.
    """
    stencil, name = space.stencils[axis], space.axes[axis]
    x, first = stencil.points[stencil.own], stencil.first
    rises = np.diff(x) * (slopes[..., 1:] + slopes[..., :-1]) / 2
    left = np.abs(np.diff(values) - rises)[..., first]
    worst = np.unravel_index(np.argmax(left), left.shape)
    if left[worst] > LARGEST_JUMP * np.ptp(values):
        low, high = x[first[worst[-1]] :][:2]
        raise ValueError(
            f"`{space.what}` takes the derivative of a coefficient that jumps between "
            f"{name} = {low:.6g} and {high:.6g}, or changes too fast for the grid; say "
            f'where it jumps by `breaks={{"{name}": [...]}}`, make it smooth over several '
            "points, or raise `shape`."
        )


def all_at_once(shape: tuple[int, ...], num_axes: int, wanted: tuple[int, ...]) -> str:
    """A hint, if a function took the named tuple for an array."""
    if shape != (num_axes, *wanted):
        return ""
    return " Coordinates are a named tuple: give functions one of them, such as `p.x`."


def as_numbers(value: Any, what: str) -> np.ndarray:
    """Real numbers as a float64 NumPy array, NaN and infinities among them.

    Raises:
        ValueError: for anything else.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # a tracer, or rows that differ in length
        array = np.array(None)
    if array.dtype.kind not in "iubf" and array.dtype.name != "bfloat16":
        kind = type(value).__name__ if array.dtype == object else f"{array.dtype} values"
        raise ValueError(f"`{what}` got {kind}; it takes real numbers.")
    return array.astype(np.float64)


# Asking the user's functions.


def coordinates(axes: Sequence[str], grid: Sequence[np.ndarray]) -> Any:
    """Coordinates of a tensor grid's points, as a user's functions get them.

    Returns:
        In one dimension the array, shape `(n,)`; otherwise a named tuple with one array
        per axis, each of the shape of the grid.
    """
    if len(axes) == 1:
        return np.array(grid[0])
    arrays = np.meshgrid(*grid, indexing="ij")
    return tuple_of("Coordinates", axes, arrays)


def tuple_of(kind: str, names: Sequence[str], values: Sequence[Any]) -> Any:
    """A named tuple of them."""
    return namedtuple(kind, names)(*values)


def call(function: Callable[..., Any], arguments: Sequence[Any], what: str) -> Any:
    """`function(*arguments)`, with a clear message for mistakes in the user's function.

    Raises:
        ValueError: for an operator that polynomials do not have, an axis that does not
            exist, an unknown coefficient that is not declared, or another number of
            arguments.
    """
    if not takes(function, len(arguments)):
        words = ("coordinates",) if len(arguments) == 1 else ("u", "coordinates", "unknown")
        wanted = ", ".join(words[: len(arguments)])
        raise ValueError(f"`{what}`: it takes a function of ({wanted}).")
    try:
        # Values that are not finite are refused later, with their place.
        with np.errstate(all="ignore"):
            return function(*arguments)
    except AttributeError as error:
        asked: Any = error.obj
        known = any(argument is asked for argument in arguments)
        if isinstance(asked, Polynomial):
            raise ValueError(f"`{what}`: {error}") from None
        if known and isinstance(asked, np.ndarray):
            raise ValueError(
                f"`{what}` asks the coordinates for `.{error.name}`; in one dimension they "
                "are the array itself."
            ) from None
        if known:
            listed = ", ".join(f"`{name}`" for name in asked._fields) or "none"
            of = "domain" if type(asked).__name__ == "Coordinates" else "unknown"
            raise ValueError(
                f"`{what}` asks for `.{error.name}`, but `Problem({of}=...)` has: {listed}."
            ) from None
        raise
    except TypeError as error:
        if Polynomial.__name__ not in str(error):
            raise
        _refuse(_what_failed(error), what)


def takes(function: Any, count: int) -> bool:
    """Whether `function` can be called with `count` arguments; True if that is unknown."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # some functions written in C have no signature
        return True
    return True


def _what_failed(error: Exception) -> str:
    line = str(error).splitlines()[0]
    # The two forms of JAX's own message.
    of_jax = re.search(r"<function (\w+)|^(\w+) requires ndarray", line)
    if of_jax:
        return f"`{of_jax[1] or of_jax[2]}` of JAX"
    return line.rstrip(".") if len(line) <= 80 else f"{line[:77]}..."


def place(bad: np.ndarray, axes: Sequence[str], arrays: Sequence[np.ndarray]) -> str:
    """The coordinates of the first bad point, in words."""
    first = tuple(np.argwhere(bad)[0])
    at = ", ".join(
        f"{axis} = {float(array[first]):.6g}"
        for axis, array in zip(axes, arrays, strict=True)
    )
    more = int(bad.sum()) - 1
    return at + (f" and {more} other points" if more else "")


# The equation at the points of a grid.


def evaluate(residual, axes, grid, counts, unknown, varying=(), charts=None) -> Polynomial:
    """The user's residual as a polynomial, its coefficients at the points of a grid.

    Args:
        residual: the user's function.
        axes: names of the axes.
        grid: points of each axis, one array of shape `(n,)` per axis.
        counts: number of points along each axis of the problem's own grid.
        unknown: name, low and high of each unknown number.
        varying: the coefficients that vary.
        charts: of each axis, or None for axes that are even and without breaks.

    Returns:
        The polynomial. If an axis breaks, its space has what was differentiated.

    Raises:
        ValueError: if it is not such a function, or not finite at some point.
    """
    stencils: dict[int, Stencil] = {}
    charts = charts or (None,) * len(axes)
    kept = any(chart is not None and chart.breaks for chart in charts)
    while True:
        try:
            found = _evaluated(
                residual, axes, grid, counts, unknown, varying, stencils, kept
            )
            break
        except _SlopeAsked as asked:
            j = asked.axis
            stencils[j] = Stencil.of(grid[j], charts[j])
    arrays = [coordinates(axes, grid)] if len(axes) == 1 else coordinates(axes, grid)
    for monomial, coefficient in found.terms.items():
        bad = ~np.isfinite(coefficient)
        if bad.any():
            part = "a coefficient" if monomial.factors else "the source"
            where = f" at {place(bad, axes, arrays)}" if bad.ndim else ""
            raise ValueError(f"`{RESIDUAL}`: {part} is NaN or infinite{where}.")
    return found


def _evaluated(
    residual, axes, grid, counts, unknown, varying, stencils, kept
) -> Polynomial:
    """As `evaluate`, with the points of stencils along some axes, and not checked."""
    wide = [stencils[j].points if j in stencils else x for j, x in enumerate(grid)]
    shape = tuple(len(x) for x in wide)
    if stencils and math.prod(shape) > MOST_POINTS:
        raise ValueError(
            f"`{RESIDUAL}` takes the derivative of a coefficient on a grid that is too "
            "large for it; apply the product rule yourself, `(k * u.dx).dx` is "
            "`k * u.dxx + dk * u.dx`, or use a smaller `shape`."
        )
    differentiated: list[tuple[int, Polynomial]] | None = [] if kept else None
    space = Space(axes, shape, counts, stencils=stencils, differentiated=differentiated)
    flat = (0,) * len(axes)
    u = Polynomial(space, {Monomial((flat,), ()): 1.0})
    places = coordinates(axes, wide)
    arguments: list[Any] = [u, places]
    # A residual of two arguments is one of unknowns that are on faces alone.
    of_two, of_three = takes(residual, 2), takes(residual, 3)
    if (of_three or not of_two) if unknown else (of_three and not of_two):
        arguments.append(unknowns(space, unknown, varying, wide))
    found = call(residual, arguments, RESIDUAL)
    if not isinstance(found, Polynomial):
        _refuse_result(found)
    if not stencils:
        return found
    own = [stencils[j].own if j in stencils else np.arange(n) for j, n in enumerate(shape)]
    at = np.ix_(*own)
    narrow = Space(axes, tuple(map(len, own)), counts)

    def at_own(wide: Polynomial, space: Space) -> Polynomial:
        terms = {m: c[at] if c.ndim else c for m, c in wide.terms.items()}
        return Polynomial(space, terms)

    if differentiated is not None:
        every = [(axis, at_own(one, narrow)) for axis, one in differentiated]
        narrow = narrow._replace(differentiated=every)
    return at_own(found, narrow)


def unknowns(space: Space, unknown, varying=(), grid=()) -> Any:
    """Stand-ins for unknown coefficients, in the named tuple that functions get.

    Args:
        space: where the functions are evaluated.
        unknown: name, low and high of each unknown number.
        varying: the coefficients that vary.
        grid: points of each axis, for these.
    """
    weights = {name for one in varying for name in one.weights}
    named = {
        name: Polynomial(space, {Monomial((), (name,)): 1.0})
        for name, _, _ in unknown
        if name not in weights
    }
    for one in varying:
        shape = [1] * len(space.axes)
        shape[one.axis] = -1
        functions = [f.reshape(shape) for f in one.functions(grid[one.axis]).T]
        terms: dict[Monomial, Any] = {ONE: one.mean}
        for name, function in zip(one.weights, functions, strict=True):
            terms[Monomial((), (name,))] = np.broadcast_to(function, space.shape)
        named[one.name] = Polynomial(space, terms)
    return tuple_of("Unknown", list(named), list(named.values()))


def _refuse_result(found: Any) -> None:
    numbers = isinstance(found, int | float | np.ndarray | np.generic | jax.Array)
    got = "numbers without `u`" if numbers else f"a {type(found).__name__}"
    if found is None:
        got = "None (does it `return`?)"
    raise ValueError(
        f"`Problem(residual=...)` returned {got}; it takes an expression in `u` and its "
        "derivatives that is zero for the solution, such as `u.dxx - f(x)`."
    )


def equations(polynomials: list[Polynomial]) -> list[Equation]:
    """One equation per set of points, all with the same terms.

    Raises:
        ValueError: if the residual has different terms on different sets.
    """
    kinds = {monomial for polynomial in polynomials for monomial in polynomial.terms}
    if any(set(polynomial.terms) != kinds for polynomial in polynomials):
        raise ValueError(
            "`Problem(residual=...)` has other terms on the grid than between its points; "
            "it takes the same expression everywhere."
        )
    # Terms that cancel, as in u * u - u**2, are dropped.
    kept = sorted(
        monomial
        for monomial in kinds
        if any(np.any(polynomial.terms[monomial] != 0) for polynomial in polynomials)
    )
    return [
        Equation(tuple(kept), tuple(jnp.array(polynomial.terms[m]) for m in kept))
        for polynomial in polynomials
    ]


def refuse_without_u(
    residual, equation: Equation, on_faces: set[str], unknown, observed: bool
) -> None:
    """Refuse an equation without u, and unknown coefficients that nothing determines.

    Args:
        residual: the user's function.
        equation: the equation.
        on_faces: names of the unknown coefficients in conditions.
        unknown: name, low and high of each unknown coefficient.
        observed: whether there are observations.
    """
    if not equation.orders:
        raise ValueError(
            "`Problem(residual=...)` has no `u` in it; it takes an expression in `u` and "
            "its derivatives that is zero for the solution, such as `u.dxx - f(x)`."
        )
    used = on_faces.union(equation.unknowns)
    unused = [name for name, _, _ in unknown if name not in used]
    if unused and not takes(residual, 3):
        raise ValueError(
            f"`{RESIDUAL}`: it takes a function of (u, coordinates, unknown), for "
            f"{unused[0]!r} of `Problem(unknown=...)`."
        )
    if unused:
        raise ValueError(
            f"`Problem(unknown=...)` has {unused[0]!r}, but the residual does not, nor "
            "does a condition, so that nothing determines its value. Drop it, or put it "
            "into one of them."
        )
    if on_faces and not observed:
        raise ValueError(
            f"`Problem(boundary=...)` has the unknown {min(on_faces)!r}, which only "
            "observations can determine, and there are none; give `observations=`."
        )
