"""Kernels of lines, straight or not."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.models.gp.kernels.leaf import AbstractFixed, Column, as_input, as_name
from probkit.validate import optional


class Linear(AbstractFixed):
    r"""$(x - c)(x' - c) / h²$, of straight lines through zero at the middle of the data.

    $c$ is the middle of the data and $h$ half their length, so that the sd of the term is
    that of the line at both ends. It has no sites of its own.
    """

    on: str | None = eqx.field(default=None, converter=optional(as_input))
    name: str | None = eqx.field(default=None, converter=optional(as_name))

    kind: ClassVar[str] = "linear"
    instead: ClassVar[str] = "a `gp.Matern()` of its own for the trend"
    one_input: ClassVar[bool] = True

    def between(self, θ, column, x, x2):
        return _from_middle(column, x) @ _from_middle(column, x2).T


class Drift(AbstractFixed):
    r"""A line whose slope wanders: an integrated Wiener process, zero mid-way.

    With $v = \min(|t|, |t'|)$, where $t$ is the distance of $x$ from the middle of the data
    in half their lengths,

    $$k(x, x') = 3 v² (v / 3 + |t - t'| / 2)$$

    on one side of the middle, and zero between its two sides. The sd of the term is that at
    both ends of the data. Beyond them a prediction goes on along the last slope, with a
    band that widens with the distance to the power 1.5, where that of a stationary kernel
    returns to the level. Add a `Linear()`, for the slope in the middle. It has no sites of
    its own.

    Source: Wahba (1978), "Improper priors, spline smoothing and the problem of guarding
    against model errors in regression"; Harvey (1989), the local linear trend.
    """

    on: str | None = eqx.field(default=None, converter=optional(as_input))
    name: str | None = eqx.field(default=None, converter=optional(as_name))

    kind: ClassVar[str] = "drift"
    instead: ClassVar[str] = "a `gp.Matern()` of its own for the trend"
    one_input: ClassVar[bool] = True

    def between(self, θ, column, x, x2):
        t, t2 = _from_middle(column, x), _from_middle(column, x2).T
        v = jnp.minimum(jnp.abs(t), jnp.abs(t2))
        return jnp.where(t * t2 > 0, 3 * v**2 * (v / 3 + jnp.abs(t - t2) / 2), 0.0)


def _from_middle(column: Column, x: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
    """Distance from the middle of the data, in half their lengths."""
    (j,), half = column.columns, column.length[0] / 2
    return (x - column.units.low[j] - half) / half
