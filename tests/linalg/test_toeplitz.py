"""Toeplitz matrices: large, indefinite, nearly singular, and with many right-hand sides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from probkit import linalg
from reference import linalg as reference

close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)


def test_an_indefinite_matrix_has_an_answer():
    op = linalg.Toeplitz(np.arange(1.0, 5.0))
    close(linalg.solve(op, np.arange(1.0, 5.0)), [1, 0, 0, 0])
    close(linalg.logdet(op), np.log(20))
    close(linalg.solve(op, np.eye(4)), np.linalg.inv(linalg.dense(op)))


def test_the_derivative_of_an_indefinite_logdet():
    column, turn = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0.5, 1.0, -1.0, 0.3])
    i = np.arange(4)
    places = np.abs(i[:, None] - i)

    def ours(t):
        return linalg.logdet(linalg.Toeplitz(column + t * turn))

    def dense(t):
        return jnp.linalg.slogdet((column + t * turn)[places])[1]

    close(jax.grad(ours)(0.2), jax.grad(dense)(0.2))
    close(jax.grad(jax.grad(ours))(0.2), jax.grad(jax.grad(dense))(0.2))


def test_what_the_recursion_cannot_reach_is_nan():
    # The first leading minor of [[0, 1], [1, 0]] is 0, and it is nearly 0 in the second.
    for first in (0.0, 1e-14):
        op = linalg.Toeplitz(np.array([first, 1.0, 0.3]))
        assert jnp.isnan(linalg.solve(op, jnp.ones(3))).all()
        assert jnp.isnan(linalg.logdet(op))
    # A smooth kernel is singular to rounding: prediction errors are of either sign.
    x = np.arange(300) / 50
    op = linalg.Toeplitz(np.exp(-0.5 * x**2))
    b = np.random.default_rng(0).normal(size=300)
    assert jnp.isnan(linalg.logdet(op))
    assert jnp.isnan(linalg.solve(op, b)).all()
    # With more on the diagonal it is not.
    assert jnp.isfinite(linalg.logdet(linalg.with_jitter(op, amount=1e-8)))


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("columns", [1, 3, 12], ids=["one", "few", "many"])
@pytest.mark.parametrize("kind", ["stationary", "ill-conditioned", "indefinite"])
def test_many_right_hand_sides(kind, columns, is_complex):
    # Few columns go by convolution, many by elimination, one by Levinson's recursion.
    n = 40
    rng = np.random.default_rng(0)
    i = np.arange(n)
    c = {
        "stationary": 0.9**i,
        "ill-conditioned": np.exp(-0.5 * (i / 10) ** 2) + 1e-8 * (i == 0),
        "indefinite": np.cos(i**2) + 0.2 * (i == 0),
    }[kind]
    if is_complex:
        c = c * np.exp(0.7j * i)
    op, T = linalg.Toeplitz(c), scipy.linalg.toeplitz(c)
    B = reference.matrix(rng, n, columns, is_complex)
    X = linalg.solve(op, jnp.asarray(B))
    left = np.abs(T @ X - B).max()
    assert left < 1e-13 * np.abs(T).sum(0).max() * np.abs(X).max()
    if kind == "indefinite":
        assert np.linalg.eigvalsh(T).min() < 0
    else:
        rtol = 1e-10 if kind == "stationary" else 1e-5
        scale = np.abs(X).max()
        np.testing.assert_allclose(X / scale, np.linalg.solve(T, B) / scale, atol=rtol)


def test_the_derivative_with_several_right_hand_sides():
    B = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)))
    column, i = 0.8 ** jnp.arange(20.0), np.arange(20)
    places = np.abs(i[:, None] - i)

    def ours(c):
        return (linalg.solve(linalg.Toeplitz(c), B) ** 2).sum()

    def dense(c):
        return (jnp.linalg.solve(c[places], B) ** 2).sum()

    close(jax.grad(ours)(column), jax.grad(dense)(column))


def test_few_right_hand_sides_form_no_matrix():
    op, B = linalg.Toeplitz(0.5 ** jnp.arange(512.0)), jnp.ones((512, 2))
    assert reference.largest_array(linalg.solve, op, B) <= 8 * 512
