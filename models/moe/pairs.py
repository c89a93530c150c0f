"""The data of a mixture of experts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.model import AbstractData
from probkit.models.moe.units import Units
from probkit.validate import as_array, column_names, refuse_no_spread, short


class Pairs(AbstractData):
    """Inputs `x` and one output `y` for each observation.

    Args:
        x: shape `(n,)` or `(n, d)`, in any units: array, list, pandas or xarray object.
        y: shape `(n,)`, in any units.
        inputs: one name per column of `x`. By default those of a data frame, else `x` or
            `x0, x1, ...`.
        units: location and scale by which priors are rescaled. By default the medians and
            interquartile ranges of these data (`Units`). Give it to keep the priors fixed
            while data change.

    Attributes:
        unfit: why these data are for predictions only: a single observation, or a column
            without spread, has no units. None if a model can be fitted to them.

    Raises:
        ValueError: for shapes that do not match, text or NaN.
    """

    x: Float[Array, "n d"]
    y: Float[Array, " m"]
    units: Units
    inputs: tuple[str, ...] = eqx.field(static=True)
    unfit: str | None = eqx.field(static=True)

    def __init__(self, x, y, inputs=None, units: Units | None = None):
        given, x, y = x, as_array(x, "Pairs(x=...)"), as_array(y, "Pairs(y=...)")
        if x.ndim not in (1, 2) or y.ndim != 1:
            raise ValueError(
                f"`Pairs` got `x` of shape {x.shape} and `y` of shape {y.shape}; it takes "
                "`x` of shape (n,) or (n, d) and `y` of shape (n,)."
            )
        if x.ndim == 1:
            x = x[:, None]
        if x.shape[0] != y.shape[0]:
            raise ValueError(
                f"`Pairs` got {x.shape[0]} rows of `x` but {y.shape[0]} values of `y`; "
                "each observation has one of both."
                + (" Transpose `x`." if x.shape[1] == y.shape[0] else "")
            )
        if y.shape[0] == 0:
            raise ValueError("`Pairs(x=..., y=...)` has no observations; give one or more.")
        if x.shape[1] == 0:
            raise ValueError("`Pairs(x=...)` has no columns; it takes one or more.")
        self.inputs = _input_names(inputs, column_names(given, x.shape[1]), x.shape[1])
        self.x, self.y = x, y.astype(x.dtype)
        self.unfit = None
        if not bool(jnp.isfinite(self.y).all()):  # in the dtype of `x`
            self._refuse_no_spread()
        if units is not None:
            self.units = self._given_units(units)
            return
        try:
            self._refuse_no_spread()
            self.units = Units.of(self.x, self.y)
        except ValueError as error:
            one = jnp.ones_like(self.x[0])
            self.units = Units(0 * one, one, 0 * self.y[0], 1 + 0 * self.y[0])
            self.unfit = str(error)

    def _refuse_no_spread(self) -> None:
        if len(self.y) < 2:
            raise ValueError(
                "`Pairs(x=..., y=...)` needs two observations or more to have a spread, "
                f"but got {len(self.y)}."
            )
        for name, column in zip(self.inputs, self.x.T, strict=True):
            refuse_no_spread(
                column,
                f"`Pairs(x=...)`: column `{name}`",
                "cannot be distinguished from the intercept; drop it",
            )
        refuse_no_spread(self.y, "`Pairs(y=...)`", "leaves nothing to explain")

    def _given_units(self, units) -> Units:
        columns = self.x.shape[1]
        if not isinstance(units, Units) or np.shape(units.x_scale) != (columns,):
            raise ValueError(
                "`Pairs(units=...)` takes the units of data with as many columns, here "
                f"{columns}, such as `units=other.units`."
            )
        return jax.tree.map(lambda a: jnp.asarray(a, self.x.dtype), units)

    @classmethod
    def restore(cls, arrays, fields) -> "Pairs":
        # In order, since an earlier version named them otherwise.
        units = Units(*(jnp.asarray(v) for v in fields["units"]["fields"].values()))
        return cls(arrays["x"], arrays["y"], inputs=fields["inputs"], units=units)


def default_names(count: int) -> tuple[str, ...]:
    return ("x",) if count == 1 else tuple(f"x{i}" for i in range(count))


def _input_names(given, found, count: int) -> tuple[str, ...]:
    if given is None:
        names, what = found or default_names(count), "Pairs(x=...)"
    else:
        what = "Pairs(inputs=...)"
        try:
            names = (given,) if isinstance(given, str) else tuple(str(n) for n in given)
        except TypeError:
            names = ()
        if len(names) != count:
            raise ValueError(
                f"`Pairs(inputs={short(given)})` has {len(names)} of {count} names; give a "
                "name for each column of `x`."
            )
    terms = ("intercept", *names)
    twice = [name for i, name in enumerate(terms) if name in terms[:i]]
    if twice:
        raise ValueError(
            f"`{what}` has two terms called `{twice[0]}`; give each column a name of its "
            "own (`intercept` is taken), `Pairs(..., inputs=[...])`."
        )
    return names


def refuse_other_names(found, expected) -> None:
    """Refuse columns with other names, or in another order, than those of the fit."""
    if found is None or found == expected or expected == default_names(len(expected)):
        return
    raise ValueError(
        f"`predict(..., inputs)` has the columns {', '.join(found)}, but the fit has "
        f"{', '.join(expected)}; give these, in this order."
    )


class Inputs(eqx.Module):
    """Where to predict.

    Attributes:
        x: inputs, in units of the data.
        y: outputs at which the predictive density is wanted, or None.
    """

    x: Float[Array, "n d"]
    y: Float[Array, " n"] | None = None
