"""Covariances on grids: Toeplitz on an even axis, Kronecker over axes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.gp.mixture import SpectralMixture, covariance
from probkit.linalg import Kronecker, Toeplitz, with_jitter
from probkit.validate import as_array

# Steps of an even grid differ by rounding of its ends, and by no more than this share.
UNEVEN = 1e-6


def gram(mixture: SpectralMixture, x: Any, order: Any = 0) -> Float[Array, "n n"]:
    r"""$K_{ij} = k^{(n)}(x_i - x_j)$ on an even grid, as a dense matrix.

    Because $k$ is stationary, it is evaluated at $n$ lags only, where `covariance`
    evaluates it at $n²$. The covariance of derivatives of order $i$ and $j$ is
    $(-1)^j$ `gram(mixture, x, i + j)`.

    Args:
        mixture: $k$, of $Q$ components.
        x: the grid, ascending and even, shape `(n,)`, in units of the input; checked
            unless traced.
        order: order of the derivative, 0 to 4.

    Returns:
        The matrix, `(n, n)`, in squared units of the output over units of the input to the
        power `order`. It is symmetric for even orders and antisymmetric for odd ones. It
        costs $O(n Q)$ evaluations, derivatives included, and $O(n²)$ copies.

    Raises:
        ValueError: if the grid is not a vector, or not even; for another order.
    """
    x = _even_axis(x, "gram")
    return by_lag(mixture(x - x[0], order=order), (-1) ** order)


def by_lag(column: Float[Array, " n"], sign: int = 1) -> Float[Array, "n n"]:
    r"""The dense Toeplitz matrix of a kernel whose first column is given.

    Args:
        column: the kernel at lags $0, h, 2h, …$ of an even grid.
        sign: 1 for an even function of the lag, -1 for an odd one.

    Returns:
        $K_{ij} = k(x_i - x_j)$.
    """
    # One row of entries by their lag, from 0 up and then from the lowest up to -1 step,
    # written n times. Cut into pieces that are shorter by one, each piece begins one entry
    # earlier. Its derivative is a sum of rows, where that of a gather would be a scatter.
    n = len(column)
    ring = jnp.concatenate([sign * column, column[:0:-1]])
    if n == 1:
        return ring[None]
    return jnp.tile(ring, n)[: n * (2 * n - 2)].reshape(n, -1)[:, :n]


def toeplitz(
    mixture: SpectralMixture, x: Any, order: Any = 0, jitter: Any = 0.0
) -> Toeplitz:
    r"""The covariance of $u^{(m)}$ on an even grid, $(-1)^m k^{(2m)}(x_i - x_j) + ε I$.

    Args:
        mixture: $k$.
        x: the grid, ascending and even, shape `(n,)`, in units of the input; checked
            unless traced.
        order: $m$, 0 to 2.
        jitter: $ε$, added to the diagonal, in the units of the matrix. Kernels of long
            lengthscales on fine grids are singular to rounding without it.

    Returns:
        A `probkit.linalg.Toeplitz` operator, `(n, n)`, in squared units of the output over
        units of the input to the power $2m$. It costs $n$ evaluations of the kernel.

    Raises:
        ValueError: if the grid is not a vector, or not even; for another order.
    """
    x = _even_axis(x, "toeplitz")
    column = (-1) ** order * mixture(x - x[0], order=2 * order)
    return with_jitter(Toeplitz(column), amount=jitter)


def kronecker(
    mixtures: Sequence[SpectralMixture], axes: Sequence[Any], jitter: Any = 0.0
) -> Kronecker:
    r"""The covariance of a product kernel on a tensor grid, $⊗_p (K_p + ε I)$.

    $k(x, x') = \prod_p k_p(x_p - x'_p)$, on tensors flattened in C order.

    Args:
        mixtures: $k_p$, one per axis.
        axes: coordinates along each axis, shape `(n_p,)`, in units of the axis.
        jitter: $ε$, added to the diagonal of each factor, in the units of each factor.

    Returns:
        A `probkit.linalg.Kronecker` operator, `(n, n)` with $n = \prod_p n_p$, in the
        product of the squared units of the outputs. A factor is Toeplitz if its axis is
        known to be even, and dense if the axis is uneven or traced.

    Raises:
        ValueError: unless there is one mixture per axis, and each axis is a vector.
    """
    if len(mixtures) != len(axes):
        raise ValueError(
            f"`kronecker` got {len(mixtures)} mixtures for {len(axes)} axes; it takes one "
            "per axis."
        )
    factors: list[Any] = []
    for mixture, axis in zip(mixtures, axes, strict=True):
        x, even = _axis(axis, "kronecker")
        if even:
            factors.append(toeplitz(mixture, axis, jitter=jitter))
        else:
            factors.append(with_jitter(covariance(mixture, x, x), amount=jitter))
    return Kronecker(factors)


def _axis(x: Any, function: str) -> tuple[Array, bool | None]:
    """The axis, and whether it is even and ascending; None if that is not known."""
    traced = isinstance(x, jax.core.Tracer)
    axis = jnp.asarray(x) if traced else as_array(x, f"{function}(x=...)")
    if axis.ndim != 1 or not axis.size:
        raise ValueError(
            f"`{function}` got an axis of shape {axis.shape}; it takes a vector of "
            "coordinates."
        )
    # From the argument itself, because inside `jit` the array made of it is traced.
    return axis, None if traced else is_even(np.asarray(x))


def _even_axis(x: Any, function: str) -> Array:
    axis, even = _axis(x, function)
    if even is False:
        raise ValueError(
            f"`{function}` got an axis that is not even and ascending; for other "
            "points use `covariance(mixture, x, x)`."
        )
    return axis


def is_even(x: np.ndarray) -> bool:
    """Whether a vector of coordinates ascends in even steps."""
    if len(x) == 1:
        return True
    step = (x[-1] - x[0]) / (len(x) - 1)
    # Coordinates far from zero are rounded, however fine the grid.
    eps = np.finfo(x.dtype).eps if np.issubdtype(x.dtype, np.floating) else 0.0
    off = np.abs(np.diff(x) - step).max()
    return bool(step > 0 and off <= UNEVEN * step + 4 * eps * np.abs(x).max())
