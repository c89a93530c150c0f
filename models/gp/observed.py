"""The data of a regression: places and values, and the units that follow from them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.gp import waves
from probkit.gp.grids import is_even
from probkit.model import AbstractData
from probkit.models.gp.ring import Ring, ring_of
from probkit.validate import (
    as_array,
    column_names,
    optional,
    positive,
    refuse_no_spread,
    short,
    whole,
)

# Weaker waves, relative to the strongest of their axis, are what is left of it.
WEAKEST = 0.03
MOST_WAVES = 8
# Waves of fewer cycles over the data are a trend; closer ones are one.
CLOSEST = 0.75
# The periodogram of more values is that of as many means of neighbours on a line, and of
# some of the values, even in their order, in more dimensions.
MOST_SEARCHED = {1: 10_000, 2: 600, 3: 300}
# More observations than this need more than 24 GiB, or hours, if they are fitted exactly;
# on a line, fixed waves take the place of their covariance, so many by default.
MOST_EXACT, WAVES = 10_000, 600


class Units(eqx.Module):
    """Scales of the data, by which priors are rescaled, and the waves in them.

    Attributes:
        low: the smallest value of each input, `(d,)`, in units of the input.
        length: the range of each input, `(d,)`, in units of the input.
        spacing: the mean distance of neighbours along each input, `(d,)`.
        y_mean: mean of the output, in units of the output.
        y_sd: sd of the output, in units of the output.
        frequencies: of the waves along each input, strongest first, in cycles per unit of
            the input.
        amplitudes: of these waves, in units of the output.
    """

    low: Float[Array, " d"]
    length: Float[Array, " d"]
    spacing: Float[Array, " d"]
    y_mean: Float[Array, ""]
    y_sd: Float[Array, ""]
    frequencies: tuple[Float[Array, " _q"], ...]
    amplitudes: tuple[Float[Array, " _q"], ...]

    @classmethod
    def restore(cls, fields: dict[str, Any], dtype: Any) -> "Units":
        """The units, from what a file keeps of them."""
        waves = ("frequencies", "amplitudes")
        arrays: dict[str, Any] = {
            name: tuple(jnp.asarray(a, dtype) for a in value)
            if name in waves
            else jnp.asarray(value, dtype)
            for name, value in fields.items()
        }
        return cls(**arrays)


class Observed(AbstractData):
    """Values `y` at places `x`.

    Args:
        x: shape `(n,)` or `(n, d)`, in any units and any order: array, list, pandas or
            xarray object. Places may repeat.
        y: shape `(n,)`, in any units.
        noise_sd: sd of the noise in units of `y`, if it is known.
        inputs: one name per column of `x`. By default those of a data frame, else `x` or
            `x0, x1, ...`.
        units: scales by which priors are rescaled, and the waves at which frequencies
            start. By default those of these data. Give them to keep the priors fixed
            while data change.
        num_waves: how many fixed waves take the place of the covariance matrix, for one
            input only. The highest has `num_waves` / 6 cycles over the data. By default
            none, which is exact, up to 10,000 observations, and 600 beyond. A fit costs
            $O(m^3 + n m)$ per evaluation for $m$ waves, and `pk.diagnose` reports the
            error of the kernel.

    Raises:
        ValueError: for shapes that do not match, text, NaN, fewer than two observations,
            a constant column, or waves in several inputs.
    """

    x: Float[Array, "n d"]
    y: Float[Array, " m"]
    noise_sd: Float[Array, ""] | None
    units: Units
    ring: Ring | None
    inputs: tuple[str, ...] = eqx.field(static=True)
    even: bool = eqx.field(static=True)

    def __init__(
        self,
        x,
        y,
        noise_sd=None,
        *,
        inputs=None,
        units: Units | None = None,
        num_waves: int | None = None,
    ):
        given, x, y = x, as_array(x, "Observed(x=...)"), as_array(y, "Observed(y=...)")
        if x.ndim not in (1, 2) or y.ndim != 1:
            raise ValueError(
                f"`Observed` got `x` of shape {x.shape} and `y` of shape {y.shape}; it "
                "takes `x` of shape (n,) or (n, d) and `y` of shape (n,)."
            )
        x = x[:, None] if x.ndim == 1 else x
        if x.shape[0] != y.shape[0]:
            raise ValueError(
                f"`Observed` got {x.shape[0]} rows of `x` but {y.shape[0]} values of `y`; "
                "each observation has one of both."
            )
        if y.shape[0] < 2 or x.shape[1] == 0:
            raise ValueError(
                f"`Observed(x=...)` has shape {x.shape}; it takes two observations or "
                "more, and one column or more."
            )
        self.inputs = _input_names(inputs, column_names(given, x.shape[1]), x.shape[1])
        self.x, self.y = x, y.astype(x.dtype)
        self.noise_sd = known_noise(noise_sd, "Observed", x.dtype)
        for name, column in zip(self.inputs, self.x.T, strict=True):
            refuse_no_spread(
                column, f"`Observed(x=...)`: column `{name}`", "says nothing; drop it"
            )
        self.units = self._own_units() if units is None else self._given_units(units)
        self.even = x.shape[1] == 1 and is_even(np.asarray(self.x)[:, 0])
        self.ring = self._own_ring(optional(whole("Observed(num_waves", 1))(num_waves))

    def _own_ring(self, num_waves: int | None) -> Ring | None:
        n, columns = self.x.shape
        if columns > 1 and num_waves is not None:
            raise ValueError(
                f"`Observed(num_waves={num_waves})`: waves take the place of the "
                f"covariance on a line, and the data have {', '.join(self.inputs)}; leave "
                "it out."
            )
        if num_waves is None and columns == 1 and n > MOST_EXACT:
            num_waves = WAVES
        return None if num_waves is None else ring_of(self.x[:, 0], num_waves)

    def _own_units(self) -> Units:
        refuse_no_spread(self.y, "`Observed(y=...)`", "leaves nothing to explain")
        units = units_of(np.asarray(self.x, float), np.asarray(self.y, float))
        return cast(units, self.x.dtype)

    def _given_units(self, units: Any) -> Units:
        columns = self.x.shape[1]
        if not isinstance(units, Units) or np.shape(units.length) != (columns,):
            raise ValueError(
                "`Observed(units=...)` takes the units of data with as many columns, here "
                f"{columns}, such as `units=other.units`."
            )
        return cast(units, self.x.dtype)

    def take(self, indices) -> "Observed":
        """Refused, because all observations depend on the same function."""
        raise ValueError(
            "`Observed` values depend on each other, and no part stands for the whole; fit "
            "them with `SVI(batch_size=None)`."
        )

    def fields(self) -> dict[str, Any]:
        """The ring follows from the places, and from its number of waves."""
        kept = {k: v for k, v in super().fields().items() if k != "ring"}
        return kept | {"num_waves": None if self.ring is None else self.ring.num_waves}

    @classmethod
    def restore(cls, arrays, fields) -> "Observed":
        units = Units.restore(fields["units"]["fields"], jnp.asarray(arrays["x"]).dtype)
        known = arrays.get("noise_sd")
        return cls(
            arrays["x"],
            arrays["y"],
            None if known is None else float(known),
            inputs=fields["inputs"],
            units=units,
            num_waves=fields.get("num_waves"),  # a file of an earlier version has none
        )


def cast(units: Units, dtype) -> Units:
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), units)


def known_noise(value: Any, kind: str, dtype) -> Float[Array, ""] | None:
    """The sd of the noise, if it is given."""
    if value is None:
        return None
    return jnp.asarray(positive(f"{kind}(noise_sd")(value), dtype)


def units_of(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> Units:
    """The scales of values at places, and the waves in them."""
    n, d = x.shape
    length = np.ptp(x, 0)
    distinct = np.array([len(np.unique(column)) for column in x.T])
    # Points that are spread over a box have this many along each of its axes.
    along = np.minimum(distinct, max(2, round(n ** (1 / d))))
    tones = _tones(x, y) if d <= 3 else [(np.zeros(0), np.zeros(0))] * d
    return Units(
        jnp.asarray(x.min(0)),
        jnp.asarray(length),
        jnp.asarray(length / (along - 1)),
        jnp.asarray(y.mean()),
        jnp.asarray(y.std()),
        tuple(jnp.asarray(s) for s, _ in tones),
        tuple(jnp.asarray(a) for _, a in tones),
    )


def _tones(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The waves along each axis, strongest first: frequencies and amplitudes."""
    found = waves(*_fewer(x, y, MOST_SEARCHED[x.shape[1]]), max_waves=MOST_WAVES)
    tones = []
    for s, length in zip(found.frequency.T, np.ptp(x, 0), strict=True):
        kept: list[int] = []
        for i in np.argsort(-found.amplitude):
            strong = found.amplitude[i] > WEAKEST * found.amplitude.max()
            # A product of waves is steady along the axes on which it has no frequency.
            new = all(abs(s[i] - s[j]) * length > CLOSEST for j in kept)
            if strong and new and s[i] * length > CLOSEST:
                kept.append(int(i))
        tones.append((s[kept], found.amplitude[kept]))
    return tones


def _fewer(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many places and values."""
    every = -(-len(x) // most)
    if x.shape[1] > 1 or every == 1:
        return x[::every], y[::every]
    # A mean of neighbours has less noise than one of them, and less of a wave that is
    # faster than their distance, which would appear as a slower one.
    order = np.argsort(x[:, 0], kind="stable")[: len(x) // every * every]
    means = [a[order].reshape(-1, every).mean(1) for a in (x[:, 0], y)]
    return means[0][:, None], means[1]


def _input_names(given, found, count: int) -> tuple[str, ...]:
    default = ("x",) if count == 1 else tuple(f"x{i}" for i in range(count))
    if given is None:
        names = found or default
    else:
        listed = [given] if isinstance(given, str) else given
        names = tuple(map(str, listed)) if np.iterable(listed) else ()
    if len(names) != count or len(set(names)) < count:
        raise ValueError(
            f"`Observed(inputs={short(given if found is None else names)})`: `x` has "
            f"{count} columns; give each a name of its own."
        )
    return names
