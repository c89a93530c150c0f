"""Toeplitz matrices: products by FFT, solutions and determinants by recursion."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import check_vector, inexact
from probkit.linalg.compiled import compiled
from probkit.linalg.jitter import default_jitter, with_jitter
from probkit.linalg.questions import (
    diagonal,
    hermitian_solve,
    logdet,
    plus_identity,
    solve,
    solve_columns,
    times,
)
from probkit.linalg.structured import AbstractHermitian, is_complex


class Toeplitz(AbstractHermitian):
    r"""The Hermitian matrix $T_{ij} = c_{i-j}$, $c_{-k} = \bar c_k$.

    The covariance of a stationary process on an even grid, where it is positive definite.
    It may also be indefinite: `solve` and `logdet` need leading minors other than 0, and
    give NaN where rounding leaves no digit of the answer.

    Args:
        column: $c$, the first column, shape `(n,)`, in units of the matrix; $c_0$ is real.

    Raises:
        ValueError: if the column is not a vector.

    Products cost $O(n \log n)$. `solve` and `logdet` are exact recursions of $O(n²)$ that
    hold a few vectors, and no matrix. More right-hand sides, as the columns of a matrix,
    cost $O(n \log n)$ each, or one elimination where that is faster. Derivatives of
    `logdet` cost one solution.
    """

    column: Inexact[Array, " n"]

    def __init__(self, column: ArrayLike):
        self.column = inexact(column)
        if self.column.ndim != 1 or not self.column.size:
            raise ValueError(
                f"`Toeplitz(column=...)` has shape {self.column.shape}; it takes a vector."
            )

    @property
    def shape(self):
        return len(self.column), len(self.column)

    @property
    def dtype(self):
        return self.column.dtype

    @compiled
    def mv(self, vector):
        # T is the corner of a circulant of twice its size, and the FFT diagonalises that.
        check_vector(vector, len(self.column), "mv")
        c = self.column
        zero = jnp.zeros(1, c.dtype)
        ring = jnp.concatenate([c, zero, c[:0:-1].conj()])
        return _circular(ring, vector)[: len(c)]


def _circular(ring, vector):
    """Circular convolution of a ring with a vector, which is padded to its length."""
    if is_complex(jnp.result_type(ring, vector)):
        spectrum = jnp.fft.fft(ring) * jnp.fft.fft(vector, len(ring))
        return jnp.fft.ifft(spectrum)
    spectrum = jnp.fft.rfft(ring) * jnp.fft.rfft(vector, len(ring))
    return jnp.fft.irfft(spectrum, len(ring))


def _levinson(column, vector):
    r"""Solution of $T x = b$, last polynomial, prediction errors and their rounding.

    After step $m$ the polynomial $a = (1, a_1, …, a_m, 0, …)$ solves
    $T_{m+1} a = (e_m, 0, …, 0)$, and $x$ the leading system of size $m + 1$ (Golub and Van
    Loan, 4.7). The backward polynomial is $a$ reversed and conjugate. $|T|$ is the product
    of the errors $e_m = a^H T_{m+1} a$, which rounding moves by about $ε n c_0 |a|^2$.
    """
    n = len(column)
    dtype = jnp.result_type(column, vector)
    # c_{n-1}, …, c_1, 0, …
    backward = jnp.concatenate([column[:0:-1], jnp.zeros(n, column.dtype)])

    def step(carry, m):
        a, turned, x, error = carry
        # c_m, c_{m-1}, …, c_1, 0, … against a_0, …, a_{m-1} and x_0, …, x_{m-1}
        row = jax.lax.dynamic_slice(backward, (n - 1 - m,), (n,))
        reflection = -(row @ a) / error
        # (0, conj a_{m-1}, …, conj a_0, 0, …) is carried too, so that nothing is reversed.
        turned = jnp.concatenate([jnp.zeros(1, dtype), turned[:-1]])
        a, turned = a + reflection * turned, turned + reflection.conj() * a
        error = error * (1 - jnp.abs(reflection) ** 2)
        x = x + (vector[m] - row @ x) / error * turned
        return (a, turned, x, error), (error, jnp.vdot(a, a).real)

    unit = jnp.zeros(n, dtype).at[0].set(1)
    first = column[0].real
    start = (unit, unit, unit * (vector[0] / first), first)
    steps = jnp.arange(1, n)
    # Two steps at a time, because starting one takes as long as what it does.
    (a, _, x, _), (errors, squares) = jax.lax.scan(step, start, steps, unroll=2)
    errors = jnp.concatenate([first[None], errors])
    squares = jnp.concatenate([jnp.ones_like(first)[None], squares])
    rounding = n * jnp.finfo(dtype).eps * jnp.abs(column).max() * squares
    return x, a, errors, rounding


def _checked(op, rows, solved):
    """Solutions of $T x = b$ for the rows, or NaN where rounding has left nothing of one.

    Where a leading minor is nearly 0 the recursions lose digits without notice, and where
    $T$ is singular to rounding any method does. A solution has to have half the digits in
    the sense of a backward error, and the first digit of $b$.
    """
    left = jnp.linalg.norm(rows - _mv_of_rows(op, solved), axis=1)
    size, eps = jnp.linalg.norm(rows, axis=1), jnp.finfo(op.dtype).eps
    backward = 2 * jnp.abs(op.column).sum() * jnp.linalg.norm(solved, axis=1)
    right = (left <= eps**0.5 * (backward + size)) & (left <= size / 10)
    return jnp.where(right[:, None], solved, jnp.nan)


def _mv_of_rows(op, rows):
    return jax.vmap(op.mv)(rows)


@solve.register(Toeplitz)
def _(op, vector):
    # Levinson's recursion, O(n²)
    check_vector(vector, op.shape[0], "solve")
    fixed = jax.lax.stop_gradient(op)

    def solution(b):
        x = _levinson(fixed.column, b)[0]
        return _checked(fixed, b[None], x[None])[0]

    return hermitian_solve(op, vector, solution)


# A dense matrix of up to this many rows is solved sooner than FFTs of all columns, if there
# are a quarter as many. It has then at most four times the size of the answer.
DENSE = 2048


@solve_columns.register(Toeplitz)
def _(op, matrix):
    n, k = matrix.shape
    check_vector(jnp.empty(n), op.shape[0], "solve")
    fixed = jax.lax.stop_gradient(op)
    by = _by_elimination if n <= DENSE and 4 * k >= n else _by_convolution

    def solution(B):
        return _checked(fixed, B.T, by(fixed, B.T)).T

    return hermitian_solve(op, matrix, solution)


def _by_elimination(op, rows):
    i = jnp.arange(len(op.column))
    lower = i[:, None] >= i
    T = op.column[jnp.abs(i[:, None] - i)]
    return jnp.linalg.solve(jnp.where(lower, T, T.conj()), rows.T).T


def _by_convolution(op, rows):
    # By Gohberg and Semencul, with x = T⁻¹ e_0 and y = (0, conj x_{n-1}, …, conj x_1),
    #   T⁻¹ = (L(x) L(x)ᴴ - L(y) L(y)ᴴ) / x_0,
    # where L(x) is lower triangular Toeplitz. Products with it are convolutions. The
    # formula loses more digits than the recursion if T is badly conditioned. Corrections by
    # what is left bring them back. If not, the recursion takes each row.
    _, a, errors, _ = _levinson(op.column, jnp.zeros_like(op.column))
    approximate = jax.vmap(functools.partial(_inverse_mv, a / errors[-1]))
    backward = 100 * jnp.finfo(op.dtype).eps * 2 * jnp.abs(op.column).sum()

    def unfinished(state):
        solved, left, step = state
        size = backward * jnp.linalg.norm(solved, axis=1)
        return (step < 4) & ~(jnp.linalg.norm(left, axis=1) <= size).all()

    def correct(state):
        solved, left, step = state
        solved = solved + approximate(left)
        return solved, rows - _mv_of_rows(op, solved), step + 1

    start = jnp.zeros_like(rows), rows, 0
    solved, left, _ = jax.lax.while_loop(unfinished, correct, start)
    failed = unfinished((solved, left, 0))
    each = jax.vmap(lambda b: _levinson(op.column, b)[0])
    return jax.lax.cond(failed, each, lambda _: solved, rows)


def _inverse_mv(x, b):
    n = len(x)
    y = jnp.concatenate([jnp.zeros(1, x.dtype), x[:0:-1].conj()])

    def gram(c):
        # L(c) L(c)ᴴ b; the ring of L(c)ᴴ has conj(c_k) at place -k
        zeros = jnp.zeros(n, c.dtype)
        turned = jnp.concatenate([c[:1], zeros, c[:0:-1]]).conj()
        inner = _circular(turned, b)[:n]
        return _circular(jnp.concatenate([c, zeros]), inner)[:n]

    return (gram(x) - gram(y)) / x[0].real


@logdet.register(Toeplitz)
def _(op):
    # log|T| = Σ log of the prediction errors of Durbin's recursion
    return _logdet(op)


@jax.custom_jvp
def _logdet(op):
    _, _, errors, rounding = _levinson(op.column, jnp.zeros_like(op.column))
    # An error below zero says that T is indefinite, unless it is rounding. The others then
    # have to be right to half the digits.
    half = jnp.finfo(rounding.dtype).eps ** 0.5
    known = (errors > 0).all() | (half * jnp.abs(errors) > rounding).all()
    return jnp.where(known, jnp.log(jnp.abs(errors)).sum(), jnp.nan)


@_logdet.defjvp
def _(primals, tangents):
    # d log|T| = tr T⁻¹ dT = s_0 dc_0 + 2 Re Σ_{k > 0} conj(s_k) dc_k, with s_k the sum of
    # the k-th diagonal of T⁻¹. In the formula of Gohberg and Semencul, see above, the k-th
    # diagonal of L(x) L(x)ᴴ sums to Σ_i (n - i - k) x_{i+k} conj(x_i), a correlation, again
    # by FFT.
    (op,), (d_op,) = primals, tangents
    n = op.shape[0]
    x = solve(op, jnp.zeros(n, op.dtype).at[0].set(1))
    y = jnp.concatenate([jnp.zeros(1, op.dtype), x[:0:-1].conj()])
    s = (_weighted_correlation(x) - _weighted_correlation(y)) / x[0].real
    twice = jnp.full(n, 2.0, s.real.dtype).at[0].set(1.0)
    return _logdet(op), jnp.vdot(s, twice * d_op.column).real


def _weighted_correlation(x):
    n = len(x)
    weighted = (n - jnp.arange(n)) * x
    ring = jnp.concatenate([weighted, jnp.zeros(n, x.dtype)])
    # Σ_i w_{i+k} conj(x_i): convolution with the conjugate, turned round
    turned = jnp.concatenate([x[:1], jnp.zeros(n, x.dtype), x[:0:-1]]).conj()
    return _circular(ring, turned)[:n]


@diagonal.register(Toeplitz)
def _(op):
    return jnp.full(op.shape[0], op.column[0])


@with_jitter.register(Toeplitz)
def _(op, factor=10.0, *, amount=None):
    # the diagonal of T is c_0 everywhere
    if amount is None:
        amount = default_jitter(factor, op.shape[0] * op.column[0].real, op.dtype)
    return Toeplitz(op.column.at[0].add(amount))


@lx.tridiagonal.register(Toeplitz)
def _(op):
    lower = jnp.full(op.shape[0] - 1, op.column[1] if op.shape[0] > 1 else 0, op.dtype)
    return diagonal(op), lower, lower.conj()


@times.register(Toeplitz)
def _(op, factor):
    return Toeplitz(factor * op.column)


@plus_identity.register(Toeplitz)
def _(op, amount):
    return Toeplitz(op.column.at[0].add(amount))
