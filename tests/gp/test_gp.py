"""Spectral mixtures: kernels, derivatives, spectra, grids, and the way to GPJax."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from jax.test_util import check_grads

from probkit import linalg
from probkit.gp import (
    SpectralMixture,
    as_gpjax,
    covariance,
    gram,
    kronecker,
    toeplitz,
)

ENVELOPES = ("gaussian", "student_t")
both = pytest.mark.parametrize("envelope", ENVELOPES)
W, MU, L = [0.7, 0.4, 0.1], [0.0, 1.3, 2.9], [0.8, 0.5, 1.7]


def mixture(envelope, dtype=np.float64):
    return SpectralMixture(*(np.asarray(a, dtype) for a in (W, MU, L)), envelope)


def slow(envelope, d, w, mu, l):
    """The kernel of one component, in Python's numbers, complex ones too."""
    r = d / l if d.real >= 0 else -d / l
    z = math.sqrt(5) * r
    matern = (1 + z + z**2 / 3) * np.exp(-z)
    envelope = np.exp(-(r**2) / 2) if envelope == "gaussian" else matern
    return w * envelope * np.cos(2 * np.pi * mu * d)


# The kernel and its derivatives


@both
@pytest.mark.parametrize("lag", [-2.0, -0.3, 0.0, 0.3, 1.1])
def test_the_kernel_is_the_sum_over_components(envelope, lag):
    expected = sum(slow(envelope, lag, *one) for one in zip(W, MU, L, strict=True))
    assert float(mixture(envelope)(lag)) == pytest.approx(expected, rel=1e-13)


def test_the_matern_envelope_has_its_known_value():
    one = SpectralMixture([1.0], [0.0], [1.0])
    assert float(one(0.3)) == pytest.approx(0.930965342775, abs=5e-13)


@pytest.mark.parametrize(
    "envelope, l, values",
    [
        # with m = 2πμ: the Gaussian has moments 1/ℓ² and 3/ℓ⁴ of its spectrum, Matérn-5/2
        # 5/(3ℓ²) and 25/ℓ⁴
        ("gaussian", 0.4, lambda i, m: (1, -(i + m**2), 3 * i**2 + 6 * i * m**2 + m**4)),
        (
            "student_t",
            0.4,
            lambda i, m: (1, -(5 * i / 3 + m**2), 25 * i**2 + 10 * i * m**2 + m**4),
        ),
    ],
)
def test_derivatives_at_zero(envelope, l, values):
    w, mu = 0.6, 1.7
    k = SpectralMixture([w], [mu], [l], envelope)
    expected = w * np.array(values(l**-2, 2 * np.pi * mu))
    got = [float(k(0.0, order)) for order in (0, 2, 4)]
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    assert float(k(0.0, 1)) == 0.0
    assert float(k(0.0, 3)) == 0.0


@both
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_each_derivative_is_that_of_the_one_before(envelope, order):
    # A complex step: no difference of nearly equal numbers is taken. At zero too, where
    # only the fifth derivative of Matérn-5/2 jumps.
    k, lags = mixture(envelope), jnp.array([-1.3, -0.2, 0.0, 0.3, 2.2])
    slope = jax.vmap(jax.grad(lambda d: k(d, order - 1)))(lags)
    size = float(jnp.abs(k(0.0, order - order % 2)))
    np.testing.assert_allclose(k(lags, order), slope, atol=1e-13 * size)


@both
def test_the_first_derivative_by_a_complex_step(envelope):
    for lag in (-0.9, 0.3, 1.4):
        step = complex(lag, 1e-30)
        slopes = (slow(envelope, step, *one) for one in zip(W, MU, L, strict=True))
        expected = sum(slope.imag for slope in slopes) / 1e-30
        assert float(mixture(envelope)(lag, 1)) == pytest.approx(expected, rel=1e-12)


@both
@pytest.mark.parametrize("order", range(5))
def test_derivatives_are_even_or_odd(envelope, order):
    k, lags = mixture(envelope), jnp.linspace(0, 3, 7)
    np.testing.assert_array_equal(k(-lags, order), (-1) ** order * k(lags, order))


@both
@pytest.mark.parametrize("order", range(5))
def test_gradients_in_the_parameters_at_zero_and_away(envelope, order):
    lags = jnp.array([0.0, 0.4, -1.1])
    parameters = [jnp.array(a) for a in (W, MU, L)]
    scale = 1 / mixture(envelope)(0.0, order - order % 2)

    def f(w, mu, l):
        return scale * SpectralMixture(w, mu, l, envelope)(lags, order)

    check_grads(f, parameters, order=1, modes=["fwd", "rev"], rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_kept(envelope, dtype):
    k, x = mixture(envelope, dtype), np.linspace(0, 1, 5, dtype=dtype)
    exact = mixture(envelope)
    for order in range(5):
        assert k(x, order).dtype == dtype
        np.testing.assert_allclose(
            k(x, order), exact(x, order), atol=3e-5 * abs(exact(0.0, order - order % 2))
        )
    answers = [k.spectrum(x), k.power_above(x), gram(k, x, 1), toeplitz(k, x).column]
    assert {answer.dtype for answer in answers} == {np.dtype(dtype)}


@both
def test_a_batch_of_kernels_under_vmap_and_jit(envelope):
    weights = jnp.array([W, W[::-1]])
    make = lambda w: SpectralMixture(w, jnp.array(MU), jnp.array(L), envelope)  # noqa: E731
    kernels = jax.vmap(make)(weights)
    got = jax.jit(jax.vmap(lambda k: k(0.3, 2)))(kernels)
    expected = [float(make(w)(0.3, 2)) for w in weights]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


# The spectrum


@both
def test_the_spectrum_integrates_to_the_variance_and_transforms_to_the_kernel(envelope):
    k = mixture(envelope)
    s = np.linspace(-400, 400, 800_001)
    density = np.asarray(k.spectrum(s))
    # Beyond, Student-t tails hold less than s⁻⁵.
    for lag in (0.0, 0.3, 1.2):
        total = scipy.integrate.simpson(density * np.cos(2 * np.pi * s * lag), x=s)
        assert total == pytest.approx(float(k(lag)), abs=1e-11)


@both
def test_power_above_is_the_integral_of_the_spectrum(envelope):
    k = mixture(envelope)
    np.testing.assert_allclose(k.power_above(0.0), 1.0, rtol=1e-14)
    for s in (0.4, 1.5, 3.2):
        density = lambda t: float(2 * k.spectrum(t) / sum(W))  # noqa: E731
        below = scipy.integrate.quad(density, 0, s, epsabs=1e-11, limit=200)[0]
        assert float(k.power_above(s)) == pytest.approx(1 - below, abs=1e-10)


# Covariances of derivatives


@both
def test_covariances_of_derivatives_are_derivatives_of_the_covariance(envelope):
    k, x, y = mixture(envelope), jnp.array([0.1, 0.9]), jnp.array([-0.4, 0.1, 2.0])
    pairs = [(i, j) for i in range(3) for j in range(3)]

    def nested(i, j):
        f = lambda a, b: k(a - b)  # noqa: E731
        for argument in [0] * i + [1] * j:
            f = jax.grad(f, argument)
        return jax.vmap(jax.vmap(f, (None, 0)), (0, None))

    expected = jax.jit(lambda: [nested(i, j)(x, y) for i, j in pairs])()
    for orders, value in zip(pairs, expected, strict=True):
        got = covariance(k, x, y, orders)
        np.testing.assert_allclose(got, value, atol=1e-11 * float(k(0.0, 4)))


@both
def test_the_joint_covariance_of_a_process_and_its_derivatives_is_positive(envelope):
    k, x = mixture(envelope), jnp.linspace(0, 3, 12)
    blocks = [[covariance(k, x, x, (i, j)) for j in range(3)] for i in range(3)]
    joint = np.block([[np.asarray(block) for block in row] for row in blocks])
    np.testing.assert_allclose(joint, joint.T, rtol=1e-12, atol=1e-12)
    scale = np.sqrt(np.diag(joint))
    assert np.linalg.eigvalsh(joint / scale / scale[:, None]).min() > -1e-13


def test_a_wave_of_long_lengthscale_is_an_eigenfunction_of_the_second_derivative():
    mu = 3.0
    k, x = SpectralMixture([1.0], [mu], [1e7], "gaussian"), jnp.linspace(0, 1, 9)
    K, K2 = gram(k, x), gram(k, x, 2)
    m = 2 * np.pi * mu
    np.testing.assert_allclose(K2, -(m**2) * K, atol=1e-9 * m**2)
    assert np.linalg.matrix_rank(np.asarray(K), tol=1e-9) == 2
    for wave in (np.cos(m * x), np.sin(m * x)):
        u = K @ np.linalg.lstsq(np.asarray(K), wave, rcond=1e-9)[0]
        np.testing.assert_allclose(u, wave, atol=1e-9)


# Grids


@both
@pytest.mark.parametrize("order", range(5))
def test_a_gram_matrix_on_an_even_grid_is_the_matrix_of_all_pairs(envelope, order):
    k, x = mixture(envelope), jnp.linspace(-0.5, 2.5, 7)
    expected = covariance(k, x, x, (order, 0))
    size = float(abs(k(0.0, order - order % 2)))
    np.testing.assert_allclose(gram(k, x, order), expected, atol=1e-13 * size)
    np.testing.assert_allclose(gram(k, x[:1], order), expected[:1, :1], atol=1e-13 * size)


def test_a_gram_matrix_evaluates_the_kernel_once_a_lag(monkeypatch):
    k, x = mixture("gaussian"), jnp.linspace(0, 1, 30)
    seen, call = [], SpectralMixture.__call__

    def counting(self, lag, order=0):
        seen.append(jnp.size(lag))
        return call(self, lag, order)

    monkeypatch.setattr(SpectralMixture, "__call__", counting)
    gram(k, x, 2)
    toeplitz(k, x)
    assert seen == [30, 30]


@both
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_toeplitz_operator_is_the_covariance_of_a_derivative(envelope, order):
    k, x = mixture(envelope), jnp.linspace(0, 4, 6)
    op = toeplitz(k, x, order, jitter=1e-3)
    expected = np.asarray(covariance(k, x, x, (order, order))) + 1e-3 * np.eye(6)
    v = np.arange(1.0, 7.0)
    np.testing.assert_allclose(linalg.dense(op), expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(linalg.solve(op, v), np.linalg.solve(expected, v), rtol=1e-8)
    np.testing.assert_allclose(
        linalg.logdet(op), np.linalg.slogdet(expected)[1], rtol=1e-10
    )


def test_a_product_kernel_on_a_tensor_grid_is_a_kronecker_product():
    k1, k2 = mixture("gaussian"), mixture("student_t")
    x, y = np.linspace(0, 3, 4), np.array([0.0, 0.1, 0.7, 1.9, 2.0])
    op = kronecker([k1, k2], [x, y], jitter=1e-3)
    assert isinstance(op.factors[0], linalg.Toeplitz)
    X, Y = (a.ravel() for a in np.meshgrid(x, y, indexing="ij"))
    diagonals = [
        covariance(k, a, a) + 1e-3 * jnp.eye(len(a)) for k, a in ((k1, x), (k2, y))
    ]
    dense = np.kron(*map(np.asarray, diagonals))
    pairs = k1(X[:, None] - X) * k2(Y[:, None] - Y)
    np.testing.assert_allclose(dense, pairs, atol=2e-3 * float(k1(0.0)) + 1e-6)
    v = jnp.asarray(np.random.default_rng(0).normal(size=20))
    np.testing.assert_allclose(op.mv(v), dense @ v, rtol=1e-11)
    np.testing.assert_allclose(linalg.solve(op, v), np.linalg.solve(dense, v), rtol=1e-7)
    np.testing.assert_allclose(linalg.logdet(op), np.linalg.slogdet(dense)[1], rtol=1e-10)


@both
def test_the_hot_path_lowers_for_cuda(envelope):
    def evidence(parameters, x, u):
        k = SpectralMixture(*parameters, envelope)
        K = gram(k, x) + 1e-6 * jnp.eye(len(x))
        factor = jnp.linalg.cholesky(K)
        a = jax.scipy.linalg.cho_solve((factor, True), u)
        return u @ a + jnp.sum((gram(k, x, 2) @ a) ** 2)

    args = [jnp.array(a) for a in (W, MU, L)], jnp.linspace(0, 1, 6), jnp.ones(6)
    program = jax.jit(jax.grad(evidence))
    assert jax.export.export(program, platforms=["cuda"])(*args).platforms == ("cuda",)


# GPJax


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_gpjax_takes_the_kernel():
    import gpjax as gpx

    k, noise = mixture("student_t"), 0.3
    rng = np.random.default_rng(0)
    x, new = np.sort(rng.uniform(0, 3, 9))[:, None], np.linspace(0, 3, 4)[:, None]
    y = rng.normal(size=(9, 1))
    kernel = as_gpjax(k)
    K = np.asarray(covariance(k, x[:, 0], x[:, 0]))
    np.testing.assert_allclose(kernel.gram(jnp.asarray(x)).as_matrix(), K, rtol=1e-10)
    prior = gpx.Prior(kernel=kernel, mean_function=gpx.mean_functions.Zero())
    model = prior * gpx.likelihoods.Gaussian(obs_stddev=noise)
    posterior = model | gpx.Dataset(X=jnp.asarray(x), y=jnp.asarray(y))
    cross = np.asarray(covariance(k, new[:, 0], x[:, 0]))
    S = K + noise**2 * np.eye(9)
    expected = cross @ np.linalg.solve(S, y[:, 0])
    # GPJax adds a jitter of 1e-6.
    got = posterior(jnp.asarray(new)).mean
    np.testing.assert_allclose(got, expected, atol=1e-4)
    slopes = jax.grad(lambda g: g.gram(jnp.asarray(x)).as_matrix().sum())(kernel)
    for part in (slopes.weight, slopes.frequency, slopes.lengthscale):
        assert all(np.abs(a).max() > 0 for a in jax.tree.leaves(part))


def test_gpjax_kernels_multiply_over_dimensions():
    k1, k2 = mixture("student_t"), mixture("gaussian")
    x = np.random.default_rng(1).uniform(size=(5, 2))
    product = as_gpjax(k1, [0]) * as_gpjax(k2, [1])
    expected = k1(x[:, 0, None] - x[:, 0]) * k2(x[:, 1, None] - x[:, 1])
    got = product.gram(jnp.asarray(x)).as_matrix()
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    with pytest.raises(ValueError, match="inputs have 2 columns"):
        as_gpjax(k1)(jnp.ones(2), jnp.ones(2))


def test_there_and_back_gives_the_same_mixture():
    k = mixture("gaussian")
    again = as_gpjax(k).mixture()
    for a, b in zip(jax.tree.leaves(k), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    assert again.envelope == "gaussian"
    assert jax.tree.structure(as_gpjax(k)) == jax.tree.structure(as_gpjax(k))


# Bad input


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([1.0], [1.0, 2.0], [1.0]), r"got 1, 2 and 1 values"),
        (([], [], []), r"one component or more"),
        (([[1.0]], [1.0], [1.0]), r"weight=...\)` has shape \(1, 1\)"),
        ((1.0, [1.0], [1.0]), r"weight=...\)` has shape \(\)"),
        (([-1.0], [1.0], [1.0]), r"negative values; weights are variances"),
        (([1.0], [1.0], [0.0]), r"lengthscale=...\)` has values that are not positive"),
        (([1.0], [np.nan], [1.0]), r"frequency=...\)` has 1 value missing, NaN"),
        (([1.0], ["a"], [1.0]), r"frequency=...\)` holds text"),
        (([1.0], [1.0], [1.0], "cauchy"), r"envelope='cauchy'.* 'student_t' or 'gaussian'"),
    ],
)
def test_a_mixture_that_is_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpectralMixture(*arguments)


@pytest.mark.parametrize("order", [-1, 5, 1.0, "two"])
def test_a_derivative_that_does_not_exist(order):
    with pytest.raises(ValueError, match="derivatives of order 0 to 4"):
        mixture("gaussian")(0.1, order)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda k: gram(k, [0.0, 1.0, 3.0]), r"`gram` got an axis that is not even"),
        (lambda k: gram(k, [2.0, 1.0, 0.0]), r"not even and ascending"),
        (lambda k: toeplitz(k, [[0.0, 1.0]]), r"`toeplitz` got an axis of shape \(1, 2\)"),
        (lambda k: toeplitz(k, []), r"axis of shape \(0,\)"),
        (lambda k: kronecker([k], [[0.0], [1.0]]), r"1 mixtures for 2 axes"),
        (lambda k: covariance(k, 0.0, [1.0]), r"x=...\)` has shape \(\)"),
        (lambda k: covariance(k, [0.0], [1.0], (3, 2)), r"order=5"),
        (lambda k: as_gpjax(k, [0, 1]), r"active_dims=\[0, 1\]\)`: a mixture is over one"),
        (
            lambda k: as_gpjax(SpectralMixture([0.0], [1.0], [1.0])),
            r"weight of zero.* leave that component out",
        ),
    ],
)
def test_arguments_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call(mixture("gaussian"))


def test_gpjax_loads_when_it_is_asked_for():
    import subprocess
    import sys

    code = "import sys, probkit.gp; assert 'gpjax' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
