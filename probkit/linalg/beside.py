"""Operators side by side."""

from collections.abc import Sequence

import jax.numpy as jnp
import lineax as lx
import numpy as np

from probkit.linalg.arguments import check_vector, size
from probkit.linalg.compiled import compiled
from probkit.linalg.structured import AbstractStructured


class Beside(AbstractStructured):
    """$[A_1, …, A_k]$: the columns of the first, then those of the second, and so on.

    Args:
        operators: lineax operators of shapes `(m, n_i)`, all with the same number of rows.

    Raises:
        ValueError: if they differ in rows.
    """

    operators: tuple[lx.AbstractLinearOperator, ...]

    def __init__(self, operators: Sequence[lx.AbstractLinearOperator]):
        self.operators = tuple(operators)
        rows = {size(A)[0] for A in self.operators}
        if len(rows) != 1:
            raise ValueError(
                f"`Beside` got operators with {sorted(rows)} rows; all need the same "
                "number."
            )

    @property
    def shape(self):
        sizes = [size(A) for A in self.operators]
        return sizes[0][0], sum(n for _, n in sizes)

    @property
    def dtype(self):
        return jnp.result_type(*(A.in_structure().dtype for A in self.operators))

    @compiled
    def mv(self, vector):
        check_vector(vector, self.shape[1], "mv")
        cuts = np.cumsum([size(A)[1] for A in self.operators])[:-1]
        parts = jnp.split(vector, cuts)
        return sum(A.mv(x) for A, x in zip(self.operators, parts, strict=True))

    def transpose(self):
        return Stacked([A.T for A in self.operators])


class Stacked(AbstractStructured):
    """$[A_1; …; A_k]$: the rows of the first, then those of the second, and so on."""

    operators: tuple[lx.AbstractLinearOperator, ...]

    def __init__(self, operators: Sequence[lx.AbstractLinearOperator]):
        self.operators = tuple(operators)

    @property
    def shape(self):
        sizes = [size(A) for A in self.operators]
        return sum(m for m, _ in sizes), sizes[0][1]

    @property
    def dtype(self):
        return jnp.result_type(*(A.in_structure().dtype for A in self.operators))

    @compiled
    def mv(self, vector):
        return jnp.concatenate([A.mv(vector) for A in self.operators])

    def transpose(self):
        return Beside([A.T for A in self.operators])
