"""Names and labels of the axes of data sets and of predictions, shared by all models."""

from typing import Any

import numpy as np

from probkit.models.meta.episodes import Episodes
from probkit.models.meta.queries import Queries


def dims_of(data: Episodes) -> dict[str, tuple[str, ...]]:
    """Names of the axes of the arrays of the data, and of predictions."""
    inputs = tuple(f"input_{i}" for i in range(data.x.ndim - 2))
    return {
        "x": ("group", "row", *inputs),
        **dict.fromkeys(("y", "seen", "mean", "sd"), ("group", "row")),
        **dict.fromkeys(("y_mean", "y_sd"), ()),
        **dict.fromkeys(("x_mean", "x_sd"), inputs),
    }


def coords_of(data: Episodes) -> dict[str, Any]:
    """Labels along these axes."""
    rows = {"group": data.labels(), "row": np.arange(data.y.shape[1])}
    return rows | data.input_labels()


def coords_at(inputs: Queries) -> dict[str, Any]:
    """Labels of predictions."""
    return {"group": inputs.labels(), "row": np.arange(inputs.asked.shape[1])}
