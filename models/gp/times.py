"""Times as numbers: as they are given, or days since a date."""

import datetime
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.validate import as_array, short

# Microseconds, in which dates are kept.
KIND, DAY = "datetime64[us]", 86_400_000_000
# The most by which rounding may move a time, in mean distances of neighbours.
MOVED = 0.01


def as_dates(value: Any, what: str) -> np.ndarray | None:
    """The dates in a list, NumPy, pandas or xarray object, or None for anything else.

    Args:
        value: the times.
        what: their name in messages, such as `Series(t=...)`.

    Raises:
        ValueError: for dates with a time zone, and for missing ones.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None  # refused as numbers, later
    if array.dtype.kind == "O" and array.size:
        listed = array.reshape(-1).tolist()
        if not all(isinstance(one, datetime.date | np.datetime64) for one in listed):
            return None
        if any(getattr(one, "tzinfo", None) is not None for one in listed):
            raise ValueError(
                f"`{what}` has a time zone; give times in UTC without one, such as "
                "`t.tz_convert(None)` in pandas."
            )
    elif array.dtype.kind != "M":
        return None
    dates = array.astype(KIND)
    missing = np.isnat(dates)
    if missing.any():
        raise ValueError(
            f"`{what}` has {int(missing.sum())} missing; drop those observations."
        )
    return dates


def as_origin(value: Any) -> str | None:
    """The text of a date from which days are counted."""
    if value is None:
        return None
    try:
        date = np.datetime64(value, "us")
    except (TypeError, ValueError):
        date = np.datetime64("NaT", "us")
    if isinstance(value, int) or np.isnat(date):
        raise ValueError(
            f"`Series(origin={short(value)})`: it takes a date, such as `2020-01-31`."
        )
    return str(date)


def as_times(
    value: Any, origin: str | None, what: str
) -> tuple[Float[Array, "..."], str | None, float]:
    """Times as numbers.

    Args:
        value: numbers, or dates.
        origin: the date from which days are counted, or None: the first of the dates.
        what: their name in messages.

    Returns:
        Numbers, which are days for dates; the origin of dates, else None; and the largest
        error of the numbers by rounding.

    Raises:
        ValueError: for what is neither, or is missing, or has a time zone.
    """
    dates = as_dates(value, what)
    if dates is None:
        t = as_array(value, what)
        exact = np.asarray(value, float)
    else:
        if origin is None and dates.size:
            origin = str(dates.min())
        start = np.datetime64(origin or "2000-01-01", "us")  # no dates have none
        exact = (dates - start).astype(float) / DAY
        t = jnp.asarray(exact)
    moved = np.abs(exact.astype(t.dtype) - exact).max(initial=0.0)
    return t, origin, float(moved)


def as_labels(t: Float[Array, " n"], origin: str | None) -> np.ndarray:
    """The times as they were given: numbers, or dates.

    Days have so many digits as their dtype. Dates are rounded to the last of them.
    """
    numbers = np.asarray(t)
    if origin is None:
        return numbers
    ulp = np.finfo(numbers.dtype).eps * np.abs(numbers).max(initial=0.0) * DAY
    digit = 10 ** max(0, math.ceil(math.log10(4 * ulp))) if ulp else 1
    since = np.round(numbers.astype(float) * DAY / digit).astype(np.int64) * digit
    return np.datetime64(origin, "us") + since.astype("timedelta64[us]")
