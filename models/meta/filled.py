"""Data sets of unequal sizes as arrays of equal length, and which rows there are."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from probkit.validate import numbers, short

X, Y = "Episodes(x=...)", "Episodes(y=...)"


def filled(x: Any, y: Any, seen: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, values, and which rows there are.

    Args:
        x: inputs, as `meta.Episodes` takes them.
        y: values; NaN for those that are missing.
        seen: which rows there are, or None.

    Returns:
        Arrays `(n, m, *s)`, `(n, m)` and `(n, m)`. The first two have the dtype of what was
        given, and are checked for shapes, not for missing inputs.

    Raises:
        ValueError: for shapes that do not fit, text and dates.
    """
    if is_ragged(x, X) or is_ragged(y, Y):
        if seen is not None:
            raise ValueError(
                "`Episodes(seen=...)` goes with arrays of equal length; leave it out for "
                "lists, and give NaN for values that are missing."
            )
        x, y, there = _of_lists(list(x), list(y))
        return x, y, there & ~np.isnan(y)
    dtype = common_dtype(x, y)
    x, y = numbers(x, X).astype(dtype), numbers(y, Y).astype(dtype)
    if x.ndim == 2:
        x = x[:, :, None]
    if x.ndim < 3 or y.ndim != 2 or x.shape[:2] != y.shape:
        raise ValueError(
            f"`Episodes(x=..., y=...)` got shapes {x.shape} and {y.shape}; for n data sets "
            "of m rows and d inputs they are (n, m, d) and (n, m). "
            "`Episodes.from_table` takes a long table."
        )
    there = ~np.isnan(y)
    if seen is None:
        return x, y, there
    seen = np.asarray(seen)
    if seen.shape != y.shape or seen.dtype.kind not in "bui":
        raise ValueError(
            f"`Episodes(seen=...)` has shape {seen.shape} and holds {seen.dtype}; give one "
            f"truth value per value, {y.shape}."
        )
    return x, y, seen.astype(bool) & there


def filled_inputs(x: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `(n, q, *s)`, and which rows there are, `(n, q)`.

    Args:
        x: inputs, as `meta.New` takes them.
        what: the name of the argument, for messages.
    """
    if is_ragged(x, what):
        inputs = _inputs(list(x), what)
        there = _padded([np.ones(len(one), bool) for one in inputs], False)
        return _padded(inputs, 0.0), there
    found = numbers(x, what).astype(common_dtype(x))
    found = found[:, :, None] if found.ndim == 2 else found
    if found.ndim < 3:
        raise ValueError(
            f"`{what}` has inputs of shape {found.shape}; for n data sets of q rows and d "
            "inputs it is (n, q, d)."
        )
    return found, np.ones(found.shape[:2], bool)


def common_dtype(*given: Any) -> Any:
    """float32 if all real numbers are, and float64 otherwise. Whole numbers fit both."""
    kinds = [getattr(one, "dtype", None) for array in given for one in _arrays(array)]
    sizes = [
        kind.itemsize
        for kind in kinds
        if isinstance(kind, np.dtype) and jnp.issubdtype(kind, jnp.floating)
    ]
    return np.float32 if sizes and max(sizes) <= 4 else np.float64


def _arrays(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def is_ragged(given: Any, what: str) -> bool:
    """Whether data sets differ in their number of rows.

    Args:
        given: inputs or values of all data sets.
        what: the name of the argument, for messages.
    """
    if hasattr(given, "dtype") and np.asarray(given).dtype.kind != "O":
        return False
    try:
        return len({np.shape(one) for one in given}) > 1
    except (TypeError, ValueError):  # a number, or rows of unequal length
        raise ValueError(
            f"`{what}` got {short(given)}; it takes an array, or one array per data set, "
            "with rows of equal length."
        ) from None


def _of_lists(x: list, y: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(x) != len(y):
        raise ValueError(
            f"`Episodes` got inputs of {len(x)} data sets and values of {len(y)}; give one "
            "array of both for each."
        )
    dtype = common_dtype(x, y)
    inputs = [one.astype(dtype) for one in _inputs(x, X)]
    values = [numbers(one, Y).astype(dtype) for one in y]
    for i, (a, b) in enumerate(zip(inputs, values, strict=True)):
        if b.shape != (len(a),):
            wanted = ", ".join(map(str, inputs[0].shape[1:]))
            raise ValueError(
                f"`Episodes` got inputs of shape {a.shape} and values of shape {b.shape} "
                f"in data set {i}; it takes (m, {wanted}) and (m,)."
            )
    there = _padded([np.ones(len(one), bool) for one in values], False)
    return _padded(inputs, 0.0), _padded(values, np.nan), there


def _inputs(x: list, what: str) -> list[np.ndarray]:
    """The inputs of each data set, `(m_i, *s)`."""
    arrays = [numbers(one, what) for one in x]
    arrays = [one[:, None] if one.ndim == 1 else one for one in arrays]
    sizes = {one.shape[1:] for one in arrays if one.ndim > 1 and len(one)}
    if any(one.ndim == 0 for one in arrays) or len(sizes) > 1:
        found = sorted({one.shape for one in arrays})
        raise ValueError(
            f"`{what}` got data sets with inputs of shapes {short(found)}; it takes (m, d) "
            "for each, with the same d."
        )
    # An empty list does not say how many inputs its rows would have.
    size = sizes.pop() if sizes else arrays[0].shape[1:]
    return [one if len(one) else one.reshape(0, *size) for one in arrays]


def _padded(arrays: list[np.ndarray], fill: Any) -> np.ndarray:
    most = max(map(len, arrays))
    shape = (len(arrays), most, *arrays[0].shape[1:])
    whole = np.full(shape, fill, arrays[0].dtype)
    for own, one in zip(whole, arrays, strict=True):
        own[: len(one)] = one
    return whole
