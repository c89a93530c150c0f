"""Location and scale of the data, by which priors are rescaled."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The interquartile range of a normal distribution, in sds.
IQR = 1.3489795


class Units(eqx.Module):
    """Location and scale of the data, by which priors are rescaled.

    By default medians and interquartile ranges (over 1.35, which makes sds of them if the
    data are normal). A few values far out change neither, as they would change means and
    sds, and so they do not loosen the prior of all others.

    Attributes:
        x_center: the middle of each input, `(d,)`, in units of the input.
        x_scale: the spread of each input, `(d,)`, in units of the input.
        y_center: the middle of the output, in units of the output.
        y_scale: the spread of the output, in units of the output.
    """

    x_center: Float[Array, " d"]
    x_scale: Float[Array, " d"]
    y_center: Float[Array, ""]
    y_scale: Float[Array, ""]

    @classmethod
    def of(cls, x: Float[Array, "n d"], y: Float[Array, " n"]) -> "Units":
        """The units of these data, none of whose columns is constant."""
        table = np.column_stack([x, y])
        center, scale = np.median(table, axis=0), spread(table)
        centers, scales = jnp.asarray(center, x.dtype), jnp.asarray(scale, x.dtype)
        return cls(centers[:-1], scales[:-1], centers[-1], scales[-1])


def spread(columns: np.ndarray) -> np.ndarray:
    """The interquartile range of each column over 1.35; the sd where half are equal."""
    low, high = np.quantile(columns, [0.25, 0.75], axis=0)
    return np.where(high > low, (high - low) / IQR, columns.std(axis=0))
