"""Every operator against its dense matrix: each question, derivatives, no densifying."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from probkit import linalg
from probkit.linalg.masked import RANK
from reference import linalg as reference


def kronecker(rng, c):
    G = [reference.positive(rng, n, c) for n in (2, 3)]
    return linalg.Kronecker(G), reference.kron(G)


def kronecker_plus_noise(rng, c):
    G = [reference.positive(rng, n, c, rank=2) for n in (2, 3)]
    return linalg.KroneckerPlusNoise(G, 0.5), reference.kron(G) + 0.5 * np.eye(6)


def tall_gram(rng, c):
    A = [reference.matrix(rng, *s, c) for s in ((3, 2), (2, 1))]
    K = reference.kron(A)
    return linalg.KroneckerGramPlusNoise(A, 0.5), K @ K.conj().T + 0.5 * np.eye(6)


def wide_gram(rng, c):
    A = [reference.matrix(rng, *s, c) for s in ((2, 4), (3, 3))]
    A[1][:, 2] = A[1][:, 1]  # not of full rank
    K = reference.kron(A)
    return linalg.KroneckerGramPlusNoise(A, 0.5), K @ K.conj().T + 0.5 * np.eye(6)


def kronecker_sum(rng, c):
    G = [reference.positive(rng, n, c) for n in (3, 2)]
    dense = np.kron(G[0], np.eye(2)) + np.kron(np.eye(3), G[1])
    return linalg.KroneckerSum(G), dense


def sum_of_two(rng, c):
    A = [reference.positive(rng, n, c, rank=1) for n in (2, 3)]
    B = [reference.positive(rng, n, c) for n in (2, 3)]
    return linalg.SumOfTwoKroneckers(A, B), reference.kron(A) + reference.kron(B)


def scaled(rng, c):
    G = [reference.positive(rng, n, c) for n in (2, 3)]
    s = 1 + rng.uniform(size=6) * (1j if c else 1)
    dense = s[:, None] * reference.kron(G) * s.conj()
    return linalg.ScaledKronecker(s, G), dense


def plus_low_rank(rng, c):
    G = [reference.positive(rng, n, c) for n in (2, 3)]
    W, w = reference.matrix(rng, 6, 2, c), np.array([0.5, 2.0])
    op = linalg.PlusLowRank(linalg.KroneckerPlusNoise(G, 0.5), W, w)
    return op, reference.kron(G) + 0.5 * np.eye(6) + (W * w) @ W.conj().T


def block_diagonal(rng, c):
    G = [reference.positive(rng, n, c) for n in (2, 2)]
    K = [reference.positive(rng, n, c) for n in (1, 2)]
    op = linalg.BlockDiagonal([G[0], G[1], linalg.Kronecker(K)])
    return op, scipy.linalg.block_diag(*G, reference.kron(K))


def toeplitz(rng, c):
    column = 0.6 ** np.arange(6) * np.exp(0.7j * np.arange(6) if c else 0.0)
    column[0] += 0.3
    return linalg.Toeplitz(column), scipy.linalg.toeplitz(column)


def masked(rng, c):
    G = [reference.positive(rng, n, c, rank=2) for n in (2, 3)]
    mask = np.array([[True, False, True], [True, True, False]])
    dense = reference.kron(G) + 0.5 * np.eye(6)
    seen = mask.ravel()
    dense = np.where(np.outer(seen, seen), dense, 0)
    return linalg.MaskedKroneckerPlusNoise(G, 0.5, mask), dense


def product(rng, c):
    A, B = (reference.matrix(rng, 6, 6, c) for _ in range(2))
    operators = [lx.MatrixLinearOperator(jnp.asarray(M)) for M in (A, B)]
    return linalg.Product(operators), A @ B


def times_a_number(rng, c):
    op, dense = kronecker(rng, c)
    return 2.5 * op, 2.5 * dense


def khatri_rao(rng, c):
    F = [reference.matrix(rng, m, 6, c) for m in (2, 1, 3)]
    columns = [reference.kron([A[:, k] for A in F]) for k in range(6)]
    return linalg.KhatriRao(F), np.stack(columns, axis=1)


def solution(dense, v):
    # of the observed cells, where some are not; else the inverse
    return np.linalg.pinv(dense, rcond=1e-12) @ v


ANY = {"mv"}
SOLVED = ANY | {"solve", "logdet", "diagonal"}
POSITIVE = SOLVED | {"sqrt", "inverse_quadratic_form"}
# What each answers; what it does not has to be refused.
TABLE = {
    kronecker: POSITIVE | {"eigh"},
    kronecker_plus_noise: POSITIVE | {"eigh"},
    tall_gram: POSITIVE,
    wide_gram: POSITIVE,
    kronecker_sum: POSITIVE | {"eigh"},
    sum_of_two: POSITIVE,
    scaled: POSITIVE,
    plus_low_rank: POSITIVE,
    block_diagonal: POSITIVE | {"eigh"},
    toeplitz: SOLVED | {"inverse_quadratic_form"},
    masked: POSITIVE - {"logdet"},
    product: ANY | {"solve", "logdet"},
    times_a_number: POSITIVE | {"eigh"},
    khatri_rao: ANY | {"diagonal"},
}
every_operator = pytest.mark.parametrize("make", TABLE, ids=lambda make: make.__name__)
real_and_complex = pytest.mark.parametrize(
    "is_complex", [False, True], ids=["real", "complex"]
)


def _case(make, is_complex):
    rng = np.random.default_rng(7)
    op, dense = make(rng, is_complex)
    return op, dense, reference.matrix(rng, 6, 1, is_complex)[:, 0]


close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10)


def _ask(answers, op, v):
    """All answers that a structure has, by name."""
    out = {"mv": op.mv(v), "T": op.T.mv(v), "adjoint": linalg.adjoint(op).mv(v)}
    out["quadratic_form"] = linalg.quadratic_form(op, v)
    for name in answers & {"solve", "inverse_quadratic_form"}:
        out[name] = getattr(linalg, name)(op, v)
    for name in answers & {"logdet", "diagonal"}:
        out[name] = getattr(linalg, name)(op)
    if "diagonal" in answers:
        out["trace"], out["lx.diagonal"] = linalg.trace(op), lx.diagonal(op)
    if "sqrt" in answers:
        out["sqrt"] = linalg.dense(linalg.sqrt(op))
    if "eigh" in answers:
        values, vectors = linalg.eigh(op)
        out["eigh"] = values.reshape(-1), linalg.dense(vectors)
    return out


@real_and_complex
@every_operator
def test_every_answer_is_that_of_the_dense_matrix(make, is_complex):
    op, dense, v = _case(make, is_complex)
    answers = TABLE[make]

    got = jax.jit(functools.partial(_ask, answers))(op, jnp.asarray(v))
    close(got["mv"], dense @ v)
    close(got["T"], dense.T @ v)
    close(got["adjoint"], dense.conj().T @ v)
    close(got["quadratic_form"], np.vdot(v, dense @ v))
    if "solve" in got:
        close(got["solve"], solution(dense, v))
    if "inverse_quadratic_form" in got:
        close(got["inverse_quadratic_form"], np.vdot(v, solution(dense, v)).real)
    if "logdet" in got:
        close(got["logdet"], np.linalg.slogdet(dense)[1])
        assert not jnp.iscomplexobj(got["logdet"])
    if "diagonal" in got:
        close(got["diagonal"], np.diag(dense))
        close(got["lx.diagonal"], np.diag(dense))
        close(got["trace"], np.trace(dense))
    if "sqrt" in got:
        close(got["sqrt"] @ got["sqrt"].conj().T, dense)
    if "eigh" in got:
        values, V = got["eigh"]
        close(V * values @ V.conj().T, dense)


@real_and_complex
@every_operator
def test_single_precision_stays(make, is_complex):
    op, _, v = _case(make, is_complex)
    single = {"float64": "float32", "complex128": "complex64"}

    def in_single(x):
        return jax.ShapeDtypeStruct(x.shape, single.get(str(x.dtype), x.dtype))

    shapes = jax.tree.map(in_single, (op, v))
    out = jax.eval_shape(functools.partial(_ask, TABLE[make]), *shapes)
    assert {str(x.dtype) for x in jax.tree.leaves(out)} <= {"float32", "complex64"}


@every_operator
def test_a_question_without_a_rule_is_refused(make):
    op, _, v = _case(make, False)
    for name in {"solve", "logdet", "diagonal", "sqrt", "eigh"} - TABLE[make]:
        arguments = (op, v) if name == "solve" else (op,)
        with pytest.raises(NotImplementedError, match=f"`{name}` has no"):
            getattr(linalg, name)(*arguments)


@every_operator
def test_lineax_refuses_to_densify(make):
    op, dense, v = _case(make, False)
    with pytest.raises(ValueError, match="by itself"):
        lx.linear_solve(op, jnp.asarray(v))
    if "solve" in TABLE[make]:
        got = lx.linear_solve(op, jnp.asarray(v), linalg.Structured()).value
        close(got, solution(dense, v))


WITH_SOLVE = [make for make, answers in TABLE.items() if "solve" in answers]
# Complex as well where the rule of a derivative is our own.
DERIVATIVES = [(make, False) for make in WITH_SOLVE] + [
    (make, True) for make in (kronecker_sum, toeplitz, masked)
]


def _turns(op, make, rng):
    """A direction for each part: symmetric where the part is, and 0 for masks."""
    for x in jax.tree.leaves(op):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            yield None
            continue
        D = 0.1 * (rng.normal(size=x.shape) + 1j * rng.normal(size=x.shape))
        if x.ndim == 2 and x.shape[0] == x.shape[1] and make is not product:
            D = D + D.conj().T
        if make is toeplitz:
            D[0] = D[0].real
        yield D if jnp.iscomplexobj(x) else D.real


@pytest.mark.parametrize(
    ("make", "is_complex"),
    DERIVATIVES,
    ids=lambda x: getattr(x, "__name__", "complex" if x else "real"),
)
def test_derivatives_are_those_of_the_dense_matrix(make, is_complex):
    # Along a line through the parts of the operator, which moves every part.
    op, _, v = _case(make, is_complex)
    parts, rest = jax.tree.flatten(op)
    turns = list(_turns(op, make, np.random.default_rng(8)))

    def at(t):
        moved = [x if D is None else x + t * D for x, D in zip(parts, turns, strict=True)]
        return jax.tree.unflatten(rest, moved)

    def ours(t):
        total = (linalg.solve(at(t), v * (1 + t)) @ jnp.arange(1.0, 7.0)).real
        return total + linalg.logdet(at(t)) if "logdet" in TABLE[make] else total

    matrix = jax.jit(lambda t: linalg.dense(at(t)))

    def dense(t):
        A, b = np.asarray(matrix(t)), v * (1 + t)
        total = (solution(A, b) @ np.arange(1.0, 7.0)).real
        return total + np.linalg.slogdet(A)[1] if "logdet" in TABLE[make] else total

    slope = jax.grad(ours)
    got = jax.jit(lambda t: (ours(t), slope(t), jax.grad(slope)(t)))(0.0)
    # Five values of the dense answer: differences of fourth order.
    h = 2e-3
    f = np.array([dense(k * h) for k in (-2, -1, 0, 1, 2)])
    first = f @ [1, -8, 0, 8, -1] / (12 * h)
    second = f @ [-1, 16, -30, 16, -1] / (12 * h**2)
    np.testing.assert_allclose(got, [f[2], first, second], rtol=1e-5)


@pytest.mark.parametrize("make", WITH_SOLVE, ids=lambda make: make.__name__)
def test_it_lowers_for_cuda(make):
    op, _, v = _case(make, False)

    def answers(op, v):
        total = linalg.solve(op, v).sum()
        return total + linalg.logdet(op) if "logdet" in TABLE[make] else total

    program = jax.jit(jax.grad(answers, argnums=1))
    assert jax.export.export(program, platforms=["cuda"])(op, v).platforms == ("cuda",)


def test_lineax_differentiates_through_our_solver():
    G, v = jnp.eye(2), jnp.arange(1.0, 7.0)

    def total(s, solve):
        A = linalg.KroneckerPlusNoise([G * s, jnp.eye(3)], s**2)
        return (solve(A, v) * v).sum()

    by_lineax = jax.grad(total)(
        0.7, lambda A, b: lx.linear_solve(A, b, linalg.Structured()).value
    )
    assert by_lineax == pytest.approx(float(jax.grad(total)(0.7, linalg.solve)), rel=1e-12)


# What only one of them does


def test_gram_of_a_khatri_rao_product():
    op, dense, _ = _case(khatri_rao, True)
    close(op.gram().as_matrix(), dense.conj().T @ dense)


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_a_positive_matrix_has_second_derivatives(is_complex):
    # Its solution and log-determinant do not differentiate the decomposition.
    rng = np.random.default_rng(9)
    A, D = (jnp.asarray(reference.positive(rng, 3, is_complex)) for _ in range(2))
    b = jnp.asarray(reference.matrix(rng, 3, 1, is_complex)[:, 0])

    def answers(t):
        op = lx.MatrixLinearOperator(A + t * D, lx.positive_semidefinite_tag)
        return linalg.logdet(op), jnp.vdot(b, linalg.solve(op, t * b)).real

    def dense(t):
        M = A + t * D
        logdet = jnp.linalg.slogdet(M)[1]
        return logdet, jnp.vdot(b, jnp.linalg.solve(M, t * b)).real

    for take in (lambda f: f, jax.jacfwd, lambda f: jax.jacfwd(jax.jacrev(f))):
        got, expected = (jax.jit(take(f))(0.7) for f in (answers, dense))
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_kronecker_sum_differentiates_at_equal_eigenvalues():
    turn = jnp.array([[0.3, 1.0], [1.0, -0.2]])

    def logdet(t):
        return linalg.logdet(
            linalg.KroneckerSum([jnp.eye(2) + t * turn, jnp.eye(3) * (1 + t)])
        )

    check_grads(jax.jit(logdet), (0.0,), order=2, modes=["rev"], rtol=1e-5)


def test_eigenvectors_differentiate_where_eigenvalues_differ_and_stay_finite_elsewhere():
    turn = jnp.array([[0.3, 1.0], [1.0, -0.2]])

    def trace_of_square(t, G):
        values, V = linalg.eigh(lx.MatrixLinearOperator(G + t * turn))
        return ((linalg.dense(V) * values**2) @ linalg.dense(V).T * turn).sum()

    check_grads(
        jax.jit(lambda t: trace_of_square(t, jnp.diag(jnp.array([1.0, 2.0])))), (0.0,), 1
    )
    assert jnp.isfinite(jax.grad(trace_of_square)(0.0, jnp.eye(2)))


def test_toeplitz_at_a_size_that_matters():
    # An Ornstein-Uhlenbeck process has a log-determinant in closed form.
    n, r = 500, 0.9
    op = linalg.Toeplitz(r ** jnp.arange(n))
    assert linalg.logdet(op) == pytest.approx((n - 1) * np.log(1 - r**2), rel=1e-10)
    b = np.random.default_rng(0).normal(size=n)
    expected = scipy.linalg.solve_toeplitz(r ** np.arange(n), b)
    np.testing.assert_allclose(linalg.solve(op, jnp.asarray(b)), expected, rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_jitter_lets_cholesky_pass_at_any_scale(dtype, scale):
    x = jnp.linspace(0, 1, 60, dtype=dtype)
    G = scale * jnp.exp(-((x[:, None] - x) ** 2))
    assert not jnp.isfinite(jnp.linalg.cholesky(G)).all()
    raised = linalg.with_jitter(G)
    assert jnp.isfinite(jnp.linalg.cholesky(raised)).all()
    assert raised.dtype == G.dtype
    assert jnp.abs(raised - G).max() <= 60 * 20 * jnp.finfo(dtype).eps * scale


def test_jitter_of_a_toeplitz_operator_is_that_of_its_matrix():
    op = linalg.Toeplitz(0.9 ** jnp.arange(5.0))
    for given in ({}, {"factor": 1e6}, {"amount": 0.25}):
        raised = linalg.with_jitter(op, **given)
        assert isinstance(raised, linalg.Toeplitz)
        expected = linalg.with_jitter(linalg.dense(op), **given)
        np.testing.assert_allclose(linalg.dense(raised), expected, rtol=1e-15, atol=1e-15)
    assert linalg.with_jitter(jnp.eye(2), amount=0.25)[0, 0] == 1.25


BIG = {
    "KroneckerSum": lambda: linalg.KroneckerSum([jnp.eye(8)] * 3),
    "KroneckerGramPlusNoise": lambda: linalg.KroneckerGramPlusNoise(
        [jnp.ones((8, 2))] * 3, 1.0
    ),
    "SumOfTwoKroneckers": lambda: linalg.SumOfTwoKroneckers(
        [jnp.eye(8)] * 3, [jnp.eye(8)] * 3
    ),
    "ScaledKronecker": lambda: linalg.ScaledKronecker(jnp.ones(512), [jnp.eye(8)] * 3),
    "PlusLowRank": lambda: linalg.PlusLowRank(
        linalg.KroneckerSum([jnp.eye(8)] * 3), jnp.ones((512, 2))
    ),
    "BlockDiagonal": lambda: linalg.BlockDiagonal([linalg.Kronecker([jnp.eye(8)] * 3)] * 2),
    "Toeplitz": lambda: linalg.Toeplitz(0.5 ** jnp.arange(512)),
    "MaskedKroneckerPlusNoise": lambda: linalg.MaskedKroneckerPlusNoise(
        [jnp.eye(16)] * 3, 1.0, jnp.ones((16, 16, 16))
    ),
}


@pytest.mark.parametrize("name", BIG)
def test_nothing_of_the_size_of_the_matrix_is_ever_made(name):
    op = BIG[name]()
    n = op.shape[0]

    def answers(op):
        b = jnp.ones(n)
        x = linalg.solve(op, b)
        first = x.sum() + linalg.quadratic_form(op, b)
        return first + (0 if "Masked" in name else linalg.logdet(op))

    # The eigenvectors of the largest eigenvalues on a part of a grid are as many vectors.
    vectors = RANK if "Masked" in name else 8
    largest = reference.largest_array(jax.grad(answers, allow_int=True), op)
    assert largest <= vectors * n < n**2 / 8


def test_messages():
    eye = jnp.eye(2)
    for make, message in {
        lambda: linalg.SumOfTwoKroneckers(
            [eye], [jnp.eye(3)]
        ): r"\[\(2, 2\)\] and second of",
        lambda: linalg.ScaledKronecker(jnp.ones(3), [eye]): r"shape \(3,\) .* takes 2",
        lambda: linalg.PlusLowRank(
            linalg.Kronecker([eye]), jnp.ones((3, 1))
        ): r"\(3, 1\); .* 2 r",
        lambda: linalg.KhatriRao([eye, jnp.ones((2, 3))]): r"\[2, 3\] columns",
        lambda: linalg.Toeplitz(eye): r"shape \(2, 2\); it takes a vector",
        lambda: linalg.MaskedKroneckerPlusNoise(
            [eye], 1.0, eye
        ): r"\(2, 2\), but .* \(2,\)",
        lambda: linalg.Product(
            [linalg.Kronecker([jnp.ones((2, 3))])] * 2
        ): "as many columns",
        lambda: linalg.Beside(
            [linalg.Kronecker([A]) for A in (eye, jnp.eye(3))]
        ): r"\[2, 3\] r",
        lambda: linalg.logdet(
            linalg.BlockDiagonal([jnp.ones((2, 3))])
        ): "this one is 2 x 3",
    }.items():
        with pytest.raises(ValueError, match=message):
            make()
