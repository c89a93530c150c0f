"""Kernel functions as atoms: the dictionary of a relevance vector machine."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.validate import as_array, optional, positive, short

Kernel = Callable[[Any, Any], Any]


class KernelBasis(eqx.Module):
    r"""The functions $k(x, c_i)$ of an input $x$, one per center $c_i$.

    `sbl.Measurements.table(y, basis(x))` with the inputs as centers is the relevance vector
    machine of Tipping (2001). The centers in the support are its relevance vectors.

    Args:
        centers: shape `(n,)` or `(n, d)`, in the units of the input.
        kernel: "rbf", $e^{-|x - c|^2 / (2 l^2)}$; or a kernel of GPJax; or a function of
            `x`, `(m, d)`, and `centers`, `(n, d)`, that returns `(m, n)`. It need not be
            positive definite.
        lengthscale: $l$, in the units of the input, for "rbf" only.

    Raises:
        ValueError: for inputs of another shape, an unknown kernel, a lengthscale that is
            missing, not positive or not used, or a kernel whose result has another shape.

    Source: Tipping (2001), "Sparse Bayesian learning and the relevance vector machine".
    """

    centers: Float[Array, "n d"]
    kernel: Any
    lengthscale: float | None = eqx.field(
        default=None, converter=optional(positive("KernelBasis(lengthscale"))
    )

    def __init__(self, centers: Any, kernel: Any = "rbf", lengthscale: Any = None):
        self.centers = _points(centers, "KernelBasis(centers=...)")
        self.kernel = getattr(kernel, "cross_covariance", kernel)
        self.lengthscale = lengthscale
        if kernel != "rbf" and not callable(self.kernel):
            raise ValueError(
                f'`KernelBasis(kernel={short(kernel)})`: it takes "rbf", a kernel of '
                "GPJax, or a function of two arrays of points."
            )
        if (kernel == "rbf") == (lengthscale is None):
            raise ValueError(
                "`KernelBasis(lengthscale=...)` is the lengthscale of "
                '`kernel="rbf"`, in the units of the input: give it for that kernel, and '
                "for no other."
            )

    def __call__(self, x: Any) -> Float[Array, "m n"]:
        """The value of each function at each point.

        Args:
            x: shape `(m,)` or `(m, d)`, in the units of the input.

        Raises:
            ValueError: for points of another dimension than the centers.
        """
        x, centers = _points(x, "KernelBasis()(x)"), self.centers
        if x.shape[1] != centers.shape[1]:
            raise ValueError(
                f"`KernelBasis()(x)` got points of {x.shape[1]} coordinates; its centers "
                f"have {centers.shape[1]}."
            )
        if self.lengthscale is not None:
            gaps = x[:, None, :] - centers[None, :, :]
            return jnp.exp(-0.5 * (gaps**2).sum(-1) / self.lengthscale**2)
        values = as_array(self.kernel(x, centers), "KernelBasis(kernel=...)(x, centers)")
        if values.shape != (len(x), len(centers)):
            raise ValueError(
                f"`KernelBasis(kernel=...)`: the kernel of {len(x)} points and "
                f"{len(centers)} centers has shape {values.shape}; it takes a function "
                f"that returns ({len(x)}, {len(centers)})."
            )
        return values


def _points(given: Any, what: str) -> Float[Array, "n d"]:
    points = as_array(given, what)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(
            f"`{what}` has shape {points.shape}; it takes one row per point, (n, d) or "
            "(n,)."
        )
    return points
