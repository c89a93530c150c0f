"""Standard normal coefficients after seeing data, by one QR decomposition."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Regression(NamedTuple):
    r"""Standard normal coefficients $z$ after seeing $y = M z + ε$, $ε \sim N(0, I)$.

    Attributes:
        root: $R$, `(p, p)`, upper triangular, with $R^T R = I + M^T M$, the inverse of the
            posterior covariance. Its diagonal may be negative.
        mean: the posterior mean $\hat z$, shape `(p,)`.
        misfit: $|y - M \hat z|^2 + |\hat z|^2 = y^T (I + M M^T)^{-1} y$, one number.
    """

    root: Float[Array, "p p"]
    mean: Float[Array, " p"]
    misfit: Float[Array, ""]


def decomposed(M, y):
    """Q and R of `[M; I]`, and `[y; 0]` in terms of Q and what is left of it.

    Householder's QR is accurate for rows of very different size if large rows come first.
    The prior, whose rows have size one, therefore comes last.
    """
    p = M.shape[1]
    Q, R = jnp.linalg.qr(jnp.concatenate([M, jnp.eye(p, dtype=M.dtype)]))
    aim = jnp.concatenate([y, jnp.zeros(p, y.dtype)])
    along = Q.T @ aim
    left = aim - Q @ along
    # Once more, because the rest of a large vector is not quite orthogonal.
    more = Q.T @ left
    return Q, R, along + more, left - Q @ more


def regress(M: Float[Array, "n p"], y: Float[Array, " n"]) -> Regression:
    """The posterior of standard normal coefficients, by one QR decomposition.

    It does not use the normal equations. If the noise is $10^{-9}$ of the signal, the
    squares of the singular values of $M$ differ by more digits than float64 has.

    Args:
        M: $M$, `(n, p)`, in units of the noise sd of each row.
        y: $y$, shape `(n,)`, in the same units.

    Returns:
        Root, mean and misfit; coefficients have no units.
    """
    _, R, along, left = decomposed(M, y)
    return Regression(R, jax.scipy.linalg.solve_triangular(R, along), left @ left)
