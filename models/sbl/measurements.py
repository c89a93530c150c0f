"""The data of sparse Bayesian learning: measurements and their dictionaries."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray

from probkit.linalg import mode_products, outer
from probkit.model import AbstractData
from probkit.models.sbl.coordinates import (
    SPREAD_UNITS,
    Places,
    Reduced,
    Scattered,
    Vectors,
    coordinates,
    root_mean_square,
    standardised,
)
from probkit.validate import as_array, as_flag, as_key, positive, short

# A known noise variance is at least so many rounding units of the power of `y`.
ROUNDING_UNITS = 10
# With several modes and missing entries, the most that may be seen: their covariance is
# dense, and each step of a fit decomposes it.
MOST_SEEN = 3000


class Measurements(AbstractData):
    r"""Measurements $y = (A_1 ⊗ … ⊗ A_P)\, x + n$ of sparse coefficients $x$.

    Args:
        y: a tensor of shape `(M_1, …, M_P)`, or a vector of its entries in C order (the
            last mode varies fastest). Real or complex.
        dictionaries: one matrix per mode, of shape `(M_p, N_p)`, with the atoms as columns.
            A single matrix is one mode.
        noise_sd: the standard deviation of the noise, in the units of `y`, if it is known.
            For complex noise it is the root of $E|n_i|^2$. If None, it is learned.
        modes: one name per mode. By default `atom` for one mode, else `mode0, mode1, …`.
        power: a mean square, in squared units of `y`, to which the scales of the priors
            are relative. The default is the mean square of `y`, about its mean if there is
            an intercept. Give it to hold the priors fixed while the data change.
        intercept: whether an unknown constant is added to all measurements of one mode. Its
            prior is flat, and it is integrated out.
        normalise: whether the prior of a coefficient is relative to the length of its
            column (about the mean of the column, if there is an intercept), so that the fit
            does not depend on the units of columns. Coefficients stay in the user's units;
            $τ$ is then in those of `y`. By default the lengths count, because a longer
            column of a dictionary may mean that its atom matters more.
        seen: a truth value for each entry of `y`, False where nothing was measured. What
            `y` has there does not matter, be it NaN. By default all entries were measured,
            and NaN is refused, so that it is never taken for missing by mistake. Not with
            an intercept or normalised columns.

    With several modes and missing entries a fit costs $O(m^3)$ per step for $m$ seen ones,
    of which there may be 3,000.

    Raises:
        ValueError: for shapes that do not match, a column of zeros (where something was
            seen), NaN, a noise or power that is not positive, a noise variance of a few
            rounding units of the power, a complex `y` with real dictionaries or the
            reverse, a `y` of zeros, squares out of the range of the dtype, names of modes
            that are no identifiers, repeat, or name another axis of a fit, a `seen` that
            holds other than truth values or no True, or too many seen entries.
            With an intercept: for a constant column, fewer than two measurements, or
            several modes.
    """

    y: Inexact[Array, "..."]
    dictionaries: tuple[Inexact[Array, "_m _n"], ...]
    noise_sd: Float[Array, ""] | None
    modes: tuple[str, ...] = eqx.field(static=True)
    power: Float[Array, ""]
    places: Places | None  # of the seen entries; None if all are seen
    intercept: bool = eqx.field(static=True)
    normalise: bool = eqx.field(static=True)
    reduced: Reduced | Scattered

    def __init__(
        self,
        y: Any,
        dictionaries: Any,
        noise_sd: Any = None,
        modes: Sequence[str] | None = None,
        power: Any = None,
        seen: Any = None,
        intercept: bool = False,
        normalise: bool = False,
    ):
        matrices = _matrices(dictionaries)
        self.modes = _mode_names(modes, len(matrices))
        self.intercept = as_flag("Measurements(intercept")(intercept)
        self.normalise = as_flag("Measurements(normalise")(normalise)
        y, mask = _values(y, seen)
        if mask is not None and (self.intercept or self.normalise):
            raise ValueError(
                "`Measurements(seen=...)` takes neither `intercept` nor `normalise`; with "
                "one dictionary leave out the rows that were not measured."
            )
        _refuse_mixed_fields(y, matrices)
        dtype = jnp.result_type(y, *matrices)
        self.dictionaries = tuple(matrix.astype(dtype) for matrix in matrices)
        self.y = _as_tensor(y, self.dictionaries, self.modes).astype(dtype)
        self.places = None if mask is None else _places(mask.reshape(self.y.shape))
        for p, (name, matrix) in enumerate(zip(self.modes, matrices, strict=True)):
            rows = slice(None) if self.places is None else self.places[p]
            _refuse_zero_columns(name, matrix[rows])
        if not self.intercept and not bool(jnp.any(self.y != 0)):
            raise ValueError(
                "`Measurements(y=...)` is zero everywhere; nothing can be learned from it."
            )
        real = self.y.real.dtype
        self.noise_sd = _positive(noise_sd, "noise_sd", "to have it learned", real)
        _refuse_out_of_range(self.y, self.dictionaries, self.noise_sd)
        if self.intercept:
            _refuse_no_intercept(self.y, self.dictionaries)
        if self.intercept or self.normalise:
            self.reduced, own = standardised(
                self.y, self.dictionaries, self.intercept, self.normalise
            )
        else:
            self.reduced = coordinates(self.y, self.dictionaries, self.places)
            own = jnp.sum(jnp.abs(self.y) ** 2) / len(self)
        given = _positive(power, "power", "for that of `y`", real)
        self.power = own if given is None else given
        _refuse_too_little(self.noise_sd, own)

    @classmethod
    def table(cls, y: Any, x: Any, noise_sd: Any = None) -> "Measurements":
        """A regression of one column on others, in any units, with an intercept.

        The columns may have any units and any zero: the same as `Measurements` with
        `intercept=True` and `normalise=True`. It is a constructor of its own because a
        dictionary of physical atoms wants neither, and a table of readings wants both.

        Args:
            y: shape `(n,)`, in any units.
            x: shape `(n, p)`, one column per regressor, none of them constant.
            noise_sd: as for `Measurements`, in the units of `y`.

        Returns:
            Measurements with the mode `atom`: one atom per column.

        Raises:
            ValueError: as for `Measurements`.
        """
        return cls(y, [x], noise_sd, intercept=True, normalise=True)

    @classmethod
    def snapshots(
        cls, y: Any, dictionary: Any, noise_sd: Any = None, seen: Any = None
    ) -> "Measurements":
        """Several measurements with one dictionary, as columns of `y`.

        The second mode, `snapshot`, has the identity as its dictionary. With
        `KroneckerSBL(frozen=("snapshot",))` all snapshots share one support: M-SBL.

        Args:
            y: shape `(M, L)`, one column per snapshot.
            dictionary: shape `(M, N)`, one column per atom.
            noise_sd: as for `Measurements`, in the units of `y`.
            seen: as for `Measurements`, of the shape of `y`.

        Returns:
            Measurements with the modes `atom` and `snapshot`.

        Raises:
            ValueError: as for `Measurements`, or if `y` is not a matrix.
        """
        y, mask = _values(y, seen, "Measurements.snapshots")
        if y.ndim != 2:
            raise ValueError(
                f"`Measurements.snapshots(y=...)` has shape {y.shape}; it takes (M, L), "
                "one column per snapshot."
            )
        each, modes = np.eye(y.shape[1], dtype=y.dtype), ("atom", "snapshot")
        return cls(y, (dictionary, each), noise_sd, modes, seen=mask)

    def __len__(self) -> int:
        """The number of entries that were seen."""
        return self.y.size if self.places is None else len(self.places[0])

    def take(self, indices) -> "Measurements":
        """Refused, because all measurements depend on the same coefficients."""
        raise ValueError(
            "`Measurements` are one observation, and no part stands for the whole; fit "
            "them with `SVI(batch_size=None)`."
        )

    def arrays(self) -> dict[str, Array]:
        named = {
            f"dictionary_{mode}": matrix
            for mode, matrix in zip(self.modes, self.dictionaries, strict=True)
        }
        known = {} if self.noise_sd is None else {"noise_sd": self.noise_sd}
        y = self.y if self.places is None else jnp.where(self.seen, self.y, jnp.nan)
        return {"y": y, "power": self.power, **named, **known}

    def fields(self) -> dict[str, Any]:
        names = ("modes", "intercept", "normalise")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def restore(cls, arrays, fields) -> "Measurements":
        dictionaries = [arrays[f"dictionary_{mode}"] for mode in fields["modes"]]
        known = {"noise_sd": arrays.get("noise_sd"), "power": arrays["power"]}
        missing = np.isnan(arrays["y"])
        seen = ~missing if missing.any() else None
        return cls(arrays["y"], dictionaries, **known, seen=seen, **fields)

    @property
    def is_complex(self) -> bool:
        return jnp.iscomplexobj(self.y)

    @property
    def num_atoms(self) -> tuple[int, ...]:
        """$N_1, …, N_P$: the number of atoms of each mode."""
        return tuple(matrix.shape[1] for matrix in self.dictionaries)

    @property
    def seen(self) -> Bool[Array, "..."]:
        """Whether each entry of `y` was measured."""
        if self.places is None:
            return jnp.ones(self.y.shape, bool)
        return jnp.zeros(self.y.shape, bool).at[self.places].set(True)

    def sum_of_seen(self, vectors: Vectors) -> Float[Array, ""]:
        r"""The sum of the entries of $v_1 ⊗ … ⊗ v_P$ that were seen.

        Args:
            vectors: $v_p$, shape `(M_p,)`.
        """
        if self.places is None:
            return jnp.prod(jnp.stack([v.sum() for v in vectors]))
        return outer(vectors)[self.places].sum()


def simulate(
    key: PRNGKeyArray,
    dictionaries: Any,
    coefficients: Any,
    noise_sd: float,
    *,
    noise_known: bool = True,
    modes: Sequence[str] | None = None,
) -> Measurements:
    r"""Measurements of known coefficients, $y = (A_1 ⊗ … ⊗ A_P)\, x + n$.

    Args:
        key: a JAX random key.
        dictionaries: as for `Measurements`.
        coefficients: $x$, shape `(N_1, …, N_P)`, real or complex as the dictionaries are.
        noise_sd: sd of $n$, in the units of `y`. For complex noise it is the root of
            $E|n_i|^2$.
        noise_known: whether the measurements hold `noise_sd`; if not, it is learned.
        modes: as for `Measurements`.

    Returns:
        Measurements whose `y` has shape `(M_1, …, M_P)`.

    Raises:
        ValueError: if the shapes do not match, or as for `Measurements`.
    """
    key, matrices = as_key(key, "simulate(key=...)"), _matrices(dictionaries)
    x = as_array(coefficients, "simulate(coefficients=...)", complex_too=True)
    shape = tuple(matrix.shape[1] for matrix in matrices)
    if x.shape != shape:
        raise ValueError(
            f"`simulate(coefficients=...)` has shape {x.shape}, but the dictionaries have "
            f"{shape} columns; give one coefficient per combination of atoms."
        )
    σ = positive("simulate(noise_sd")(noise_sd)
    signal = mode_products(x, matrices)
    y = signal + σ * jax.random.normal(key, signal.shape, signal.dtype)
    return Measurements(y, matrices, σ if noise_known else None, modes)


def _values(
    y: Any, seen: Any, what: str = "Measurements"
) -> tuple[Array, np.ndarray | None]:
    """`y` with zeros for what was not seen, and `seen`, or None if all was."""
    mask = None if seen is None else _mask(seen, what)
    remedy = "say what was measured, such as `seen=~np.isnan(y)`, or impute the rest"
    array = as_array(y, f"{what}(y=...)", complex_too=True, seen=mask, remedy=remedy)
    return array, None if mask is None or mask.all() else mask


def _mask(seen: Any, what: str) -> np.ndarray:
    try:
        mask = np.asarray(seen)
    except ValueError:
        raise ValueError(f"`{what}(seen=...)` is ragged: its rows differ.") from None
    if mask.dtype != bool:
        raise ValueError(
            f"`{what}(seen=...)` holds {mask.dtype}; it takes truth values, True where "
            "something was measured, such as `~np.isnan(y)`."
        )
    if not mask.any():
        raise ValueError(f"`{what}(seen=...)` is False everywhere: nothing was measured.")
    return mask


def _places(mask: np.ndarray) -> Places:
    count = int(mask.sum())
    if mask.ndim > 1 and count > MOST_SEEN:
        raise ValueError(
            f"`Measurements(seen=...)` is True for {count:,} of {mask.size:,} entries; "
            f"with several modes and missing entries it takes at most {MOST_SEEN:,}, as "
            "their covariance is dense. Cut the grid, so that fewer are seen or none is "
            "missing."
        )
    return tuple(jnp.asarray(i) for i in np.nonzero(mask))


def _matrices(given: Any) -> list[Array]:
    single = getattr(given, "ndim", None) == 2
    if not single and not isinstance(given, list | tuple):
        raise ValueError(
            f"`Measurements(dictionaries=...)` got a {type(given).__name__}; it takes a "
            "matrix, or a list of one matrix per mode."
        )
    parts = [given] if single else list(given)
    if not parts:
        raise ValueError("`Measurements(dictionaries=[])`: it takes one matrix per mode.")
    matrices = []
    for i, part in enumerate(parts):
        what = f"Measurements(dictionaries=...)[{i}]"
        matrix = as_array(part, what, complex_too=True)
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(
                f"`{what}` has shape {matrix.shape}; it takes a matrix, with "
                "one row per measurement and one column per atom."
            )
        matrices.append(matrix)
    return matrices


def _mode_names(given, count: int) -> tuple[str, ...]:
    if given is None:
        return ("atom",) if count == 1 else tuple(f"mode{p}" for p in range(count))
    listed = [given] if isinstance(given, str) else given
    names = tuple(map(str, listed)) if np.iterable(listed) else ()
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"`Measurements(modes={short(given)})`: there are {count} dictionaries; give "
            "each a name of its own."
        )
    if bad := [name for name in names if not name.isidentifier()]:
        raise ValueError(
            f"`Measurements(modes=...)` has {bad[0]!r}; sites are called after modes, so "
            "it takes names as of variables, such as `antenna`."
        )
    axes = {"chain", "draw", *(f"{name}_measured" for name in names)}
    if taken := [name for name in names if name in axes]:
        raise ValueError(
            f"`Measurements(modes=...)` has {taken[0]!r}, which names another axis of a "
            "fit; call the mode something else."
        )
    return names


def _refuse_zero_columns(name: str, matrix: Array) -> None:
    zero = np.flatnonzero(~np.any(np.asarray(matrix) != 0, axis=0))
    if zero.size:
        raise ValueError(
            f"`Measurements(dictionaries=...)`: column {zero[0]} of mode `{name}` is zero "
            f"({zero.size} of {matrix.shape[1]} are): nothing measures that atom; drop it."
        )


def _refuse_mixed_fields(y: Array, matrices: list[Array]) -> None:
    real = not any(jnp.iscomplexobj(matrix) for matrix in matrices)
    if jnp.iscomplexobj(y) and real:
        raise ValueError(
            "`Measurements(y=...)` is complex, but every dictionary is real: give real and "
            "imaginary part as two snapshots (`Measurements.snapshots`), or, if the "
            "coefficients are complex, a dictionary as `A.astype(complex)`."
        )
    if not jnp.iscomplexobj(y) and not real:
        raise ValueError(
            "`Measurements(y=...)` is real, but a dictionary is complex: the imaginary "
            "part of the measurements is missing; give it, or the real part of the "
            "dictionary."
        )


def _as_tensor(y: Array, matrices, modes) -> Array:
    shape = tuple(matrix.shape[0] for matrix in matrices)
    if y.shape == shape:
        return y
    if y.ndim == 1 and y.size == math.prod(shape):
        return y.reshape(shape)
    rows = ", ".join(f"{m} (`{name}`)" for m, name in zip(shape, modes, strict=True))
    raise ValueError(
        f"`Measurements(y=...)` has shape {y.shape}, but the dictionaries have {rows} "
        f"rows: it takes shape {shape}, or a vector of {math.prod(shape)}. Axis p of `y` "
        "is measured by dictionary p."
    )


def _positive(given: Any, name: str, otherwise: str, dtype) -> Float[Array, ""] | None:
    if given is None:
        return None
    try:
        if np.ndim(given) > 0:
            raise ValueError
        return jnp.asarray(positive(name)(given), dtype)
    except ValueError:
        raise ValueError(
            f"`Measurements({name}={short(given)})`: it takes a positive number, or None "
            f"{otherwise}."
        ) from None


def _refuse_out_of_range(y: Array, matrices, noise_sd) -> None:
    dtype = y.real.dtype
    wide = [np.asarray(a).astype(complex) for a in (y, *matrices)]
    info = np.finfo(dtype)
    with np.errstate(over="ignore", under="ignore"):
        power, *norms = (float(np.sum(np.abs(a) ** 2)) for a in wide)
        squares = [math.prod(norms), *norms]
        squares += [power] if wide[0].any() else []
        squares += [] if noise_sd is None else [float(noise_sd) ** 2]
    if not all(float(info.tiny) <= square <= float(info.max) for square in squares):
        raise ValueError(
            "`Measurements(...)`: of `y`, the dictionaries and `noise_sd`, squares of some "
            f"are beyond the range of {dtype}; use other units."
        )


def _refuse_too_little(noise_sd: Array | None, power: Array) -> None:
    least = float(jnp.sqrt(ROUNDING_UNITS * jnp.finfo(power.dtype).eps * power))
    if noise_sd is not None and float(noise_sd) < least:
        raise ValueError(
            f"`Measurements(noise_sd={float(noise_sd):.3g})` is less than the rounding of "
            f"the covariance of `y` in {power.dtype}: give {least:.2g} or more, or None to "
            "have it learned."
        )


def _refuse_no_intercept(y: Array, matrices) -> None:
    if y.ndim != 1 or y.size < 2:
        raise ValueError(
            f"`Measurements(intercept=True)` got `y` of shape {y.shape}: it takes one "
            "dictionary and two measurements or more; with several, subtract a mean of "
            "your own."
        )
    matrix = np.asarray(matrices[0])
    # Rounding may give a constant column a spread just above zero.
    least = SPREAD_UNITS * np.finfo(matrix.real.dtype).eps * root_mean_square(matrix)
    flat = np.flatnonzero(root_mean_square(matrix - matrix.mean(0)) <= least)
    if flat.size:
        raise ValueError(
            f"`Measurements(intercept=True)`: column {flat[0]} of the dictionary is "
            f"constant ({flat.size} of {matrix.shape[1]} are) and cannot be distinguished "
            "from the intercept; drop it."
        )
