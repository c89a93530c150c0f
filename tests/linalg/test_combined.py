"""Multiples, sums and products that lineax makes of our operators keep their structure."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.linalg

from probkit import linalg
from reference import linalg as reference

close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10)
real_and_complex = pytest.mark.parametrize(
    "is_complex", [False, True], ids=["real", "complex"]
)


@functools.cache
def _operators(is_complex=False):
    rng = np.random.default_rng(0)
    G = [reference.positive(rng, n, is_complex) for n in (2, 3)]
    A = [reference.matrix(rng, *s, is_complex) for s in ((2, 1), (3, 3))]
    W = reference.matrix(rng, 6, 1, is_complex)
    column = 0.6 ** np.arange(6) * (np.exp(0.7j * np.arange(6)) if is_complex else 1.0)
    return {
        "Kronecker": linalg.Kronecker(G),
        "nested": linalg.Kronecker(
            [linalg.Kronecker([G[0]]), lx.MatrixLinearOperator(G[1])]
        ),
        "KroneckerPlusNoise": linalg.KroneckerPlusNoise(G, 0.5),
        "KroneckerGramPlusNoise": linalg.KroneckerGramPlusNoise(A, 0.5),
        "KroneckerSum": linalg.KroneckerSum(G),
        "PlusLowRank": linalg.PlusLowRank(linalg.KroneckerPlusNoise(G, 0.5), W),
        "BlockDiagonal": linalg.BlockDiagonal([G[0], linalg.Kronecker([G[0], np.eye(2)])]),
        "Toeplitz": linalg.Toeplitz(column),
        "MatrixLinearOperator": lx.MatrixLinearOperator(jnp.asarray(np.kron(*G))),
        "DiagonalLinearOperator": lx.DiagonalLinearOperator(jnp.arange(1.0, 7.0)),
    }


def _dense(op):
    return np.asarray(linalg.dense(op))


def _answers(questions, op, v, V):
    out = {"one": linalg.solve(op, v), "several": linalg.solve(op, V)}
    out["logdet"] = linalg.logdet(op)
    out["form"] = linalg.quadratic_form(op, v), linalg.inverse_quadratic_form(op, v)
    if "diagonal" in questions:
        out["diagonal"] = linalg.diagonal(op), linalg.trace(op)
    if "sqrt" in questions:
        out["sqrt"] = linalg.dense(linalg.sqrt(op))
    if "eigh" in questions:
        values, vectors = linalg.eigh(op)
        out["eigh"] = values.reshape(-1), linalg.dense(vectors)
    return out


@functools.partial(jax.jit, static_argnums=0)
def _ask(questions, ops, v, V):
    return [_answers(q, op, v, V) for q, op in zip(questions, ops, strict=True)]


def _check(*cases):
    """Operators, their dense matrices, and what more to ask; all in one program."""
    v = np.arange(1.0, 7.0)
    V = np.stack([v, v**2], axis=1)
    ops, matrices, questions = zip(*cases, strict=True)
    found = _ask(tuple(map(frozenset, questions)), ops, v, V)
    for got, dense in zip(found, matrices, strict=True):
        close(got["one"], np.linalg.solve(dense, v))
        close(got["several"], np.linalg.solve(dense, V))
        close(got["logdet"], np.linalg.slogdet(dense)[1])
        close(got["form"][0], v @ dense @ v)
        close(got["form"][1], (v @ np.linalg.solve(dense, v)).real)
        if "diagonal" in got:
            close(got["diagonal"][0], np.diag(dense))
            close(got["diagonal"][1], np.trace(dense))
        if "sqrt" in got:
            close(got["sqrt"] @ got["sqrt"].conj().T, dense)
        if "eigh" in got:
            values, U = got["eigh"]
            close(U * values @ U.conj().T, dense)


def _roots(name):
    """Which of the roots an operator has."""
    none = {"Toeplitz"}
    both = {"Kronecker", "nested", "KroneckerPlusNoise", "KroneckerSum", "BlockDiagonal"}
    both |= {"MatrixLinearOperator", "DiagonalLinearOperator"}
    return set() if name in none else {"sqrt", "eigh"} if name in both else {"sqrt"}


every_operator = pytest.mark.parametrize(
    ("name", "is_complex"),
    [(name, False) for name in _operators()]
    + [(name, True) for name in ("Kronecker", "PlusLowRank", "Toeplitz")],
)


@every_operator
def test_multiples(name, is_complex):
    op = _operators(is_complex)[name]
    A = _dense(op)
    _check(
        (op * 2, 2 * A, {"diagonal"} | _roots(name)),
        (op / 4, A / 4, {"diagonal"} | _roots(name)),
        (-op, -A, {"diagonal"} | _roots(name) - {"sqrt"}),
    )


@every_operator
def test_sums_with_the_identity(name, is_complex):
    op = _operators(is_complex)[name]
    A, one = _dense(op), lx.IdentityLinearOperator(op.in_structure())
    # The identity less an operator: what is left is positive definite.
    large = 2 * np.linalg.eigvalsh(A).max()
    _check(
        (0.3 * one + op, A + 0.3 * np.eye(6), {"diagonal"} | _roots(name)),
        ((2.0 * op + one) + one / 2, 2 * A + 1.5 * np.eye(6), _roots(name)),
        (large * one - op, large * np.eye(6) - A, {"diagonal"}),
    )


@pytest.mark.parametrize("name", _operators())
def test_single_precision_stays(name):
    def in_single(x):
        return jax.ShapeDtypeStruct(x.shape, jnp.float32)

    def answers(op, v):
        one = lx.IdentityLinearOperator(op.in_structure())
        for A in (2.0 * op, -op / 3, op + 0.5 * one, 2.0 * op + one):
            yield linalg.solve(A, v), linalg.logdet(A), linalg.diagonal(A)
            yield linalg.quadratic_form(A, v), linalg.inverse_quadratic_form(A, v)

    shapes = jax.tree.map(in_single, (_operators()[name], jnp.ones(6)))
    out = jax.eval_shape(lambda *x: list(answers(*x)), *shapes)
    assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float32")}


def test_a_sum_is_solved_in_its_structure():
    G = [jnp.eye(8) * 2] * 3

    def answers(s, v):
        op = linalg.Kronecker(G) + s * lx.IdentityLinearOperator(
            jax.ShapeDtypeStruct((512,), float)
        )
        return linalg.logdet(op) + linalg.solve(op, v).sum()

    assert reference.largest_array(jax.grad(answers), 0.5, jnp.ones(512)) <= 2 * 512
    # 512 log(8 + s) + 512 / (8 + s)
    expected = 512 / 8.5 - 512 / 8.5**2
    close(jax.grad(answers)(0.5, jnp.ones(512)), expected)


def test_a_sum_with_factors_that_are_not_hermitian_is_nan():
    F = np.array([[1.0, 2.0], [0.0, 3.0]])
    op = linalg.Kronecker([F, np.eye(2)])
    total = op + lx.IdentityLinearOperator(op.in_structure())
    assert jnp.isnan(linalg.solve(total, jnp.ones(4))).all()
    assert jnp.isnan(linalg.logdet(total))
    # The others need no eigenvectors.
    close(linalg.diagonal(total), np.diag(np.kron(F, np.eye(2)) + np.eye(4)))
    v = np.arange(4.0)
    close(linalg.quadratic_form(total, v), v @ (np.kron(F, np.eye(2)) + np.eye(4)) @ v)


def test_sums_without_a_rule_are_refused():
    op = _operators()["KroneckerPlusNoise"]
    v = jnp.ones(6)
    with pytest.raises(NotImplementedError, match=r"sum of `KroneckerPlus.* one of them"):
        linalg.solve(op + op, v)
    with pytest.raises(NotImplementedError, match="`logdet` has no exact rule for a Kron"):
        linalg.logdet(op + lx.DiagonalLinearOperator(v))
    with pytest.raises(NotImplementedError, match=r"with a diagonal` has no .* `Toeplitz`"):
        linalg.solve(linalg.Toeplitz(v) + lx.DiagonalLinearOperator(v), v)
    one = lx.IdentityLinearOperator(op.in_structure())
    with pytest.raises(NotImplementedError, match="no rule for `SumOfTwoKroneckers`"):
        linalg.logdet(linalg.SumOfTwoKroneckers(op.factors, op.factors) + one)
    with pytest.raises(ValueError, match="a complex multiple"):
        linalg.eigh(1j * _operators(True)["Kronecker"])


def _with_diagonals(is_complex):
    """Sums with the same noise in each cell twice, and their terms."""
    rng = np.random.default_rng(1)
    G = [reference.positive(rng, n, is_complex) for n in (3, 4)]
    d = 10.0 ** rng.uniform(-2, 0, size=12)
    K, dense = linalg.Kronecker(G), reference.kron(G)
    D = lx.DiagonalLinearOperator(jnp.asarray(d, dense.dtype))
    one = lx.IdentityLinearOperator(K.in_structure())
    return {
        "product": (K + D, dense + np.diag(d)),
        "on the left": (2 * D + K, dense + np.diag(2 * d)),
        "with noise": (linalg.KroneckerPlusNoise(G, 0.3) + D, dense + np.diag(d + 0.3)),
        "and the identity": ((K + D) + 0.3 * one, dense + np.diag(d + 0.3)),
        "a Kronecker sum": (
            linalg.KroneckerSum(G) + D,
            np.kron(G[0], np.eye(4)) + np.kron(np.eye(3), G[1]) + np.diag(d),
        ),
        "a matrix": (lx.MatrixLinearOperator(jnp.asarray(dense)) + D, dense + np.diag(d)),
    }


@jax.jit
def _solved(op, B):
    return linalg.solve(op, B), linalg.diagonal(op)


@real_and_complex
def test_sums_with_a_diagonal(is_complex):
    rng = np.random.default_rng(2)
    for name, (op, dense) in _with_diagonals(is_complex).items():
        B = reference.matrix(rng, 12, 2, is_complex)
        expected = np.linalg.solve(dense, B)
        solved, diagonal = _solved(op, B)
        close(solved, expected, rtol=1e-7, err_msg=name)
        close(diagonal, np.diag(dense), err_msg=name)
        if name == "product":
            b, x = jnp.asarray(B[:, 0]), expected[:, 0]
            close(lx.linear_solve(op, b, linalg.Structured()).value, x, rtol=1e-7)
            close(linalg.inverse_quadratic_form(op, b), np.vdot(b, x).real, rtol=1e-7)
            R = _dense(linalg.sqrt(op))
            close(R @ R.conj().T, dense)


def test_derivatives_of_a_sum_with_a_diagonal():
    rng = np.random.default_rng(3)
    G = [reference.positive(rng, n) for n in (2, 3)]
    v, d = rng.normal(size=6), jnp.arange(1.0, 7.0)

    def form(s, d):
        op = linalg.Kronecker([s * G[0], G[1]]) + lx.DiagonalLinearOperator(d)
        return linalg.inverse_quadratic_form(op, v)

    def dense_form(s, d):
        return v @ jnp.linalg.solve(s * np.kron(*G) + jnp.diag(d), v)

    @jax.jit
    def both(s, d):
        forms = form, dense_form
        return [(jax.grad(f)(s, d), jax.hessian(f, 1)(s, d)) for f in forms]

    for ours, dense in zip(*both(0.7, d), strict=True):
        close(ours, dense, rtol=1e-7)


def test_a_sum_with_a_diagonal_is_solved_or_nan():
    G = np.array([[1.0, 0.5], [0.5, 1.0]])
    skew = np.array([[1.0, 2.0], [0.0, 1.0]])
    d, v = jnp.array([0.1, 1.0, 1.0, 2.0]), jnp.ones(4)
    # Not Hermitian, complex, and of no positive sum
    for A, diagonal in ((skew, d), (G + 0j, d + 0.1j), (G, d.at[1].set(0.0) - 2.0)):
        op = linalg.Kronecker([A, G]) + lx.DiagonalLinearOperator(diagonal)
        assert jnp.isnan(linalg.solve(op, v)).all()
    assert (
        linalg.solve(linalg.Kronecker([G, G]) + lx.DiagonalLinearOperator(d), 0 * v) == 0
    ).all()


@real_and_complex
def test_products(is_complex):
    ops = _operators(is_complex)
    K, T = ops["Kronecker"], ops["Toeplitz"]
    A, B = _dense(K), _dense(T)
    D = lx.DiagonalLinearOperator(jnp.arange(1.0, 7.0) + 0 * A[0])
    d = np.diag(np.arange(1.0, 7.0))
    _check(
        (K @ T, A @ B, set()),
        (K @ K, A @ A, {"diagonal"}),
        (-(K @ T) / 2, -A @ B / 2, set()),
        (D @ T @ D, d @ B @ d, {"diagonal"}),
        (K @ (D @ K), A @ d @ A, {"diagonal"}),
    )
    with pytest.raises(NotImplementedError, match="product of Kronecker, Toeplitz"):
        linalg.diagonal(K @ T)


@real_and_complex
def test_the_diagonal_of_a_product(is_complex):
    rng = np.random.default_rng(1)
    F = [reference.matrix(rng, *s, is_complex) for s in ((2, 4), (3, 2))]
    K = linalg.Kronecker(F)
    d = jnp.arange(1.0, 9.0)
    op = linalg.Product([K, lx.DiagonalLinearOperator(d), linalg.adjoint(K)])
    expected = reference.kron(F) * np.arange(1.0, 9.0) @ reference.kron(F).conj().T
    close(linalg.diagonal(op), np.diag(expected))
    close(lx.diagonal(op), np.diag(expected))
    close(linalg.trace(op), np.trace(expected))
    # the root of a product plus noise, times its adjoint
    noisy = _operators(is_complex)["KroneckerPlusNoise"]
    R = linalg.sqrt(noisy)
    close(linalg.diagonal(R @ linalg.adjoint(R)), linalg.diagonal(noisy))


def test_tagged_operators():
    op = _operators()["KroneckerPlusNoise"]
    tagged = lx.TaggedLinearOperator(op, lx.positive_semidefinite_tag)
    A, one = _dense(op), lx.IdentityLinearOperator(op.in_structure())
    questions = {"diagonal", "sqrt", "eigh"}
    _check((tagged, A, questions), (tagged + one, A + np.eye(6), questions))


def test_derivatives_of_combined_operators():
    v, op = jnp.arange(1.0, 7.0), _operators()["Kronecker"]
    K = _dense(op)

    def ours(t):
        one = lx.IdentityLinearOperator(op.in_structure())
        total = -(op / t) - (t**2) * one
        return linalg.logdet(total) + linalg.inverse_quadratic_form(total, v)

    def dense(t):
        A = -(K / t) - t**2 * jnp.eye(6)
        return jnp.linalg.slogdet(A)[1] + v @ jnp.linalg.solve(A, v)

    for take in (jax.grad, lambda f: jax.grad(jax.grad(f))):
        close(jax.jit(take(ours))(0.7), jax.jit(take(dense))(0.7))


# The door of lineax


def test_numbers_of_another_precision_at_the_door_of_lineax():
    op = linalg.KroneckerPlusNoise([jnp.eye(2, dtype=jnp.float32)] * 2, 0.5)
    v = jnp.ones(4, jnp.float32)
    one = lx.IdentityLinearOperator(op.in_structure())
    for A, expected in (
        (2.0 * op, 1 / 3),
        (op / 2, 4 / 3),
        (-op, -2 / 3),
        (op + 0.5 * one, 0.5),
    ):
        got = lx.linear_solve(A, v, linalg.Structured()).value
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, np.full(4, expected), rtol=1e-6)

    def total(s):
        return lx.linear_solve(s * op, v, linalg.Structured()).value.sum()

    np.testing.assert_allclose(jax.grad(total)(2.0), -4 / 1.5 / 4, rtol=1e-6)

    def twice(s):
        return lx.linear_solve(s * (2.0 * op), v, linalg.Structured()).value.sum()

    np.testing.assert_allclose(jax.grad(twice)(2.0), -2 / 1.5 / 4, rtol=1e-6)


def test_complex_sums_at_the_door_of_lineax():
    op = _operators(True)["Kronecker"]
    one = lx.IdentityLinearOperator(op.in_structure())
    v = jnp.arange(1.0, 7.0) + 0j
    got = lx.linear_solve(2.0 * op + 0.5 * one, v, linalg.Structured()).value
    close(got, np.linalg.solve(2 * _dense(op) + 0.5 * np.eye(6), v))


@real_and_complex
def test_lineax_reads_three_diagonals(is_complex):
    ops = _operators(is_complex)
    for name in ("Kronecker", "nested", "KroneckerPlusNoise", "Toeplitz"):
        dense = _dense(ops[name])
        for got, offset in zip(lx.tridiagonal(ops[name]), (0, -1, 1), strict=True):
            close(got, np.diag(dense, offset))
    single = linalg.Toeplitz(np.array([2.0]))
    assert [len(x) for x in lx.tridiagonal(single)] == [1, 0, 0]
    with pytest.raises(
        NotImplementedError, match=r"`lx.tridiagonal` has no rule for `Kronecker"
    ):
        lx.tridiagonal(ops["KroneckerSum"])


def test_a_block_of_a_combined_operator():
    K = _operators()["Kronecker"]
    op = linalg.BlockDiagonal([2 * K, K @ K])
    dense = scipy.linalg.block_diag(2 * _dense(K), _dense(K) @ _dense(K))
    v = np.arange(12.0)
    close(linalg.solve(op, v), np.linalg.solve(dense, v))
    close(linalg.logdet(op), np.linalg.slogdet(dense)[1])
    close(linalg.diagonal(op), np.diag(dense))
