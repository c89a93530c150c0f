"""Products and solutions of many small matrices at once.

Matrices are the first two axes of an array, and the batch is the last: the loops over a
matrix are written out, and the inner loop of the compiled program runs over the batch.
Without a batch axis the same functions work on a single matrix.
"""

import jax.numpy as jnp
from jax.scipy.linalg import lu_factor, lu_solve
from jaxtyping import Array, Float

# From this size on a single matrix is multiplied by a library, and beyond the second size
# all are factored by one.
LARGE, UNROLLED = 6, 3


def transpose(A: Float[Array, "i j *#k"]) -> Float[Array, "j i *#k"]:
    return A.swapaxes(0, 1)


def product(
    A: Float[Array, "i j *#k"], B: Float[Array, "j l *#k"]
) -> Float[Array, "i l *#k"]:
    if A.ndim == 2 and A.shape[1] >= LARGE:
        return A @ B
    terms = [A[:, j, None] * B[None, j] for j in range(A.shape[1])]
    return sum(terms[1:], start=terms[0])


def apply(A: Float[Array, "i j *#k"], v: Float[Array, "j *#k"]) -> Float[Array, "i *#k"]:
    return product(A, v[:, None])[:, 0]


def sandwich(
    A: Float[Array, "i j *#k"], P: Float[Array, "j j *#k"]
) -> Float[Array, "i i *#k"]:
    """$A P A^T$."""
    return product(product(A, P), transpose(A))


def outer(v: Float[Array, "i *#k"], w: Float[Array, "j *#k"]) -> Float[Array, "i j *#k"]:
    return v[:, None] * w[None]


def symmetric(A: Float[Array, "i i *#k"]) -> Float[Array, "i i *#k"]:
    return (A + transpose(A)) / 2


def identity(like: Float[Array, "i i *k"]) -> Float[Array, "i i *one"]:
    eye = jnp.eye(len(like), dtype=like.dtype)
    return eye.reshape(eye.shape + (1,) * (like.ndim - 2))


def cholesky(A: Float[Array, "i i *k"]) -> Float[Array, "i i *k"]:
    """Upper triangular $R$ with $A = R^T R$, for a positive semidefinite matrix.

    A row that depends on those before it, but for rounding, is zero.
    """
    d, rows = len(A), []
    least = 4 * d * jnp.finfo(A.dtype).eps * jnp.stack([A[j, j] for j in range(d)])
    for j in range(d):
        positive = A[j, j] > least[j]
        root = jnp.sqrt(jnp.where(positive, A[j, j], 1.0))
        seen = jnp.arange(d).reshape((d,) + (1,) * (A.ndim - 2)) >= j
        row = jnp.where(positive & seen, A[j] / root, 0.0)
        A = A - outer(row, row)
        rows.append(row)
    return jnp.stack(rows)


def triangular(A: Float[Array, "i j *#k"], columns: int) -> Float[Array, "l j *#k"]:
    r"""The first rows of $R$ in $A = Q R$, for the first `columns` of $A$.

    By the modified method of Gram and Schmidt. A column that depends on those before it
    gets a row of zeros.

    Source: Björck (1994), "Numerics of Gram-Schmidt orthogonalization": as stable as the
    method of Householder for $R$, and for solutions by $R$ where the right-hand side is a
    column of $A$.
    """
    rows = []
    for j in range(columns):
        column, A = A[:, 0], A[:, 1:]
        squared = (column**2).sum(0)
        positive = squared > 0
        norm = jnp.sqrt(jnp.where(positive, squared, 1.0))
        q = jnp.where(positive, column / norm, 0.0)
        row = (q[:, None] * A).sum(0)
        A = A - q[:, None] * row[None]
        diagonal = jnp.where(positive, norm, 0.0)[None]
        zeros = jnp.zeros((j, *diagonal.shape[1:]), row.dtype)
        rows.append(jnp.concatenate([zeros, diagonal, row]))
    return jnp.stack(rows)


def solve(
    A: Float[Array, "i i *#k"], B: Float[Array, "i j *#k"]
) -> tuple[Float[Array, "i j *#k"], Float[Array, "*#k"]]:
    r"""$A^{-1} B$ and $\log|\det A|$ of a regular matrix, which need not be symmetric."""
    d = A.shape[1]
    if d > UNROLLED:
        A, B = (jnp.moveaxis(a, (0, 1), (-2, -1)) for a in (A, B))
        factors = lu_factor(A)
        X = lu_solve(factors, B)
        logdet = jnp.log(jnp.abs(jnp.diagonal(factors[0], axis1=-2, axis2=-1))).sum(-1)
        return jnp.moveaxis(X, (-2, -1), (0, 1)), logdet
    R = triangular(jnp.concatenate([A, B], axis=1), d)
    return substitute(R[:, :d], R[:, d:]), jnp.stack(
        [jnp.log(R[j, j]) for j in range(d)]
    ).sum(0)


def substitute(
    R: Float[Array, "i i *#k"], B: Float[Array, "i j *#k"]
) -> Float[Array, "i j *#k"]:
    """$R^{-1} B$ for an upper triangular $R$."""
    rows: list[Array] = []
    for i in reversed(range(len(R))):
        rest = sum(R[i, i + 1 + j] * row for j, row in enumerate(rows))
        rows.insert(0, (B[i] - rest) / R[i, i])
    return jnp.stack(rows)
