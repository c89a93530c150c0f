"""The density of each entry of a normal vector, given all the others."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from probkit.linalg import abs2


def given_others(
    weighted: Inexact[Array, "..."],
    precision: Float[Array, "..."],
    is_complex: bool = False,
) -> Float[Array, "..."]:
    r"""$\log p(y_i \mid y_{-i})$ of each entry of $y \sim N(0, Σ)$.

    With $r = Σ^{-1} y$ and $κ = \mathrm{diag}\, Σ^{-1}$, the mean of entry $i$ given the
    others is $y_i - r_i / κ_i$, and its variance is $1 / κ_i$.

    Args:
        weighted: $r$, any shape, in the inverse units of $y$.
        precision: $κ > 0$, of the same shape, in the inverse square units of $y$.
        is_complex: whether $y$ is circular complex normal, so that
            $\mathrm{E}\, y y^H = Σ$.

    Returns:
        One log density per entry, of the same shape, in nats.

    Source: Bürkner, Gabry & Vehtari (2021), "Efficient leave-one-out cross-validation for
    Bayesian non-factorized normal and Student-t models", eq. (8).
    """
    if is_complex:
        return jnp.log(precision / math.pi) - abs2(weighted) / precision
    return 0.5 * (jnp.log(precision / (2 * math.pi)) - weighted**2 / precision)
