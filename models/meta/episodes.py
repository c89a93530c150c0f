"""The data: many small related data sets, of unequal sizes."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from probkit.model import AbstractData
from probkit.models.meta.filled import filled
from probkit.models.meta.tables import grouped
from probkit.validate import as_array, refuse_no_spread, short


class Units(eqx.Module):
    """Scales of the data, by which priors are rescaled.

    Attributes:
        x_mean: mean of each input over all rows, in its units.
        x_sd: sd of each input over all rows.
        y_mean: mean of the values, in their units.
        y_sd: sd of the values.
    """

    x_mean: Float[Array, "*s"]
    x_sd: Float[Array, "*s"]
    y_mean: Float[Array, ""]
    y_sd: Float[Array, ""]


class Episodes(AbstractData):
    """Many small data sets: subjects, schools, sensors, tasks.

    Each has rows of inputs with one value each. Data sets of unequal size are filled up to
    the largest with rows that count for nothing.

    Args:
        x: inputs, `(n, m, d)` for `n` data sets of `m` rows, or one array `(m_i, d)` or
            `(m_i,)` per data set.
        y: values, `(n, m)`, or one array `(m_i,)` per data set. NaN stands for a value
            that is missing.
        seen: which rows there are, `(n, m)`; by default those whose value is not NaN.
        names: of the data sets, `(n,)`, texts or numbers; by default they are counted.
        columns: names of the `d` inputs, `(d,)`; by default they are counted.
        units: the scales by which priors are rescaled. By default those of these data. Give
            `units=other.units` to keep priors fixed while data change. Constant values are
            then allowed.
        may_be_empty: whether there may be no value at all, as in a support set of nothing.

    Raises:
        ValueError: for shapes that do not fit, missing or infinite inputs, infinite values,
            constant values, data without a value, and names that are not distinct.
    """

    shared: ClassVar[tuple[str, ...]] = ("x_mean", "x_sd", "y_mean", "y_sd")

    x: Float[Array, "n m *s"]
    y: Float[Array, "n m"]
    seen: Bool[Array, "n m"]
    x_mean: Float[Array, "*s"]
    x_sd: Float[Array, "*s"]
    y_mean: Float[Array, ""]
    y_sd: Float[Array, ""]
    names: tuple[Any, ...] | None = eqx.field(static=True)
    columns: tuple[str, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        x: Any,
        y: Any,
        seen: Any = None,
        *,
        names: Sequence[Any] | None = None,
        columns: Sequence[str] | None = None,
        units: Units | None = None,
        may_be_empty: bool = False,
    ):
        x, y, seen = filled(x, y, seen)
        if not seen.any() and not may_be_empty:
            raise ValueError(
                f"`Episodes(y=...)` of shape {y.shape} has no value; give at least one."
            )
        what = "Episodes(x=...)"
        rows = np.broadcast_to(seen.reshape(*seen.shape, *[1] * (x.ndim - 2)), x.shape)
        self.x = as_array(x, what, seen=rows)
        self.y = as_array(y, "Episodes(y=...)", seen=seen).astype(self.x.dtype)
        self.seen = jnp.array(seen)
        if units is None:
            values = np.asarray(self.y)[seen]
            refuse_no_spread(values, "`Episodes(y=...)`", "leaves nothing to explain")
            units = _units(np.asarray(self.x)[seen], values, self.x.dtype)
        units = _cast(units, x.shape[2:], self.x.dtype)
        self.x_mean, self.x_sd = units.x_mean, units.x_sd
        self.y_mean, self.y_sd = units.y_mean, units.y_sd
        self.names = None if names is None else _names(names, len(self.x))
        self.columns = None if columns is None else _columns(columns, x.shape[2:])

    @classmethod
    def from_table(
        cls,
        table: Any,
        group: str | Sequence[str],
        x: str | Sequence[str],
        y: str,
        *,
        units: Units | None = None,
    ) -> "Episodes":
        """Data sets from a long table, with one row per observation.

        Groups are in order of first appearance. Rows without a value are left out, with a
        warning; a group of such rows stays, and nothing is known of it.

        Args:
            table: a data frame of pandas or polars, an xarray object, or a dict of arrays.
            group: the column whose values are the names of the data sets: text, numbers,
                dates or categories. Those of several columns are joined, as in "a, 1".
            x: the column of the input, or several, of numbers or truth values, which become
                0 and 1. With `[]` there is no input.
            y: the column of the values.
            units: as for `Episodes`.

        Raises:
            ValueError: as for `Episodes`, for a column that the table lacks, and for inputs
                that are text, categories or dates.
        """
        found = grouped(table, group, x, y)
        return cls(found.x, found.y, names=found.names, columns=found.columns, units=units)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def units(self) -> Units:
        """The scales by which priors are rescaled."""
        return Units(self.x_mean, self.x_sd, self.y_mean, self.y_sd)

    @property
    def dtype(self) -> Any:
        """Of the values."""
        return self.y.dtype

    def sizes(self) -> Float[Array, " n"]:
        """The number of rows of each data set."""
        return self.seen.sum(1).astype(self.dtype)

    def take(self, indices):
        taken = {name: array[indices] for name, array in self.rows().items()}
        names = self.names
        if names is not None:
            known = not isinstance(indices, jax.core.Tracer)
            names = tuple(names[i] for i in np.asarray(indices)) if known else None
        return self.of_rows(taken, names)

    def of_rows(self, arrays: dict[str, Any], names: Any) -> "Episodes":
        """Other data sets with the same units and columns. They are not checked.

        Args:
            arrays: the new arrays, by the names of their fields.
            names: of the data sets, or None.
        """
        new = self.replaced(arrays)
        object.__setattr__(new, "names", names)
        assert isinstance(new, Episodes)
        return new

    def labels(self) -> np.ndarray:
        """Names of the data sets, or their numbers."""
        return np.arange(len(self)) if self.names is None else np.array(self.names)

    def input_labels(self) -> dict[str, np.ndarray]:
        """Labels along each axis of the inputs of a row: names of columns, or numbers."""
        found = {f"input_{i}": np.arange(n) for i, n in enumerate(self.x.shape[2:])}
        return found if self.columns is None else {"input_0": np.array(self.columns)}

    def fields(self):
        kept = {"names": self.names, "columns": self.columns}
        return {k: None if v is None else list(v) for k, v in kept.items()}

    @classmethod
    def restore(cls, arrays, fields):
        scales = Units(*(jnp.asarray(arrays[name]) for name in cls.shared))
        x, y, seen = (np.asarray(arrays[name]) for name in ("x", "y", "seen"))
        return cls(x, y, seen.astype(bool), units=scales, **fields)


def _names(names: Sequence[Any], count: int) -> tuple[Any, ...]:
    what = "Episodes(names=...)"
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"`{what}` got {short(names)}; give a list of names.")
    found = tuple(name.item() if hasattr(name, "item") else name for name in names)
    # NaN is not equal to itself.
    odd = [n for n in found if not isinstance(n, str | int | float) or n != n]
    if odd:
        raise ValueError(
            f"`{what}` has {short(odd[0])}; give text or numbers, such as `str(name)`."
        )
    if len(found) != count:
        raise ValueError(
            f"`{what}` has {len(found)} names for {count} data sets; give one for each."
        )
    if len(set(found)) < count:
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(
            f"`{what}` has {short(twice)} more than once; give each data set a name of its "
            "own."
        )
    return found


def _columns(columns: Sequence[str], shape: tuple[int, ...]) -> tuple[str, ...]:
    what, found = "Episodes(columns=...)", tuple(columns)
    wanted = f"{shape[0]} different names" if len(shape) == 1 else "vectors of inputs only"
    named = all(isinstance(name, str) for name in found) and not isinstance(columns, str)
    if not named or shape != (len(found),) or len(set(found)) < len(found):
        raise ValueError(
            f"`{what}` got {short(columns)} for inputs of shape {shape} per row; it takes "
            f"{wanted}."
        )
    if "intercept" in found:
        raise ValueError(
            f"`{what}` has `intercept`, the name of the coefficient of no input; give the "
            "column another name, or leave it out if it is constant."
        )
    return found


def _cast(units: Any, shape: tuple[int, ...], dtype: Any) -> Units:
    if not isinstance(units, Units) or units.x_mean.shape != shape:
        raise ValueError(
            f"`Episodes(units={short(units)})`: it takes the units of data with the same "
            "inputs, such as `units=other.units`."
        )
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), units)


def _units(x: np.ndarray, y: np.ndarray, dtype: Any) -> Units:
    """Means and sds over all rows. An input that is constant has an sd of one."""
    x, y = x.astype(float), y.astype(float)
    sd = x.std(0)
    sd = np.where(sd > 1e-12 * np.abs(x).max(0, initial=0.0), sd, 1.0)
    found = (x.mean(0), sd, y.mean(), y.std())
    return Units(*(jnp.asarray(one, dtype) for one in found))
