"""The worst entry of a posterior under a diagnostic, and its name."""

from collections.abc import Callable

import numpy as np


def worst(posterior, statistic: Callable, pick: Callable) -> tuple[str, float]:
    """The name and the value of the worst entry, such as `("slope[1, time]", 1.02)`.

    A constant entry, such as a zero of a triangular matrix, has no R-hat and is left out.
    An entry with a NaN is the worst of all.

    Args:
        posterior: an xarray `Dataset` over `chain`, `draw` and other axes.
        statistic: a function of a `DataArray` over `entry`, `chain` and `draw` that
            returns one number per entry.
        pick: `max` or `min`: which number is the worst.

    Returns:
        The name with the labels of the entry, and its number.
    """
    found: list[tuple[str, float]] = []
    for name, array in posterior.data_vars.items():
        axes = [d for d in array.dims if d not in ("chain", "draw")]
        flat = array.stack(entry=axes) if axes else array.expand_dims("entry")
        flat = flat.transpose("entry", "chain", "draw")
        values = flat.values
        bad = np.isnan(values).any((1, 2))
        varies = (np.ptp(values, axis=(1, 2)) > 0) & ~bad
        for i in np.flatnonzero(bad):
            found.append((_label(name, axes, flat, i), float("nan")))
        if varies.any():
            inner = flat.isel(entry=varies)
            numbers = statistic(inner.reset_index("entry") if axes else inner).values
            for i, value in zip(np.flatnonzero(varies), numbers, strict=True):
                found.append((_label(name, axes, flat, i), float(value)))
    for entry in found:
        if np.isnan(entry[1]):
            return entry
    if not found:
        return "nothing varies", float("nan")
    return pick(found, key=lambda entry: entry[1])


def _label(name, axes, flat, i) -> str:
    if not axes:
        return name
    labels = flat["entry"].values[i]
    each = labels if isinstance(labels, tuple) else (labels,)
    return f"{name}[{', '.join(str(label) for label in each)}]"
