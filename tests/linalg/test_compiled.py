"""Questions asked outside `jax.jit` run as one program, and transform as if it were not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from lowering import programs
from probkit import linalg

QUESTIONS = {
    "mv": lambda op, v: op.mv(v),
    "solve": linalg.solve,
    "logdet": lambda op, v: linalg.logdet(op),
    "inverse_quadratic_form": linalg.inverse_quadratic_form,
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_question_is_one_program(question):
    # Sizes that no other test has, so that nothing is compiled yet.
    op = linalg.KroneckerPlusNoise([jnp.eye(7), jnp.eye(11) * 2], jnp.array(0.5))
    v = jnp.ones(77)
    jax.clear_caches()
    with programs() as made:
        question(op, v)
        assert len(made) == 1
        question(op, v + 1 - 1)
    # the sum, the difference, and nothing again for the question
    assert len(made) == 3


def test_answers_and_derivatives_are_the_same_in_and_outside_a_program():
    rng = np.random.default_rng(0)
    A = jnp.asarray(rng.normal(size=(3, 3)) + 3 * np.eye(3))
    v = jnp.asarray(rng.normal(size=(2, 6)))

    def answer(A, v):
        op = linalg.Kronecker([A, jnp.eye(2)])
        return (linalg.solve(op, v) * op.mv(v)).sum() + linalg.logdet(op)

    def over_rows(A, v):
        return jax.vmap(answer, (None, 0))(A, v).sum()

    for function, x in (
        (answer, v[0]),
        (jax.grad(answer), v[0]),
        (jax.hessian(answer, argnums=1), v[0]),
        (jax.vmap(answer, (None, 0)), v),
        (jax.grad(over_rows), v),
    ):
        expected = jax.jit(function)(A, x)
        np.testing.assert_allclose(function(A, x), expected, rtol=1e-11, atol=1e-12)


def test_an_operator_that_holds_a_function_is_a_factor():
    double = lx.FunctionLinearOperator(lambda x: 2 * x, jax.ShapeDtypeStruct((2,), float))
    op = linalg.Kronecker([double, jnp.eye(3)])
    np.testing.assert_array_equal(op.mv(jnp.arange(6.0)), 2 * np.arange(6.0))


def test_a_rule_that_is_registered_anew_counts():
    class Twice(lx.DiagonalLinearOperator):
        pass

    op, v = Twice(jnp.ones(2)), jnp.ones(2)
    for factor in (2.0, 3.0):
        linalg.solve.register(Twice, lambda op, vector, factor=factor: vector / factor)
        np.testing.assert_allclose(linalg.solve(op, v), v / factor)
        np.testing.assert_allclose(linalg.inverse_quadratic_form(op, v), 2 / factor)


# Several right-hand sides


def test_solve_takes_the_columns_of_a_matrix():
    rng = np.random.default_rng(1)
    B = jnp.asarray(rng.normal(size=(6, 3)))
    c = 0.5 ** jnp.arange(6.0)
    mask = np.array([[True, True, True], [True, False, True]])
    G = [jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.diag(jnp.array([1.0, 2.0, 3.0]))]
    for op in (
        linalg.Kronecker(G),
        linalg.KroneckerPlusNoise(G, 0.5),
        linalg.KroneckerGramPlusNoise(G, 0.5),
        linalg.KroneckerSum(G),
        linalg.SumOfTwoKroneckers(G, G),
        linalg.ScaledKronecker(jnp.arange(1.0, 7.0), G),
        linalg.PlusLowRank(linalg.Kronecker(G), B[:, :2]),
        linalg.BlockDiagonal([G[0], G[1], jnp.eye(1)]),
        linalg.Toeplitz(c),
        linalg.MaskedKroneckerPlusNoise(G, 0.5, mask),
        linalg.Product([linalg.Kronecker(G), linalg.Toeplitz(c)]),
        lx.MatrixLinearOperator(jnp.kron(*G)),
        lx.DiagonalLinearOperator(jnp.arange(1.0, 7.0)),
    ):
        expected = np.stack([linalg.solve(op, b) for b in B.T], axis=1)
        np.testing.assert_allclose(linalg.solve(op, B), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(
        ValueError, match=r"shape \(5,\) .* takes 6 .* one column per vector"
    ):
        linalg.solve(linalg.Kronecker(G), B[:5])
    with pytest.raises(ValueError, match=r"shape \(6, 3, 1\)"):
        linalg.solve(linalg.KroneckerPlusNoise(G, 0.5), B[:, :, None])


def test_a_product_can_be_passed_on_as_a_function():
    op, v = linalg.Kronecker([2 * jnp.eye(2), jnp.eye(3)]), jnp.arange(6.0)
    for transform in (jax.jit, eqx.filter_jit):
        assert jnp.array_equal(transform(op.mv)(v), 2 * v)
    assert jnp.array_equal(jax.vmap(op.mv)(jnp.stack([v, -v])), 2 * jnp.stack([v, -v]))
    assert len(jax.tree.leaves(op.mv)) == 2  # arrays, which `eqx.filter_jit` traces
    as_function = lx.FunctionLinearOperator(op.mv, op.in_structure())
    assert jnp.array_equal(as_function.mv(v), 2 * v)
