r"""Coordinates of the measurements in which all questions have exact answers.

In these coordinates the covariance of the signal is a Kronecker product of small matrices.
With its eigenvectors $U$, everything that is asked of the coefficients goes through the
*basis* $B = A^H U$. There are two kinds of coordinates, each with its basis:

- `Reduced`, if all entries of the grid were measured. $B$ is a Kronecker product.
- `Scattered`, if some were not. The covariance of the $m$ seen entries is no product. It is
  one dense matrix, made of entries of the small ones, and $U$ has shape `(m, m)`.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from probkit.linalg import abs2, mode_products, outer, submatrix

Vectors = tuple[Float[Array, " _n"], ...]
Matrices = tuple[Inexact[Array, "_r _c"], ...]
Places = tuple[Int[Array, " m"], ...]
Lengths = tuple[Float[Array, " _n"] | None, ...]

# Eigenvectors that are taken to the coefficients at the same time.
BLOCK = 64
# Values that differ by less than so many rounding units are equal.
SPREAD_UNITS = 8


class AbstractBasis(eqx.Module):
    """$B = A^H U$, from rotated measurements to coefficients."""

    @abstractmethod
    def times(self, matrices: Sequence[Array]) -> "AbstractBasis":
        """$(F_1 ⊗ … ⊗ F_P)\\, B$, from one matrix per mode."""

    @abstractmethod
    def scaled(self, lengths: Lengths) -> "AbstractBasis":
        """With the entries of each coefficient times a length per mode, or times one."""

    @abstractmethod
    def back(self, rotated: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """$B z$, a tensor with one entry per coefficient."""

    @abstractmethod
    def forward(self, coefficients: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """$B^H x$, of the shape of the spectrum."""

    @abstractmethod
    def squares(self, weights: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""The diagonal of $B\, \mathrm{diag}(w)\, B^H$, one entry per coefficient."""

    @abstractmethod
    def row(self, place: Any) -> Inexact[Array, "..."]:
        """The row of one coefficient, of the shape of the spectrum."""


class KroneckerBasis(AbstractBasis):
    """$B = ⊗_p A_p^H U_p$, from one factor per mode, of shape `(N_p, m_p)`."""

    factors: Matrices

    def times(self, matrices):
        pairs = zip(matrices, self.factors, strict=True)
        return KroneckerBasis(tuple(F @ b for F, b in pairs))

    def scaled(self, lengths):
        return KroneckerBasis(_scaled(self.factors, lengths))

    def back(self, rotated):
        return mode_products(rotated, self.factors)

    def forward(self, coefficients):
        return mode_products(coefficients, [b.conj().T for b in self.factors])

    def squares(self, weights):
        return mode_products(weights, [abs2(b) for b in self.factors])

    def row(self, place):
        return outer([b[i] for b, i in zip(self.factors, place, strict=True)])


class ScatteredBasis(AbstractBasis):
    r"""$B = (⊗_p A_p^H)\, S\, U$, where $S$ puts the seen entries into a grid of zeros.

    Attributes:
        adjoints: $A_p^H$, shape `(N_p, M_p)`.
        places: the indices of the seen entries, one array per mode.
        vectors: $U$, shape `(m, m)`.
    """

    adjoints: Matrices
    places: Places
    vectors: Inexact[Array, "m m"]

    def times(self, matrices):
        adjoints = tuple(F @ a for F, a in zip(matrices, self.adjoints, strict=True))
        return ScatteredBasis(adjoints, self.places, self.vectors)

    def scaled(self, lengths):
        adjoints = _scaled(self.adjoints, lengths)
        return ScatteredBasis(adjoints, self.places, self.vectors)

    def back(self, rotated):
        seen = mode_products(rotated, [self.vectors])
        return mode_products(self._on_grid(seen), self.adjoints)

    def forward(self, coefficients):
        grid = mode_products(coefficients, [a.conj().T for a in self.adjoints])
        return mode_products(grid[self.places], [self.vectors.conj().T])

    def squares(self, weights):
        # Σ_k w_k |B_ik|². All columns of B at once would take m numbers per coefficient.
        rest = -len(weights) % BLOCK
        columns = jnp.pad(self.vectors.T, ((0, rest), (0, 0)))
        blocks = columns.reshape(-1, BLOCK, columns.shape[1])
        weights = jnp.pad(weights, (0, rest)).reshape(-1, BLOCK)

        def add(total, block):
            vectors, w = block
            columns = mode_products(self._on_grid(vectors), [None, *self.adjoints])
            return total + jnp.tensordot(w, abs2(columns), 1), None

        none = jnp.zeros([len(a) for a in self.adjoints], weights.dtype)
        return jax.lax.scan(add, none, (blocks, weights))[0]

    def row(self, place):
        grid = outer([a[i] for a, i in zip(self.adjoints, place, strict=True)])
        return mode_products(grid[self.places], [self.vectors.T])

    def _on_grid(self, seen: Inexact[Array, "*k m"]) -> Inexact[Array, "..."]:
        sizes = [a.shape[1] for a in self.adjoints]
        grid = jnp.zeros((*seen.shape[:-1], *sizes), seen.dtype)
        return grid.at[(..., *self.places)].set(seen)


class Center(eqx.Module):
    """Where an intercept and the coefficients are independent: the mean of the rows.

    Attributes:
        y: the mean of the measurements, in their units.
        row: the mean of the rows of the dictionary, shape `(N,)`.
        count: $M$, the number of measurements; in general, how much they say about the
            intercept, in units of the inverse noise variance.
    """

    y: Inexact[Array, ""]
    row: Inexact[Array, " n"]
    count: Float[Array, ""]


class AbstractCoordinates(eqx.Module):
    """Measurements, and the covariance of their signal, as a Kronecker product.

    Attributes of both kinds:
        y: the part of the measurements that depends on the coefficients, with one axis per
            factor of the covariance.
        bases: for each factor None, or $Q_p$ with orthonormal columns that `y` refers to.
        rest: the squared norm of the other part, in squared units of `y`.
        num_rest: number of dimensions of the other part.
        lengths: for each mode None, or the root mean square of each column, about its mean
            if there is an intercept, by which it was divided.
        center: the means, if there is an intercept.
    """

    @abstractmethod
    def grams(self, variance: Vectors) -> Matrices:
        r"""Factors of $A\, \mathrm{diag}(γ)\, A^H$, from the $γ_p$ of each mode."""

    @abstractmethod
    def basis(self, rotations: Matrices) -> AbstractBasis:
        """$A^H U$, from the eigenvectors of each factor."""


class Reduced(AbstractCoordinates):
    """All measurements of a grid, in coordinates in which no dictionary is tall.

    A dictionary with more rows than atoms is tall. With its QR decomposition
    `A_p = Q_p R_p`, `y` splits into `⟦y; Q_p^H⟧`, which depends on the coefficients, and a
    rest, which is noise alone. An intercept with a flat prior is integrated out by leaving
    the direction of the ones out; white noise stays white in the other coordinates.

    Attributes:
        dictionaries: `R_p` if the dictionary is tall, else `A_p`, of normalised columns.
    """

    y: Inexact[Array, "..."]
    dictionaries: tuple[Inexact[Array, "_m _n"], ...]
    bases: tuple[Inexact[Array, "_m _n"] | None, ...]
    rest: Float[Array, ""]
    num_rest: int = eqx.field(static=True)
    lengths: Lengths
    center: Center | None = None

    @classmethod
    def of(cls, y: Inexact[Array, "..."], dictionaries: Matrices) -> "Reduced":
        bases, small, nothing = [], [], (None,) * len(dictionaries)
        for matrix in dictionaries:
            tall = matrix.shape[0] > matrix.shape[1]
            basis, core = jnp.linalg.qr(matrix) if tall else (None, matrix)
            bases.append(basis)
            small.append(core)
        if all(basis is None for basis in bases):
            none = jnp.zeros((), y.real.dtype)
            return cls(y, dictionaries, tuple(bases), none, 0, nothing)
        reach = mode_products(y, [None if b is None else b.conj().T for b in bases])
        inside = mode_products(reach, bases)
        # From the residual: the difference of two squared norms would cancel.
        rest = jnp.sum(jnp.abs(y - inside) ** 2)
        size = y.size - reach.size
        return cls(reach, tuple(small), tuple(bases), rest, size, nothing)

    def grams(self, variance):
        return grams(self.dictionaries, variance)

    def basis(self, rotations):
        pairs = zip(self.dictionaries, rotations, strict=True)
        return KroneckerBasis(tuple(a.conj().T @ u for a, u in pairs))


class Scattered(AbstractCoordinates):
    """Some entries of a grid of two or more modes, as a vector.

    Attributes:
        dictionaries: $A_p$ of the whole grid.
        places: the indices of the entries, one array per mode.
    """

    y: Inexact[Array, " m"]
    dictionaries: tuple[Inexact[Array, "_m _n"], ...]
    places: Places
    bases: tuple[None]
    rest: Float[Array, ""]
    num_rest: int = eqx.field(static=True)
    lengths: tuple[None, ...]
    center: None = None

    @classmethod
    def of(cls, y: Inexact[Array, "..."], dictionaries, places: Places) -> "Scattered":
        none = jnp.zeros((), y.real.dtype)
        lengths = (None,) * len(dictionaries)
        return cls(y[places], dictionaries, places, (None,), none, 0, lengths)

    def grams(self, variance):
        return (submatrix(grams(self.dictionaries, variance), self.places),)

    def basis(self, rotations):
        (vectors,) = rotations
        adjoints = tuple(a.conj().T for a in self.dictionaries)
        return ScatteredBasis(adjoints, self.places, vectors)


def _scaled(factors: Matrices, lengths: Lengths) -> Matrices:
    pairs = zip(factors, lengths, strict=True)
    return tuple(b if length is None else length[:, None] * b for b, length in pairs)


def coordinates(
    y: Inexact[Array, "..."], dictionaries: Matrices, places: Places | None
) -> Reduced | Scattered:
    """The coordinates of measurements.

    Args:
        y: a tensor with one axis per mode. Its unseen entries are not used.
        dictionaries: one matrix per mode.
        places: the indices of the seen entries, one array per mode; None if all are seen.
    """
    if places is None:
        return Reduced.of(y, dictionaries)
    if len(dictionaries) > 1:
        return Scattered.of(y, dictionaries, places)
    # With one mode an unseen entry is a row of the dictionary that is not there.
    (rows,), (matrix,) = places, dictionaries
    return Reduced.of(y[rows], (matrix[rows],))


@eqx.filter_jit
def standardised(
    y: Array, matrices: tuple[Array, ...], intercept: bool, normalise: bool
) -> tuple[Reduced, Float[Array, ""]]:
    """The reduced measurements, and the power of `y` about its mean."""
    center, size = None, jnp.abs(y).max()
    if intercept:
        (matrix,) = matrices
        count = jnp.asarray(y.size, size.dtype)
        center = Center(y.mean(), matrix.mean(0), count)
        y, matrices = y - center.y, (matrix - center.row,)
        rounding = SPREAD_UNITS * jnp.finfo(size.dtype).eps * size
        y = jnp.where(jnp.abs(y).max() > rounding, y, 0.0)
    power = jnp.mean(jnp.abs(y) ** 2)
    # If all is intercept, what is left is below its rounding.
    least = jnp.finfo(size.dtype).eps * jnp.where(size > 0, size, 1.0)
    power = jnp.where(power > 0, power, least**2)
    lengths = tuple(root_mean_square(a) if normalise else None for a in matrices)
    pairs = zip(matrices, lengths, strict=True)
    matrices = tuple(a if length is None else a / length for a, length in pairs)
    reduced = beside(ones(len(y)), y, *matrices) if intercept else Reduced.of(y, matrices)
    return dataclasses.replace(reduced, lengths=lengths, center=center), power


def ones(count: int) -> Float[Array, " m"]:
    """The direction of an intercept, of length one."""
    return jnp.full(count, count**-0.5)


def beside(unit: Float[Array, " m"], y: Inexact[Array, " m"], matrix: Any) -> Reduced:
    r"""The reduced measurements, without the direction $u$ in which nothing is known.

    The reflection that maps $u$ to an axis, $-e_0$, takes the others to the rest of the
    axes: for $a ⟂ u$ to $a_i - u_i a_0 / (1 + u_0)$, $i ≥ 1$. It is its own inverse.

    Args:
        unit: $u$, of length one, with $u_0 ≥ 0$.
        y: the measurements.
        matrix: the dictionary, shape `(m, n)`.
    """
    unit = unit.astype(y.real.dtype)
    slope = unit[1:] / (1 + unit[0])

    def along(a):
        a = a - jnp.tensordot(unit, unit @ a, axes=0)
        return a[1:] - jnp.tensordot(slope, a[0], axes=0)

    inner = Reduced.of(along(y), (along(matrix),))
    (basis,) = inner.bases
    basis = jnp.eye(len(slope), dtype=y.dtype) if basis is None else basis
    first = unit[1:] @ basis
    back = jnp.concatenate([-first[None], basis - jnp.outer(slope, first)])
    return dataclasses.replace(inner, bases=(back,))


def root_mean_square(matrix: Any) -> Any:
    return (abs(matrix) ** 2).mean(0) ** 0.5


def grams(dictionaries: Matrices, variance: Vectors) -> Matrices:
    r"""$A_p\, \mathrm{diag}(γ_p)\, A_p^H$ of each mode."""
    pairs = zip(dictionaries, variance, strict=True)
    return tuple((a * g) @ a.conj().T for a, g in pairs)
