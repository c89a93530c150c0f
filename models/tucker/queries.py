"""Coordinates at which a surface is asked for."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from probkit.model.tables import pick
from probkit.models.tucker.axes import Axis, Placed, placed
from probkit.models.tucker.entries import Entries
from probkit.validate import short


class Queries(eqx.Module):
    """Coordinates of the modes of some data, where there may be no entry.

    Attributes:
        axes: the distinct coordinates of each mode. Their lengths and spacings, and the
            origins of dates, are those of the data.
        places: which of them each query has.
        seen: which point of the data each distinct coordinate is, or -1 if it is none, such
            as a station that the data lack.
        shape: the sizes of the modes that `dims` names, whose product is the number of
            queries, in C order.
        dims: names of the axes of what is answered: `("entry",)`, or modes of a grid.
    """

    axes: tuple[Axis, ...]
    places: Int[Array, "m k"]
    seen: tuple[Int[Array, " _q"], ...]
    shape: tuple[int, ...] = eqx.field(static=True)
    dims: tuple[str, ...] = eqx.field(static=True)

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.places)

    def coords(self) -> dict[str, np.ndarray]:
        """Labels of the axes of what is answered: coordinates, and dates as dates."""
        if self.dims == ("entry",):
            return {"entry": np.arange(len(self))}
        return {axis.name: axis.coords() for axis in self.axes if axis.name in self.dims}

    def labelled(self, values: Any, name: str | None = None) -> Any:
        """Answers as an xarray array, in the user's coordinates.

        Args:
            values: one per query, such as an array that `pk.predict` returns: along the
                axes of `dims`, or along one last axis.
            name: of the array.

        Returns:
            An xarray `DataArray`. Of a grid it has one axis per mode that is not held; of
            listed queries it has the coordinates of the modes along `entry`. Axes before
            these are kept.

        Raises:
            ValueError: for another number of values than queries.
        """
        import xarray as xr

        array = np.asarray(values)
        known = getattr(values, "dims", None)
        count = len(self.shape)
        shaped = count > 0 and array.shape[-count:] == self.shape
        shaped = shaped if known is None else "entry" not in known
        wanted = self.shape if shaped else (len(self),)
        before = array.ndim - len(wanted)
        if before < 0 or array.shape[before:] != wanted:
            raise ValueError(
                f"`Queries.labelled` got values of shape {array.shape} for {len(self)} "
                "queries; the last axis has one value per query."
            )
        lead = ("chain", "draw")[:before] if known is None else known[:before]
        coords: dict[str, Any] = dict(self.coords())
        if self.dims == ("entry",):
            for k, axis in enumerate(self.axes):
                columns = axis.column(np.asarray(self.places[:, k]))
                for column, one in zip(axis.columns, columns, strict=True):
                    coords[column] = ("entry", one.values)
        array = array.reshape(*array.shape[:before], *self.shape)
        return xr.DataArray(array, coords, (*lead, *self.dims), name)


def queries(data: Entries, given: Any) -> Queries:
    """Queries at coordinates that are listed, one row per query.

    Args:
        data: the data of the fit.
        given: a table with the columns of the modes, as for `Entries.from_table`; or
            `{mode: coordinates}`, where one value stands for all rows; or `Entries`.

    Returns:
        One query per row, in the same order.

    Raises:
        ValueError: for a mode that is missing, columns that differ in length, and
            coordinates of another kind than those of the data.
    """
    what = "queries"
    if isinstance(given, Queries):
        return given
    if given is data:
        every = [jnp.arange(len(axis), dtype=jnp.int32) for axis in data.axes]
        found = [
            Placed(axis, same, same) for axis, same in zip(data.axes, every, strict=True)
        ]
        return _queries(found, data.places, (len(data),), ("entry",))
    if isinstance(given, Entries):
        return _of_entries(data, given, what)
    columns = [_column(given, axis, what) for axis in data.axes]
    sizes = {len(one) for mode in columns for one in mode if np.ndim(one) > 0}
    if len(sizes) > 1:
        raise ValueError(
            f"`{what}` got columns of {' and '.join(map(str, sorted(sizes)))} values; each "
            "query has one coordinate per mode."
        )
    count = sizes.pop() if sizes else 1
    full = [
        [one if np.ndim(one) > 0 else _repeated(one, count) for one in mode]
        for mode in columns
    ]
    found = [
        axis.place(mode[0] if len(mode) == 1 else np.stack(mode, 1), what)
        for axis, mode in zip(data.axes, full, strict=True)
    ]
    places = jnp.stack([one.places for one in found], 1)
    return _queries(found, places, (count,), ("entry",))


def grid(data: Entries, **coords: Any) -> Queries:
    """Queries at the product of coordinates of the modes.

    Args:
        data: the data of the fit.
        **coords: the coordinates of a mode, in any order, or one value, at which the mode
            is held. They are sorted, and each counts once. A mode that is left out has the
            coordinates of the data. A space has rows of coordinates, `(q, d)`, or one row.

    Returns:
        Queries whose `shape` and `dims` are those of the modes that are not held.

    Raises:
        ValueError: for an unknown mode, no coordinates, and coordinates of another kind
            than those of the data.
    """
    known = [axis.name for axis in data.axes]
    wrong = [name for name in coords if name not in known]
    if wrong:
        raise ValueError(f"`grid({wrong[0]}=...)`: the modes are {', '.join(known)}.")
    found, held = [], []
    for axis in data.axes:
        if axis.name not in coords:
            same = jnp.arange(len(axis), dtype=jnp.int32)
            found.append(Placed(axis, same, same))
            continue
        one = coords[axis.name]
        alone = np.ndim(one) == (1 if axis.kind == "space" else 0)
        held += [axis.name] * alone
        several = np.asarray(one)[None] if alone and axis.kind == "space" else one
        several = _repeated(one, 1) if alone and axis.kind != "space" else several
        if len(several) == 0:
            raise ValueError(f"`grid({axis.name}=...)` is empty; give it a coordinate.")
        found.append(axis.place(several, "grid"))
    sizes = [len(one.axis) for one in found]
    index = np.indices(sizes).reshape(len(sizes), -1).T
    free = [k for k, name in enumerate(known) if name not in held]
    places = jnp.asarray(index, jnp.int32)
    return _queries(
        found, places, tuple(sizes[k] for k in free), tuple(known[k] for k in free)
    )


def _queries(placed: list[Placed], places: Array, shape, dims) -> Queries:
    axes = tuple(one.axis for one in placed)
    return Queries(axes, places, tuple(one.seen for one in placed), shape, dims)


def _repeated(one: Any, count: int) -> np.ndarray | list[Any]:
    return [one] * count


def _column(given: Any, axis: Axis, what: str) -> list[Any]:
    """The columns of a mode."""
    if isinstance(given, Mapping) and axis.name in given:
        one = given[axis.name]
        if axis.kind != "space":
            return [one]
        array = np.asarray(one)
        if array.ndim == 0 or array.shape[-1] != len(axis.columns):
            raise ValueError(
                f"`{what}`: `{axis.name}` has shape {array.shape}; it takes "
                f"(m, {len(axis.columns)}), for {', '.join(axis.columns)}."
            )
        return list(np.moveaxis(array, -1, 0))
    if isinstance(given, list | tuple | np.ndarray):
        raise ValueError(
            f"`{what}` got {short(given)}; it takes a table with the columns "
            f"{', '.join(axis.columns)}, or `{{mode: coordinates}}`."
        )
    return list(pick(given, axis.columns, what).values())


def _of_entries(data: Entries, other: Entries, what: str) -> Queries:
    names = [axis.name for axis in data.axes]
    if [axis.name for axis in other.axes] != names:
        raise ValueError(
            f"`{what}` got entries with the modes "
            f"{', '.join(axis.name for axis in other.axes)}; the data of the fit have "
            f"{', '.join(names)}."
        )
    found = [
        placed(axis, one.column(np.asarray(other.places[:, k])), what)
        for k, (axis, one) in enumerate(zip(data.axes, other.axes, strict=True))
    ]
    places = jnp.stack([one.places for one in found], 1)
    return _queries(found, places, (len(other),), ("entry",))
