"""Errors of estimated sparse coefficients and of their support."""

import math
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float

from probkit.validate import short


def nmse(estimate: Any, truth: Any) -> Float[Array, ""]:
    r"""Normalised squared error $\|\hat x - x\|^2 / \|x\|^2$, dimensionless.

    Args:
        estimate: $\hat x$, real or complex, any shape.
        truth: $x$, of the same shape and units, not all zero.

    Returns:
        A number, 0 if the two are equal.

    Raises:
        ValueError: for shapes that differ.
    """
    estimate, truth = _pair("nmse", estimate, truth)
    return jnp.sum(jnp.abs(estimate - truth) ** 2) / jnp.sum(jnp.abs(truth) ** 2)


def support(coefficients: Any, share: float = 1e-3) -> Bool[Array, "..."]:
    r"""The support: all $i$ with $|x_i| > \text{share} \cdot \max_j |x_j|$.

    Args:
        coefficients: $x$, real or complex, any shape, in any units.
        share: a number in [0, 1). With 0, the support is all nonzero coefficients.

    Returns:
        Booleans, of the same shape.
    """
    size = jnp.abs(jnp.asarray(coefficients))
    return size > share * size.max()


def support_recovery(estimate: Any, truth: Any, share: float = 1e-3) -> Float[Array, ""]:
    r"""$|\hat S ∩ S| / |\hat S ∪ S|$: one if the supports agree, zero if they are disjoint.

    Args:
        estimate: estimated coefficients, any shape, whose support is
            `support(estimate, share)`, or the support itself, as booleans.
        truth: the true coefficients, of the same shape, whose support is all nonzero
            entries, or booleans.
        share: threshold on the estimate, as a share of its largest modulus.

    Returns:
        A number in [0, 1], dimensionless.

    Raises:
        ValueError: for shapes that differ.

    Source: the support recovery rate of He & Joseph, arXiv 2307.14719.
    """
    estimate, truth = _pair("support_recovery", estimate, truth)
    found = estimate if estimate.dtype == bool else support(estimate, share)
    real = jnp.result_type(float)
    either = jnp.sum(found | (truth != 0)).astype(real)
    both = jnp.sum(found & (truth != 0)).astype(real)
    # Nothing to find and nothing found is agreement.
    return jnp.where(either > 0, both / jnp.maximum(either, 1.0), 1.0)


def credible_support(mean: Any, sd: Any, level: float = 0.95) -> Bool[Array, "..."]:
    r"""Coefficients whose own central credible region excludes zero.

    A real coefficient is $N(μ, v)$. Its region is the interval
    $μ ± \sqrt v\, Φ^{-1}((1 + \text{level})/2)$. A complex coefficient is circular normal
    with $E|x - μ|^2 = v$, and $|x - μ|^2 / v$ is exponential with mean one. Its region is
    the disc $|x - μ|^2 ≤ -v \log(1 - \text{level})$, the smallest with probability `level`.

    Args:
        mean: $μ$, real or complex, any shape.
        sd: $\sqrt v ≥ 0$, real, of the same shape and units. If mean and sd are both zero,
            the coefficient is not in the support.
        level: posterior probability of the region, in (0, 1). With the optimum of a type-II
            fit the regions are too small, because the variances are held fixed.

    Returns:
        Booleans, of the same shape.

    Raises:
        ValueError: for shapes that differ, a complex `sd`, or a level outside (0, 1).
    """
    mean, sd = _pair("credible_support", mean, sd)
    if jnp.iscomplexobj(sd):
        raise ValueError("`credible_support(sd=...)` is complex; it takes a real array.")
    if not 0 < level < 1:
        raise ValueError(
            f"`credible_support(level={short(level)})`: it takes a number in (0, 1)."
        )
    if jnp.iscomplexobj(mean):
        return jnp.abs(mean) > sd * math.sqrt(-math.log1p(-level))
    return jnp.abs(mean) > sd * ndtri((1 + level) / 2)


def _pair(what: str, one: Any, other: Any) -> tuple[Array, Array]:
    one, other = jnp.asarray(one), jnp.asarray(other)
    if one.shape != other.shape:
        raise ValueError(
            f"`{what}` got arrays of shapes {one.shape} and {other.shape}; they must agree."
        )
    return one, other
