"""State-space forms in decimal numbers, and dense Gaussian processes with sites."""

import functools
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

# F of each Matérn kernel: z' = F z + noise in the last entry, in units of ℓ / sqrt(2ν).
DRIFT = {
    0.5: [[-1]],
    1.5: [[0, 1], [-1, -2]],
    2.5: [[0, 1, 0], [0, 0, 1], [-1, -3, -3]],
}


def stationary(smoothness):
    """P, from F P + P F^T + q L L^T = 0 with P_00 = 1."""
    F = np.array(DRIFT[smoothness], float)
    noise = np.zeros_like(F)
    noise[-1, -1] = 1.0
    P = scipy.linalg.solve_continuous_lyapunov(F, -noise)
    return P / P[0, 0]


@functools.cache
def step(smoothness, z: str):
    """A and Q of a step of z, from the series of the exponential in 120 digits."""
    with localcontext() as context:
        context.prec = 120
        context.Emin = -10_000_000
        F = np.array([[Decimal(f) for f in row] for row in DRIFT[smoothness]])
        d, halvings = Decimal(z), 0
        while d > Decimal("0.5"):
            d, halvings = d / 2, halvings + 1
        term = A = np.array(
            [[Decimal(i == j) for j in range(len(F))] for i in range(len(F))]
        )
        for j in range(1, 80):
            term = term @ F * d / j
            A = A + term
        for _ in range(halvings):
            A = A @ A
        # The entries of P are thirds.
        thirds = np.round(3 * stationary(smoothness)).astype(int).tolist()
        P = np.array([[Decimal(p) / 3 for p in row] for row in thirds])
        Q = P - A @ P @ A.T
        return A.astype(float), Q.astype(float)


def covariance(process, x, other):
    """All covariances of the values at `x` and at `other`, place by place."""
    lag = np.subtract.outer(x, other)
    k = jax.jit(jax.vmap(jax.vmap(process.covariance)))(jnp.asarray(lag))
    k = np.where(lag[..., None, None] >= 0, k, np.swapaxes(k, 2, 3))
    return np.swapaxes(k, 1, 2).reshape(len(x) * k.shape[2], -1)


def given(K, precision, shift):
    """Mean, covariance and log evidence of values with covariance K, given sites."""
    Λ = scipy.linalg.block_diag(*np.asarray(precision))
    η = np.asarray(shift).ravel()
    B = np.eye(len(K)) + K @ Λ
    mean = np.linalg.solve(B, K @ η)
    return mean, np.linalg.solve(B, K), (η @ mean - np.linalg.slogdet(B)[1]) / 2
