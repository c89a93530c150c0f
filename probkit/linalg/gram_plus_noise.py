"""Noise plus a Kronecker product given by its roots, which may be tall or wide."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import as_arrays, as_noise, check_vector
from probkit.linalg.beside import Beside
from probkit.linalg.compiled import compiled
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.plus_noise import KroneckerPlusNoise
from probkit.linalg.questions import (
    diagonal,
    hermitian_solve,
    logdet,
    plus_identity,
    solve,
    sqrt,
    trace,
)
from probkit.linalg.spectral import outer
from probkit.linalg.structured import AbstractHermitian, adjoint


class KroneckerGramPlusNoise(AbstractHermitian):
    r"""$Σ = A A^H + σ² I$ with $A = A_1 ⊗ … ⊗ A_P$, in C order.

    It is the same matrix as `KroneckerPlusNoise` of the $A_p A_p^H$, but uses thin singular
    value decompositions. These keep the small singular values that squaring loses. If
    $A_p$ is tall, nothing of size $m_p × m_p$ is formed.

    Args:
        roots: arrays $A_p$ of shape `(m_p, n_p)`, of any rank, in units whose product
            over $p$ is that of the tensor.
        noise: $σ² > 0$, a variance, one number, in squared units of the tensor.

    A noise below zero that is not known when the operator is made, because it is traced,
    gives NaN where $Σ$ is not positive definite.

    Raises:
        ValueError: if the noise is below zero or not one number.
    """

    roots: tuple[Inexact[Array, "..."], ...]
    noise: Inexact[Array, ""]

    def __init__(self, roots: Sequence[ArrayLike], noise: ArrayLike):
        self.roots = as_arrays(roots, "KroneckerGramPlusNoise(roots=...)")
        self.noise = as_noise(noise, self.roots, "KroneckerGramPlusNoise")

    @property
    def shape(self):
        m = math.prod(len(A) for A in self.roots)
        return m, m

    @property
    def dtype(self):
        return jnp.result_type(*self.roots)

    @compiled
    def mv(self, vector):
        A = Kronecker(self.roots)
        return A.mv(adjoint(A).mv(vector)) + self.noise * vector


@solve.register(KroneckerGramPlusNoise)
def _(op, vector):
    # A_p = U_p diag(s_p) V_pᴴ, thin. Inside the range of ⊗U_p the matrix is ⊗s_p² + σ²;
    # what is left of b lies outside, where it is σ².
    check_vector(vector, op.shape[0], "solve")
    roots, noise = jax.lax.stop_gradient((op.roots, op.noise))
    pairs = [jnp.linalg.svd(A, full_matrices=False)[:2] for A in roots]
    U = Kronecker([V for V, _ in pairs])
    d = outer([s**2 for _, s in pairs]).reshape(-1) + noise
    d, noise = (jnp.where(x < 0, jnp.nan, x) for x in (d, noise))

    def solution(b):
        inside = adjoint(U).mv(b)
        x = U.mv(inside / d)
        return x if U.shape[0] == U.shape[1] else x + (b - U.mv(inside)) / noise

    return hermitian_solve(op, vector, solution)


@logdet.register(KroneckerGramPlusNoise)
def _(op):
    # |A Aᴴ + σ² I_m| = σ^{2(m - n)} |Aᴴ A + σ² I_n|, for each factor on its shorter side
    small = [
        A @ A.conj().T if A.shape[0] <= A.shape[1] else A.conj().T @ A for A in op.roots
    ]
    compressed = KroneckerPlusNoise(small, op.noise)
    rest = op.shape[0] - compressed.shape[0]
    # With nothing left, 0 log σ² would be NaN at σ² = 0.
    return logdet(compressed) + (rest * jnp.log(op.noise) if rest else 0)


@diagonal.register(KroneckerGramPlusNoise)
def _(op):
    # (A Aᴴ)_ii = Σ_j |A_ij|²
    return outer([(jnp.abs(A) ** 2).sum(1) for A in op.roots]).reshape(-1) + op.noise


@trace.register(KroneckerGramPlusNoise)
def _(op):
    # tr A Aᴴ = Π_p Σ_ij |A_p,ij|²
    squares = math.prod((jnp.abs(A) ** 2).sum() for A in op.roots)
    return squares + op.shape[0] * op.noise


@sqrt.register(KroneckerGramPlusNoise)
def _(op):
    # R = [A, σ I]
    white = jnp.full(op.shape[0], jnp.sqrt(op.noise), op.dtype)
    return Beside([Kronecker(op.roots), lx.DiagonalLinearOperator(white)])


@plus_identity.register(KroneckerGramPlusNoise)
def _(op, amount):
    return KroneckerGramPlusNoise(op.roots, op.noise + amount)
