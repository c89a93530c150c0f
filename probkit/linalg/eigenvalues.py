"""Matrices with eigenvectors of product form, and what follows from their eigenvalues."""

import abc
import functools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Inexact

from probkit.linalg.arguments import check_vector
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.product import Product
from probkit.linalg.questions import eigh, hermitian_solve, logdet, solve, sqrt
from probkit.linalg.spectral import eigh_of_matrix, hermitian
from probkit.linalg.structured import AbstractStructured, adjoint

Spectrum = Callable[[Sequence[Array], Array], Array]


class AbstractSpectral(AbstractStructured):
    r"""$(⊗U_p)\, \mathrm{diag}(d)\, (⊗U_p)^H$ with $d = φ(λ_1, …, λ_P, s)$.

    $G_p = U_p\, \mathrm{diag}(λ_p)\, U_p^H$ are the factors. A class says what $φ$ and
    $s$ are, and has answers to `solve`, `logdet`, `eigh` and `sqrt`.
    """

    factors: eqx.AbstractVar[tuple[Inexact[Array, "..."], ...]]

    @staticmethod
    @abc.abstractmethod
    def spectrum(values: Sequence[Array], added: Array) -> Array:
        """$φ$, affine in each $λ_p$ by itself; a tensor with one axis per factor.

        It is NaN where `solve` and `logdet` have to be.
        """

    @abc.abstractmethod
    def added(self) -> Array:
        """$s$, one number."""

    @property
    def shape(self):
        n = math.prod(len(G) for G in self.factors)
        return n, n

    @property
    def dtype(self):
        return jnp.result_type(*self.factors)


@eigh.register(AbstractSpectral)
def _(op):
    values, U = decomposed(op.factors)
    return op.spectrum(values, op.added()), Kronecker(U)


@sqrt.register(AbstractSpectral)
def _(op):
    # R = (⊗U_p) diag(√d):  R Rᴴ = A
    d, U = eigh(op)
    return Product([U, lx.DiagonalLinearOperator(jnp.sqrt(d).reshape(-1).astype(op.dtype))])


@logdet.register(AbstractSpectral)
def _(op):
    # log|A| = Σ log|d|
    return _logdet(type(op).spectrum, tuple(hermitian(G) for G in op.factors), op.added())


@solve.register(AbstractSpectral)
def _(op, vector):
    # A⁻¹ b = (⊗U_p) diag(1/d) (⊗U_p)ᴴ b
    check_vector(vector, op.shape[0], "solve")
    factors, added = jax.lax.stop_gradient((op.factors, op.added()))
    values, vectors = decomposed(factors)
    d, U = op.spectrum(values, added), Kronecker(vectors)

    def solution(b):
        rotated = adjoint(U).mv(b)
        return U.mv(rotated / d.reshape(-1))

    return hermitian_solve(op, vector, solution)


def decomposed(factors: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Eigenvalues and eigenvectors of each factor."""
    return _spectra([hermitian(G) for G in factors])


def _spectra(factors: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """The same for factors that are already Hermitian to the last bit.

    They are not made Hermitian a second time, so that `solve` and `logdet` of one operator
    share one decomposition when compiled.
    """
    if len({(G.shape, G.dtype) for G in factors}) > 1 or len(factors) == 1:
        pairs = [eigh_of_matrix(G) for G in factors]
        return [values for values, _ in pairs], [U for _, U in pairs]
    # Equal sizes in one call, so that there is one program to compile, and no call waits
    # for a core that another uses.
    values, vectors = jax.vmap(eigh_of_matrix)(jnp.stack(factors))
    return list(values), list(vectors)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _logdet(spectrum: Spectrum, factors, noise):
    # First and second derivatives are right whether or not eigenvalues coincide; third
    # derivatives only if they differ.
    return _sum_of_logs(spectrum, _spectra(factors)[0], noise)


def _sum_of_logs(spectrum, values, noise):
    return jnp.log(jnp.abs(spectrum(values, noise))).sum()


@_logdet.defjvp
def _(spectrum, primals, tangents):
    # d log|Σ| = Σ_p <T_p, dG_p> + t dσ²
    d_factors, d_noise = tangents
    T, t = _weights(spectrum, *primals)
    moved = [jnp.vdot(T_p, dG).real for T_p, dG in zip(T, d_factors, strict=True)]
    return _logdet(spectrum, *primals), sum(moved) + t * d_noise


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _weights(spectrum, factors, noise):
    r"""Derivatives of log|Σ|: $T_p = U_p\, \mathrm{diag}(c_p)\, U_p^H$ and $t$.

    $c_p$ and $t$ are the derivatives of $\sum \log d$ in $λ_p$ and $σ²$.
    """
    values, U = _spectra(factors)
    c, t = _eigen_weights(spectrum, values, noise)
    return tuple(_rotate(V, jnp.diag(c_p)) for V, c_p in zip(U, c, strict=True)), t


def _eigen_weights(spectrum, values, noise):
    return jax.grad(_sum_of_logs, argnums=(1, 2))(spectrum, values, noise)


def _rotate(U, inside):
    return U @ inside.astype(U.dtype) @ U.conj().T


@_weights.defjvp
def _(spectrum, primals, tangents):
    # T_p is a function h of the matrix G_p: d_ij = a_j + w_j λ_i, with j over the other
    # factors, and h(λ) = Σ_j w_j / (a_j + w_j λ). With E_p = U_pᴴ dG_p U_p:
    #   on the diagonal, U_pᴴ dT_p U_p is the differential of c_p in all eigenvalues and σ²,
    #   dλ_q = diag E_q (c_p is symmetric in the λ_q, so this holds at equal ones too);
    #   elsewhere it is E_p times the divided difference (Daleckii and Krein)
    #   (h(λ_i) - h(λ_k)) / (λ_i - λ_k) = -Σ_j w_j² / (d_ij d_kj).
    # No difference of eigenvalues is left in it, so that equal ones cost no digits.
    factors, noise = primals
    d_factors, d_noise = tangents
    values, U = _spectra(factors)
    E = [_rotate(V.conj().T, dG) for V, dG in zip(U, d_factors, strict=True)]
    d_values = [jnp.diagonal(E_p).real for E_p in E]
    weights = functools.partial(_eigen_weights, spectrum)
    (c, t), (d_c, d_t) = jax.jvp(weights, (values, noise), (d_values, d_noise))
    d = spectrum(values, noise)
    d_T = []
    for p, (V, E_p) in enumerate(zip(U, E, strict=True)):
        one = [jnp.full_like(v, q == p) for q, v in enumerate(values)]
        _, w = jax.jvp(functools.partial(spectrum, added=noise), (values,), (one,))
        B = jnp.moveaxis(w / d, p, 0).reshape(len(V), -1)
        inside = -(B @ B.T) * E_p
        inside = jnp.where(jnp.eye(len(V), dtype=bool), jnp.diag(d_c[p]), inside)
        d_T.append(_rotate(V, inside))
    T = tuple(_rotate(V, jnp.diag(c_p)) for V, c_p in zip(U, c, strict=True))
    return (T, t), (tuple(d_T), d_t)


def at_least_zero(values: Array) -> Array:
    """Eigenvalues of a factor, without what is below zero by rounding.

    A positive semi-definite factor may have some just below zero, by rounding in it and in
    its decomposition. They count as zero up to ten rounding units per row, relative to the
    largest eigenvalue: entries of a kernel matrix are off by a few units each, and their
    sum over a row moves eigenvalues. Lower ones are kept. The derivative is that without
    the change.
    """
    rounding = 10 * len(values) * jnp.finfo(values.dtype).eps * jnp.abs(values).max()
    kept = jnp.where((values < 0) & (values >= -rounding), 0, values)
    return values + jax.lax.stop_gradient(kept - values)
