"""Standard normal coefficients after seeing data, by one QR decomposition."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Regression(NamedTuple):
    r"""Standard normal coefficients $z$ after seeing $y = M z + ε$, $ε \sim N(0, I)$.

    Attributes:
        root: $R$, upper triangular, $R^T R = I + M^T M$: the inverse of the posterior
            covariance. Its diagonal may be negative.
        mean: the posterior mean $\hat z$.
        misfit: $|y - M \hat z|^2 + |\hat z|^2 = y^T (I + M M^T)^{-1} y$.
    """

    root: Float[Array, "p p"]
    mean: Float[Array, " p"]
    misfit: Float[Array, ""]


def decomposed(M, y):
    """Q and R of `[M; I]`, and `[y; 0]` in terms of Q and what is left of it.

    Rows of very different size are harmless to Householder's QR when large ones come
    first; the prior, rows of size one, comes last.
    """
    p = M.shape[1]
    Q, R = jnp.linalg.qr(jnp.concatenate([M, jnp.eye(p, dtype=M.dtype)]))
    aim = jnp.concatenate([y, jnp.zeros(p, y.dtype)])
    along = Q.T @ aim
    left = aim - Q @ along
    # Once more: what is left of a large vector is not quite orthogonal.
    more = Q.T @ left
    return Q, R, along + more, left - Q @ more


def regress(M: Float[Array, "n p"], y: Float[Array, " n"]) -> Regression:
    """The posterior of standard normal coefficients, by one QR decomposition.

    Not by the normal equations: where the noise is $10^{-9}$ of the signal, squares of
    singular values of $M$ differ by more digits than there are.
    """
    _, R, along, left = decomposed(M, y)
    return Regression(R, jax.scipy.linalg.solve_triangular(R, along), left @ left)
