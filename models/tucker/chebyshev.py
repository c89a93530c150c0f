r"""Smooth functions of several variables, interpolated and compressed.

$$f(x) ≈ \sum_{r_1 … r_K} W_{r_1 … r_K} \prod_k \sum_j C^k_{j r_k} T_j(x_k)$$

with Chebyshev polynomials $T_j$ of coordinates that are scaled to [-1, 1].

Source: Trefethen (2013), "Approximation Theory and Approximation Practice"; truncation:
Vannieuwenhoven, Vandebril & Meerbergen (2012), "A new truncation strategy for the
higher-order singular value decomposition"; the two together: Hashemi & Trefethen (2017),
"Chebfun in three dimensions".
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.settings import with_all_digits
from probkit.validate import as_array, positive, short, whole

# Nodes at which the function is evaluated in one call of `chebyshev`.
MOST_NODES = 20_000_000


class Chebyshev(eqx.Module):
    """A polynomial of several variables in Tucker form. Call it on points.

    Attributes:
        low: the lower end of each variable, `(k,)`, in its units.
        high: the upper end of each variable, `(k,)`, in its units.
        core: one axis per variable, in units of the function.
        factors: Chebyshev coefficients of the functions of each variable, `(n_k, r_k)`.
        left_out: root mean square of what the ranks left out, over the nodes, relative to
            that of the function.
        last: the last coefficients of each variable, relative to all of them, `(k,)`.
            Where they are not small, more nodes give a better approximation.
    """

    low: Float[Array, " k"]
    high: Float[Array, " k"]
    core: Float[Array, "..."]
    factors: tuple[Float[Array, "_n _r"], ...]
    left_out: Float[Array, ""]
    last: Float[Array, " k"]

    @property
    def ranks(self) -> tuple[int, ...]:
        """The number of functions of each variable."""
        return self.core.shape

    @with_all_digits
    def __call__(self, points: Float[Array, "*m k"]) -> Float[Array, "*m"]:
        """The values at points, `(..., k)`. NaN outside the box."""
        return _values(self, jnp.asarray(points, self.core.dtype))


@jax.jit
def _values(value, points):
    x = (2 * points - value.low - value.high) / (value.high - value.low)
    flat = x.reshape(-1, x.shape[-1])
    args: list[Any] = [value.core, list(range(value.core.ndim))]
    for k, C in enumerate(value.factors):
        args += [polynomials(flat[:, k], len(C)) @ C, [value.core.ndim, k]]
    values = jnp.einsum(*args, [value.core.ndim], optimize="greedy")
    inside = jnp.all((points >= value.low) & (points <= value.high), -1)
    return jnp.where(inside, values.reshape(points.shape[:-1]), jnp.nan)


@with_all_digits
def chebyshev(
    function: Callable[[Any], Any],
    box: Sequence[tuple[float, float]],
    num_nodes: int | Sequence[int] = 32,
    ranks: int | Sequence[int] | None = None,
    tol: float = 1e-10,
) -> Chebyshev:
    r"""Interpolate a function at Chebyshev nodes, and compress it to Tucker form.

    The error falls geometrically with the number of nodes if the function is analytic. No
    derivative of it is needed.

    Args:
        function: of points, `(m, k)` in the units of the box, to `(m,)` values.
        box: the ends of each variable, `[(low, high), …]`.
        num_nodes: for all variables, or one number per variable. The function is evaluated
            at all their combinations.
        ranks: the largest rank, for all variables or one per variable. By default as many
            as `tol` needs.
        tol: how much the ranks may leave out: root mean square over the nodes, relative to
            that of the function.

    Returns:
        The approximation.

    Raises:
        ValueError: for wrong settings, too many nodes, and values that are not finite or do
            not have the shape `(m,)`.
    """
    low, high = _ends(box)
    K = len(low)
    sizes = _each(num_nodes, K, "num_nodes", 2)
    most = sizes if ranks is None else _each(ranks, K, "ranks", 1)
    tol = positive("chebyshev(tol", zero=True)(tol)
    if any(r > n for r, n in zip(most, sizes, strict=True)):
        raise ValueError(
            f"`chebyshev(ranks={short(ranks)})` is above the number of nodes, {sizes}; "
            "lower it, or raise `num_nodes`."
        )
    if np.prod(np.array(sizes, float)) > MOST_NODES:
        raise ValueError(
            f"`chebyshev(num_nodes={short(num_nodes)})` makes {np.prod(sizes):.1e} points "
            f"of {K} variables, of at most {MOST_NODES:.0e}; lower it."
        )
    angles = [np.pi * (np.arange(n) + 0.5) / n for n in sizes]
    lines = [
        (l + h) / 2 + (h - l) / 2 * np.cos(θ)
        for l, h, θ in zip(low, high, angles, strict=True)
    ]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, K)
    given = as_array(
        function(jnp.asarray(grid)),
        "chebyshev(function)",
        remedy="choose a box in which the function is finite",
    )
    # From here in NumPy: ranks are found on the way, and JAX would compile every step for
    # its own shapes.
    values = np.asarray(given)
    if values.shape != (len(grid),):
        raise ValueError(
            f"`chebyshev(function)` returned the shape {values.shape} for points of shape "
            f"{grid.shape}; it takes one value per point."
        )
    # The orthonormal transform, in which singular values are those of the values.
    norms = [
        np.sqrt(np.where(np.arange(n) == 0, 1, 2) / n).astype(values.dtype) for n in sizes
    ]
    coefficients = values.reshape(sizes)
    for k, (norm, θ) in enumerate(zip(norms, angles, strict=True)):
        waves = np.cos(np.outer(np.arange(len(norm)), θ)).astype(values.dtype)
        coefficients = _along(coefficients, norm[:, None] * waves, k)
    core, bases, left_out = truncated(coefficients, most, tol)
    factors = [norm[:, None] * U for norm, U in zip(norms, bases, strict=True)]
    # Two of them, because every other one of an even or odd function is zero.
    ends = [np.moveaxis(coefficients, k, 0)[-2:] for k in range(K)]
    last = np.stack([np.linalg.norm(one) for one in ends])
    total = np.linalg.norm(coefficients)
    return Chebyshev(
        jnp.asarray(low, values.dtype),
        jnp.asarray(high, values.dtype),
        jnp.asarray(core),
        tuple(map(jnp.asarray, factors)),
        jnp.asarray(left_out),
        jnp.asarray(last / (total if total > 0 else 1.0)),
    )


def polynomials(x: Float[Array, " m"], count: int) -> Float[Array, "m n"]:
    """The first Chebyshev polynomials at values in [-1, 1]."""

    def step(two, _):
        before, now = two
        return (now, 2 * x * now - before), before

    found = jax.lax.scan(step, (jnp.ones_like(x), x), None, length=count)[1]
    return found.T


def truncated(
    tensor: Float[np.ndarray, "..."], ranks: Sequence[int], tol: float
) -> tuple[Float[np.ndarray, "..."], list[Float[np.ndarray, "_n _r"]], np.floating]:
    """A tensor in Tucker form, mode by mode.

    Args:
        tensor: with one axis per mode.
        ranks: the largest rank of each mode.
        tol: norm of what may be left out, relative to that of the tensor.

    Returns:
        The core, orthonormal factors, and the norm of what was left out, relative.
    """
    total = np.linalg.norm(tensor)
    total = total if total > 0 else tensor.dtype.type(1)
    core, factors, lost = tensor, [], tensor.dtype.type(0)
    for k, most in enumerate(ranks):
        unfolded = np.moveaxis(core, k, 0).reshape(core.shape[k], -1)
        # All that is needed of the long side is its triangular root.
        root = np.linalg.qr(unfolded.T, mode="r")
        U, s, _ = np.linalg.svd(root.T, full_matrices=False)
        # The square of what is left out with the first r singular values, r = 0, 1, …
        tails = np.append(np.cumsum(s[::-1] ** 2)[::-1], s.dtype.type(0))
        enough = int(np.argmax(tails <= (tol * total) ** 2 / len(ranks)))
        rank = max(1, min(most, enough))
        lost = lost + tails[rank]
        factors.append(U[:, :rank])
        core = _along(core, factors[-1].T, k)
    return core, factors, np.sqrt(lost) / total


def _along(
    tensor: Float[np.ndarray, "..."], matrix: Float[np.ndarray, "m n"], axis: int
) -> Float[np.ndarray, "..."]:
    return np.moveaxis(np.tensordot(matrix, tensor, (1, axis)), 0, axis)


def _ends(box: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        ends = np.asarray(box, float)
    except (TypeError, ValueError):
        ends = np.zeros(0)
    if ends.ndim != 2 or ends.shape[1] != 2 or not np.all(np.isfinite(ends)):
        raise ValueError(
            f"`chebyshev(box={short(box)})`: it takes the ends of each variable, such as "
            "`[(0, 1), (-2, 2)]`."
        )
    if not np.all(ends[:, 0] < ends[:, 1]):
        raise ValueError(
            f"`chebyshev(box={short(box)})`: a lower end is not below its upper end; swap "
            "them."
        )
    return ends[:, 0], ends[:, 1]


def _each(value: Any, count: int, name: str, least: int) -> tuple[int, ...]:
    one = whole(f"chebyshev({name}", least)
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        return (one(value),) * count
    if len(value) != count:
        raise ValueError(
            f"`chebyshev({name}={short(value)})` has {len(value)} numbers; the box has "
            f"{count} variables."
        )
    return tuple(map(one, value))
