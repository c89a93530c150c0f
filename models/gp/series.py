"""The data of a temporal regression: values at times."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from probkit.model import AbstractData
from probkit.models.gp.observed import Units, cast, known_noise, units_of
from probkit.models.gp.times import MOVED, as_labels, as_origin, as_times
from probkit.validate import as_array, refuse_no_spread


class Series(AbstractData):
    """Values `y` at times `t`, sorted by time.

    Args:
        t: shape `(n,)`, in any order, and may repeat: numbers in any unit, or dates
            (NumPy, pandas, `datetime`) without a time zone, which are kept as days since
            the first.
        y: shape `(n,)`, in any units, counts, or zeros and ones. NaN and None mean that
            nothing was observed at that time.
        noise_sd: sd of the noise in units of `y`, if it is known.
        exposure: shape `(n,)`, positive: a count is expected to grow in proportion to it.
            By default 1 for all.
        units: as for `Observed`.
        origin: the date at which `t` is zero, if `t` has days and results should have
            dates.

    Raises:
        ValueError: for shapes that do not match, text, missing times, time zones, times
            that rounding to float32 would move, fewer than two values, or a constant `y`.
    """

    t: Float[Array, " n"]
    y: Float[Array, " n"]  # zero where nothing was observed
    seen: Bool[Array, " n"]
    noise_sd: Float[Array, ""] | None
    exposure: Float[Array, " n"] | None
    units: Units
    origin: str | None = eqx.field(static=True)

    def __init__(
        self, t, y, noise_sd=None, *, exposure=None, units: Units | None = None, origin=None
    ):
        t, self.origin, moved = as_times(t, as_origin(origin), "Series(t=...)")
        values = _values(y)
        if t.ndim != 1 or t.shape != values.shape:
            raise ValueError(
                f"`Series` got `t` of shape {t.shape} and `y` of shape {values.shape}; it "
                "takes one value per time, both of shape (n,)."
            )
        seen = ~np.isnan(values)
        if seen.sum() < 2:
            raise ValueError(
                f"`Series(y=...)` has {int(seen.sum())} values that are not NaN; it takes "
                "two or more."
            )
        order = np.argsort(np.asarray(t), stable=True)
        dtype = jnp.result_type(t.dtype, values.dtype)
        self.t, self.seen = t[order].astype(dtype), jnp.asarray(seen[order])
        self.y = as_array(values[order], "Series(y=...)", seen=seen[order]).astype(dtype)
        self.noise_sd = known_noise(noise_sd, "Series", dtype)
        if exposure is not None:
            exposure = as_exposure(exposure, values.shape, "Series(exposure=...)")
            exposure = exposure[order].astype(dtype)
        self.exposure = exposure
        at, found = np.asarray(t, float)[seen], values[seen].astype(float)
        spacing = np.ptp(at) / max(len(np.unique(at)) - 1, 1)
        if moved > MOVED * spacing:
            raise ValueError(
                f"`Series(t=...)`: {dtype} moves times by up to {moved:.2g}, and they are "
                f"{spacing:.2g} apart; use `pk.enable_x64()`, or count from the first time."
            )
        refuse_no_spread(at, "`Series(t=...)`", "has one time only; give two or more")
        if units is None:
            refuse_no_spread(found, "`Series(y=...)`", "leaves nothing to explain")
            ordered = np.argsort(at, stable=True)
            units = units_of(at[ordered, None], found[ordered])
        elif not isinstance(units, Units) or np.shape(units.length) != (1,):
            raise ValueError(
                "`Series(units=...)` takes the units of another series, such as "
                "`units=other.units`."
            )
        self.units = cast(units, dtype)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The name of the one input of the kernels."""
        return ("t",)

    def labels(self, t: Float[Array, " m"] | None = None) -> np.ndarray:
        """Times as numbers or dates, whichever the series has; by default its own."""
        return as_labels(self.t if t is None else t, self.origin)

    def __len__(self) -> int:
        return len(self.t)

    def take(self, indices) -> "Series":
        """Refused, because all observations depend on the same function."""
        raise ValueError(
            "The values of a `Series` depend on each other, and no part stands for the "
            "whole; fit them with `SVI(batch_size=None)`."
        )

    def rows(self) -> dict[str, Array]:
        return {}

    # What a file keeps: y with NaN where nothing was observed.

    def arrays(self) -> dict[str, Array]:
        every = {"t": self.t, "y": jnp.where(self.seen, self.y, jnp.nan)}
        every |= {} if self.noise_sd is None else {"noise_sd": self.noise_sd}
        return every | ({} if self.exposure is None else {"exposure": self.exposure})

    def fields(self) -> dict[str, Any]:
        return {"units": self.units, "origin": self.origin}

    @classmethod
    def restore(cls, arrays, fields) -> "Series":
        units = Units.restore(fields["units"]["fields"], jnp.asarray(arrays["y"]).dtype)
        known = arrays.get("noise_sd")
        return cls(
            arrays["t"],
            arrays["y"],
            None if known is None else float(known),
            exposure=arrays.get("exposure"),
            units=units,
            origin=fields["origin"],
        )


def _values(y: Any) -> np.ndarray:
    """Values as floating numbers, NaN where there are none."""
    try:
        array = np.asarray(y)
        array = array.astype(float) if array.dtype == object else array
    except (TypeError, ValueError):
        array = np.asarray(None)  # refused below
    if isinstance(y, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(y), np.nan, np.ma.getdata(y))
    if array.dtype.kind != "f":
        return np.asarray(as_array(y, "Series(y=...)"))
    gaps = np.isnan(array)
    clean = as_array(array, "Series(y=...)", seen=~gaps)
    return np.where(gaps, np.nan, np.asarray(clean))


def as_exposure(value: Any, shape: tuple[int, ...], what: str) -> Float[Array, " n"]:
    """One positive number per time, from a list, NumPy, pandas or xarray object."""
    exposure = as_array(value, what)
    if exposure.shape != shape or not (np.asarray(value, float) > 0).all():
        raise ValueError(
            f"`{what}` has shape {exposure.shape}; it takes one positive number per time, "
            f"of shape {shape}."
        )
    return exposure
