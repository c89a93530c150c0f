"""What all our operators share. None of them becomes dense unless that is asked for."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array


class AbstractStructured(lx.AbstractLinearOperator):
    """A matrix given by its parts, acting on vectors.

    Subclasses have `shape`, `dtype`, `mv` and `transpose`, and rules for the questions of
    `probkit.linalg` that their structure has an identity for.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    @abc.abstractmethod
    def dtype(self) -> Any:
        """Common dtype of the parts."""

    def in_structure(self):
        return jax.ShapeDtypeStruct((self.shape[1],), self.dtype)

    def out_structure(self):
        return jax.ShapeDtypeStruct((self.shape[0],), self.dtype)

    def as_matrix(self):
        # lineax's own solvers begin here, and would form the matrix without notice.
        name, (rows, columns) = type(self).__name__, self.shape
        raise ValueError(
            f"`{name}` does not become a matrix of {rows} x {columns} by itself: use "
            "`linalg.solve(op, b)` or `lx.linear_solve(op, b, linalg.Structured())` for a "
            "solution, `linalg.dense(op)` for the matrix."
        )


class AbstractHermitian(AbstractStructured):
    """A Hermitian matrix given by its parts; for lineax it is positive semi-definite."""

    def transpose(self):
        # Aᵀ = conj(A) for Hermitian A.
        return lx.conj(self)


def is_complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def _conj(op):
    # Entries are sums of products of the parts, and conjugation goes through both.
    def is_part(x):
        return x is not op and isinstance(x, lx.AbstractLinearOperator)

    def of_part(x):
        return lx.conj(x) if is_part(x) else jnp.conj(x) if is_complex(x.dtype) else x

    return jax.tree.map(of_part, op, is_leaf=is_part)


def adjoint(op: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
    r"""$A^H$, the conjugate transpose; `op.T` is the transpose without conjugate.

    Args:
        op: $A$, an operator `(m, n)`.

    Returns:
        An operator `(n, m)`.
    """
    return lx.conj(op.transpose())


def matmat(op: lx.AbstractLinearOperator, matrix: Array) -> Array:
    """$A B$, the operator applied to each column of a matrix.

    Args:
        op: $A$, an operator `(m, n)`.
        matrix: $B$, shape `(n, k)`.

    Returns:
        Shape `(m, k)`, in the product of the units.

    Raises:
        ValueError: if $B$ has another number of rows.
    """
    return jax.vmap(op.mv, in_axes=1, out_axes=1)(matrix)


def dense(op: lx.AbstractLinearOperator) -> Array:
    """The matrix itself, at its full cost. No other function forms it.

    Args:
        op: $A$, an operator `(m, n)`.

    Returns:
        An array of shape `(m, n)`, in units and dtype of $A$.
    """
    if isinstance(op, lx.MatrixLinearOperator):
        return jnp.asarray(op.matrix)
    return matmat(op, jnp.eye(op.in_size(), dtype=op.in_structure().dtype))


# What lineax may ask. The structure is in the class, and the questions of lineax are about
# the few dense shapes that its own solvers know.
def _no(op):
    return False


for _query in (
    lx.is_symmetric,
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
    lx.has_unit_diagonal,
    lx.is_positive_semidefinite,
    lx.is_negative_semidefinite,
):
    _query.register(AbstractStructured, _no)


def _no_bands(op):
    raise NotImplementedError(
        f"`lx.tridiagonal` has no rule for `{type(op).__name__}`; if the dense cost is "
        "fine, ask for it: give `lx.MatrixLinearOperator(dense(op))`."
    )


lx.tridiagonal.register(AbstractStructured, _no_bands)
lx.linearise.register(AbstractStructured, lambda op: op)
lx.conj.register(AbstractStructured, _conj)
lx.materialise.register(AbstractStructured, lambda op: op.as_matrix())
lx.is_positive_semidefinite.register(AbstractHermitian, lambda op: True)
# For lineax, symmetric means A = Aᵀ: a complex Hermitian matrix is not.
lx.is_symmetric.register(AbstractHermitian, lambda op: not is_complex(op.dtype))
