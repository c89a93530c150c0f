"""Columns of tables: numbers, dates or labels, from pandas, polars, xarray or a dict."""

import datetime
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from probkit.validate import short

# Of dates: whole numbers of this unit, since 1970.
TICK = "datetime64[us]"
DAY = 86_400_000_000


class Column(NamedTuple):
    """One value per row.

    Attributes:
        kind: what the values are.
        values: `(n,)`: float64, or dates in microseconds (in UTC if there is a zone), or
            labels as the user gave them.
        zone: the time zone of dates that have one, such as "Asia/Shanghai".
    """

    kind: Literal["numbers", "dates", "labels"]
    values: np.ndarray
    zone: str | None = None


def pick(table: Any, names: Iterable[str], what: str) -> dict[str, Any]:
    """Columns of a table by their names, as they are in it.

    Args:
        table: a pandas or polars data frame (levels of an index count as columns), an
            xarray `Dataset` or `DataArray`, or a dict of arrays.
        names: names of columns.
        what: the name of the call, for messages.

    Raises:
        ValueError: for something else, or if a column is not there.
    """
    names = list(names)
    if hasattr(table, "to_dataframe") and hasattr(table, "dims"):  # of xarray
        if hasattr(table, "to_dataset"):
            table = table.to_dataset(name=table.name or "value")
        # Others may have other axes, and the frame would have a row for all of them.
        table = table[[name for name in names if name in table.data_vars]].to_dataframe()
    if hasattr(table, "reset_index"):  # of pandas
        levels = [n for n in table.index.names if n in names and n not in table.columns]
        table = table.reset_index(level=levels)
    known = list(table) if isinstance(table, Mapping) else getattr(table, "columns", None)
    if known is None:
        raise ValueError(
            f"`{what}` got a {type(table).__name__}; it takes a data frame of pandas or "
            "polars, an xarray object, or a dict of arrays."
        )
    known = list(known)
    for name in names:
        if name not in known:
            there = ", ".join(map(str, known))
            there = there if len(there) < 100 else f"{there[:97]}..."
            raise ValueError(f"`{what}`: there is no column `{name}`; there are {there}.")
    return {name: table[name] for name in names}


def column(
    given: Any, name: str, what: str, labels: bool = False, kept: Any = slice(None)
) -> Column:
    """One column, as numbers, dates or labels.

    Args:
        given: an array, list, or column of a data frame, of shape `(n,)`.
        name: its name, for messages.
        what: the name of the call, for messages.
        labels: whether the values are labels, be they numbers.
        kept: the rows that count.

    Raises:
        ValueError: for missing or infinite values, dates with and without a time zone,
            text that reads as dates, or other objects.
    """
    dtype = getattr(given, "dtype", None)
    # A time zone is `tz` in pandas and `time_zone` in polars; both then count in UTC.
    zone = getattr(dtype, "tz", None) or getattr(dtype, "time_zone", None)
    try:
        array = np.asarray(given, dtype="datetime64[ns]" if zone else None)
    except ValueError:
        raise ValueError(f"`{what}`: `{name}` is ragged; give one value per row.") from None
    if isinstance(given, list | tuple) and array.dtype.kind in "US":
        array = np.array(given, object)  # NumPy writes numbers among text as text
    if array.ndim != 1:
        raise ValueError(
            f"`{what}`: `{name}` has shape {array.shape}; give one value per row."
        )
    _refuse_missing(missing(given), kept, name, what)
    array = array[kept]
    asked = labels
    labels = labels or hasattr(dtype, "categories") or array.dtype.kind in "bUS"
    if array.dtype.kind == "O":
        kinds = set(map(type, array.tolist()))
        if all(issubclass(kind, datetime.date) for kind in kinds):
            array, zone = _from_dates(array, name, what)
        elif all(issubclass(kind, str | bytes | bool) for kind in kinds):
            labels = True
        elif not labels:
            array = _from_objects(array, name, what)
    if labels:
        return Column("labels", _as_labels(array, name, what, asked))
    if array.dtype.kind == "M":
        return Column("dates", array.astype(TICK), None if zone is None else str(zone))
    if array.dtype.kind not in "iuf":
        spans = array.dtype.kind == "m"
        remedy = (
            "divide by a unit, such as `np.timedelta64(1, 'D')`" if spans else "convert"
        )
        raise ValueError(f"`{what}`: `{name}` holds {array.dtype}; {remedy} it.")
    return Column("numbers", array.astype(float) + 0.0)  # without the zero below zero


def rounded(given: Column, step: float) -> Column:
    """Numbers to multiples of a step; dates to multiples of so many days."""
    values = given.values
    if given.kind == "dates":
        size = max(1, round(step * DAY))
        ticks = np.round(values.astype(np.int64) / size).astype(np.int64) * size
        return given._replace(values=ticks.astype(TICK))
    # Tenths are divided by ten, so that they are the numbers that a user writes.
    whole = round(1 / step)
    if whole > 0 and abs(1 / step - whole) < 1e-9 * whole:
        return given._replace(values=np.round(values * whole) / whole + 0.0)
    return given._replace(values=np.round(values / step) * step + 0.0)


def missing(given: Any) -> np.ndarray:
    """Which values of a column are NaN, NaT, None, NA, infinite or masked."""
    array = np.asarray(given)
    if array.dtype.kind == "O":
        return np.array([_is_missing(one) for one in array.ravel()], bool).reshape(
            array.shape
        )
    if array.dtype.kind == "M":
        return np.isnat(array)
    bad = ~np.isfinite(array) if array.dtype.kind in "fc" else np.zeros(array.shape, bool)
    return bad | np.ma.getmaskarray(given) if np.ma.isMaskedArray(given) else bad


def with_values(given: Any, name: str, what: str, rows: str = "rows") -> np.ndarray:
    """Which rows have a value, as their numbers; a warning counts the others.

    Args:
        given: the values, `(n,)`. An infinite one counts as a value.
        name: of the column, for the message.
        what: the name of the call, for the message.
        rows: what a row is called there.
    """
    lost, array = missing(given), np.asarray(given)
    if array.dtype.kind == "f":
        lost &= ~np.isinf(array)  # infinity is no missing value, and is refused
    if lost.any():
        warnings.warn(
            f"`{what}` leaves out {lost.sum()} of {len(lost)} {rows}, whose `{name}` is "
            "missing.",
            stacklevel=4,
        )
    return np.flatnonzero(~lost)


def _is_missing(one: Any) -> bool:
    return (
        one is None
        or type(one).__name__ in ("NAType", "NaTType")
        or (isinstance(one, float | np.floating) and not np.isfinite(one))
    )


def _refuse_missing(bad: np.ndarray, kept: Any, name: str, what: str) -> None:
    rows = np.arange(len(bad))[kept]
    rows = rows[bad[kept]]
    if len(rows):
        raise ValueError(
            f"`{what}`: `{name}` has {len(rows)} missing or infinite "
            f"{'value' if len(rows) == 1 else 'values'}, the first at {rows[0]}; drop "
            "these rows."
        )


def _from_dates(array: np.ndarray, name: str, what: str) -> tuple[np.ndarray, str | None]:
    """Python's dates, in UTC, and their zone; UTC if they have several."""
    zones = {str(getattr(one, "tzinfo", None)) for one in array}
    if len(zones) > 1 and "None" in zones:
        raise ValueError(
            f"`{what}`: `{name}` has dates with and without a time zone; give all of them "
            "one, or none."
        )
    if zones == {"None"}:
        return array.astype(TICK), None
    utc = [one.astimezone(datetime.UTC).replace(tzinfo=None) for one in array]
    return np.array(utc, TICK), zones.pop() if len(zones) == 1 else "UTC"


def _from_objects(array: np.ndarray, name: str, what: str) -> np.ndarray:
    try:
        if any(isinstance(one, str | bytes | datetime.date) for one in array):
            raise TypeError
        return array.astype(float)
    except (TypeError, ValueError):
        kinds = ", ".join(sorted({type(one).__name__ for one in array}))
        raise ValueError(
            f"`{what}`: `{name}` holds values of the types {kinds}; give numbers, dates or "
            "text, one of them."
        ) from None


def _as_labels(array: np.ndarray, name: str, what: str, asked: bool) -> np.ndarray:
    """Text, or numbers, which are sorted as such."""
    if array.dtype.kind in "iuf":
        return array
    array = array.astype(str)
    if len(array) and not asked and all(map(_is_date, array.tolist())):
        raise ValueError(
            f"`{what}`: `{name}` is text that reads as dates, such as "
            f"{short(str(array[0]))}; convert it, as `pd.to_datetime` does, or name it in "
            "`labels`."
        )
    return array


def _is_date(text: str) -> bool:
    if len(text) < 8 or text[4:5] != "-":
        return False
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
