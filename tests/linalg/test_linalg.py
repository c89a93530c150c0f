"""Kronecker products, alone and with noise: answers, derivatives, refusals."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.test_util import check_grads
from numpyro.infer.util import log_density

from probkit import linalg
from probkit.distributions import KroneckerNormal
from reference import linalg as reference

real_and_complex = pytest.mark.parametrize(
    "is_complex", [False, True], ids=["real", "complex"]
)


def _vector(rng, n, is_complex=False):
    return jnp.asarray(reference.matrix(rng, n, 1, is_complex)[:, 0])


def _distinct(is_complex):
    rng = np.random.default_rng(0)
    return [reference.positive(rng, n, is_complex) for n in (2, 3, 2)]


def _equal(is_complex):
    """Equal eigenvalues exactly, in each factor, and a factor without full rank."""
    unit = 1.0 + 0j if is_complex else 1.0
    rng = np.random.default_rng(1)
    return [np.eye(2) * unit, reference.positive(rng, 3, is_complex, rank=1), np.eye(2) * 2]


def _nearly_equal(is_complex):
    factors = _equal(is_complex)
    factors[0] = factors[0] + 1e-9 * np.array([[0.0, 1.0], [1.0, 0.0]])
    return factors


spectra = pytest.mark.parametrize(
    "make", [_distinct, _equal, _nearly_equal], ids=["distinct", "equal", "nearly"]
)


# Mode products


@real_and_complex
def test_mode_products_are_the_kronecker_product(is_complex):
    rng = np.random.default_rng(0)
    factors = [reference.matrix(rng, *s, is_complex) for s in ((3, 2), (1, 4), (5, 3))]
    tensor = rng.normal(size=(2, 4, 3))
    got = linalg.mode_products(jnp.asarray(tensor), [jnp.asarray(F) for F in factors])
    expected = reference.kron(factors) @ tensor.ravel()
    assert got.shape == (3, 1, 5)
    np.testing.assert_allclose(got.ravel(), expected, rtol=1e-13)


def test_mode_products_leave_an_axis_without_matrix_alone():
    rng = np.random.default_rng(0)
    tensor, F = rng.normal(size=(2, 4, 3)), rng.normal(size=(5, 4))
    got = linalg.mode_products(jnp.asarray(tensor), [None, jnp.asarray(F), None])
    np.testing.assert_allclose(got, np.einsum("ij,ajb->aib", F, tensor), rtol=1e-13)


def test_mode_products_of_the_wrong_size():
    with pytest.raises(ValueError, match=r"shape \(2, 3\) .* \(2, 2\) columns"):
        linalg.mode_products(jnp.ones((2, 3)), [jnp.eye(2), jnp.eye(2)])


# Kronecker


@real_and_complex
def test_every_answer_of_kronecker(is_complex):
    rng = np.random.default_rng(0)
    factors = [reference.positive(rng, n, is_complex) for n in (2, 3, 2)]
    K, v = reference.kron(factors), _vector(rng, 12, is_complex)
    op = linalg.Kronecker([jnp.asarray(F) for F in factors])
    np.testing.assert_allclose(op.mv(v), K @ v, rtol=1e-12)
    np.testing.assert_allclose(op.T.mv(v), K.T @ v, rtol=1e-12)
    np.testing.assert_allclose(linalg.adjoint(op).mv(v), K.conj().T @ v, rtol=1e-12)
    np.testing.assert_allclose(linalg.solve(op, v), np.linalg.solve(K, v), rtol=1e-9)
    np.testing.assert_allclose(linalg.logdet(op), np.linalg.slogdet(K)[1], rtol=1e-12)
    np.testing.assert_allclose(linalg.diagonal(op), np.diag(K), rtol=1e-13)
    np.testing.assert_allclose(linalg.trace(op), np.trace(K), rtol=1e-13)
    np.testing.assert_allclose(linalg.quadratic_form(op, v), np.vdot(v, K @ v), rtol=1e-12)
    form = np.vdot(v, np.linalg.solve(K, v)).real
    np.testing.assert_allclose(linalg.inverse_quadratic_form(op, v), form, rtol=1e-9)
    R = linalg.dense(linalg.sqrt(op))
    np.testing.assert_allclose(R @ R.conj().T, K, rtol=1e-12, atol=1e-14)
    values, vectors = linalg.eigh(op)
    V = linalg.dense(vectors)
    assert values.shape == (2, 3, 2)
    np.testing.assert_allclose(V * values.ravel() @ V.conj().T, K, rtol=1e-12, atol=1e-13)


@real_and_complex
def test_rectangular_kronecker(is_complex):
    rng = np.random.default_rng(0)
    factors = [reference.matrix(rng, *s, is_complex) for s in ((3, 2), (1, 4))]
    op, K = linalg.Kronecker(factors), reference.kron(factors)
    B = reference.matrix(rng, 8, 5)
    np.testing.assert_allclose(linalg.matmat(op, jnp.asarray(B)), K @ B, rtol=1e-12)
    np.testing.assert_allclose(linalg.dense(linalg.adjoint(op)), K.conj().T, rtol=1e-12)
    with pytest.raises(ValueError, match="square matrices, and this one is 3 x 2"):
        linalg.logdet(op)
    with pytest.raises(ValueError, match="square"):
        linalg.solve(op, jnp.ones(3))


def test_factors_may_be_operators():
    rng = np.random.default_rng(0)
    F, d = rng.normal(size=(3, 3)), jnp.array([1.0, 2.0])
    inner = linalg.Kronecker([F, jnp.eye(2) * 3])
    op = linalg.Kronecker([lx.DiagonalLinearOperator(d), inner])
    K, v = reference.kron([np.diag(d), F, 3 * np.eye(2)]), _vector(rng, 12)
    np.testing.assert_allclose(op.mv(v), K @ v, rtol=1e-12)
    np.testing.assert_allclose(linalg.solve(op, v), np.linalg.solve(K, v), rtol=1e-10)
    np.testing.assert_allclose(linalg.logdet(op), np.linalg.slogdet(K)[1], rtol=1e-12)


def test_questions_map_over_a_batch():
    rng = np.random.default_rng(0)
    G = jnp.asarray([reference.positive(rng, 3) for _ in range(4)])
    v = jnp.asarray(rng.normal(size=(4, 6)))

    def answer(G, v):
        op = linalg.KroneckerPlusNoise([G, jnp.eye(2)], 0.1)
        return linalg.solve(op, v), linalg.logdet(op)

    x, l = jax.vmap(answer)(G, v)
    for i in range(4):
        S = np.kron(G[i], np.eye(2)) + 0.1 * np.eye(6)
        np.testing.assert_allclose(x[i], np.linalg.solve(S, v[i]), rtol=1e-10)
        np.testing.assert_allclose(l[i], np.linalg.slogdet(S)[1], rtol=1e-12)


# Kronecker plus noise


@real_and_complex
@spectra
def test_every_answer_of_kronecker_plus_noise(make, is_complex):
    rng = np.random.default_rng(2)
    factors, v = make(is_complex), _vector(rng, 12, is_complex)
    op = linalg.KroneckerPlusNoise(factors, 0.3)
    S = reference.kron(factors) + 0.3 * np.eye(12)
    np.testing.assert_allclose(op.mv(v), S @ v, rtol=1e-12)
    np.testing.assert_allclose(op.T.mv(v), S.T @ v, rtol=1e-12)
    np.testing.assert_allclose(linalg.solve(op, v), np.linalg.solve(S, v), rtol=1e-9)
    np.testing.assert_allclose(linalg.logdet(op), np.linalg.slogdet(S)[1], rtol=1e-11)
    np.testing.assert_allclose(linalg.diagonal(op), np.diag(S), rtol=1e-12)
    np.testing.assert_allclose(linalg.trace(op), np.trace(S), rtol=1e-12)
    R = linalg.dense(linalg.sqrt(op))
    np.testing.assert_allclose(R @ R.conj().T, S, rtol=1e-11, atol=1e-12)
    values, vectors = linalg.eigh(op)
    V = linalg.dense(vectors)
    assert values.shape == (2, 3, 2)
    np.testing.assert_allclose(V * values.ravel() @ V.conj().T, S, rtol=1e-11, atol=1e-12)


def _path(factors, is_complex, seed=3):
    """Factors, noise and value along a random line: t moves all, t = 0 is the start."""
    rng = np.random.default_rng(seed)
    turns = [reference.matrix(rng, len(G), len(G), is_complex) for G in factors]
    n = len(reference.kron(factors))
    y, dy = _vector(rng, n, is_complex), _vector(rng, n)

    def at(t):
        moved = [
            jnp.asarray(G) + t[i] * jnp.asarray(D + D.conj().T)
            for i, (G, D) in enumerate(zip(factors, turns, strict=True))
        ]
        return moved, 0.3 + 0.1 * t[3], y + t[4] * dy

    return at


def _dense_log_prob(factors, noise, y, is_complex):
    S = factors[0]
    for G in factors[1:]:
        S = jnp.kron(S, G)
    S = S + noise * jnp.eye(len(S))
    form = jnp.vdot(y, jnp.linalg.solve(S, y)).real
    total = jnp.linalg.slogdet(S)[1] + form
    return -total if is_complex else -total / 2


@real_and_complex
@spectra
def test_derivatives_of_the_log_density_to_second_order(make, is_complex):
    at = _path(make(is_complex), is_complex)

    def ours(t):
        factors, noise, y = at(t)
        return KroneckerNormal(factors, noise).log_prob(y.reshape(2, 3, 2))

    def dense(t):
        return _dense_log_prob(*at(t), is_complex)

    t = jnp.zeros(5)
    gradient, hessian = jax.jit(lambda t: (jax.grad(ours)(t), jax.hessian(ours)(t)))(t)
    expected, second = jax.jit(lambda t: (jax.grad(dense)(t), jax.hessian(dense)(t)))(t)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9)
    scale = float(jnp.abs(second).max())
    np.testing.assert_allclose(hessian, second, rtol=1e-8, atol=1e-12 * scale)


def _by_roots(is_complex):
    """The same line, but each factor stays a Gram matrix, as finite steps have to keep it.

    At t = 0 the first two have equal eigenvalues exactly, and the second has rank two.
    """
    rng = np.random.default_rng(6)
    unit = 1j if is_complex else 1.0
    roots = [np.eye(2) * unit, np.eye(3, 2) * unit, reference.matrix(rng, 2, 1, is_complex)]
    turns = [reference.matrix(rng, *A.shape, is_complex) for A in roots]
    y, dy = _vector(rng, 12, is_complex), _vector(rng, 12)

    def at(t):
        A = [jnp.asarray(A + t_i * D) for t_i, A, D in zip(t, roots, turns, strict=False)]
        return [F @ F.conj().T for F in A], 0.3 + 0.1 * t[3], y + t[4] * dy

    return at


@real_and_complex
def test_derivatives_at_equal_eigenvalues_by_finite_differences(is_complex):
    at = _by_roots(is_complex)

    def log_prob(t):
        factors, noise, y = at(t)
        return KroneckerNormal(factors, noise).log_prob(y.reshape(2, 3, 2))

    check_grads(jax.jit(log_prob), (jnp.zeros(5),), order=2, modes=["rev"], rtol=1e-4)


@real_and_complex
def test_solutions_differentiate_at_equal_eigenvalues(is_complex):
    at = _by_roots(is_complex)

    def solution(t):
        factors, noise, y = at(t)
        x = linalg.solve(linalg.KroneckerPlusNoise(factors, noise), y)
        return jnp.concatenate([x.real, x.imag])

    check_grads(jax.jit(solution), (jnp.zeros(5),), order=1, rtol=1e-5)


# The distribution


@real_and_complex
def test_log_density_of_a_tensor(is_complex):
    rng = np.random.default_rng(4)
    factors = [reference.positive(rng, n, is_complex) for n in (2, 3)]
    y = reference.matrix(rng, 5, 6, is_complex)
    density = KroneckerNormal(factors, 0.2)
    S = reference.kron(factors) + 0.2 * np.eye(6)
    got = density.log_prob(jnp.asarray(y.reshape(5, 2, 3)))
    expected = [reference.log_normal(row, S, is_complex) for row in y]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(density.variance.ravel(), np.diag(S).real, rtol=1e-12)


def test_complex_values_with_real_factors():
    rng = np.random.default_rng(4)
    factors = [reference.positive(rng, n) for n in (2, 3)]
    y = reference.matrix(rng, 6, 1, is_complex=True)[:, 0]
    S = reference.kron(factors) + 0.2 * np.eye(6)
    got = KroneckerNormal(factors, 0.2, is_complex=True).log_prob(y.reshape(2, 3))
    assert got == pytest.approx(reference.log_normal(y, S, True), rel=1e-12)


@pytest.mark.parametrize("case", ["real", "complex", "complex values"])
def test_draws_have_the_covariance(case):
    # 40,000 draws: entries are off by 4 standard errors less than once in 400 runs of 36
    # entries, and the key is fixed.
    rng = np.random.default_rng(5)
    factors = [reference.positive(rng, n, case == "complex") for n in (2, 3)]
    density = KroneckerNormal(factors, 0.2, is_complex=case != "real")
    y = np.asarray(density.sample(jax.random.key(0), (40_000,))).reshape(-1, 6)
    S = reference.kron(factors) + 0.2 * np.eye(6)
    scale = np.sqrt(np.outer(np.diag(S).real, np.diag(S).real))
    assert np.abs(y.T @ y.conj() / len(y) - S).max() < 4 * np.sqrt(2 / len(y)) * scale.max()
    if case != "real":
        assert np.abs(y.T @ y / len(y)).max() < 4 * np.sqrt(2 / len(y)) * scale.max()


def test_an_observed_site_of_a_program():
    y = jnp.ones((2, 3))

    def program():
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        numpyro.sample("y", KroneckerNormal([jnp.eye(2) * s, jnp.eye(3)], s), obs=y)

    got, _ = log_density(program, (), {}, {"s": jnp.array(0.7)})
    expected = float(dist.Normal(0.0, np.sqrt(1.4)).log_prob(y).sum())
    expected += float(dist.HalfNormal(1.0).log_prob(0.7))
    assert got == pytest.approx(expected, rel=1e-12)


def test_the_density_lowers_for_cuda():
    def value(G, y):
        return KroneckerNormal([G, G], 0.1).log_prob(y)

    program = jax.jit(jax.value_and_grad(value))
    exported = jax.export.export(program, platforms=["cuda"])(jnp.eye(3), jnp.ones((3, 3)))
    assert "cusolver" in exported.mlir_module()


# Never dense by accident


def test_nothing_of_the_size_of_the_matrix_is_ever_made():
    factors, v = [jnp.eye(6)] * 3, jnp.ones(216)

    def all_answers(factors, noise, v):
        op = linalg.KroneckerPlusNoise(factors, noise)
        K = linalg.Kronecker(factors)
        return (
            linalg.logdet(op) + linalg.inverse_quadratic_form(op, v) + linalg.logdet(K),
            (linalg.solve(K, v), linalg.diagonal(op), linalg.sqrt(op).mv(v)),
        )

    assert (
        reference.largest_array(jax.grad(all_answers, has_aux=True), factors, 0.1, v)
        <= 2 * 216
    )


@pytest.mark.parametrize("name", ["Kronecker", "KroneckerPlusNoise"])
def test_lineax_refuses_to_densify_and_takes_our_solver(name):
    factors, v = [jnp.eye(2) * 2, jnp.eye(3)], jnp.ones(6)
    op = linalg.Kronecker(factors)
    if name != "Kronecker":
        op = linalg.KroneckerPlusNoise(factors, 1.0)
    with pytest.raises(ValueError, match=r"6 x 6 by itself: use `linalg.solve"):
        lx.linear_solve(op, v)
    got = lx.linear_solve(op, v, linalg.Structured()).value
    np.testing.assert_allclose(got, v / (2 if name == "Kronecker" else 3), rtol=1e-14)


# What does not fit


def test_messages():
    with pytest.raises(ValueError, match=r"two axes, .* and got shapes \[\(3,\)\]"):
        linalg.Kronecker([jnp.eye(2), jnp.ones(3)])
    with pytest.raises(ValueError, match="and got none"):
        linalg.Kronecker([])
    with pytest.raises(ValueError, match="square matrices, and this one is 2 x 3"):
        linalg.KroneckerPlusNoise([jnp.ones((2, 3))], 1.0)
    with pytest.raises(ValueError, match=r"noise=...\)` has shape \(2,\)"):
        linalg.KroneckerPlusNoise([jnp.eye(2)], jnp.ones(2))
    with pytest.raises(ValueError, match=r"vector of shape \(3,\) .* takes 4 entries"):
        linalg.solve(linalg.KroneckerPlusNoise([jnp.eye(2)] * 2, 1.0), jnp.ones(3))
    with pytest.raises(NotImplementedError, match="no rule for `FunctionLinearOperator`"):
        identity = lx.FunctionLinearOperator(lambda x: x, jax.ShapeDtypeStruct((2,), float))
        linalg.logdet(identity)


def test_float32_stays_float32():
    factors = [jnp.eye(2, dtype=jnp.float32), jnp.eye(3, dtype=jnp.float32)]
    op, v = linalg.KroneckerPlusNoise(factors, 0.1), jnp.ones(6, jnp.float32)
    answers = (
        op.mv(v),
        linalg.solve(op, v),
        linalg.logdet(op),
        linalg.inverse_quadratic_form(op, v),
        linalg.sample(op, jax.random.key(0)),
        KroneckerNormal(factors, 0.1).log_prob(v.reshape(2, 3)),
        linalg.solve(linalg.Kronecker(factors), v),
        linalg.logdet(linalg.Kronecker(factors)),
    )
    assert {a.dtype for a in answers} == {jnp.dtype("float32")}


@pytest.mark.parametrize("field", ["real", "complex"])
def test_kronecker_normal_in_tall_bases_is_the_dense_one(field):
    rng = np.random.default_rng(3)

    def normal(*shape):
        real = rng.normal(size=shape)
        return real + 1j * rng.normal(size=shape) if field == "complex" else real

    Q = np.linalg.qr(normal(5, 2))[0]
    A, B = normal(2, 3), normal(3, 3)
    G, H = A @ A.conj().T, B @ B.conj().T
    density = KroneckerNormal((G, H), 0.3, bases=(Q, None))
    whole = KroneckerNormal((Q @ G @ Q.conj().T, H), 0.3)
    y = jnp.asarray(normal(5, 3))
    np.testing.assert_allclose(density.log_prob(y), whole.log_prob(y), rtol=1e-11)
    np.testing.assert_allclose(density.variance, whole.variance, rtol=1e-11)
    # 4,000 draws: 15 mean squares, each within 5 standard errors but once in 100,000.
    draws = density.sample(jax.random.key(0), (4000,))
    ratio = (jnp.abs(draws) ** 2).mean(0) / whole.variance
    assert jnp.abs(ratio - 1).max() < 5 * np.sqrt(2 / 4000)
    with pytest.raises(ValueError, match=r"has \(2, 3\) columns for factors of sizes"):
        KroneckerNormal((G, G), 0.3, bases=(Q, np.eye(3)))


def test_products_of_float32_use_all_their_bits_on_a_gpu_too():
    T, F = jnp.ones((3, 4), jnp.float32), jnp.ones((5, 4), jnp.float32)
    lowered = jax.jit(lambda T, F: linalg.mode_products(T, [None, F])).lower(T, F).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in lowered
