"""A Kronecker product plus a multiple of the identity, definite or not."""

from typing import Any

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array

from probkit.linalg.compiled import compiled
from probkit.linalg.eigenvalues import AbstractSpectral
from probkit.linalg.gram_plus_noise import KroneckerGramPlusNoise
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.matrices import as_operator
from probkit.linalg.plus_noise import KroneckerPlusNoise
from probkit.linalg.questions import plus_identity, times
from probkit.linalg.spectral import hermitian, outer
from probkit.linalg.structured import dense


class ShiftedKronecker(AbstractSpectral):
    """$G_1 ⊗ … ⊗ G_P + s I$ for Hermitian $G_p$ and any real $s$; what a sum becomes.

    `KroneckerPlusNoise` is a covariance, and NaN if it is not positive definite. This is a
    matrix, whose questions have an answer if no eigenvalue is 0.

    Args:
        factors: Hermitian arrays $G_p$, `(m_p, m_p)`.
        shift: $s$, one real number.
    """

    factors: tuple[Array, ...]
    shift: Array

    def __init__(self, factors: Any, shift: Any):
        self.factors = tuple(factors)
        dtype = jnp.finfo(jnp.result_type(*self.factors)).dtype
        self.shift = jnp.asarray(shift).astype(dtype)

    def added(self):
        return self.shift

    @staticmethod
    def spectrum(values, added):
        return outer(values) + added

    @compiled
    def mv(self, vector):
        K = Kronecker([hermitian(G) for G in self.factors])
        return K.mv(vector) + self.shift * vector

    def transpose(self):
        return lx.conj(self)


@times.register(ShiftedKronecker)
def _(op, factor):
    return _times(op.factors, op.shift, factor)


@plus_identity.register(ShiftedKronecker)
def _(op, amount):
    return ShiftedKronecker(op.factors, op.shift + amount)


# What becomes one


@times.register(KroneckerPlusNoise)
def _(op, factor):
    return _times(op.factors, op.noise, factor)


@times.register(KroneckerGramPlusNoise)
def _(op, factor):
    # A factor below 0 leaves no Gram matrix.
    return _times([A @ A.conj().T for A in op.roots], op.noise, factor)


def _times(factors, shift, factor):
    first, *rest = factors
    return ShiftedKronecker([factor * first, *rest], factor * shift)


@times.register(Kronecker)
def _(op, factor):
    first, *rest = op.factors
    return Kronecker([times(as_operator(first), factor), *rest])


@plus_identity.register(Kronecker)
def _(op, amount):
    # Eigenvectors of the factors are orthogonal if these are Hermitian. Only the run sees
    # the values of a factor, and its answers are NaN where one is not.
    factors = [dense(as_operator(F)) for F in op.factors]
    known = jnp.stack([_is_hermitian(F) for F in factors]).all()
    return ShiftedKronecker(factors, jnp.where(known, amount, jnp.nan))


def _is_hermitian(F):
    rounding = 10 * len(F) * jnp.finfo(F.dtype).eps * jnp.abs(F).max()
    return jnp.abs(F - F.conj().T).max() <= rounding
