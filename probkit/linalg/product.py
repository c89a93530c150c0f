"""Products of operators, one after the other."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import lineax as lx

from probkit.linalg.arguments import check_square, size
from probkit.linalg.compiled import compiled
from probkit.linalg.questions import logdet, solve
from probkit.linalg.structured import AbstractStructured


class Product(AbstractStructured):
    """$A_1 A_2 … A_k$, never multiplied out; the last one is applied first.

    Args:
        operators: lineax operators, each with as many rows as the one before has columns.

    Raises:
        ValueError: if the sizes do not fit.

    `solve` and `logdet` need square operators.
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
