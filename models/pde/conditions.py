"""What is known of a solution besides its equation: on faces, and at points."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.models.pde.residual import (
    all_at_once,
    as_numbers,
    call,
    coordinates,
    place,
)
from probkit.validate import as_array, optional, positive, short

Side = Literal["low", "high", "periodic"]
Value = Callable[[Any], Any] | Any


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """u is told on faces of the domain.

    Args:
        value: a number, an array of the face's shape, or a function of the coordinates.
        on: `"x"` for both ends of axis x, `"x-"` for the low, `"x+"` for the high one, or
            several in a tuple. By default every face that nothing else speaks of.
    """

    value: Value
    on: str | Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Neumann:
    """The derivative of u along the axis is told on faces of the domain.

    It is ∂u/∂x in the direction of the axis itself, at either end: at the low end it is
    minus the derivative along the outward normal.

    Args:
        value: as for `Dirichlet`, in units of u over those of the axis.
        on: as for `Dirichlet`.
    """

    value: Value
    on: str | Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Periodic:
    """u and its derivative along an axis agree at the two ends.

    Args:
        axis: its name.
    """

    axis: str


@dataclass(frozen=True, eq=False)
class Initial:
    """u is told at the low end of an axis, and nothing at its high end.

    Args:
        value: of u; as for `Dirichlet`.
        velocity: of ∂u/∂t, for equations of second order in time.
        axis: the name of time.
    """

    value: Value
    velocity: Value = None
    axis: str = "t"


@dataclass(frozen=True, eq=False)
class Observations:
    """Values of u at points, measured with noise.

    Args:
        points: shape `(m, d)`, a column an axis; in one dimension `(m,)` will do.
        values: shape `(m,)`.
        noise_sd: the standard deviation of the noise, in units of u. None to learn it.
    """

    points: Any
    values: Any
    noise_sd: Any = None


class Condition(eqx.Module):
    """What is known on one face, at the grid's points.

    Attributes:
        axis: the axis that the face is across.
        side: its low or high end; or both: `"periodic"` says that their difference, high
            less low, is `values`.
        order: of the derivative along the axis that is told; 0 is u itself.
        values: of the face's shape, the grid's without the axis.
    """

    axis: int = eqx.field(static=True)
    side: Side = eqx.field(static=True)
    order: int = eqx.field(static=True)
    values: Float[Array, "..."]


class _Told(NamedTuple):
    """A condition as the user gave it, on one face."""

    axis: int
    side: Side
    order: int
    value: Value
    what: str


def read_conditions(
    given: Any, axes: tuple[str, ...], grid: Sequence[np.ndarray]
) -> tuple[Condition, ...]:
    """Conditions on the grid, from what the user said of the boundary."""
    told: list[_Told] = []
    for one in _listed(given):
        for face in _faces(one, axes, told):
            _refuse_twice(face, told, axes)
            told.append(face)
    for one in _without_place(given):
        told += _remaining(one, axes, told)
    # By face, so that the order of a user's list makes no difference.
    told.sort(key=lambda face: (face.axis, face.side != "low", face.order))
    return tuple(
        Condition(face.axis, face.side, face.order, _values(face, axes, grid))
        for face in told
    )


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    listed = list(given) if isinstance(given, list | tuple) else [given]
    for one in listed:
        if not isinstance(one, Dirichlet | Neumann | Periodic | Initial):
            raise ValueError(
                f"`Problem(boundary=...)` got {short(one)}; it takes `pde.Dirichlet`, "
                "`pde.Neumann`, `pde.Periodic`, `pde.Initial`, or a list of them."
            )
    return listed


def _without_place(given: Any) -> list[Dirichlet | Neumann]:
    everywhere = [
        one
        for one in _listed(given)
        if isinstance(one, Dirichlet | Neumann) and one.on is None
    ]
    if len(everywhere) > 1:
        raise ValueError(
            "`Problem(boundary=...)` has two conditions without `on`, each for all faces "
            'that remain; say where, such as `on="x-"`.'
        )
    return everywhere


def _faces(one: Any, axes: tuple[str, ...], told: list[_Told]) -> Iterator[_Told]:
    name = type(one).__name__
    match one:
        case Periodic(axis):
            i = _axis(axis, axes, f"Periodic({short(axis)})")
            for order in (0, 1):
                yield _Told(i, "periodic", order, 0.0, name)
        case Initial(value, velocity, axis):
            i = _axis(axis, axes, f"Initial(axis={short(axis)})")
            yield _Told(i, "low", 0, value, "Initial(...)")
            if velocity is not None:
                yield _Told(i, "low", 1, velocity, "Initial(velocity=...)")
        case Dirichlet(value, on) | Neumann(value, on) if on is not None:
            order = int(isinstance(one, Neumann))
            for i, side in _places(on, axes, name):
                face = f"{axes[i]}{'-' if side == 'low' else '+'}"
                yield _Told(i, side, order, value, f'{name}(on="{face}")')


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


def _refuse_twice(face: _Told, told: list[_Told], axes: tuple[str, ...]) -> None:
    for other in told:
        glued = "periodic" in (face.side, other.side)
        both_glued = face.side == other.side == "periodic"
        if face.axis != other.axis:
            continue
        if glued and not both_glued:
            raise ValueError(
                f"`Problem(boundary=...)`: axis `{axes[face.axis]}` is `Periodic`, and has "
                "no ends where something else could be told; drop one of the two."
            )
        if (face.side, face.order) == (other.side, other.order):
            end = "" if both_glued else f"the {face.side} end of "
            raise ValueError(
                f"`Problem(boundary=...)` tells {end}`{axes[face.axis]}` twice, by "
                f"`{other.what}` and `{face.what}`; drop one."
            )


def _remaining(one: Any, axes: tuple[str, ...], told: list[_Told]) -> list[_Told]:
    taken = {(face.axis, face.side) for face in told}
    # Time has a beginning; what it leads to is not told.
    for face in told:
        if face.side == "periodic" or face.what.startswith("Initial"):
            taken |= {(face.axis, "low"), (face.axis, "high")}
    name, order = type(one).__name__, int(isinstance(one, Neumann))
    sides: tuple[Side, Side] = ("low", "high")
    faces = [(i, s) for i in range(len(axes)) for s in sides if (i, s) not in taken]
    if not faces:
        raise ValueError(
            f"`{name}(...)` without `on` is for the faces that remain, and none does; drop "
            "it, or say where."
        )
    return [_Told(i, side, order, one.value, f"{name}(...)") for i, side in faces]


def _values(
    face: _Told, axes: tuple[str, ...], grid: Sequence[np.ndarray]
) -> Float[Array, "..."]:
    shape = tuple(len(x) for i, x in enumerate(grid) if i != face.axis)
    end = -1 if face.side == "high" else 0
    pinned = [x[[end]] if i == face.axis else x for i, x in enumerate(grid)]
    places = coordinates(axes, pinned)
    arrays = [places] if len(axes) == 1 else list(places)
    arrays = [np.squeeze(array, face.axis) for array in arrays]
    places = arrays[0] if len(axes) == 1 else type(places)(*arrays)
    value = call(face.value, [places], face.what) if callable(face.value) else face.value
    numbers = as_numbers(value, face.what)
    if numbers.shape not in ((), shape):
        wanted = f"one a point of the face, shape {shape}" if shape else "no array"
        raise ValueError(
            f"`{face.what}` has values of shape {numbers.shape} at the {face.side} end of "
            f"`{axes[face.axis]}`; it takes a number, or {wanted}."
            f"{all_at_once(numbers.shape, len(axes), shape)}"
        )
    numbers = np.broadcast_to(numbers, shape)
    if not np.all(np.isfinite(numbers)):
        raise ValueError(
            f"`{face.what}` is NaN or infinite at "
            f"{place(~np.isfinite(numbers), axes, arrays)}."
        )
    return jnp.array(numbers)


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
            f"(m, {len(axes)}), a row a point and a column an axis ({_names(axes)})."
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
    return (
        points.astype(jnp.float64),
        values.astype(jnp.float64),
        optional(_noise)(given.noise_sd),
    )


def _noise(given: Any) -> Array:
    try:
        if np.ndim(given) > 0:
            raise ValueError
        return jnp.asarray(positive("noise_sd")(given), jnp.float64)
    except ValueError:
        raise ValueError(
            f"`Observations(noise_sd={short(given)})`: it takes a positive number, or None "
            "to have it learned."
        ) from None
