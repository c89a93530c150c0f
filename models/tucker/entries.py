"""The data: entries of a tensor whose axes are continuous."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.model import AbstractData
from probkit.models.tucker.axes import Axis
from probkit.validate import as_array


class Entries(AbstractData):
    """Values at coordinates of several modes.

    Args:
        coords: `{mode: coordinate of each entry}`, `(n,)` or `(n, d)` each.
        y: the values, `(n,)`.
    """

    axes: tuple[Axis, ...]
    places: Int[Array, "n k"]
    y: Float[Array, " n"]
    y_mean: Float[Array, ""]
    y_sd: Float[Array, ""]

    def __init__(self, coords: Mapping[str, Any], y: Any):
        self.y = as_array(y, "Entries(y=...)")
        axes, places = [], []
        for name, given in coords.items():
            column = np.asarray(given)
            if column.dtype.kind in "USO":
                found, place = np.unique(column.astype(str), return_inverse=True)
                points = jnp.arange(len(found), dtype=self.y.dtype)
                axes.append(Axis(name, "labels", points, (name,), tuple(found.tolist())))
            else:
                found, place = np.unique(column, axis=0, return_inverse=True)
                kind = "line" if column.ndim == 1 else "space"
                points = jnp.asarray(found, self.y.dtype)
                axes.append(Axis(name, kind, points, (name,)))
            places.append(place.reshape(-1))
        self.axes = tuple(axes)
        self.places = jnp.asarray(np.stack(places, 1), jnp.int32)
        self.y_mean = self.y.mean()
        self.y_sd = self.y.std()

    @property
    def dtype(self):
        return self.y.dtype

    def __len__(self) -> int:
        return len(self.y)
