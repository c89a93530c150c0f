"""A grid of which some cells are not observed: solutions, forms, log-determinants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probkit import linalg
from probkit.distributions import KroneckerNormal, PartialKroneckerNormal, SeenNormal


@pytest.fixture(scope="module")
def part_of_a_grid():
    x = np.linspace(0, 1, 12)
    G = np.exp(-((x[:, None] - x) ** 2) / 0.1)
    mask = np.random.default_rng(0).uniform(size=(12, 12)) < 0.8
    seen = mask.ravel()
    dense = (np.kron(G, G) + 0.05 * np.eye(144))[np.ix_(seen, seen)]
    return G, mask, dense


def test_part_of_a_grid_is_solved(part_of_a_grid):
    G, mask, dense = part_of_a_grid
    y = np.random.default_rng(1).normal(size=144) * mask.ravel()
    op = linalg.MaskedKroneckerPlusNoise([G, G], 0.05, mask)
    x = linalg.solve(op, jnp.asarray(y))
    expected = np.linalg.solve(dense, y[mask.ravel()])
    np.testing.assert_allclose(x[mask.ravel()], expected, rtol=1e-6, atol=1e-8)
    assert (x[~mask.ravel()] == 0).all()
    hurried = linalg.MaskedKroneckerPlusNoise([G, G], 0.05, mask, max_steps=2)
    assert jnp.isnan(linalg.solve(hurried, jnp.asarray(y))).all()


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("length", [0.2, 0.05])
def test_a_smooth_process_on_part_of_a_grid_is_solved_at_any_noise(length, noise):
    # Without the largest eigenvalues apart it took thousands of steps.
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 20)
    G = np.exp(-((x[:, None] - x) ** 2) / (2 * length**2))
    mask = rng.uniform(size=(20, 20)) < 0.6
    seen = mask.ravel()
    dense = (np.kron(G, G) + noise * np.eye(400))[np.ix_(seen, seen)]
    op = linalg.MaskedKroneckerPlusNoise([G, G], noise, mask, max_steps=600)
    for b in (np.kron(G, G) @ rng.normal(size=400), rng.normal(size=400)):
        answer = np.asarray(linalg.solve(op, b))[seen]
        left = np.linalg.norm(b[seen] - dense @ answer)
        rounding = np.linalg.norm(dense, 2) * np.linalg.norm(answer)
        size = np.linalg.norm(b[seen])
        # As documented; `dense @ answer` has a rounding of its own.
        assert left <= max(1e-10 * size, 20 * np.finfo(float).eps * (rounding + size))


def test_stochastic_logdet_knows_its_error(part_of_a_grid):
    # The estimate is within 4 of its standard errors (once in 16,000 runs it would not be,
    # were it normal; the key is fixed), and its derivative is near the exact one.
    G, mask, dense = part_of_a_grid
    exact = np.linalg.slogdet(dense)[1]

    def estimate(noise):
        op = linalg.MaskedKroneckerPlusNoise([G, G], noise, mask)
        return linalg.stochastic_logdet(op, jax.random.key(0), num_probes=64, num_steps=40)

    def value(noise):
        out = estimate(noise)
        return out.value, out

    (_, out), slope = jax.jit(jax.value_and_grad(value, has_aux=True))(0.05)
    assert abs(out.value - exact) < 4 * out.standard_error < 0.1 * abs(exact)
    assert slope == pytest.approx(np.trace(np.linalg.inv(dense)), rel=0.05)


def test_stochastic_logdet_is_exact_where_the_probes_see_all():
    mask = np.array([[True, False], [False, False]])
    op = linalg.MaskedKroneckerPlusNoise([jnp.eye(2) * 2, jnp.eye(2)], 0.5, mask)
    out = linalg.stochastic_logdet(op, jax.random.key(0), num_probes=2, num_steps=4)
    assert out.value == pytest.approx(np.log(2.5), rel=1e-12)
    assert out.standard_error == pytest.approx(0.0, abs=1e-12)


# What is not observed does not matter


@pytest.mark.parametrize("there", [np.nan, np.inf, 7.0])
def test_what_is_at_an_unobserved_cell_does_not_matter(there):
    mask = np.ones((4, 4), bool)
    mask[1, 2] = False
    seen = mask.ravel()
    x = np.arange(4.0)
    G = np.exp(-np.abs(x[:, None] - x))
    op = linalg.MaskedKroneckerPlusNoise([G, G], 0.1, mask)
    dense = (np.kron(G, G) + 0.1 * np.eye(16))[np.ix_(seen, seen)]
    y = np.arange(1.0, 17.0)
    y[~seen] = there
    expected = np.zeros(16)
    expected[seen] = np.linalg.solve(dense, y[seen])
    np.testing.assert_allclose(linalg.solve(op, y), expected, rtol=1e-9)
    product = np.zeros(16)
    product[seen] = dense @ y[seen]
    np.testing.assert_allclose(op.mv(jnp.asarray(y)), product, rtol=1e-12)
    form = y[seen] @ dense @ y[seen]
    np.testing.assert_allclose(linalg.quadratic_form(op, y), form, rtol=1e-12)
    inverse = y[seen] @ expected[seen]
    np.testing.assert_allclose(linalg.inverse_quadratic_form(op, y), inverse, rtol=1e-9)
    # and its derivatives: in the vector, the noise, and nothing in the unobserved cell
    slope = jax.grad(linalg.inverse_quadratic_form, argnums=1)(op, jnp.asarray(y))
    np.testing.assert_allclose(slope, 2 * expected, rtol=1e-9)

    def by_noise(noise):
        op = linalg.MaskedKroneckerPlusNoise([G, G], noise, mask)
        return linalg.inverse_quadratic_form(op, y)

    np.testing.assert_allclose(jax.grad(by_noise)(0.1), -expected @ expected, rtol=1e-8)


# The error of the log-determinant has all its parts


def _smooth(noise, m=12):
    """Most of a grid of a smooth process, whose covariance is badly conditioned."""
    x = np.linspace(0, 1, m)
    G = np.exp(-((x[:, None] - x) ** 2) / (2 * 0.2**2))
    mask = np.random.default_rng(0).uniform(size=(m, m)) < 0.8
    seen = mask.ravel()
    dense = (np.kron(G, G) + noise * np.eye(m * m))[np.ix_(seen, seen)]
    return linalg.MaskedKroneckerPlusNoise([G, G], noise, mask), np.linalg.slogdet(dense)[1]


@pytest.mark.parametrize(
    ("noise", "num_probes", "num_steps"),
    [(1e-4, 16, 30), (1e-6, 32, 50), (1e-6, 32, 200)],
)
def test_the_standard_error_covers_what_few_steps_leave(noise, num_probes, num_steps):
    # Of 30 keys the 95 % interval misses more than 5 once in 500 times if it covers 95 %.
    # The mean square of z then exceeds 2 once in 1,000 times.
    op, exact = _smooth(noise)
    out = jax.lax.map(
        functools.partial(
            linalg.stochastic_logdet, op, num_probes=num_probes, num_steps=num_steps
        ),
        jax.random.split(jax.random.key(0), 30),
    )
    z = (out.value - exact) / out.standard_error
    assert (jnp.abs(z) > 1.96).sum() <= 5
    assert (z**2).mean() < 2
    if num_steps == 200:
        # Enough steps: what is left is the spread over probes, and z is not small either.
        assert (out.bracket < 0.05 * out.standard_error).all()
        assert (z**2).mean() > 0.4
    else:
        assert (out.bracket > 0.5 * out.standard_error).all()


def test_the_bracket_encloses_the_value_of_the_same_probes():
    op, _ = _smooth(1e-6)
    ask = functools.partial(linalg.stochastic_logdet, op, jax.random.key(1), num_probes=4)
    exact = ask(num_steps=150).value
    for num_steps in (5, 20, 60):
        out = ask(num_steps=num_steps)
        assert abs(out.value - exact) <= out.bracket
    assert out.bracket < 0.1 * abs(exact)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_the_logarithm_in_other_dtypes(dtype):
    rng = np.random.default_rng(3)
    A = rng.normal(size=(5, 5))
    if dtype == "complex128":
        A = A + 1j * rng.normal(size=(5, 5))
    G = A @ A.conj().T
    mask = rng.uniform(size=(5, 5)) < 0.7
    seen = mask.ravel()
    dense = (np.kron(G, np.eye(5)) + 0.01 * np.eye(25))[np.ix_(seen, seen)]
    factors = [jnp.asarray(F, dtype) for F in (G.astype(dtype), np.eye(5))]
    op = linalg.MaskedKroneckerPlusNoise(factors, 0.01, mask)
    # All signs of a small set of cells would be exact; these are 4,000 of them.
    out = linalg.stochastic_logdet(op, jax.random.key(0), num_probes=4000, num_steps=30)
    assert out.value.dtype == jnp.finfo(dtype).dtype
    # Once in 16,000 runs it would not be, were it normal; the key is fixed.
    assert abs(out.value - np.linalg.slogdet(dense)[1]) < 4 * out.standard_error < 1


def test_the_error_is_nan_where_there_is_no_covariance():
    out = jax.jit(
        lambda noise: linalg.stochastic_logdet(
            linalg.MaskedKroneckerPlusNoise([jnp.eye(3)], noise, jnp.ones(3)),
            jax.random.key(0),
            num_probes=2,
        )
    )(-2.0)
    assert jnp.isnan(jnp.stack(out)).all()


def test_the_estimate_lowers_for_cuda():
    def value(noise, key):
        op = linalg.MaskedKroneckerPlusNoise([jnp.eye(3)] * 2, noise, jnp.ones((3, 3)))
        return linalg.stochastic_logdet(op, key, num_probes=2, num_steps=4).value

    program = jax.jit(jax.value_and_grad(value))
    exported = jax.export.export(program, platforms=["cuda"])(0.5, jax.random.key(0))
    assert exported.platforms == ("cuda",)


# The dense matrix of what is observed


@pytest.fixture(scope="module")
def places():
    rng = np.random.default_rng(3)
    roots = [rng.normal(size=(n, n)) for n in (3, 4, 2)]
    factors = [jnp.asarray(r @ r.T) for r in roots]
    seen = rng.uniform(size=(3, 4, 2)) < 0.6
    return factors, seen, tuple(map(jnp.asarray, np.nonzero(seen)))


def test_a_submatrix_is_a_part_of_the_dense_product(places):
    factors, seen, at = places
    dense = functools.reduce(np.kron, factors)[np.ix_(seen.ravel(), seen.ravel())]
    np.testing.assert_allclose(linalg.submatrix(factors, at), dense, rtol=1e-13)


def test_the_normal_of_the_seen_entries_is_that_without_the_others(places):
    factors, seen, at = places
    y = jnp.asarray(np.random.default_rng(0).normal(size=seen.shape))
    whole = KroneckerNormal(factors, 0.3)
    ours = SeenNormal(whole, KroneckerNormal([linalg.submatrix(factors, at)], 0.3), at)
    missing = jnp.asarray(np.flatnonzero(~seen))
    other = PartialKroneckerNormal(0.0, factors, 0.3, missing)
    np.testing.assert_allclose(ours.log_prob(y), other.log_prob(y), rtol=1e-10)
    np.testing.assert_allclose(ours.leave_one_out(y), other.leave_one_out(y), rtol=1e-9)
    batch = ours.log_prob(jnp.stack([y, 2 * y]))
    np.testing.assert_allclose(batch[0], ours.log_prob(y), rtol=1e-12)
    assert ours.sample(jax.random.key(0), (5,)).shape == (5, 3, 4, 2)
    np.testing.assert_array_equal(ours.variance, whole.variance)
