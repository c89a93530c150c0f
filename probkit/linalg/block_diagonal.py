"""Blocks along the diagonal."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from probkit.linalg.arguments import as_factors, check_square, check_vector, size
from probkit.linalg.compiled import compiled
from probkit.linalg.matrices import as_operator
from probkit.linalg.questions import (
    diagonal,
    eigh,
    logdet,
    plus_identity,
    solve,
    sqrt,
    times,
    trace,
)
from probkit.linalg.structured import AbstractStructured


class BlockDiagonal(AbstractStructured):
    r"""$\mathrm{diag}(A_1, …, A_k)$, on the vectors of the blocks one after the other.

    Args:
        blocks: arrays of shape `(m_i, n_i)` or lineax operators; square if a question
            needs it.

    Raises:
        ValueError: if a block is not a matrix, or if there is none.
    """

    blocks: tuple[Any, ...]

    def __init__(self, blocks: Sequence[Any]):
        self.blocks = as_factors(blocks, "BlockDiagonal(blocks=...)")

    @property
    def shape(self):
        rows, columns = zip(*map(size, self.blocks), strict=True)
        return sum(rows), sum(columns)

    @property
    def dtype(self):
        return jnp.result_type(*(as_operator(A).in_structure().dtype for A in self.blocks))

    @compiled
    def mv(self, vector):
        check_vector(vector, self.shape[1], "mv")
        parts = _split(vector, [size(A)[1] for A in self.blocks])
        pairs = zip(self.blocks, parts, strict=True)
        return jnp.concatenate([as_operator(A).mv(x) for A, x in pairs])

    def transpose(self):
        return BlockDiagonal([A.T for A in self.blocks])


def _split(vector, sizes):
    return jnp.split(vector, np.cumsum(sizes)[:-1])


def _squares(op, question):
    for A in op.blocks:
        check_square(A, question)
    return [as_operator(A) for A in op.blocks]


# Every answer is made of those of the blocks, which are joined or added.


@solve.register(BlockDiagonal)
def _(op, vector):
    blocks = _squares(op, "solve")
    check_vector(vector, op.shape[0], "solve")
    parts = _split(vector, [A.in_size() for A in blocks])
    return jnp.concatenate([solve(A, b) for A, b in zip(blocks, parts, strict=True)])


@logdet.register(BlockDiagonal)
def _(op):
    return sum(logdet(A) for A in _squares(op, "logdet"))


@diagonal.register(BlockDiagonal)
def _(op):
    return jnp.concatenate([diagonal(A) for A in _squares(op, "diagonal")])


@trace.register(BlockDiagonal)
def _(op):
    return sum(trace(A) for A in _squares(op, "trace"))


@sqrt.register(BlockDiagonal)
def _(op):
    return BlockDiagonal([sqrt(A) for A in _squares(op, "sqrt")])


@eigh.register(BlockDiagonal)
def _(op):
    values, vectors = zip(*(eigh(A) for A in _squares(op, "eigh")), strict=True)
    return jnp.concatenate([v.reshape(-1) for v in values]), BlockDiagonal(vectors)


@times.register(BlockDiagonal)
def _(op, factor):
    return BlockDiagonal([times(as_operator(A), factor) for A in op.blocks])


@plus_identity.register(BlockDiagonal)
def _(op, amount):
    blocks = _squares(op, "a sum with the identity")
    return BlockDiagonal([plus_identity(A, amount) for A in blocks])
