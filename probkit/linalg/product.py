"""Products of operators, one after the other."""

import functools
import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import lineax as lx

from probkit.linalg.arguments import check_square, size
from probkit.linalg.compiled import compiled
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.matrices import as_operator
from probkit.linalg.questions import diagonal, logdet, solve, solve_columns
from probkit.linalg.structured import AbstractStructured, dense


class Product(AbstractStructured):
    """$A_1 A_2 … A_k$, never multiplied out; the last one is applied first.

    Args:
        operators: lineax operators, each with as many rows as the one before has columns.

    Raises:
        ValueError: if the sizes do not fit.

    `solve` and `logdet` need square operators. `diagonal` has a rule for diagonal operators
    around anything that has one, and for two Kronecker products of factors that fit.
    """

    operators: tuple[lx.AbstractLinearOperator, ...]

    def __init__(self, operators: Sequence[lx.AbstractLinearOperator]):
        self.operators = tuple(operators)
        sizes = [size(A) for A in self.operators]
        if any(a[1] != b[0] for a, b in itertools.pairwise(sizes)) or not sizes:
            raise ValueError(
                f"`Product` got operators of sizes {sizes}; each needs as many columns as "
                "the next has rows."
            )

    @property
    def shape(self):
        return size(self.operators[0])[0], size(self.operators[-1])[1]

    @property
    def dtype(self):
        return jnp.result_type(*(A.in_structure().dtype for A in self.operators))

    @compiled
    def mv(self, vector):
        for A in reversed(self.operators):
            vector = A.mv(vector)
        return vector

    def transpose(self):
        return Product([A.T for A in reversed(self.operators)])


@solve.register(Product)
@solve_columns.register(Product)
def _(op, vector):
    # (A B)⁻¹ = B⁻¹ A⁻¹
    for A in op.operators:
        check_square(A, "solve")
        vector = solve(A, vector)
    return vector


@logdet.register(Product)
def _(op):
    # log|A B| = log|A| + log|B|
    for A in op.operators:
        check_square(A, "logdet")
    return sum(logdet(A) for A in op.operators)


@diagonal.register(Product)
def _(op):
    check_square(op, "diagonal")
    parts = _parts(op)
    # diag(D A E) = d ∘ diag(A) ∘ e, entry by entry
    outside = jnp.ones(op.shape[0], op.dtype)
    for end in (0, -1):
        while parts and isinstance(parts[end], _DIAGONAL):
            outside = outside * diagonal(parts.pop(end))
    if not parts:
        return outside
    if len(parts) == 1:
        return outside * diagonal(parts[0])
    left, *between, right = parts
    if not all(isinstance(A, _DIAGONAL) for A in between) or not _conform(left, right):
        names = ", ".join(type(A).__name__ for A in parts)
        raise NotImplementedError(
            f"`diagonal` has no rule for the product of {names}; if the dense cost is "
            "fine, ask for it: give `lx.MatrixLinearOperator(dense(op))`."
        )
    # diag((⊗F_p) D (⊗H_p)) = (⊗(F_p ∘ H_pᵀ)) d
    d = functools.reduce(
        jnp.multiply, map(diagonal, between), jnp.ones(left.shape[1], op.dtype)
    )
    pairs = zip(left.factors, right.factors, strict=True)
    factors = [dense(as_operator(F)) * dense(as_operator(H)).T for F, H in pairs]
    return outside * Kronecker(factors).mv(d)


_DIAGONAL = lx.DiagonalLinearOperator | lx.IdentityLinearOperator


def _parts(op):
    """The operators of a product, those of products in it one by one."""
    if isinstance(op, lx.ComposedLinearOperator):
        return [*_parts(op.operator1), *_parts(op.operator2)]
    if isinstance(op, lx.TaggedLinearOperator):
        return _parts(op.operator)
    if isinstance(op, Product):
        return [part for A in op.operators for part in _parts(A)]
    return [op]


def _conform(left, right):
    """Whether factors of two Kronecker products fit each other and give square ones."""
    if not isinstance(left, Kronecker) or not isinstance(right, Kronecker):
        return False
    return [size(F) for F in left.factors] == [size(H)[::-1] for H in right.factors]
