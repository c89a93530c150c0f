"""Kernel functions at the training points, in NumPy."""

from typing import Any, NamedTuple

import numpy as np

from probkit.models import sbl
from probkit.sklearn.run import in_float64


class KernelRows(NamedTuple):
    """Values of kernel functions at points: `sbl.KernelBasis`, in float64.

    Attributes:
        centers: the training points, `(n, d)`.
        kernel: "rbf", a kernel of GPJax, or a function of two arrays of points.
        lengthscale: of "rbf", in the units of the points.
    """

    centers: np.ndarray
    kernel: Any
    lengthscale: float | None

    @classmethod
    def of(cls, centers: np.ndarray, kernel: Any, lengthscale: Any) -> "KernelRows":
        """With `lengthscale="scale"`, the one of `SVC(gamma="scale")`."""
        if kernel != "rbf":
            lengthscale = None
        elif lengthscale == "scale":
            # Of points that are all one, any lengthscale makes the same matrix.
            lengthscale = float(np.sqrt(centers.shape[1] * centers.var() / 2)) or 1.0
        return cls(centers, kernel, lengthscale)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(in_float64(lambda: sbl.KernelBasis(*self)(x)))


def varying(rows: np.ndarray, about_mean: bool = True) -> np.ndarray:
    """Which columns say anything beside a constant, or, without one, at all.

    Raises:
        ValueError: if none does.
    """
    inside = rows - rows.mean(0) if about_mean else rows
    varies = np.sqrt((inside**2).mean(0)) > 1e-12 * np.sqrt((rows**2).mean(0))
    if not varies.any():
        raise ValueError("X has no column that varies; give one that does.")
    return varies
