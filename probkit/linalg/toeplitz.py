"""Toeplitz matrices: products by FFT, solutions and determinants by recursion."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Inexact

from probkit.linalg.arguments import check_vector, inexact
from probkit.linalg.compiled import compiled
from probkit.linalg.jitter import default_jitter, with_jitter
from probkit.linalg.questions import diagonal, hermitian_solve, logdet, solve
from probkit.linalg.structured import AbstractHermitian, is_complex


class Toeplitz(AbstractHermitian):
    r"""The Hermitian positive definite matrix $T_{ij} = c_{i-j}$, $c_{-k} = \bar c_k$.

    The covariance of a stationary process on an even grid.

    Args:
        column: $c$, the first column, shape `(n,)`, in units of the matrix; $c_0$ is real.

    Raises:
        ValueError: if the column is not a vector.

    Products cost $O(n \log n)$. `solve` and `logdet` are exact recursions of $O(n²)$ that
    hold a few vectors, and no matrix. Derivatives of `logdet` cost one solution.
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
    r"""Solution of $T x = b$ and the prediction errors, whose product is $|T|$.

    After step $m$ the polynomial $a = (1, a_1, …, a_m, 0, …)$ solves
    $T_{m+1} a = (e_m, 0, …, 0)$, and $x$ the leading system of size $m + 1$ (Golub and Van
    Loan, 4.7). The backward polynomial is $a$ reversed and conjugate.
    """
    n = len(column)
    dtype = jnp.result_type(column, vector)
    places = jnp.arange(n)
    backward = column[::-1]  # backward[n - 1 - m + j] = c_{m - j}

    def step(carry, m):
        a, x, error = carry
        # c_m, c_{m-1}, …, c_1, 0, … against a_0, …, a_{m-1} and x_0, …, x_{m-1}
        row = jnp.where(places < m, jnp.roll(backward, m - n + 1), 0)
        reflection = -(row @ a) / error
        # (a_m, …, a_0, 0, …): the last m + 1 places of the reversal, moved to the front
        turned = jnp.roll(a[::-1], m + 1).conj()
        a = a + reflection * turned
        error = error * (1 - jnp.abs(reflection) ** 2)
        turned = jnp.roll(a[::-1], m + 1).conj()
        x = x + (vector[m] - row @ x) / error * turned
        return (a, x, error), error

    unit = jnp.zeros(n, dtype).at[0].set(1)
    first = column[0].real
    start = (unit, unit * (vector[0] / first), first)
    (_, x, _), errors = jax.lax.scan(step, start, jnp.arange(1, n))
    return x, jnp.concatenate([first[None], errors])


@solve.register(Toeplitz)
def _(op, vector):
    # Levinson's recursion, O(n²)
    check_vector(vector, op.shape[0], "solve")
    column = jax.lax.stop_gradient(op.column)
    return hermitian_solve(op, vector, lambda b: _levinson(column, b)[0])


@logdet.register(Toeplitz)
def _(op):
    # log|T| = Σ log of the prediction errors of Durbin's recursion
    return _logdet(op)


@jax.custom_jvp
def _logdet(op):
    return jnp.log(_levinson(op.column, jnp.zeros_like(op.column))[1]).sum()


@_logdet.defjvp
def _(primals, tangents):
    # d log|T| = tr T⁻¹ dT = s_0 dc_0 + 2 Re Σ_{k > 0} conj(s_k) dc_k, with s_k the sum of
    # the k-th diagonal of T⁻¹. By Gohberg and Semencul, with x = T⁻¹ e_0 and
    # y = (0, conj x_{n-1}, …, conj x_1),
    #   T⁻¹ = (L(x) L(x)ᴴ - L(y) L(y)ᴴ) / x_0,
    # where L(x) is lower triangular Toeplitz; the k-th diagonal of L(x) L(x)ᴴ sums to
    # Σ_i (n - i - k) x_{i+k} conj(x_i), a correlation, again by FFT.
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
