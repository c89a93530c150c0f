"""Conditions on faces of the domain, and observations at points."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.models.pde.equation import Equation, Monomial, Orders
from probkit.models.pde.residual import (
    HIGHEST,
    ONE,
    Polynomial,
    Space,
    all_at_once,
    as_numbers,
    call,
    coordinates,
    place,
    takes,
    unknowns,
)
from probkit.validate import as_array, positive, short, whole

Side = Literal["low", "high", "periodic"]
Value = Callable[[Any], Any] | Any


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """u is given on faces of the domain. `Problem` checks the arguments.

    Args:
        value: u, in its own units: a number, an array of the shape of the face (that of
            the grid without the axis), or a function of the coordinates. A function of
            two arguments gets the unknown coefficients as well, `lambda x, c: c.g`, and
            may be any polynomial in them.
        on: `"x"` for both ends of axis x, `"x-"` for the low, `"x+"` for the high one, or
            several in a tuple. By default every face that no other condition takes.
    """

    value: Value
    on: str | Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Neumann:
    """The derivative of u along the axis is given on faces of the domain.

    It is ∂u/∂x in the direction of the axis at both ends. At the low end it is therefore
    minus the derivative along the outward normal. `Problem` checks the arguments.

    Args:
        value: as for `Dirichlet`, in units of u per unit of the axis.
        on: as for `Dirichlet`.
    """

    value: Value
    on: str | Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Derivative:
    """A derivative of u along the axis, of a given order, is given on faces of the domain.

    It is for equations of third and fourth order. In a beam the second is its bending
    moment and the third its shear, over its stiffness. `Problem` checks the arguments.

    Args:
        value: as for `Dirichlet`, in units of u per unit of the axis to the power `order`.
        order: 1 to 4. The first is what `Neumann` gives.
        on: as for `Dirichlet`.
    """

    value: Value
    order: int = field(kw_only=True)
    on: str | Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Robin:
    r"""The sum of the derivative along the axis and a multiple of u is given on faces.

    $$∂u/∂x + w u = g$$

    with the derivative in the direction of the axis at both ends, as `Neumann` has it. A
    wall of conductivity k that loses h (u - s) to surroundings at s has w = h / k and
    g = s h / k at its high end, and w = -h / k and g = -s h / k at its low end. `Problem`
    checks the arguments.

    Args:
        value: g, as for `Dirichlet`, in units of u per unit of the axis.
        weight: w, as for `Dirichlet`, in one over the unit of the axis.
        on: as for `Dirichlet`.
    """

    value: Value
    weight: Value = field(kw_only=True)
    on: str | Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Periodic:
    """u and its derivatives along an axis agree at the two ends.

    They are those of an order below that of the equation, and the first in any case.

    Args:
        axis: the name of the axis. `Problem` checks it.
    """

    axis: str


@dataclass(frozen=True, eq=False)
class Initial:
    """u is given at the low end of an axis, and nothing at its high end.

    `Problem` checks the arguments.

    Args:
        value: u, as for `Dirichlet`.
        velocity: ∂u/∂t in units of u per unit of the axis, as for `Dirichlet`; for
            equations of second order in time. None if it is not given.
        axis: the name of the axis of time.
    """

    value: Value
    velocity: Value = None
    axis: str = "t"


@dataclass(frozen=True, eq=False)
class Observations:
    """Values of u at points, measured with noise. `Problem` checks the arguments.

    Args:
        points: shape `(m, d)`, one row per point and one column per axis, in units of the
            axes; in one dimension also `(m,)`.
        values: shape `(m,)`, in units of u.
        noise_sd: the standard deviation of the noise, in units of u: one number, or one per
            observation, shape `(m,)`. None to estimate one for all.
    """

    points: Any
    values: Any
    noise_sd: Any = None


OnFaces = Dirichlet | Neumann | Derivative | Robin


class Condition(eqx.Module):
    r"""What is known on one face, at the grid's points.

    $$∂^n u + m(u) = g$$

    Attributes:
        axis: the axis that the face is across.
        side: its low or high end. With `"periodic"` `values` is the difference of both,
            high less low.
        order: $n$, order of the derivative along the axis; 0 is u itself.
        values: $g$, shape of the face, which is that of the grid without the axis.
        more: $m$, what is added to the derivative: multiples of u, and what of the value
            depends on unknown coefficients; None for nothing.
    """

    axis: int = eqx.field(static=True)
    side: Side = eqx.field(static=True)
    order: int = eqx.field(static=True)
    values: Float[Array, "..."]
    more: Equation | None = None

    @property
    def equation(self) -> Equation:
        """$∂^n u + m(u) - g$, which is zero at the points of the face."""
        axes = range(self.values.ndim + 1)
        own = Monomial((tuple(self.order if i == self.axis else 0 for i in axes),), ())
        terms = {own: jnp.ones(()), ONE: -self.values}
        if self.more is not None:
            terms |= zip(self.more.monomials, self.more.coefficients, strict=True)
        return Equation(tuple(terms), tuple(terms.values()))

    def operator(self, unknowns: Mapping[str, Any]) -> dict[Orders, Float[Array, "..."]]:
        """The coefficients of u and its derivatives."""
        return self.equation.jacobian({}, unknowns)

    def given(self, unknowns: Mapping[str, Any]) -> Float[Array, "..."]:
        """What u and its derivatives add up to, shape of the face."""
        return -self.equation.source(unknowns)


class _Face(NamedTuple):
    """A condition as the user gave it, on one face."""

    axis: int
    side: Side
    order: int
    value: Value
    what: str
    weight: Value = None


def read_conditions(
    given: Any, axes: tuple[str, ...], grid: Sequence[np.ndarray], highest, unknown
) -> tuple[Condition, ...]:
    """Conditions on the grid, from what the user gave as `boundary`.

    Args:
        given: what the user gave.
        axes: names of the axes.
        grid: points of each axis.
        highest: the highest order of a derivative along each axis in the equation.
        unknown: name, low and high of each unknown coefficient.
    """
    faces: list[_Face] = []
    for one in _listed(given):
        for face in _faces(one, axes, highest):
            _refuse_twice(face, faces, axes)
            faces.append(face)
    for one in _without_place(given):
        faces += _remaining(one, axes, faces)
    # By face, so that the order of a user's list makes no difference.
    faces.sort(key=lambda face: (face.axis, face.side != "low", face.order))
    return tuple(_condition(face, axes, grid, unknown) for face in faces)


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    listed = list(given) if isinstance(given, list | tuple) else [given]
    for one in listed:
        if not isinstance(one, OnFaces | Periodic | Initial):
            raise ValueError(
                f"`Problem(boundary=...)` got {short(one)}; it takes `pde.Dirichlet`, "
                "`pde.Neumann`, `pde.Derivative`, `pde.Robin`, `pde.Periodic`, "
                "`pde.Initial`, or a list of them."
            )
    return listed


def _without_place(given: Any) -> list[OnFaces]:
    everywhere = [
        one for one in _listed(given) if isinstance(one, OnFaces) and one.on is None
    ]
    if len(everywhere) > 1:
        raise ValueError(
            "`Problem(boundary=...)` has two conditions without `on`, each for all faces "
            'that remain; give `on` to one, such as `on="x-"`.'
        )
    return everywhere


def _faces(one: Any, axes: tuple[str, ...], highest) -> Iterator[_Face]:
    name = type(one).__name__
    match one:
        case Periodic(axis):
            i = _axis(axis, axes, f"Periodic({short(axis)})")
            for order in range(max(2, highest[i] if highest else 0)):
                yield _Face(i, "periodic", order, 0.0, name)
        case Initial(value, velocity, axis):
            i = _axis(axis, axes, f"Initial(axis={short(axis)})")
            yield _Face(i, "low", 0, value, "Initial(...)")
            if velocity is not None:
                yield _Face(i, "low", 1, velocity, "Initial(velocity=...)")
        case Dirichlet() | Neumann() | Derivative() | Robin() if one.on is not None:
            for i, side in _places(one.on, axes, name):
                face = f"{axes[i]}{'-' if side == 'low' else '+'}"
                yield _on_face(one, i, side, f'{name}(on="{face}")')


def _on_face(one: OnFaces, i: int, side: Side, what: str) -> _Face:
    order = int(not isinstance(one, Dirichlet))
    if isinstance(one, Derivative):
        order = _order(one.order)
        what = what.replace("(", f"(order={order}, ")
    weight = one.weight if isinstance(one, Robin) else None
    return _Face(i, side, order, one.value, what, weight)


def _order(given: Any) -> int:
    try:
        order = whole("order", 1)(given)
    except ValueError:
        order = 0
    if not 1 <= order <= HIGHEST:
        raise ValueError(
            f"`Derivative(order={short(given)})`: it takes a whole number, 1 to {HIGHEST}."
        )
    return order


def _axis(name: Any, axes: tuple[str, ...], what: str) -> int:
    if name not in axes:
        raise ValueError(f"`{what}`: there is no such axis; the axes are {_names(axes)}.")
    return axes.index(name)


def _names(axes: Sequence[str]) -> str:
    return ", ".join(f"`{axis}`" for axis in axes)


def _places(on: Any, axes: tuple[str, ...], name: str) -> Iterator[tuple[int, Side]]:
    listed = [on] if isinstance(on, str) else on
    if not isinstance(listed, list | tuple) or not listed:
        listed = [on]
    for face in listed:
        ends: dict[str, tuple[Side, ...]] = {"-": ("low",), "+": ("high",)}
        text = face if isinstance(face, str) else ""
        axis, sides = (text[:-1], ends[text[-1]]) if text[-1:] in ends else (text, None)
        if axis not in axes:
            raise ValueError(
                f"`{name}(on={short(on)})`: there is no face {short(face)}; axes are "
                f'{_names(axes)}: "{axes[0]}" is both ends, "{axes[0]}-" the low and '
                f'"{axes[0]}+" the high one.'
            )
        for side in sides or ("low", "high"):
            yield axes.index(axis), side


def _refuse_twice(face: _Face, before: list[_Face], axes: tuple[str, ...]) -> None:
    for other in before:
        glued = "periodic" in (face.side, other.side)
        both_glued = face.side == other.side == "periodic"
        if face.axis != other.axis:
            continue
        if glued and not both_glued:
            raise ValueError(
                f"`Problem(boundary=...)`: axis `{axes[face.axis]}` is `Periodic`, and has "
                "no ends for another condition; drop one of the two."
            )
        if (face.side, face.order) == (other.side, other.order):
            end = "" if both_glued else f"the {face.side} end of "
            raise ValueError(
                f"`Problem(boundary=...)` gives {end}`{axes[face.axis]}` twice, by "
                f"`{other.what}` and `{face.what}`; drop one."
            )


def _remaining(one: Any, axes: tuple[str, ...], before: list[_Face]) -> list[_Face]:
    taken = {(face.axis, face.side) for face in before}
    # At the high end of time nothing is given, because the equation leads there.
    for face in before:
        if face.side == "periodic" or face.what.startswith("Initial"):
            taken |= {(face.axis, "low"), (face.axis, "high")}
    name = type(one).__name__
    sides: tuple[Side, Side] = ("low", "high")
    faces = [(i, s) for i in range(len(axes)) for s in sides if (i, s) not in taken]
    if not faces:
        raise ValueError(
            f"`{name}(...)` without `on` is for the faces that remain, and there are none; "
            "drop it, or give `on`."
        )
    return [_on_face(one, i, side, f"{name}(...)") for i, side in faces]


def _condition(
    face: _Face, axes: tuple[str, ...], grid: Sequence[np.ndarray], unknown
) -> Condition:
    flat, more = (0,) * len(axes), {}
    values = _values(face, face.value, face.what, axes, grid, unknown)
    known = values.pop((), None)
    if face.what.startswith("Robin"):
        what = f"{face.what[:-1]}, weight=...)"
        weights = _values(face, face.weight, what, axes, grid, unknown)
        more = {Monomial((flat,), names): weight for names, weight in weights.items()}
    more |= {Monomial((), names): -value for names, value in values.items()}
    return Condition(
        face.axis,
        face.side,
        face.order,
        jnp.zeros(_shape(face, grid)) if known is None else known,
        Equation(tuple(sorted(more)), tuple(more[m] for m in sorted(more)))
        if more
        else None,
    )


def _shape(face: _Face, grid: Sequence[np.ndarray]) -> tuple[int, ...]:
    return tuple(len(x) for i, x in enumerate(grid) if i != face.axis)


def _values(
    face: _Face,
    given: Value,
    what: str,
    axes: tuple[str, ...],
    grid: Sequence[np.ndarray],
    unknown,
) -> dict[tuple[str, ...], Float[Array, "..."]]:
    """A value on a face, or a weight there, at the points of the face.

    Returns:
        Its coefficients by the unknowns that multiply them.
    """
    shape = _shape(face, grid)
    end = -1 if face.side == "high" else 0
    pinned = [x[[end]] if i == face.axis else x for i, x in enumerate(grid)]
    places = coordinates(axes, pinned)
    arrays = [places] if len(axes) == 1 else list(places)
    arrays = [np.squeeze(array, face.axis) for array in arrays]
    places = arrays[0] if len(axes) == 1 else type(places)(*arrays)
    if callable(given):
        _refuse_of_u(given, what)
        given = _called(given, places, shape, axes, what, unknown)
    terms = given.terms if isinstance(given, Polynomial) else {ONE: given}
    found = {}
    for monomial, coefficient in terms.items():
        numbers = as_numbers(coefficient, what)
        if numbers.shape not in ((), shape):
            wanted = f"one per point of the face, shape {shape}" if shape else "no array"
            raise ValueError(
                f"`{what}` has values of shape {numbers.shape} at the {face.side} end of "
                f"`{axes[face.axis]}`; it takes a number, or {wanted}."
                f"{all_at_once(numbers.shape, len(axes), shape)}"
            )
        numbers = np.broadcast_to(numbers, shape)
        if not np.all(np.isfinite(numbers)):
            raise ValueError(
                f"`{what}` is NaN or infinite at "
                f"{place(~np.isfinite(numbers), axes, arrays)}."
            )
        # Terms that cancel, as in c.g - c.g, are dropped.
        if monomial == ONE or np.any(numbers):
            found[monomial.unknowns] = jnp.array(numbers)
    return found


def _called(function, places, shape, axes, what: str, unknown) -> Any:
    """What a user's function of coordinates, or of them and the unknowns, returns."""
    if takes(function, 1):
        return call(function, [places], what)
    if not unknown or not takes(function, 2):
        raise ValueError(
            f"`{what}`: it takes a function of (coordinates), or with "
            "`Problem(unknown=...)` of (coordinates, unknown)."
        )
    space = Space(axes, shape, shape, what)
    return call(function, [places, unknowns(space, unknown)], what)


def _refuse_of_u(function: Callable[..., Any], what: str) -> None:
    """Refuse `lambda u: ...`, which would be called with the coordinates."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return
    if names == ["u"]:
        raise ValueError(
            f"`{what}` is a function of `u`; it takes one of the coordinates. For a "
            "multiple of u beside its derivative there is `pde.Robin(value, weight=...)`."
        )


def read_observations(
    given: Any, axes: tuple[str, ...], grid: Sequence[np.ndarray]
) -> tuple[Array, Array, Array | None] | None:
    """Points, values and noise of `Observations`, checked."""
    if given is None:
        return None
    if not isinstance(given, Observations):
        raise ValueError(
            f"`Problem(observations=...)` got {short(given)}; it takes "
            "`pde.Observations(points, values)`."
        )
    points = as_array(given.points, "Observations(points=...)")
    values = as_array(given.values, "Observations(values=...)")
    if points.ndim == 1 and len(axes) == 1:
        points = points[:, None]
    if points.ndim != 2 or points.shape[1] != len(axes) or len(points) == 0:
        raise ValueError(
            f"`Observations(points=...)` has shape {points.shape}; it takes "
            f"(m, {len(axes)}), one row per point and one column per axis "
            f"({_names(axes)})."
        )
    if values.shape != points.shape[:1]:
        raise ValueError(
            f"`Observations(values=...)` has shape {values.shape}, but there are "
            f"{len(points)} points; it takes ({len(points)},)."
        )
    numbers = np.asarray(points)
    for i, (axis, x) in enumerate(zip(axes, grid, strict=True)):
        outside = (numbers[:, i] < x[0]) | (numbers[:, i] > x[-1])
        if outside.any():
            first = int(np.argmax(outside))
            raise ValueError(
                f"`Observations(points=...)[{first}]` is at {axis} = "
                f"{numbers[first, i]:.6g}, outside the domain ({x[0]:.6g}, {x[-1]:.6g}) "
                f"({int(outside.sum())} of {len(points)} are); drop it or widen the domain."
            )
    noise_sd = None if given.noise_sd is None else _noise(given.noise_sd, len(values))
    if noise_sd is None and bool((values == values[0]).all()):
        count = f"all {len(values)} values equal" if len(values) > 1 else "one value"
        raise ValueError(
            f"`Observations(values=...)` has {count}, so that the noise cannot be "
            "estimated; give `noise_sd=`."
        )
    return points.astype(jnp.float64), values.astype(jnp.float64), noise_sd


def _noise(given: Any, count: int) -> Array:
    wanted = (
        f"it takes a positive number, or {count} of them, one per observation, or None to "
        "estimate it."
    )
    if np.ndim(given) == 0:
        try:
            return jnp.asarray(positive("noise_sd")(given), jnp.float64)
        except ValueError:
            what = f"Observations(noise_sd={short(given)})"
            raise ValueError(f"`{what}`: {wanted}") from None
    sds = as_array(given, "Observations(noise_sd=...)").astype(jnp.float64)
    if sds.shape != (count,):
        raise ValueError(
            f"`Observations(noise_sd=...)` has shape {sds.shape}, but there are {count} "
            f"observations; {wanted}"
        )
    bad = np.flatnonzero(np.asarray(sds) <= 0)
    if bad.size:
        raise ValueError(
            f"`Observations(noise_sd=...)[{bad[0]}]` is {float(sds[bad[0]]):.6g} "
            f"({bad.size} of {count} are not positive); {wanted}"
        )
    return sds
