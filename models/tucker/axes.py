"""The distinct coordinates of one mode."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

Kind = Literal["line", "space", "labels"]


class Axis(eqx.Module):
    """The distinct coordinates of one mode, sorted.

    Attributes:
        name: the name of the mode.
        kind: "line" for one coordinate, "space" for several, "labels" for none.
        points: `(p,)` on a line, in units of the coordinate; `(p, d)` in space; the numbers
            from zero for labels.
        columns: the names of the coordinates.
        labels: one per point, for labels.
        origin: the day from which dates are counted, in ISO format.
    """

    name: str = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    points: Array
    columns: tuple[str, ...] = eqx.field(static=True)
    labels: tuple[str, ...] | None = eqx.field(static=True, default=None)
    origin: str | None = eqx.field(static=True, default=None)

    @property
    def length(self) -> Float[Array, "*d"]:
        """The range of the points, in units of the coordinate."""
        return self.points.max(0) - self.points.min(0)

    @property
    def spacing(self) -> Float[Array, "*d"]:
        """The mean distance of neighbours, in units of the coordinate."""
        count = len(self.points) ** (1 / max(1, self.points.ndim))
        return self.length / jnp.maximum(count - 1, 1)
