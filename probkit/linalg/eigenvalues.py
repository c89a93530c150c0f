"""Log-determinants and solutions by the eigenvalues of the factors of a matrix."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from probkit.linalg.arguments import check_vector
from probkit.linalg.kronecker import Kronecker
from probkit.linalg.questions import hermitian_solve
from probkit.linalg.spectral import eigh_of_matrix, hermitian
from probkit.linalg.structured import adjoint

Spectrum = Callable[[Sequence[Array], Array], Array]


def spectral_logdet(spectrum: Spectrum, factors: Sequence[Array], noise: Array) -> Array:
    r"""$\sum \log |d|$ with $d = φ(λ_1, …, λ_P, σ²)$, $λ_p$ the eigenvalues of $G_p$.

    Args:
        spectrum: $φ$, affine in each $λ_p$ by itself; a tensor with one axis per factor. It
            is NaN where the answer has to be.
        factors: Hermitian $G_p$, `(m_p, m_p)`.
        noise: $σ²$, one number.

    Returns:
        One real number.

    First and second derivatives are right whether or not eigenvalues coincide; third
    derivatives only if they differ.
    """
    return _logdet(spectrum, tuple(hermitian(G) for G in factors), noise)


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
def _logdet(spectrum, factors, noise):
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
        _, w = jax.jvp(functools.partial(spectrum, noise=noise), (values,), (one,))
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


def spectral_solve(spectrum: Spectrum, op, noise: Array, vector: Array) -> Array:
    """The solution by the spectrum of the factors of `op`; differentiable to any order."""
    check_vector(vector, op.shape[0], "solve")
    factors, noise = jax.lax.stop_gradient((op.factors, noise))
    values, vectors = decomposed(factors)
    d, U = spectrum(values, noise), Kronecker(vectors)

    def solution(b):
        rotated = adjoint(U).mv(b)
        return U.mv(rotated / d.reshape(-1))

    return hermitian_solve(op, vector, solution)
