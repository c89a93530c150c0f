"""What users give becomes an array, a key or a number, or raises one clear error."""

import datetime
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def as_array(
    value: Any,
    what: str,
    *,
    complex_too: bool = False,
    whole_too: bool = False,
    seen: np.ndarray | None = None,
    remedy: str = "drop or impute those observations",
) -> Array:
    """A floating JAX array from a list, NumPy, pandas or xarray object.

    The dtype is kept if JAX has it (float64 only after `pk.enable_x64()`). Integers
    become the default float, and half precision becomes float32.

    Args:
        value: the array.
        what: its name in messages, such as `Pairs(x=...)`.
        complex_too: whether complex numbers are accepted, and stay complex.
        whole_too: whether whole numbers and truth values keep their dtype, such as
            counts and indices of groups.
        seen: truth values of the same shape, False where a value is not used, be it NaN. It
            becomes zero. By default all are used.
        remedy: what to do about values that are missing, for the message.

    Returns:
        A JAX array of the same shape, a copy.

    Raises:
        ValueError: for a `seen` of another shape, text, dates, ragged lists, NaN or
            infinities; for complex numbers, unless they are accepted.
    """
    if whole_too and _is_whole(value):
        return jnp.array(value)
    array = numbers(value, what, complex_too)
    if seen is not None:
        if seen.shape != array.shape:
            raise ValueError(
                f"`{what}` has shape {array.shape}, but `seen` has {seen.shape}; give one "
                "truth value for each."
            )
        array = np.where(seen, array, array.dtype.type(0))
    bad = ~np.isfinite(array)
    if bad.any():
        count = int(bad.sum())
        raise ValueError(
            f"`{what}` has {count} {'value' if count == 1 else 'values'} missing, NaN or "
            f"infinite, the first{_place(bad)}; {remedy}."
        )
    kind, single = (complex, 8) if np.iscomplexobj(array) else (float, 4)
    dtype = jnp.result_type(kind) if array.itemsize > single else array.dtype
    # A copy, because JAX may otherwise share memory that the user changes later; and put
    # there as it is, because `jnp.array` makes a program for each shape.
    return jax.device_put(array.astype(dtype))


def _is_whole(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "iub" and not np.ma.isMaskedArray(value)
    except (TypeError, ValueError):  # ragged lists, random keys
        return False


def numbers(value: Any, what: str, complex_too: bool = False) -> np.ndarray:
    """A floating NumPy array, with NaN for what is missing.

    Args:
        value: a list, NumPy, pandas or xarray object.
        what: its name in messages, such as `Pairs(x=...)`.
        complex_too: whether complex numbers are accepted, and stay complex.

    Raises:
        ValueError: for text, dates and ragged lists; for complex numbers, unless they are
            accepted.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"`{what}` is ragged: its rows differ in length. Give every observation the "
            "same number of values."
        ) from None
    except TypeError:  # a random key, for one
        array = np.array(None)
    if array.dtype == object and array.ndim == 0:
        raise ValueError(
            f"`{what}` got a {type(value).__name__}; it takes real numbers in an array, "
            "a list, or a pandas or xarray object."
        )
    if array.dtype == object:
        array = _from_objects(array, what)
    if complex_too and array.dtype.kind == "c":
        small = array.itemsize <= 8
        return array.astype(np.complex64 if small else np.complex128)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if not floating and array.dtype.kind not in "iub":
        raise ValueError(_refusal(what, *_kind(array)))
    small = floating and array.itemsize <= 4
    with np.errstate(over="ignore"):
        # Beyond the range of a float is infinite, and reported as such.
        array = array.astype(np.float32 if small else np.float64)
    if isinstance(value, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(value), np.nan, array)
    return array


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    numbers = np.empty(array.shape)
    for place in np.ndindex(array.shape):
        one = array[place]
        try:
            if isinstance(one, str | bytes):
                raise TypeError
            # None and pandas' NA are missing values, and are reported later.
            missing = one is None or type(one).__name__ in ("NAType", "NaTType")
            numbers[place] = np.nan if missing else float(one)
        except OverflowError:
            numbers[place] = np.inf
        except (TypeError, ValueError):
            raise ValueError(_refusal(what, *_kind(one))) from None
    return numbers


def _place(bad: np.ndarray) -> str:
    if bad.ndim == 0:
        return " and only"
    first = [int(i) for i in np.argwhere(bad)[0]]
    return f" at {first[0] if len(first) == 1 else tuple(first)}"


def _refusal(what: str, kind: str, remedy: str) -> str:
    return f"`{what}` holds {kind}; it takes real numbers. {remedy}"


def _kind(value: Any) -> tuple[str, str]:
    """What the values are, and what to give instead."""
    kind = np.asarray(value).dtype.kind
    if isinstance(value, datetime.date) or kind == "M":
        return "dates", "Give the time since a date, such as days or years."
    if isinstance(value, datetime.timedelta) or kind == "m":
        return "time spans", "Divide by a unit, such as `np.timedelta64(1, 'D')`."
    if kind == "c":
        return "complex numbers", "Give real and imaginary parts as columns of their own."
    if kind in "US":
        return "text", "Code categories as 0/1 columns, or drop them."
    if isinstance(value, np.ndarray):
        return f"records of {value.dtype}", "Give its fields as columns."
    return f"values of type {type(value).__name__}", "Convert or drop them."


def refuse_no_spread(values: Array | np.ndarray, what: str, why: str) -> None:
    """Refuse values that are all equal, or whose squares leave the range of their dtype.

    Args:
        values: shape `(n,)`, with values, not traced.
        what: their name in messages, such as "`Pairs(y=...)`".
        why: what is wrong with a constant, after "is constant and".

    Raises:
        ValueError: for such values.
    """
    v, info = np.asarray(values), np.finfo(values.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        largest, spread, sd = np.abs(v).max(), np.ptp(v), v.std()
    # Rounding may give constant values a spread just above zero.
    if spread <= 8 * float(info.eps) * float(largest) < math.inf:
        raise ValueError(f"{what} is constant and {why}.")
    if not (math.isfinite(sd) and sd >= info.tiny):
        raise ValueError(
            f"{what} has values up to {largest:.1e}, with squares outside the range of "
            f"{values.dtype}; give it in other units."
        )


def as_key(value: Any, what: str) -> PRNGKeyArray:
    """A JAX random key, typed or of the old kind.

    Args:
        value: the key.
        what: its name in messages, such as `fit(key=...)`.

    Returns:
        The same key.

    Raises:
        ValueError: for anything else, also for several keys.
    """
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            if value.shape == ():
                return value
            raise ValueError(
                f"`{what}` got {value.size} keys; it takes one, such as `keys[0]`."
            )
        if value.shape == (2,) and value.dtype == jnp.uint32:
            return value
    raise ValueError(
        f"`{what}` got {_an(value)}; it takes a JAX random key, `jax.random.key(0)`."
    )


def short(value: Any) -> str:
    """`repr(value)` on one line, cut to 60 characters."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _an(value: Any) -> str:
    if isinstance(value, int | float | str | None):
        return short(value)
    return "an array" if isinstance(value, jax.Array | np.ndarray) else type(value).__name__


def whole(what: str, least: int) -> Callable[[Any], int]:
    """A converter of a setting that is a whole number, of Python or NumPy.

    Args:
        what: its name in messages, such as `EM(num_restarts`.
        least: the smallest number that is accepted.

    Returns:
        A function of a value that returns it as an int, or raises ValueError.
    """

    def convert(value: Any) -> int:
        try:
            number = None if isinstance(value, bool | np.bool) else operator.index(value)
        except TypeError:
            number = None
        if number is None or number < least:
            raise ValueError(
                f"`{what}={short(value)})`: it takes a whole number, {least} or more."
            )
        return number

    return convert


def positive(what: str, *, zero: bool = False) -> Callable[[Any], float]:
    """A converter of a setting that is a positive real number.

    Args:
        what: its name in messages, such as `EM(atol`.
        zero: whether 0 is accepted.

    Returns:
        A function of a value that returns it as a float, or raises ValueError.
    """
    wanted = "0 or a positive number" if zero else "a positive number"

    def convert(value: Any) -> float:
        try:
            number = math.nan if isinstance(value, str | bytes) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
            raise ValueError(f"`{what}={short(value)})`: it takes {wanted}.")
        return number

    return convert


def as_flag(what: str) -> Callable[[Any], bool]:
    """A converter of a setting that is True or False.

    Args:
        what: its name in messages, such as `Measurements(intercept`.

    Returns:
        A function of a value that returns it as a bool, or raises ValueError.
    """

    def convert(value: Any) -> bool:
        if not isinstance(value, bool | np.bool):
            raise ValueError(f"`{what}={short(value)})`: it takes True or False.")
        return bool(value)

    return convert


def optional[T](convert: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """A converter of a setting that may be None.

    Args:
        convert: a converter of all other values.

    Returns:
        A function that returns None for None, and otherwise calls `convert`.
    """
    return lambda value: None if value is None else convert(value)


def pairs[T](
    what: str, key: str, wanted: str, convert: Callable[[Any, Any], T]
) -> Callable[[Any], tuple[tuple[str, T], ...]]:
    """A converter of a setting that is a dict, to pairs, which can be hashed.

    A list of pairs is accepted too, so that the converted value can be converted again.

    Args:
        what: its name in messages, such as `SpectralGP(frequencies`.
        key: what the names stand for, such as `an axis`.
        wanted: what fits, for the message.
        convert: a function of a name and its value that returns the value to keep.

    Returns:
        A function of a value that returns a tuple of pairs, or raises ValueError.
    """

    def listed(value: Any) -> tuple[tuple[str, T], ...]:
        given = tuple(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(given, list | tuple) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in given
        ):
            raise ValueError(f"`{what}={short(value)})`: it takes {wanted}.")
        if len({str(name) for name, _ in given}) < len(given):
            raise ValueError(f"`{what}={short(value)})` names {key} twice.")
        return tuple((str(name), convert(name, one)) for name, one in given)

    return listed


def several(kind: str, wanted: type, word: str) -> Callable[[Any], tuple[Any, ...]]:
    """A field converter that takes a list of one object of a class or more.

    Args:
        kind: the class that has the field `parts`, for messages.
        wanted: the class of the objects.
        word: what they are, such as "kernel".
    """

    def listed(value: Any) -> tuple[Any, ...]:
        given = tuple(value) if isinstance(value, list | tuple) else ()
        if not given or not all(isinstance(one, wanted) for one in given):
            raise ValueError(
                f"`{kind}(parts={short(value)})`: it takes a list of one {word} or more."
            )
        return given

    return listed


def column_names(value: Any, count: int) -> tuple[str, ...] | None:
    """Names of the columns of a pandas or xarray object, if it has them.

    Numbers do not count as names, because a frame made from an array has only those.

    Args:
        value: any object.
        count: the number of columns that it should have.

    Returns:
        One name per column, or None if there are none.
    """
    names = getattr(value, "columns", None)
    if names is None and getattr(value, "ndim", 0) == 1:
        name = getattr(value, "name", None)
        names = None if name is None else [name]
    if names is None and hasattr(value, "dims") and getattr(value, "ndim", 0) == 2:
        names = value.coords.get(value.dims[1])
        names = None if names is None else names.values
    if names is None or len(names) != count:
        return None
    if all(isinstance(name, int | np.integer) for name in names):
        return None
    return tuple(str(name) for name in names)


def unlike_counts(y: np.ndarray) -> str:
    """What counts are, for a message, if these values are something else."""
    fits = (y >= 0).all() and (y == np.round(y)).all()
    return "" if fits else "counts, whole numbers from zero"


def unlike_truth_values(y: np.ndarray) -> str:
    """What truth values are, for a message, if these values are something else."""
    return "" if np.isin(y, (0, 1)).all() else "zeros and ones"
