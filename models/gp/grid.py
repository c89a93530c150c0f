"""Values on a grid, some of them missing, and what a product of kernels gives for them."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit import linalg
from probkit.distributions import PartialKroneckerNormal
from probkit.linalg import mode_products, with_jitter
from probkit.model import AbstractData
from probkit.model.density import Sites
from probkit.models.gp.kernels import (
    Column,
    SquaredExponential,
    Structure,
    columns_of,
    title,
)
from probkit.models.gp.observed import Units, cast, known_noise, units_of
from probkit.validate import as_array, refuse_no_spread, short

# The most cells without a value, each of which takes one solution over the grid, and the
# most numbers in all these solutions.
MOST_MISSING, MOST_NUMBERS = 3000, 2e8


class Grid(AbstractData):
    """Values `y` at all points of a grid, NaN where there is none.

    Args:
        y: shape `(n_1, …, n_d)`, in any units: array, list, pandas or xarray object. NaN
            and None mean that a cell was not observed.
        axes: a dict from the name of each axis to its coordinates, shape `(n_j,)`, which
            ascend and may be uneven. By default the coordinates of an xarray object.
        noise_sd: sd of the noise in units of `y`, if it is known.
        units: as for `Observed`.

    Raises:
        ValueError: for shapes that do not match, coordinates that do not ascend, text,
            infinities, fewer than two values, a constant `y`, or more than 3,000 missing
            cells (all others then fit into `gp.Observed`, or are too many).
    """

    y: Float[Array, "..."]
    axes: tuple[Float[Array, " _n"], ...]
    missing: Int[Array, " u"]
    noise_sd: Float[Array, ""] | None
    units: Units
    inputs: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, y, axes=None, noise_sd=None, *, units: Units | None = None):
        named = _axes_of(y) if axes is None else axes
        if not isinstance(named, Mapping) or not named:
            raise ValueError(
                f"`Grid(axes={short(axes)})`: it takes a dict from names to coordinates, "
                "such as `{'time': t, 'depth': z}`."
            )
        self.inputs = tuple(map(str, named))
        coordinates = [as_array(a, f"Grid(axes={{{k!r}: ...}})") for k, a in named.items()]
        values, seen = _values(y)
        dtype = values.dtype
        self.axes = tuple(a.astype(dtype) for a in coordinates)
        for name, axis in zip(self.inputs, self.axes, strict=True):
            if axis.ndim != 1 or len(axis) < 2 or not (np.diff(axis) > 0).all():
                raise ValueError(
                    f"`Grid(axes={{{name!r}: ...}})` has shape {axis.shape}; it takes two "
                    "coordinates or more, that ascend."
                )
        expected = tuple(map(len, self.axes))
        if values.shape != expected:
            raise ValueError(
                f"`Grid(y=...)` has shape {values.shape}, but the axes "
                f"{', '.join(self.inputs)} have {expected} coordinates."
            )
        if seen.sum() < 2:
            raise ValueError("`Grid(y=...)` has fewer than two values that are not NaN.")
        count = int((~seen).sum())
        if count > MOST_MISSING or count * seen.size > MOST_NUMBERS:
            raise ValueError(
                f"`Grid(y=...)` lacks {count:,} of {seen.size:,} cells, and each takes a "
                f"solution over the grid (at most {MOST_MISSING:,}); give the "
                f"{int(seen.sum()):,} others to `gp.Observed`, or cut the grid."
            )
        refuse_no_spread(values[seen], "`Grid(y=...)`", "leaves nothing to explain")
        self.y = jnp.asarray(values)
        self.missing = jnp.asarray(np.flatnonzero(~seen))
        self.noise_sd = known_noise(noise_sd, "Grid", dtype)
        if units is None:
            at = [
                a[i]
                for a, i in zip(map(np.asarray, self.axes), np.nonzero(seen), strict=True)
            ]
            units = units_of(np.stack(at, 1), values[seen])
            steps = [(a[-1] - a[0]) / (len(a) - 1) for a in self.axes]
            units = eqx.tree_at(lambda u: u.spacing, units, jnp.stack(steps))
        self.units = cast(units, dtype)

    def __len__(self) -> int:
        return self.y.size - self.missing.size

    def take(self, indices) -> "Grid":
        """Refused, because all observations depend on the same function."""
        raise ValueError(
            "The cells of a `Grid` depend on each other, and no part stands for the whole; "
            "fit them with `SVI(batch_size=None)`."
        )

    def rows(self) -> dict[str, Array]:
        return {}

    def arrays(self) -> dict[str, Array]:
        unseen = self.y.reshape(-1).at[self.missing].set(jnp.nan).reshape(self.y.shape)
        pairs = zip(self.inputs, self.axes, strict=True)
        axes = {f"axis_{name}": axis for name, axis in pairs}
        known = {} if self.noise_sd is None else {"noise_sd": self.noise_sd}
        return {"y": unseen, **axes, **known}

    def fields(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "units": self.units}

    @classmethod
    def restore(cls, arrays, fields) -> "Grid":
        axes = {name: arrays[f"axis_{name}"] for name in fields["inputs"]}
        units = Units.restore(fields["units"]["fields"], jnp.asarray(arrays["y"]).dtype)
        known = arrays.get("noise_sd")
        known = None if known is None else float(known)
        return cls(arrays["y"], axes, known, units=units)


def _axes_of(y: Any) -> Any:
    """The coordinates of an xarray object."""
    names = getattr(y, "dims", None)
    if names is None or not all(name in y.coords for name in names):
        return None
    return {name: y.coords[name].values for name in names}


def _values(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values with zeros for those that are missing, and which are not."""
    try:
        array = np.asarray(y)
        array = array.astype(float) if array.dtype == object else array
    except (TypeError, ValueError):
        array = np.asarray(None)  # refused below
    if array.dtype.kind != "f":
        array = np.asarray(as_array(y, "Grid(y=...)"))
    gaps = np.isnan(array)
    clean = as_array(np.where(gaps, array.dtype.type(0), array), "Grid(y=...)")
    return np.asarray(clean), ~gaps


class GridInputs(eqx.Module):
    """Where to predict: the axes of another grid, and the data of the fit."""

    axes: tuple[Float[Array, " _m"], ...]
    data: Grid


def grid_inputs(given: Any, data: Grid) -> GridInputs:
    """The axes of a grid at which to predict, checked."""
    if isinstance(given, Grid):
        given = dict(zip(given.inputs, given.axes, strict=True))
    if not isinstance(given, Mapping) or set(given) != set(data.inputs):
        raise ValueError(
            f"`predict(..., inputs)` got {short(given)}; it takes a `gp.Grid`, or a dict "
            f"with the coordinates of {', '.join(data.inputs)}."
        )
    axes = []
    for name in data.inputs:
        axis = as_array(given[name], f"predict(..., inputs)[{name}]")
        if axis.ndim != 1 or not len(axis):
            raise ValueError(
                f"`predict(..., inputs)[{name}]` has shape {axis.shape}; it takes (m,)."
            )
        axes.append(axis.astype(data.y.dtype))
    return GridInputs(tuple(axes), data)


def factors(
    structure: Structure, sites: Sites, data: Grid, left: Any, right: Any
) -> list[Float[Array, "_n _m"]]:
    """The covariance of each axis, whose Kronecker product is that of the grid."""
    _refuse_no_product(structure, data)
    (term,) = structure.terms
    own = structure.has_own_sd(term)
    variance = jnp.ones(()) if own else sites[f"sd_{title(term)}"] ** 2
    out = []
    for j, (x, x2) in enumerate(zip(left, right, strict=True)):
        matrix = jnp.ones((len(x), len(x2)), x.dtype)
        for name in term:
            leaf = structure.leaves[name]
            column = columns_of(leaf, data)
            if j not in column.columns:
                continue
            θ = {p: sites[f"{p}_{name}"] for p in leaf.priors(column)}
            if len(column.columns) > 1:
                θ = {"lengthscale": θ["lengthscale"][j]}
            one = Column((j,), data.units)
            matrix = matrix * leaf.between(θ, one, x[:, None], x2[:, None])
        out.append(matrix * variance if j == 0 else matrix)
    return out


def _refuse_no_product(structure: Structure, data: Grid) -> None:
    joint = [
        type(leaf).__name__
        for leaf in structure.leaves.values()
        if len(columns_of(leaf, data).columns) > 1
        and not isinstance(leaf, SquaredExponential)
    ]
    if len(structure.terms) > 1 or joint:
        names = " * ".join(f"gp.Matern(on={name!r})" for name in data.inputs)
        what = f"`{joint[0]}` of several inputs" if joint else "a sum of kernels"
        raise ValueError(
            f"`Regression` got {what} for a `Grid`; it takes one product of kernels of one "
            f"input each, such as `{names}`, or give the values to `gp.Observed`."
        )


def evidence(
    structure: Structure, sites: Sites, data: Grid, noise_sd: Float[Array, ""]
) -> PartialKroneckerNormal:
    """$p(y)$ of the cells that are observed."""
    G = factors(structure, sites, data, data.axes, data.axes)
    return PartialKroneckerNormal(sites["level"], G, noise_sd**2, data.missing)


def predict(structure: Structure, sites: Sites, inputs: GridInputs, noise_sd, key) -> Sites:
    """At the points of a grid: one joint draw with noise, and mean and sd without."""
    data, new, m = inputs.data, inputs.axes, sites["level"]
    known = evidence(structure, sites, data, noise_sd)
    across = factors(structure, sites, data, new, data.axes)
    mean = m + mode_products(known.weights(data.y), across)
    variance = _prior_variance(structure, sites, data, new) - _explained(known, across)
    # A draw of both grids from the prior, moved by what the observations say of the error
    # of its values at the data (Matheron).
    key_prior, key_data, key_new = jax.random.split(key, 3)
    both = [jnp.concatenate([a, b]) for a, b in zip(data.axes, new, strict=True)]
    roots = [
        jnp.linalg.cholesky(with_jitter(G))
        for G in factors(structure, sites, data, both, both)
    ]
    shape = tuple(map(len, both))
    drawn = mode_products(jax.random.normal(key_prior, shape, data.y.dtype), roots)
    here = drawn[tuple(slice(0, len(a)) for a in data.axes)]
    there = drawn[tuple(slice(len(a), None) for a in data.axes)]
    noise = noise_sd * jax.random.normal(key_data, here.shape, here.dtype)
    moved = mode_products(known.weights(data.y - here - noise), across)
    noise = noise_sd * jax.random.normal(key_new, there.shape, there.dtype)
    return {
        "y": m + there + moved + noise,
        "mean": mean,
        "sd": jnp.sqrt(jnp.maximum(variance, 0.0)),
    }


def _prior_variance(structure, sites, data, new):
    """The prior variance at each point of a grid: a product of diagonals."""
    each = [
        jax.vmap(lambda x, j=j: _one(structure, sites, data, j, x))(axis)
        for j, axis in enumerate(new)
    ]
    total = jnp.ones(())
    for diagonal in each:
        total = total[..., None] * diagonal
    return total


def _one(structure, sites, data, j, x):
    # Axes other than j are there with one point, of which only the j-th factor is used.
    points = [axis[:1] if i != j else x[None] for i, axis in enumerate(data.axes)]
    return factors(structure, sites, data, points, points)[j][0, 0]


def _explained(known: PartialKroneckerNormal, across):
    """The diagonal of $K_* Σ_{oo}^{-1} K_*^T$."""
    d, U = linalg.eigh(known.covariance)
    turned = [(A @ u) ** 2 for A, u in zip(across, U.factors, strict=True)]
    whole = mode_products(1 / d.reshape(known.event_shape), turned)
    if not known.missing.size:
        return whole
    columns = known.columns()
    root = jnp.linalg.cholesky(columns[:, known.missing])
    white = jax.scipy.linalg.solve_triangular(root, columns, lower=True)
    seen = jax.vmap(lambda c: mode_products(c.reshape(known.event_shape), across))(white)
    return whole - jnp.sum(seen**2, 0)
