r"""One episode given what is believed of all: its posterior, and what it says of the rest.

With a quadratic log likelihood about the present mean, $c + g^T δ + \tfrac12 δ^T A δ$ for
minus it, and $θ \sim N(m, C)$, all is in closed form:

$$V^* = (A + C^{-1})^{-1}, \qquad δ^* = -V^* g, \qquad
\min (E[l] + KL) = c - \tfrac12 g^T V^* g + \tfrac12 \ln |I + A C|.$$
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Matrix = Float[Array, "d d"]
Vector = Float[Array, " d"]


class Local(NamedTuple):
    r"""The posterior of the parameters of an episode.

    Attributes:
        shift: $δ^*$, its mean less that of the prior, `(d,)`.
        root: $S$ with $V^* = S S^T$, `(d, d)`.
        cost: $\min (E[l] + KL)$, in nats: minus the log evidence, if the quadratic is the
            log likelihood.
    """

    shift: Vector
    root: Matrix
    cost: Float[Array, ""]

    def covariance(self) -> Matrix:
        return self.root @ self.root.T


def local(c: Float[Array, ""], gradient: Vector, curvature: Matrix, root: Matrix) -> Local:
    r"""The posterior under a quadratic and a normal prior.

    It is computed in the coordinates of the prior, where the precision is $I + L^T A L$
    with eigenvalues of one and more, be $A$ singular or zero.

    Args:
        c: minus the log likelihood at the mean of the prior, in nats.
        gradient: $g$ there, `(d,)`.
        curvature: $A$, `(d, d)`, positive semidefinite.
        root: $L$ with $C = L L^T$, `(d, d)`.
    """
    eye = jnp.eye(len(gradient), dtype=gradient.dtype)
    # S = L K⁻ᵀ with K Kᵀ = I + Lᵀ A L.
    half_logdet, own = eliminated(eye + root.T @ curvature @ root, root.T)
    along = own @ gradient
    cost = c - 0.5 * along @ along + half_logdet
    return Local(-own.T @ along, own.T, cost)


def eliminated(matrix: Matrix, right: Matrix) -> tuple[Float[Array, ""], Matrix]:
    r"""$\tfrac12 \ln |M|$ and $K^{-1} B$, where $K K^T = M$, by elimination.

    Episodes are many and their matrices small. A batch of Cholesky factors, on a CPU, waits
    for other batches (`probkit.method.batches`), and on a GPU costs much more than this.

    Args:
        matrix: $M$, positive definite.
        right: $B$.
    """
    p = len(matrix)

    def step(j, rows):
        row = rows[j] / jnp.sqrt(rows[j, j])
        below = jnp.arange(p) > j
        left = jnp.where(below, row[:p], 0.0)
        return (rows - left[:, None] * row).at[j].set(row)

    rows = jax.lax.fori_loop(0, p, step, jnp.concatenate([matrix, right], 1))
    return jnp.log(jnp.diagonal(rows)).sum(), rows[:, p:]
