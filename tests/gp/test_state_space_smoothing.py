"""Evidence, moments and draws of Markov processes given Gaussian sites."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probkit.gp.state_space import (
    Constant,
    Independent,
    Matern,
    Periodic,
    Product,
    Sites,
    Sum,
    at,
    between,
    bridge,
    color,
    log_evidence,
    predicted,
    sample,
    sample_white,
    smooth,
    smooth_with_evidence,
    white_mean,
)
from probkit.gp.state_space.evidence import log_evidence as of_chain
from probkit.gp.state_space.passes import Chain
from reference import state_space as slow

rng = np.random.default_rng(0)

# Compiled whole, because by itself each of their operations would be a program.
given, colored, bridged = jax.jit(smooth), jax.jit(color), jax.jit(bridge)

# Places with repetitions, a gap, and two that nearly agree
X = np.sort(np.concatenate([rng.uniform(0, 2, 18), [0.7, 0.7, 0.7, 1.1, 1.1 + 1e-7, 4.0]]))
n = len(X)


def quasiperiodic(s):
    return Product(Periodic(1.3, 1.0, num_waves=1), Matern(1.5, s))


PROCESSES = {
    "matern12": lambda s: Matern(0.5, s, 2.0),
    "matern32": lambda s: Matern(1.5, s, 2.0),
    "matern52": lambda s: Matern(2.5, s, 2.0),
    "level and season": lambda s: Sum([Constant(0.5), quasiperiodic(s)]),
    "three": lambda s: Independent([Matern(0.5, s), Matern(1.5, 2 * s), Matern(1.5, s)]),
}
METHODS = {
    "matern12": ("sequential",),
    "matern32": ("sequential", "associative"),
    "matern52": ("sequential", "blocked"),
    "level and season": ("sequential",),
    "three": ("sequential", "blocked"),
}
every_method = pytest.mark.parametrize(
    "name, method", [(name, m) for name, methods in METHODS.items() for m in methods]
)


def sites_of(name):
    """Sites of rank one, none at all at two places, and a shift that no value makes."""
    r = np.random.default_rng(1)
    values = 3 if name == "three" else 1
    root = r.normal(size=(n, values)) * np.exp(2 * r.normal(size=(n, 1)))
    root[[3, 17]] = 0.0
    shift = root * r.normal(size=(n, 1))
    shift[5] += 0.3
    return Sites(jnp.asarray(root[:, :, None] * root[:, None]), jnp.asarray(shift))


@pytest.fixture(scope="module")
def results():
    """Each process: evidence with its slopes and moments by each method, and dense ones."""
    out = {}
    for name, make in PROCESSES.items():
        sites = sites_of(name)

        def evidence(s, sites, method, make=make):
            return log_evidence(make(s), jnp.asarray(X), sites, method)

        @jax.jit
        def run(s, sites, evidence=evidence, make=make, name=name):
            both = jax.value_and_grad(evidence, argnums=(0, 1))
            x = jnp.asarray(X)
            return {
                m: (both(s, sites, m), smooth(make(s), x, sites, m)) for m in METHODS[name]
            }

        @jax.jit
        def dense(s, sites, make=make):
            k = jax.vmap(jax.vmap(make(s).covariance))(jnp.asarray(X)[:, None] - X)
            later = jnp.asarray(X)[:, None, None, None] >= X[None, :, None, None]
            K = jnp.where(later, k, k.swapaxes(2, 3)).swapaxes(1, 2)
            K = K.reshape(n * k.shape[-1], -1)
            Λ = jax.scipy.linalg.block_diag(*sites.precision)
            B = jnp.eye(len(K)) + K @ Λ
            η = sites.shift.ravel()
            return (η @ jnp.linalg.solve(B, K @ η) - jnp.linalg.slogdet(B)[1]) / 2

        s = jnp.array(0.7)
        K = slow.covariance(make(s), X, X)
        slopes = jax.grad(dense, argnums=(0, 1))(s, sites)
        out[name] = run(s, sites), slow.given(K, *jax.tree.leaves(sites)), slopes
    return out


@every_method
def test_evidence_and_moments_are_those_of_the_dense_process(name, method, results):
    by_method, (mean, covariance, evidence), _ = results[name]
    (value, _), smoothed = by_method[method]
    r = smoothed.mean.shape[1]
    blocks = covariance.reshape(n, r, n, r)[np.arange(n), :, np.arange(n)]
    np.testing.assert_allclose(value, evidence, rtol=1e-10)
    np.testing.assert_allclose(smoothed.log_evidence, evidence, rtol=1e-10)
    np.testing.assert_allclose(smoothed.mean.ravel(), mean, atol=1e-10)
    np.testing.assert_allclose(smoothed.covariance, blocks, atol=1e-10)


@every_method
def test_slopes_of_the_evidence_are_those_of_the_dense_process(name, method, results):
    by_method, _, (by_lengthscale, by_sites) = results[name]
    (_, (got, got_sites)), _ = by_method[method]
    np.testing.assert_allclose(got, by_lengthscale, rtol=1e-8)
    np.testing.assert_allclose(got_sites.shift, by_sites.shift, atol=1e-9)
    np.testing.assert_allclose(got_sites.precision, by_sites.precision, atol=1e-9)


def test_one_pass_gives_the_moments_and_the_slopes_of_the_evidence():
    sites, x = sites_of("three"), jnp.asarray(X)

    def both(s):
        found = smooth_with_evidence(PROCESSES["three"](s), x, sites)
        return found.log_evidence, found

    s = jnp.array(0.7)
    (value, found), slope = jax.jit(jax.value_and_grad(both, has_aux=True))(s)
    of_smooth = given(PROCESSES["three"](s), x, sites)
    evidence = jax.jit(lambda s: log_evidence(PROCESSES["three"](s), x, sites))
    by_lengthscale = jax.grad(evidence)(s)
    np.testing.assert_allclose(value, of_smooth.log_evidence, rtol=1e-12)
    np.testing.assert_allclose(found.mean, of_smooth.mean, atol=1e-12)
    np.testing.assert_allclose(found.covariance, of_smooth.covariance, atol=1e-12)
    np.testing.assert_allclose(slope, by_lengthscale, rtol=1e-12)


def test_second_derivatives_of_the_evidence():
    """Of one value, log N(y | 0, s + v) up to a constant: a formula."""

    def evidence(s):
        sites = Sites(jnp.full((1, 1, 1), 4.0), jnp.full((1, 1), 3.0))
        return log_evidence(Matern(0.5, 1.0, s), jnp.zeros(1), sites)

    def formula(s):
        return 3.0**2 * s / (1 + 4 * s) / 2 - jnp.log1p(4 * s) / 2

    for second in (jax.hessian, lambda f: jax.grad(jax.grad(f))):
        got, expected = (jax.jit(second(f))(0.7) for f in (evidence, formula))
        assert float(got) == pytest.approx(float(expected), rel=1e-10)


def test_the_slope_in_a_readout():
    p, sites = Matern(1.5, 0.7), sites_of("matern32")
    d = np.diff(X, prepend=X[0])
    A, Q = (np.array(jax.jit(jax.vmap(of))(d)) for of in (p.transition, p.noise))
    A[0], Q[0] = 0.0, p.stationary()

    def scaled(c):
        return of_chain(Chain(A, Q, sites.precision, sites.shift, c * p.readout()))

    def variance(c):
        return of_chain(Chain(A, c**2 * Q, sites.precision, sites.shift, p.readout()))

    c = jnp.array(1.4)
    by_readout, by_variance = (jax.jit(jax.grad(f))(c) for f in (scaled, variance))
    np.testing.assert_allclose(by_readout, by_variance, rtol=1e-10)


def test_sites_of_the_same_place_add():
    p, sites = Matern(1.5, 0.7), sites_of("matern32")
    x = np.unique(X)
    index = np.searchsorted(x, X)
    added = jax.tree.map(lambda a: jax.ops.segment_sum(a, index, len(x)), sites)
    apart, together = given(p, jnp.asarray(X), sites), given(p, jnp.asarray(x), added)
    assert float(apart.log_evidence) == pytest.approx(
        float(together.log_evidence), rel=1e-12
    )
    np.testing.assert_allclose(apart.mean, together.mean[index], atol=1e-11)
    np.testing.assert_allclose(apart.covariance, together.covariance[index], atol=1e-11)


def test_without_sites_the_posterior_is_the_prior():
    p = PROCESSES["three"](0.7)
    sites = Sites(jnp.zeros((n, 3, 3)), jnp.zeros((n, 3)))
    smoothed = given(p, jnp.asarray(X), sites)
    assert float(smoothed.log_evidence) == 0.0
    np.testing.assert_array_equal(smoothed.mean, 0.0)
    np.testing.assert_allclose(
        smoothed.covariance, np.tile(np.eye(3), (n, 1, 1)), atol=1e-13
    )


def test_values_almost_without_noise_are_met():
    p, x = Matern(1.5, 0.7), np.unique(X)
    y = np.sin(3 * x)
    sites = Sites.of_values(jnp.asarray(y), jnp.asarray(1e-12))
    smoothed = given(p, jnp.asarray(x), sites)
    np.testing.assert_allclose(smoothed.mean[:, 0], y, atol=1e-9)
    # K - K (K + v)^{-1} K = v - v (K + v)^{-1} v
    np.testing.assert_allclose(smoothed.covariance[:, 0, 0], 0.0, atol=1e-11)


def test_missing_values_change_nothing_elsewhere():
    p, x = Matern(1.5, 0.7), jnp.asarray(X)
    y, there = np.sin(3 * X), np.arange(n) % 3 > 0
    gaps = Sites.of_values(jnp.where(there, y, jnp.nan), jnp.asarray(0.1))
    without = Sites.of_values(jnp.asarray(y[there]), jnp.asarray(0.1))
    some, rest = given(p, x, gaps), given(p, jnp.asarray(X[there]), without)
    np.testing.assert_allclose(some.mean[there], rest.mean, atol=1e-12)
    assert float(some.log_evidence) == pytest.approx(float(rest.log_evidence), rel=1e-12)


def test_a_method_that_is_not_there(no_checker):
    with pytest.raises(ValueError, match=r"`method='fast'`: it takes one of"):
        smooth(Matern(0.5, 1.0), jnp.asarray(X), sites_of("matern12"), method="fast")


# Float32


@pytest.fixture(scope="module")
def in_both_types():
    """10,000 values at steps of 1e-4 lengthscales, with a noise of 1e-3 of the signal."""
    r = np.random.default_rng(2)
    x = np.cumsum(np.full(10_000, 1e-4)).astype(np.float32)
    y = (np.sin(3 * x) + 1e-3 * r.normal(size=len(x))).astype(np.float32)

    @jax.jit
    def run(x, y, one):
        def evidence(s):
            sites = Sites.of_values(y, 1e-6 * one)
            return log_evidence(Matern(2.5, s, one), x, sites)

        smoothed = smooth(Matern(2.5, one, one), x, Sites.of_values(y, 1e-6 * one))
        return smoothed, jax.grad(evidence)(one)

    return [run(*(jnp.asarray(a, t) for a in (x, y, 1.0))) for t in ("float64", "float32")]


def test_float32_is_right_on_a_long_chain_of_short_steps(in_both_types):
    (expected, slope), (got, got_slope) = in_both_types
    assert all(a.dtype == jnp.float32 for a in (*got, got_slope))
    # A tenth of the noise: rounding adds up over 10,000 places.
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-4)
    np.testing.assert_allclose(got.covariance, expected.covariance, rtol=1e-4)
    np.testing.assert_allclose(got.log_evidence, expected.log_evidence, rtol=1e-6)
    np.testing.assert_allclose(got_slope, slope, rtol=1e-2)


def test_variances_in_float32_are_positive(in_both_types):
    assert float(in_both_types[1][0].covariance.min()) > 0


def test_float32_with_singular_sites_and_repeated_places():
    p, x = PROCESSES["three"](jnp.float32(0.7)), jnp.asarray(X, "float32")
    sites = sites_of("three")
    K = slow.covariance(PROCESSES["three"](0.7), X.astype("float32"), X.astype("float32"))
    mean, V, evidence = slow.given(K, sites.precision, sites.shift)
    got = given(p, x, jax.tree.map(lambda a: a.astype("float32"), sites))
    assert got.mean.dtype == jnp.float32
    blocks = V.reshape(n, 3, n, 3)[np.arange(n), :, np.arange(n)]
    np.testing.assert_allclose(got.mean.ravel(), mean, atol=1e-4)
    np.testing.assert_allclose(got.covariance, blocks, atol=1e-4)
    assert float(got.log_evidence) == pytest.approx(evidence, rel=1e-4)


def test_blocks_in_float32_are_refused(no_checker):
    p, sites = Matern(0.5, jnp.float32(1.0), jnp.float32(1.0)), sites_of("matern12")
    with pytest.raises(ValueError, match=r'`method="blocked"` needs float64: call'):
        smooth(p, jnp.asarray(X, "float32"), sites, method="blocked")


# Queries

Q = np.array([1.5, -3.0, 0.7, 9.0, 2.5, 0.71, 2.6, -0.1, 200.0, 4.0])


@pytest.mark.parametrize("name", ["matern32", "level and season", "three"])
def test_queries_inside_and_outside_are_those_of_the_dense_process(name):
    p, sites = PROCESSES[name](0.7), sites_of(name)
    r = sites.shift.shape[1]
    got = jax.jit(lambda q: at(p, jnp.asarray(X), sites, q))(jnp.asarray(Q))
    zero = np.zeros((len(Q), r))
    K = slow.covariance(p, np.concatenate([X, Q]), np.concatenate([X, Q]))
    precision = np.concatenate([sites.precision, np.zeros((len(Q), r, r))])
    mean, V, evidence = slow.given(K, precision, np.concatenate([sites.shift, zero]))
    V = V.reshape(n + len(Q), r, n + len(Q), r)[
        np.arange(n, n + len(Q)), :, np.arange(n, n + len(Q))
    ]
    np.testing.assert_allclose(got.mean, mean.reshape(-1, r)[n:], atol=1e-10)
    np.testing.assert_allclose(got.covariance, V, atol=1e-10)
    assert float(got.log_evidence) == pytest.approx(evidence, rel=1e-10)


# Draws

DRAWS = 4000


def moments_agree(draws, mean, covariance):
    """Within five standard errors; one entry in two million is outside by chance."""
    m, C = np.asarray(mean), np.asarray(covariance)
    sd = np.sqrt(np.diagonal(C))
    error = 1e-9 + sd / np.sqrt(len(draws))
    np.testing.assert_array_less(np.abs(draws.mean(0) - m), 5 * error)
    centered = draws - m
    got = centered.T @ centered / len(draws)
    # var of a product of two normals: C_ii C_jj + C_ij^2
    error = np.sqrt((np.outer(sd**2, sd**2) + C**2) / len(draws))
    np.testing.assert_array_less(np.abs(got - C), 1e-9 + 5 * error)


@pytest.mark.parametrize("name", ["matern52", "level and season", "three"])
def test_draws_have_the_joint_moments_of_the_posterior(name):
    p, sites, x = PROCESSES[name](0.7), sites_of(name), jnp.asarray(X)
    keys = jax.random.split(jax.random.key(3), DRAWS)
    draws = jax.jit(jax.vmap(lambda key: sample(p, x, sites, key)))(keys)
    mean, V, _ = slow.given(slow.covariance(p, X, X), sites.precision, sites.shift)
    moments_agree(np.asarray(draws).reshape(DRAWS, -1), mean, V)


def test_white_noise_makes_the_prior():
    p, x = PROCESSES["three"](0.7), jnp.asarray(X)
    d = len(p.stationary())
    basis = jnp.eye(n * d).reshape(-1, n, d)
    root = jax.vmap(lambda white: colored(p, x, white))(basis).reshape(n * d, -1)
    np.testing.assert_allclose(root.T @ root, slow.covariance(p, X, X), atol=1e-11)


@pytest.mark.parametrize("name", ["matern52", "level and season", "three"])
def test_the_mean_of_white_noise_makes_the_mean_of_the_values(name):
    p, sites, x = PROCESSES[name](0.7), sites_of(name), jnp.asarray(X)
    white = jax.jit(white_mean)(p, x, sites)
    np.testing.assert_allclose(colored(p, x, white), given(p, x, sites).mean, atol=1e-11)


@pytest.mark.parametrize("name", ["matern52", "level and season", "three"])
def test_slopes_of_colored_noise_are_finite_where_places_repeat(name):
    @jax.jit
    def total(s):
        p = PROCESSES[name](s)
        return color(p, jnp.asarray(X), jnp.ones((n, len(p.stationary())))).sum()

    slope, step = jax.grad(total)(0.7), 1e-5
    difference = (total(0.7 + step) - total(0.7 - step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


@pytest.mark.parametrize("name", ["matern32", "level and season", "three"])
def test_a_bridge_between_draws_has_the_joint_moments_of_the_posterior(name):
    p, sites, x = PROCESSES[name](0.7), sites_of(name), jnp.asarray(X)
    r = sites.shift.shape[1]

    def draw(key):
        first, second = jax.random.split(key)
        white = sample_white(p, x, sites, first)
        between = bridge(p, x, white, jnp.asarray(Q), second)
        return jnp.concatenate([color(p, x, white)[::6], between])

    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(4), DRAWS))
    places = np.concatenate([X, Q])
    K = slow.covariance(p, places, places)
    precision = np.concatenate([sites.precision, np.zeros((len(Q), r, r))])
    shift = np.concatenate([sites.shift, np.zeros((len(Q), r))])
    mean, V, _ = slow.given(K, precision, shift)
    rows = np.concatenate([np.arange(n)[::6], np.arange(n, n + len(Q))])
    rows = (rows[:, None] * r + np.arange(r)).ravel()
    draws = np.asarray(draws).reshape(DRAWS, -1)
    moments_agree(draws, mean[rows], V[np.ix_(rows, rows)])


@pytest.mark.parametrize("name", ["matern52", "level and season"])
def test_a_bridge_to_a_place_of_the_data_has_its_value(name):
    p, x = PROCESSES[name](0.7), jnp.asarray(X)
    white = jax.random.normal(jax.random.key(5), (n, len(p.stationary())))
    again = bridged(p, x, white, x[::-1], jax.random.key(6))
    np.testing.assert_allclose(again[::-1], colored(p, x, white), atol=1e-6)


def test_moments_between_places_are_those_given_all_states_there():
    p, x = Matern(1.5, 0.7, 2.0), jnp.array([0.0, 0.3, 0.9, 2.0])
    q = jnp.array([2.5, 0.4, -0.6, 0.9, 0.35])
    white = jax.random.normal(jax.random.key(7), (4, 2))
    mean, covariance = jax.jit(between)(p, x, white, q)
    places = np.concatenate([x, q])
    A = jax.vmap(p.transition)(jnp.abs(places[:, None] - places).ravel())
    K = np.asarray(A @ p.stationary()).reshape(9, 9, 2, 2)
    later = (places[:, None] >= places)[:, :, None, None]
    K = np.where(later, K, K.swapaxes(2, 3)).swapaxes(1, 2).reshape(18, 18)
    values = np.arange(8, 18, 2)
    gain = np.linalg.solve(K[:8, :8], K[:8, values]).T
    root = np.linalg.cholesky(K[:8, :8])
    states = root @ np.asarray(white).ravel()  # as `color` makes them, step by step
    np.testing.assert_allclose(mean[:, 0], gain @ states, atol=1e-10)
    V = K[np.ix_(values, values)] - gain @ K[:8, values]
    np.testing.assert_allclose(covariance[:, 0, 0], np.diag(V), atol=1e-12)


def test_predictions_one_step_ahead_are_those_of_the_sites_before():
    p, sites = PROCESSES["matern32"](0.7), sites_of("matern32")
    mean, covariance = jax.jit(predicted)(p, jnp.asarray(X), sites)
    K = slow.covariance(p, X, X)
    for i in (0, 1, 9, n - 1):
        earlier = (np.arange(n) < i)[:, None]
        precision = sites.precision * earlier[:, :, None]
        m, V, _ = slow.given(K, precision, sites.shift * earlier)
        np.testing.assert_allclose(mean[i, 0], m[i], atol=1e-10)
        np.testing.assert_allclose(covariance[i, 0, 0], V[i, i], atol=1e-10)


# Devices


def test_draws_call_no_library_for_each_place():
    # Several such calls at once have waited for each other for ever.
    p, sites = PROCESSES["matern32"](0.7), sites_of("matern32")

    def both(key):
        white = sample_white(p, jnp.asarray(X), sites, key)
        return white, smooth(p, jnp.asarray(X), sites)

    text = jax.jit(both).lower(jax.random.key(0)).as_text()
    assert "while" in text and "lapack" not in text
    library = jax.jit(jnp.linalg.cholesky).lower(sites.precision).as_text()
    assert "lapack" in library


def test_slopes_and_moments_lower_for_cuda():
    def both(s, x, precision, shift):
        sites, out = Sites(precision, shift), []
        for method in ("sequential", "blocked", "associative"):

            def evidence(s, method=method):
                return log_evidence(pair(s), x, sites, method)

            out += [jax.grad(evidence)(s), *smooth(pair(s), x, sites, method)]
        return out

    def pair(s):
        return Independent([Matern(0.5, s), Matern(1.5, s)])

    args = jnp.array(0.7), jnp.asarray(X), jnp.zeros((n, 2, 2)), jnp.zeros((n, 2))
    exported = jax.export.export(jax.jit(both), platforms=["cuda"])(*args)
    assert exported.platforms == ("cuda",)
