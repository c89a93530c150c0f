"""Arrays at the door: whatever a user has becomes a JAX array, or one clear error."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def as_array(value: Any, what: str) -> Array:
    """A floating JAX array from a list, NumPy, pandas or xarray object.

    The dtype is kept where JAX has it (float64 only under `pk.enable_x64()`); integers
    become the default float.

    Args:
        value: the array.
        what: how the user knows it, such as `Pairs(x=...)`.

    Raises:
        ValueError: for text, ragged lists, complex numbers, NaN or infinities.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{what}` is not an array: {error}.") from None
    if array.dtype == object:
        try:
            array = array.astype(float)
        except (TypeError, ValueError):
            array = array.astype(str)
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"`{what}` holds {_kind(array)}; it takes real numbers. Code categories as "
            "0/1 columns, or drop them."
        )
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"`{what}` has {int(bad.sum())} values that are NaN or infinite, the first "
            f"at {first if len(first) > 1 else first[0] if first else '()'}; drop or "
            "impute those observations."
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        array = array.astype(float)
    # A copy: JAX may otherwise share memory that the user goes on to change.
    return jnp.array(array, jnp.result_type(float) if array.itemsize > 4 else None)


def _kind(array: np.ndarray) -> str:
    kinds = {
        "U": "text",
        "S": "text",
        "M": "dates",
        "m": "time spans",
        "c": "complex numbers",
    }
    return kinds.get(array.dtype.kind, f"dtype {array.dtype}")


def column_names(value: Any, count: int) -> tuple[str, ...] | None:
    """Names of the columns of a pandas or xarray object, if it has them."""
    names = getattr(value, "columns", None)
    if names is None and getattr(value, "ndim", 0) == 1:
        name = getattr(value, "name", None)
        names = None if name is None else [name]
    if names is None and hasattr(value, "dims") and getattr(value, "ndim", 0) == 2:
        names = value.coords.get(value.dims[1])
        names = None if names is None else names.values
    if names is None or len(names) != count:
        return None
    return tuple(str(name) for name in names)
