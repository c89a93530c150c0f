"""The distinct coordinates of one mode."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.model.tables import DAY, TICK, Column, column

Kind = Literal["line", "space", "labels"]
# Units of time, in microseconds, coarsest first.
TICKS = {"D": DAY, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "us": 1}
# Neighbours need a distance of so many rounding units, so that it is right to a tenth.
ROUNDING_UNITS = 10


class Axis(eqx.Module):
    """The distinct coordinates of one mode, sorted.

    Attributes:
        name: the name of the mode.
        kind: "line" for one coordinate, "space" for several, "labels" for values without
            an order.
        points: `(p,)` on a line, in units of the coordinate; `(p, d)` in space; the numbers
            from zero for labels. Dates are days since `origin`.
        columns: the names of the coordinates.
        labels: one per point, for labels.
        origin: the day from which dates are counted, in ISO format.
        zone: the time zone of dates that were given with one. They are answered in UTC.
        resolution: of dates: the coarsest of "D", "h", "m", "s" and "us" that gives them
            all.
        length: the range of the points, in units of the coordinate; `(d,)` in space.
        spacing: the mean distance of neighbours, in units of the coordinate; `(d,)` in
            space, where it is that of points spread evenly over the box. Both stay the same
            when points of queries are added, because priors are rescaled by them.
    """

    name: str = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    points: Array
    columns: tuple[str, ...] = eqx.field(static=True)
    labels: tuple[str, ...] | None = eqx.field(static=True)
    origin: str | None = eqx.field(static=True)
    zone: str | None = eqx.field(static=True)
    resolution: str | None = eqx.field(static=True)
    length: Array
    spacing: Array

    def __init__(
        self,
        name: str,
        kind: Kind,
        points: Array,
        columns: tuple[str, ...],
        labels: tuple[str, ...] | None = None,
        origin: str | None = None,
        zone: str | None = None,
        resolution: str | None = None,
        length: Array | None = None,
        spacing: Array | None = None,
    ):
        self.name, self.kind, self.columns, self.labels = name, kind, columns, labels
        self.points = points
        self.origin, self.zone, self.resolution = origin, zone, resolution
        self.length = points.max(0) - points.min(0) if length is None else length
        self.spacing = self.length / (_along(points) - 1) if spacing is None else spacing

    def __len__(self) -> int:
        """The number of distinct coordinates."""
        return len(self.points)

    def coords(self) -> np.ndarray:
        """Labels of the points: numbers, dates, or text; in space, numbers from zero."""
        if self.labels is not None:
            return np.array(self.labels)
        if self.origin is not None:
            return dates_of(np.asarray(self.points), self.origin, self.resolution or "us")
        return np.arange(len(self)) if self.kind == "space" else np.asarray(self.points)

    def place(self, given: Any, what: str = "Axis.place") -> "Placed":
        """Where other coordinates are.

        Args:
            given: coordinates of the same kind as those of the data: numbers, dates, also
                as ISO text, or labels, `(m,)`; in space `(m, d)`.
            what: the name of the call, for messages.

        Raises:
            ValueError: for coordinates of another kind, missing or infinite ones, or dates
                with a time zone where the data have none, or the reverse.
        """
        if self.origin is not None:
            given = _parsed(given)
        columns = [
            column(one, name, what, self.labels is not None)
            for name, one in zip(
                self.columns, split(given, self.columns, what), strict=True
            )
        ]
        return placed(self, columns, what)

    @property
    def holds(self) -> Literal["numbers", "dates", "labels"]:
        """What the coordinates are, in the user's table."""
        return "labels" if self.labels else "dates" if self.origin else "numbers"

    def column(self, places: Any) -> list[Column]:
        """The coordinates of entries at some points, as they were given."""
        if self.kind == "space":
            return [Column("numbers", x) for x in np.asarray(self.points)[places].T]
        return [Column(self.holds, self.coords()[places], self.zone)]


class Placed(NamedTuple):
    """Coordinates of one mode for queries.

    Attributes:
        axis: the distinct ones; its `length` and `spacing` are those of the data.
        places: which of them each query has.
        seen: which point of the data each of them is, or -1 if it is none.
    """

    axis: Axis
    places: Int[Array, " m"]
    seen: Int[Array, " q"]


def placed(axis: Axis, columns: Sequence[Column], what: str) -> Placed:
    """`Axis.place`, for columns that have been read."""
    _refuse_other_kind(axis, columns, what)
    dtype = axis.points.dtype
    other, places = axis_of(axis.name, axis.columns, columns, dtype, what, axis)
    return Placed(other, places, jnp.asarray(_found(other, axis), jnp.int32))


class Merged(NamedTuple):
    """The coordinates of two data in one mode.

    Attributes:
        axis: the distinct ones, with `length`, `spacing` and `origin` of the first.
        first: which of them each point of the first data is.
        second: which of them each point of the second data is.
    """

    axis: Axis
    first: Int[Array, " p"]
    second: Int[Array, " q"]


def merged(first: Axis, second: Axis, what: str) -> Merged:
    """All coordinates of two data. Labels of the first keep their places.

    Args:
        first: the axis whose units are kept.
        second: another axis of the same kind.
        what: the name of the call, for messages.

    Raises:
        ValueError: for coordinates of another kind.
    """
    p, q = len(first), len(second)
    columns = second.column(np.arange(q))
    _refuse_other_kind(first, columns, what)
    if first.labels is not None:
        labels = tuple(dict.fromkeys((*first.labels, *(second.labels or ()))))
        place = {label: i for i, label in enumerate(labels)}
        found = [place[label] for label in second.labels or ()]
        axis = Axis(
            first.name,
            first.kind,
            jnp.arange(len(labels), dtype=first.points.dtype),
            first.columns,
            labels,
            length=first.length,
            spacing=first.spacing,
        )
        return Merged(axis, jnp.arange(p, dtype=jnp.int32), jnp.asarray(found, jnp.int32))
    both = [
        a._replace(values=np.concatenate([a.values, b.values]))
        for a, b in zip(first.column(np.arange(p)), columns, strict=True)
    ]
    dtype = first.points.dtype
    axis, places = axis_of(first.name, first.columns, both, dtype, what, first)
    return Merged(axis, places[:p], places[p:])


def axis_of(
    name: str,
    names: tuple[str, ...],
    columns: Sequence[Column],
    dtype: Any,
    what: str,
    like: Axis | None = None,
) -> tuple[Axis, Int[Array, " n"]]:
    """The distinct coordinates of a mode, and which of them each entry has.

    Args:
        name: the name of the mode.
        names: the names of its columns.
        columns: one for a line or labels, several for a space.
        dtype: of the points.
        what: the name of the call, for messages.
        like: the axis of the data, for queries. Its origin, length and spacing are kept.

    Raises:
        ValueError: for a space of other than numbers, and for coordinates that the dtype
            cannot tell from each other.
    """
    kinds = {one.kind for one in columns}
    labels = origin = zone = resolution = None
    kind: Kind = "line" if len(columns) == 1 else "space"
    if kind == "space" and kinds != {"numbers"}:
        raise ValueError(
            f"`{what}`: the mode `{name}` has several columns, of "
            f"{' and '.join(sorted(kinds))}; several columns are numbers, such as latitude "
            "and longitude."
        )
    values = [one.values for one in columns]
    if kinds == {"labels"}:
        kind = "labels"
        found, places = np.unique(values[0], return_inverse=True)
        labels = tuple(str(one) for one in found)
        points = np.arange(len(found), dtype=dtype)
    elif kinds == {"dates"}:
        zone = columns[0].zone
        origin = (
            str(values[0].min().astype("datetime64[D]")) if like is None else like.origin
        )
        ticks = (values[0] - np.datetime64(str(origin)).astype(TICK)).astype(np.int64)
        resolution = next(unit for unit, size in TICKS.items() if not np.any(ticks % size))
        points, places = np.unique((ticks / DAY).astype(dtype), return_inverse=True)
        _refuse_changed_dates(
            points[places], values[0], str(origin), resolution, names[0], what
        )
    elif kind == "line":
        points, places = np.unique(values[0].astype(dtype), return_inverse=True)
        if like is None:
            _refuse_rounded(points, names[0], what)
    else:
        stacked = np.stack(values, 1).astype(dtype)
        for given, one in zip(names, stacked.T if like is None else (), strict=False):
            _refuse_rounded(np.unique(one), given, what)
        points, places = np.unique(stacked, axis=0, return_inverse=True)
    axis = Axis(
        name,
        kind,
        jnp.asarray(points),
        names,
        labels,
        origin,
        zone,
        resolution,
        None if like is None else like.length,
        None if like is None else like.spacing,
    )
    return axis, jnp.asarray(places.reshape(-1), jnp.int32)


def split(given: Any, names: tuple[str, ...], what: str) -> list[Any]:
    """The columns of coordinates that were given as one array."""
    if len(names) == 1:
        return [given]
    array = np.asarray(given)
    if array.ndim != 2 or array.shape[1] != len(names):
        raise ValueError(
            f"`{what}`: coordinates of {', '.join(names)} have shape {array.shape}; they "
            f"take (n, {len(names)})."
        )
    return list(array.T)


def _parsed(given: Any) -> Any:
    """Dates of ISO text, and all else as it was."""
    array = np.asarray(given)
    if array.dtype.kind == "U" or all(isinstance(one, str) for one in array.ravel()):
        try:
            return array.astype(str).astype(TICK)
        except ValueError:
            return given
    return given


def dates_of(days: np.ndarray, origin: str, resolution: str) -> np.ndarray:
    """Dates from days since an origin, rounded to a resolution."""
    size = TICKS[resolution]
    ticks = np.round(days.astype(float) * (DAY / size)).astype(np.int64) * size
    return np.datetime64(origin).astype(TICK) + ticks.astype("timedelta64[us]")


def _along(points: Array) -> Float[Array, "*d"]:
    """How many points there are along each coordinate, if they fill the box evenly."""
    if points.ndim == 1:
        return jnp.asarray(max(2, len(points)), points.dtype)
    fill = max(2, round(len(points) ** (1 / points.shape[1])))
    steps = jnp.diff(jnp.sort(points, 0), axis=0) != 0
    return jnp.clip(1 + steps.sum(0), 2, fill).astype(points.dtype)


def _found(queries: Axis, data: Axis) -> np.ndarray:
    """Which point of the data each query is, or -1."""
    if data.labels is not None:
        known = {label: i for i, label in enumerate(data.labels)}
        return np.array([known.get(label, -1) for label in queries.labels or ()])
    old, new = np.asarray(data.points), np.asarray(queries.points)
    both, inverse = np.unique(np.concatenate([old, new]), axis=0, return_inverse=True)
    where = np.full(len(both), -1)
    inverse = inverse.reshape(-1)
    where[inverse[: len(old)]] = np.arange(len(old))
    return where[inverse[len(old) :]]


def _refuse_other_kind(axis: Axis, columns: Sequence[Column], what: str) -> None:
    wanted = axis.holds
    for name, one in zip(axis.columns, columns, strict=True):
        if one.kind != wanted:
            raise ValueError(
                f"`{what}`: `{name}` holds {one.kind}; the data of the fit have {wanted} "
                "there, so give those."
            )
        if (one.zone is None) != (axis.zone is None):
            has, other = ("no", "one") if one.zone is None else ("a", "none")
            raise ValueError(
                f"`{what}`: `{name}` has dates with {has} time zone; the data of the fit "
                f"have {other}, so give them alike."
            )


def _refuse_rounded(points: np.ndarray, name: str, what: str) -> None:
    unit = np.finfo(points.dtype).eps * np.abs(points).max()
    if len(points) > 1 and np.ptp(points) < ROUNDING_UNITS * unit * (len(points) - 1):
        raise ValueError(
            f"`{what}`: `{name}` has values up to {float(np.abs(points).max()):g}, which "
            f"{points.dtype} cannot distinguish from their neighbours; subtract a "
            "constant, round them, or call `pk.enable_x64()`."
        )


def _refuse_changed_dates(
    days: np.ndarray, dates: np.ndarray, origin: str, resolution: str, name: str, what: str
) -> None:
    if np.any(dates_of(days, origin, resolution) != dates):
        raise ValueError(
            f"`{what}`: {days.dtype} cannot hold the dates of `{name}` exactly; round "
            "them, or call `pk.enable_x64()`."
        )
