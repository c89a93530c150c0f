"""Matrices that are not positive definite: a right answer where there is one, else NaN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from probkit import linalg
from probkit.distributions import KroneckerNormal

close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
INDEFINITE = np.array([[1.0, 2.0], [2.0, 1.0]])  # eigenvalues 3 and -1
b = np.array([1.0, -2.0, 0.5, 3.0])


def answers_are_those_of(op, dense):
    close(linalg.dense(op), dense)
    close(linalg.solve(op, b), np.linalg.solve(dense, b))
    close(linalg.logdet(op), np.linalg.slogdet(dense)[1])
    close(linalg.inverse_quadratic_form(op, b), b @ np.linalg.solve(dense, b))
    values, V = linalg.eigh(op)
    V = linalg.dense(V)
    close(V * values.ravel() @ V.T, dense)


@pytest.mark.parametrize("shift", [2.0, 0.5], ids=["positive definite", "indefinite"])
def test_kronecker_sum_with_an_indefinite_factor(shift):
    op = linalg.KroneckerSum([INDEFINITE, shift * np.eye(2)])
    dense = np.kron(INDEFINITE, np.eye(2)) + shift * np.eye(4)
    answers_are_those_of(op, dense)
    # a root exists where no eigenvalue is below zero
    R = linalg.dense(linalg.sqrt(op))
    if shift == 2.0:
        close(R @ R.T, dense)
    else:
        assert jnp.isnan(R).any()


def test_the_derivative_of_an_indefinite_kronecker_sum():
    turn = jnp.array([[0.3, 1.0], [1.0, -0.2]])

    def answers(t):
        op = linalg.KroneckerSum([INDEFINITE + t * turn, 0.5 * jnp.eye(2)])
        return linalg.logdet(op) + linalg.inverse_quadratic_form(op, b)

    check_grads(jax.jit(answers), (0.1,), order=2, modes=["rev"], rtol=1e-5)


def test_noise_larger_than_the_lowest_eigenvalue():
    op = linalg.KroneckerPlusNoise([INDEFINITE, np.eye(2)], 1.5)
    answers_are_those_of(op, np.kron(INDEFINITE, np.eye(2)) + 1.5 * np.eye(4))
    R = linalg.dense(linalg.sqrt(op))
    close(R @ R.T, linalg.dense(op))


def test_what_is_no_covariance_is_nan():
    op = linalg.KroneckerPlusNoise([INDEFINITE, np.eye(2)], 0.5)
    assert jnp.isnan(linalg.solve(op, b)).all()
    assert jnp.isnan(linalg.logdet(op))
    assert jnp.isnan(linalg.inverse_quadratic_form(op, b))
    assert jnp.isnan(linalg.sample(op, jax.random.key(0))).any()
    assert jnp.isnan(
        KroneckerNormal([INDEFINITE, np.eye(2)], 0.5).log_prob(b.reshape(2, 2))
    )
    close(linalg.eigh(op)[0].min(), -0.5)
    # A second product that is not positive definite has no Cholesky factor.
    op = linalg.SumOfTwoKroneckers([np.eye(2)] * 2, [INDEFINITE, np.eye(2)])
    assert jnp.isnan(linalg.logdet(op))
    assert jnp.isnan(linalg.solve(op, b)).all()


def test_the_first_of_two_products_may_be_indefinite():
    op = linalg.SumOfTwoKroneckers([INDEFINITE, np.eye(2)], [2 * np.eye(2), np.eye(2)])
    dense = np.kron(INDEFINITE, np.eye(2)) + 2 * np.eye(4)
    close(linalg.solve(op, b), np.linalg.solve(dense, b))
    close(linalg.logdet(op), np.linalg.slogdet(dense)[1])


NOISY = {
    "KroneckerPlusNoise": lambda s: linalg.KroneckerPlusNoise([np.eye(4)], s),
    "KroneckerGramPlusNoise": lambda s: linalg.KroneckerGramPlusNoise([np.eye(4, 2)], s),
    "MaskedKroneckerPlusNoise": lambda s: linalg.MaskedKroneckerPlusNoise(
        [np.eye(4)], s, np.ones(4)
    ),
}


@pytest.mark.parametrize("name", NOISY)
def test_negative_noise_is_refused_or_nan(name):
    with pytest.raises(ValueError, match=r"\(noise=...\)` is -1.5; .* not be below 0"):
        NOISY[name](-1.5)
    # Under `jit` the value is not known.
    solved = jax.jit(lambda s: linalg.solve(NOISY[name](s), b))(-1.5)
    assert jnp.isnan(solved).all()
    if "Masked" not in name:
        assert jnp.isnan(jax.jit(lambda s: linalg.logdet(NOISY[name](s)))(-1.5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigenvalues_below_zero_by_rounding_count_as_zero(dtype):
    # The last half of the eigenvalues of this kernel are below rounding, some below zero.
    x = jnp.linspace(0, 1, 60, dtype=dtype)
    G = jnp.exp(-((x[:, None] - x) ** 2) / 0.5)
    assert jnp.linalg.eigvalsh(G).min() < 0
    op = linalg.KroneckerPlusNoise([G], jnp.zeros((), dtype) + 1e-20)
    assert linalg.eigh(op)[0].min() > 0
    assert jnp.isfinite(linalg.logdet(op))


def test_without_noise_a_gram_matrix_of_full_rank_has_a_logdet():
    A = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    op = linalg.KroneckerGramPlusNoise([A], 0.0)
    close(linalg.logdet(op), np.linalg.slogdet(A @ A.T)[1])


# Factors that are not symmetric


def test_the_derivative_of_an_inverse_quadratic_form_of_any_matrix():
    # vᵀ A⁻¹ v with A = [[2, a + 1], [0, 2]] is 5 - 3 (a + 1) / 4
    def form(a):
        A = jnp.array([[2.0, 1.0], [0.0, 2.0]]).at[0, 1].add(a)
        return linalg.inverse_quadratic_form(linalg.Kronecker([A]), jnp.array([1.0, 3.0]))

    value, slope = jax.value_and_grad(form)(0.0)
    close([value, slope, jax.grad(jax.grad(form))(0.0)], [4.25, -0.75, 0.0])


def _general(t):
    """Operators with factors that are not symmetric, along a line."""
    A = jnp.array([[2.0, 1.0 + t], [-0.5, 3.0]])
    B = jnp.array([[1.0, -t], [0.7, 2.0 + t]])
    K = linalg.Kronecker([A, B])
    return {
        "Kronecker": K,
        "ScaledKronecker": linalg.ScaledKronecker(jnp.arange(1.0, 5.0) + t, [A, B]),
        "Product": linalg.Product([K, linalg.BlockDiagonal([B, A])]),
        "BlockDiagonal": linalg.BlockDiagonal([A, B]),
        "PlusLowRank": linalg.PlusLowRank(K, jnp.ones((4, 1)) + t),
        "times": 2.0 * K,
    }


@pytest.mark.parametrize("name", _general(0.0))
def test_derivatives_of_forms_of_any_matrix(name):
    v = b + 0.5

    def ours(t):
        op = _general(t)[name]
        return linalg.inverse_quadratic_form(op, t + v), linalg.quadratic_form(op, t * v)

    def dense(t):
        A = linalg.dense(_general(t)[name])
        return (t + v) @ jnp.linalg.solve(A, t + v), (t * v) @ A @ (t * v)

    for take in (jax.jacfwd, lambda f: jax.jacfwd(jax.jacrev(f))):
        close(jax.jit(take(ours))(0.3), jax.jit(take(dense))(0.3))


def test_a_factor_that_is_not_symmetric_counts_by_its_nearest_symmetric_one():
    # Also in the derivative, for each entry of the factor by itself.
    G = jnp.array([[3.0, 0.2], [0.8, 2.0]])
    near = (G + G.T) / 2

    def ours(G):
        op = linalg.KroneckerPlusNoise([G, jnp.eye(2)], 0.5)
        return op.mv(b).sum() + (linalg.solve(op, b) @ jnp.arange(4.0))

    def dense(G):
        A = jnp.kron((G + G.T) / 2, jnp.eye(2)) + 0.5 * jnp.eye(4)
        return (A @ b).sum() + jnp.linalg.solve(A, b) @ jnp.arange(4.0)

    close(ours(G), ours(near))
    close(jax.grad(ours)(G), jax.grad(dense)(G))
