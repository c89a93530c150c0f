"""Dense matrices of the structured operators and answers read off them, in NumPy."""

import functools

import jax
import jax.extend
import numpy as np


def kron(factors) -> np.ndarray:
    return functools.reduce(np.kron, [np.asarray(F) for F in factors])


def matrix(rng, rows, columns, is_complex=False) -> np.ndarray:
    out = rng.normal(size=(rows, columns))
    return out + 1j * rng.normal(size=(rows, columns)) if is_complex else out


def positive(rng, n, is_complex=False, rank=None) -> np.ndarray:
    """Hermitian positive semi-definite, of full rank unless `rank` is given."""
    A = matrix(rng, n, rank or n + 2, is_complex)
    return A @ A.conj().T / n


def log_normal(y, covariance, is_complex) -> float:
    """Log density of N(0, covariance), or of the circular CN(0, covariance)."""
    form = np.vdot(y, np.linalg.solve(covariance, y)).real
    logdet = np.linalg.slogdet(covariance)[1]
    if is_complex:
        return -(len(y) * np.log(np.pi) + logdet + form)
    return -0.5 * (len(y) * np.log(2 * np.pi) + logdet + form)


def largest_array(function, *arguments) -> int:
    """The largest array, in numbers, anywhere in a traced program."""

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            for variable in equation.outvars:
                yield variable.aval.size
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from sizes(inner)

    return max(sizes(jax.make_jaxpr(function)(*arguments).jaxpr))
