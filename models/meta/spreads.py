r"""The covariance $C$ of the parameters of an episode before its data."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from probkit.linalg import mode_products


class AbstractSpread(eqx.Module):
    """A covariance of a block of parameters."""

    @abstractmethod
    def times(self, rows: Float[Array, "r d"]) -> Float[Array, "r d"]:
        """$F C$, for a few rows $F$."""

    @abstractmethod
    def colored(self, white: Float[Array, " d"]) -> Float[Array, " d"]:
        """$L z$ with $L L^T = C$."""

    @abstractmethod
    def whitened(self, values: Float[Array, " d"]) -> Float[Array, " d"]:
        """$L^{-1} x$."""

    @abstractmethod
    def half_logdet(self) -> Float[Array, ""]:
        r"""$\ln |L|$."""

    @abstractmethod
    def second(self, less: Float[Array, "r d"], shift: Float[Array, " d"]) -> Any:
        r"""What a belief needs of $C - G G^T + δ δ^T$.

        Args:
            less: $G^T$.
            shift: $δ$.
        """


class Dense(AbstractSpread):
    """A matrix."""

    matrix: Float[Array, "d d"]

    def times(self, rows):
        return rows @ self.matrix

    def colored(self, white):
        return jnp.linalg.cholesky(self.matrix) @ white

    def whitened(self, values):
        return _solved(jnp.linalg.cholesky(self.matrix), values[:, None])[:, 0]

    def half_logdet(self):
        return _half(self.matrix)

    def second(self, less, shift):
        return self.matrix - less.T @ less + jnp.outer(shift, shift)


class Independent(AbstractSpread):
    """One variance per parameter."""

    variance: Float[Array, " d"]

    def times(self, rows):
        return rows * self.variance

    def colored(self, white):
        return jnp.sqrt(self.variance) * white

    def whitened(self, values):
        return values / jnp.sqrt(self.variance)

    def half_logdet(self):
        return 0.5 * jnp.log(self.variance).sum()

    def second(self, less, shift):
        return self.variance - jnp.sum(less**2, 0) + shift**2


class MatrixNormal(AbstractSpread):
    r"""$U ⊗ W$, of a matrix of parameters in C order. It is never formed.

    A belief needs the second moment of the matrices $Θ - M$ with one side averaged,
    $E[(Θ - M) W^{-1} (Θ - M)^T]$ and $E[(Θ - M)^T U^{-1} (Θ - M)]$. With the rows of $G^T$
    as matrices $G_r$ they are $q U - \sum_r G_r W^{-1} G_r^T + Δ W^{-1} Δ^T$, and
    the same with sides exchanged.

    Attributes:
        rows: $U$, the covariance among rows.
        columns: $W$, among columns.
    """

    rows: Float[Array, "p p"]
    columns: Float[Array, "q q"]

    def _matrices(self, array: Float[Array, "*b d"]) -> Float[Array, "*b p q"]:
        return array.reshape(*array.shape[:-1], len(self.rows), len(self.columns))

    def times(self, rows):
        sides = [self.rows, self.columns]
        found = jax.vmap(lambda F: mode_products(F, sides))(self._matrices(rows))
        return found.reshape(rows.shape)

    def colored(self, white):
        roots = [jnp.linalg.cholesky(side) for side in (self.rows, self.columns)]
        return mode_products(self._matrices(white), roots).reshape(white.shape)

    def whitened(self, values):
        roots = [jnp.linalg.cholesky(side) for side in (self.rows, self.columns)]
        half = _solved(roots[0], self._matrices(values))
        return _solved(roots[1], half.T).T.reshape(values.shape)

    def half_logdet(self):
        p, q = len(self.rows), len(self.columns)
        return q * _half(self.rows) + p * _half(self.columns)

    def second(self, less, shift):
        G, Δ = self._matrices(less), self._matrices(shift)
        p, q = len(self.rows), len(self.columns)
        by_columns = jnp.linalg.inv(self.columns)
        by_rows = jnp.linalg.inv(self.rows)
        rows = q * self.rows - jnp.einsum("rij,jk,rlk->il", G, by_columns, G)
        columns = p * self.columns - jnp.einsum("rij,ik,rkl->jl", G, by_rows, G)
        return rows + Δ @ by_columns @ Δ.T, columns + Δ.T @ by_rows @ Δ


class Blocks(AbstractSpread):
    """Blocks that are independent of each other, in the order of the parameters.

    Attributes:
        parts: the blocks.
        sizes: the number of parameters of each.
    """

    parts: tuple[AbstractSpread, ...]
    sizes: tuple[int, ...] = eqx.field(static=True)

    def split(self, array: Float[Array, "*b d"]) -> list[Float[Array, "*b _"]]:
        """The entries of each block, along the last axis."""
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes))]
        begins = [0, *ends[:-1]]
        return [array[..., a:b] for a, b in zip(begins, ends, strict=True)]

    def times(self, rows):
        found = zip(self.parts, self.split(rows), strict=True)
        return jnp.concatenate([part.times(own) for part, own in found], -1)

    def colored(self, white):
        found = zip(self.parts, self.split(white), strict=True)
        return jnp.concatenate([part.colored(own) for part, own in found])

    def whitened(self, values):
        found = zip(self.parts, self.split(values), strict=True)
        return jnp.concatenate([part.whitened(own) for part, own in found])

    def half_logdet(self):
        return sum(part.half_logdet() for part in self.parts)

    def second(self, less, shift):
        found = zip(self.parts, self.split(less), self.split(shift), strict=True)
        return tuple(part.second(*own) for part, *own in found)


class Colored(Transform):
    r"""$z \mapsto m + L z$, with $L L^T$ a structured covariance.

    Args:
        loc: $m$, `(d,)`.
        spread: the covariance.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, loc, spread: AbstractSpread):
        self.loc, self.spread = loc, spread

    def __call__(self, x):
        return self.loc + jnp.vectorize(self.spread.colored, signature="(d)->(d)")(x)

    def _inverse(self, y):
        each = jnp.vectorize(self.spread.whitened, signature="(d)->(d)")
        return each(y - self.loc)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.broadcast_to(self.spread.half_logdet(), x.shape[:-1])

    def tree_flatten(self):
        return (self.loc, self.spread), (("loc", "spread"), {})

    def eq(self, other, static=False):
        return isinstance(other, Colored) and eqx.tree_equal(
            (self.loc, self.spread), (other.loc, other.spread)
        )


def _solved(root: Float[Array, "d d"], b: Float[Array, "d k"]) -> Float[Array, "d k"]:
    return jax.lax.linalg.triangular_solve(root, b, left_side=True, lower=True)


def _half(matrix: Float[Array, "d d"]) -> Float[Array, ""]:
    return jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix))).sum()
