"""The data: entries of a tensor whose axes are continuous, or labels without an order."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.model import AbstractData
from probkit.model.tables import Column, column, pick, rounded, with_values
from probkit.models.tucker.axes import Axis, Merged, axis_of, merged, split
from probkit.validate import as_array, pairs, positive, refuse_no_spread, short

# Names that other axes and variables of a fit have.
TAKEN = ("chain", "draw", "entry", "mode", "component", "y", "mean", "sd")
# Visits of entries and points in which an optimised program saves what it costs to make.
SHORT = 4_000_000
# What a file keeps of an axis besides its arrays.
OF_AXIS = ("name", "kind", "columns", "labels", "origin", "zone", "resolution")


class Units(eqx.Module):
    """Scales of the data, by which priors are rescaled.

    Attributes:
        y_mean: mean of the values, in their units.
        y_sd: sd of the values, in their units.
        length: the range of each mode, in units of the coordinate.
        spacing: the mean distance of neighbours in each mode.
    """

    y_mean: Float[Array, ""]
    y_sd: Float[Array, ""]
    length: tuple[Array, ...]
    spacing: tuple[Array, ...]


class Entries(AbstractData):
    """Values at coordinates of several modes.

    A mode is a line (numbers or dates), a space (several numbers, such as latitude and
    longitude), or labels without an order (text, categories, truth values). Entries may
    repeat and have any order. An entry without a value is left out, with a warning.

    Args:
        coords: `{mode: its coordinate of each entry}`, `(n,)`; for a space `(n, d)`, or
            `{column: its coordinate of each entry}`.
        y: the values, `(n,)`, in any units.
        exposure: the time, area or number in which events were counted, `(n,)`, positive.
        labels: names of modes whose values are labels, although they are numbers or dates.
        rounding: `{mode: step}`: coordinates become multiples of the step, in units of the
            coordinate, or in days for dates. The cost of a fit grows with the number of
            distinct ones.
        units: the scales by which priors are rescaled. By default those of these data. Give
            `units=other.units` to keep priors fixed while data change. One value, constant
            values and modes with one distinct coordinate are then allowed.
        value: the name of the values, for messages.

    Raises:
        ValueError: for columns that differ in length, missing or infinite coordinates,
            dates with and without a time zone, text that reads as dates, fewer than two
            entries, a mode with one distinct coordinate, constant values, and coordinates
            that the dtype cannot tell from each other.
    """

    axes: tuple[Axis, ...]
    places: Int[Array, "n k"]
    y: Float[Array, " n"]
    exposure: Float[Array, " n"] | None
    y_mean: Float[Array, ""]
    y_sd: Float[Array, ""]

    def __init__(
        self,
        coords: Mapping[str, Any],
        y: Any,
        exposure: Any = None,
        *,
        labels: Sequence[str] = (),
        rounding: Mapping[str, float] | None = None,
        units: Units | None = None,
        value: str = "y",
    ):
        given = _given(coords)
        labels = _known([labels] if isinstance(labels, str) else labels, given, "labels")
        steps = dict(
            pairs("Entries(rounding", "a mode", '{"time": 1.0}', _step)(rounding or {})
        )
        _known(steps, given, "rounding")
        kept = _with_values(y, value)
        _refuse_other_lengths(given, exposure, value, np.size(y))
        self.y = as_array(np.asarray(y)[kept], f"Entries({value}=...)")
        _refuse_few(self.y, value, 2 if units is None else 1)
        if units is None:  # otherwise the priors have their scales
            what = f"`Entries({value}=...)`"
            refuse_no_spread(self.y, what, "leaves nothing to explain")
        self.exposure = (
            None if exposure is None else _exposure(exposure, kept, self.y.dtype)
        )
        axes, places = [], []
        for mode, columns in given.items():
            ready = [
                _stepped(mode, column(one, name, "Entries", mode in labels, kept), steps)
                for name, one in columns.items()
            ]
            axis, place = axis_of(mode, tuple(columns), ready, self.y.dtype, "Entries")
            if units is None:
                _refuse_one_point(axis)
            axes.append(axis)
            places.append(place)
        self.places = jnp.stack(places, 1)
        own = Units(
            self.y.mean(),
            self.y.std(),
            tuple(axis.length for axis in axes),
            tuple(axis.spacing for axis in axes),
        )
        found = own if units is None else _cast(units, own)
        self.y_mean, self.y_sd = found.y_mean, found.y_sd
        self.axes = tuple(
            eqx.tree_at(lambda a: (a.length, a.spacing), axis, scales)
            for axis, *scales in zip(axes, found.length, found.spacing, strict=True)
        )

    @classmethod
    def from_table(
        cls,
        table: Any,
        modes: Sequence[str] | Mapping[str, str | Sequence[str]],
        value: str,
        exposure: str | None = None,
        *,
        labels: Sequence[str] = (),
        rounding: Mapping[str, float] | None = None,
        units: Units | None = None,
    ) -> "Entries":
        """Entries from a long table, with one row per entry.

        Args:
            table: a data frame of pandas or polars, an xarray object, or a dict of arrays.
            modes: names of columns; or `{mode: column}`, where several columns make a
                space: `{"place": ["lat", "lon"], "time": "date"}`.
            value: the column of the values.
            exposure: the column of the exposure, if there is one.
            labels: as for `Entries`.
            rounding: as for `Entries`.
            units: as for `Entries`.

        Raises:
            ValueError: as for `Entries`, and for a column that the table lacks.
        """
        named = _modes(modes)
        used = [name for names in named.values() for name in names]
        used += [value] if exposure is None else [value, exposure]
        if not all(isinstance(name, str) for name in used) or len(set(used)) < len(used):
            raise ValueError(
                f"`Entries.from_table` got the columns {short(used)}; it takes the name of "
                "one column for each coordinate and for the value, all different."
            )
        found = pick(table, used, "Entries.from_table")
        return cls(
            {mode: {name: found[name] for name in names} for mode, names in named.items()},
            found[value],
            None if exposure is None else found[exposure],
            labels=labels,
            rounding=rounding,
            units=units,
            value=value,
        )

    def __len__(self) -> int:
        """The number of entries."""
        return len(self.y)

    def is_short(self, sweeps: int) -> bool:
        """Whether so many sweeps over the entries and points take less time than to
        optimise their program.
        """
        return sweeps * (len(self) + sum(map(len, self.axes))) < SHORT

    @property
    def dtype(self) -> Any:
        """That of the values and of the points."""
        return self.y.dtype

    @property
    def units(self) -> Units:
        """The scales by which priors are rescaled."""
        return Units(
            self.y_mean,
            self.y_sd,
            tuple(axis.length for axis in self.axes),
            tuple(axis.spacing for axis in self.axes),
        )

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of the arrays that a file keeps."""
        dims: dict[str, tuple[str, ...]] = {"y": ("entry",), "places": ("entry", "mode")}
        dims |= {"y_mean": (), "y_sd": ()}
        if self.exposure is not None:
            dims["exposure"] = ("entry",)
        for axis in self.axes:
            inner = (f"column_{axis.name}",) if axis.kind == "space" else ()
            dims[f"points_{axis.name}"] = (axis.name, *inner)
            dims |= {f"{one}_{axis.name}": inner for one in ("length", "spacing")}
        return dims

    def coords(self) -> dict[str, Any]:
        """Labels of these axes: coordinates in the user's units, and dates as dates."""
        labels: dict[str, Any] = {axis.name: axis.coords() for axis in self.axes}
        for axis in self.axes:
            if axis.kind == "space":
                labels[f"column_{axis.name}"] = list(axis.columns)
        return labels | {
            "entry": np.arange(len(self)),
            "mode": [axis.name for axis in self.axes],
        }

    def arrays(self) -> dict[str, Array]:
        found = {k: v for k, v in vars(self).items() if eqx.is_array(v)}
        for axis in self.axes:
            for one in ("points", "length", "spacing"):
                found[f"{one}_{axis.name}"] = getattr(axis, one)
        return found

    def fields(self) -> dict[str, Any]:
        return {"axes": [{k: getattr(axis, k) for k in OF_AXIS} for axis in self.axes]}

    @classmethod
    def restore(cls, arrays, fields) -> "Entries":
        axes = []
        for one in fields["axes"]:
            kept: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in one.items()
            }
            for k in ("points", "length", "spacing"):
                kept[k] = jnp.asarray(arrays[f"{k}_{one['name']}"])
            axes.append(Axis(**kept))
        found: dict[str, Any] = {
            k: jnp.asarray(arrays[k]) for k in ("places", "y", "y_mean", "y_sd")
        }
        exposure = arrays.get("exposure")
        found["exposure"] = None if exposure is None else jnp.asarray(exposure)
        return cls._of(axes=tuple(axes), **found)

    @classmethod
    def _of(cls, **fields: Any) -> "Entries":
        """Not by the constructor, because a part of some data need not use all points."""
        self = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        return self

    # With other entries.

    def joined(self, other: "Entries") -> "Entries":
        """These entries and others, at old and new coordinates, in the units of these.

        Priors are rescaled as for these entries, so that `pk.fit(..., start=fitted)` has
        the same model.

        Args:
            other: entries with the same modes.

        Raises:
            ValueError: for other modes or coordinates of another kind, and if one has an
                exposure and the other has not.
        """
        axes = self.merged(other, "Entries.joined")
        first, second = (
            jnp.stack(
                [getattr(one, which)[d.places[:, k]] for k, one in enumerate(axes)], 1
            )
            for d, which in ((self, "first"), (other, "second"))
        )
        exposures = [d.exposure for d in (self, other) if d.exposure is not None]
        return self._of(
            axes=tuple(one.axis for one in axes),
            places=jnp.concatenate([first, second]),
            y=jnp.concatenate([self.y, other.y.astype(self.dtype)]),
            exposure=jnp.concatenate(exposures) if exposures else None,
            y_mean=self.y_mean,
            y_sd=self.y_sd,
        )

    def merged(self, other: "Entries", what: str) -> tuple[Merged, ...]:
        """The coordinates of both in each mode.

        Args:
            other: entries with the same modes.
            what: the name of the call, for messages.

        Raises:
            ValueError: as for `joined`.
        """
        ours, theirs = ([axis.name for axis in d.axes] for d in (self, other))
        if ours != theirs:
            raise ValueError(
                f"`{what}` got entries with the modes {', '.join(theirs)}; the others have "
                f"{', '.join(ours)}, in this order."
            )
        if (self.exposure is None) != (other.exposure is None):
            raise ValueError(
                f"`{what}` got entries with and without `exposure`; give it to both."
            )
        pairs_of_axes = zip(self.axes, other.axes, strict=True)
        return tuple(merged(a, b, what) for a, b in pairs_of_axes)


def _given(coords: Any) -> dict[str, dict[str, Any]]:
    """The columns of each mode, by their names."""
    if not isinstance(coords, Mapping) or not coords:
        raise ValueError(
            f"`Entries(coords={short(coords)})`: it takes the coordinates of each mode, "
            'such as `{"time": t, "station": s}`.'
        )
    given = {}
    for mode, one in coords.items():
        if not isinstance(mode, str) or not mode or "/" in mode or mode in TAKEN:
            raise ValueError(
                f"`Entries`: a mode cannot have the name `{mode}`, which has a meaning in "
                'the results of a fit; give it another, such as `{"position": "y"}`.'
            )
        if isinstance(one, Mapping):
            given[mode] = {str(name): values for name, values in one.items()}
        else:
            shape = _shape(one)
            count = shape[1] if len(shape) == 2 else 1
            names = (mode,) if count == 1 else tuple(f"{mode}{i}" for i in range(count))
            flat = np.ravel(one) if len(shape) == 2 and count == 1 else one
            given[mode] = dict(zip(names, split(flat, names, "Entries"), strict=True))
        if not given[mode] or any(_shape(one) == () for one in given[mode].values()):
            raise ValueError(
                f"`Entries(coords=...)`: the mode `{mode}` is {short(one)}; give it one "
                "coordinate per entry."
            )
    return given


def _shape(one: Any) -> tuple[int, ...]:
    try:
        return np.shape(one)
    except ValueError:  # ragged, which is refused later
        return (len(one),)


def _modes(modes: Any) -> dict[str, list[str]]:
    if isinstance(modes, Mapping):
        return {
            mode: [names] if isinstance(names, str) else list(names)
            for mode, names in modes.items()
        }
    if isinstance(modes, str) or not isinstance(modes, Sequence):
        raise ValueError(
            f"`Entries.from_table(modes={short(modes)})`: it takes names of columns, or "
            '`{mode: column}`, such as `["time", "station"]`.'
        )
    return {name: [name] for name in modes}


def _known(names: Any, given: Mapping[str, Any], setting: str) -> list[str]:
    wrong = [name for name in names if name not in given]
    if wrong:
        raise ValueError(
            f"`Entries({setting}=...)` names {short(wrong[0])}; the modes are "
            f"{', '.join(given)}."
        )
    return list(names)


def _step(name: Any, value: Any) -> float:
    return positive(f"Entries(rounding={{{name!r}: ...}}")(value)


def _with_values(y: Any, value: str) -> np.ndarray:
    """Which entries have a value; a warning counts the others."""
    array = np.asarray(y)
    if array.ndim != 1:
        raise ValueError(
            f"`Entries({value}=...)` has shape {array.shape}; it takes one value per "
            "entry, (n,). `from_table` makes a long table of an xarray object."
        )
    return with_values(y, value, "Entries", "entries")


def _refuse_few(y: Array, value: str, least: int) -> None:
    if len(y) < least:
        wanted = "two or more, or one with `units=`" if least == 2 else "one or more"
        raise ValueError(
            f"`Entries({value}=...)` has {len(y)} values; a surface needs {wanted}."
        )


def _refuse_other_lengths(given, exposure: Any, value: str, count: int) -> None:
    sizes = {name: len(one) for columns in given.values() for name, one in columns.items()}
    if exposure is not None:
        sizes["exposure"] = np.size(exposure)
    for name, size in sizes.items():
        if size != count:
            raise ValueError(
                f"`Entries` got {count} values of `{value}` but {size} of `{name}`; each "
                "entry has one of both."
            )


def _exposure(given: Any, kept: np.ndarray, dtype: Any) -> Float[Array, " n"]:
    exposure = as_array(np.asarray(given)[kept], "Entries(exposure=...)").astype(dtype)
    if not bool((exposure > 0).all()):
        raise ValueError(
            f"`Entries(exposure=...)` has values down to {float(exposure.min()):g}; it "
            "takes positive ones. Drop entries without exposure."
        )
    return exposure


def _stepped(mode: str, one: Column, steps: Mapping[str, float]) -> Column:
    if mode not in steps:
        return one
    if one.kind == "labels":
        raise ValueError(
            f"`Entries(rounding=...)`: `{mode}` has labels, which cannot be rounded; leave "
            "it out."
        )
    return rounded(one, steps[mode])


def _refuse_one_point(axis: Axis) -> None:
    one = [
        name
        for name, length in zip(axis.columns, np.atleast_1d(axis.length), strict=True)
        if length == 0
    ]
    if one:
        raise ValueError(
            f"`Entries`: `{one[0]}` has one distinct value, and no function of it can be "
            "learned; leave it out."
        )


def _cast(units: Any, own: Units) -> Units:
    same = isinstance(units, Units) and (
        jax.tree.map(np.shape, units) == jax.tree.map(np.shape, own)
    )
    if not same:
        raise ValueError(
            "`Entries(units=...)` takes the units of data with the same modes, such as "
            "`units=other.units`."
        )
    return jax.tree.map(lambda a: jnp.asarray(a, own.y_mean.dtype), units)
