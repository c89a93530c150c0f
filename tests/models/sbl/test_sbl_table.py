"""Regression on a table: an intercept with a flat prior, columns in any units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from doors import refused
from probkit.distributions.kronecker import KroneckerNormal
from probkit.models import sbl
from probkit.models.sbl.kronecker import scattered

KEY = jax.random.key(0)
MODEL = sbl.KroneckerSBL()
TALL, WIDE = (9, 3), (6, 8)


def table(shape, *, is_complex=False, normalise=True, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*size):
        real = rng.normal(size=size)
        return real + 1j * rng.normal(size=size) if is_complex else real

    m, n = shape
    A = normal(m, n) * rng.uniform(0.1, 10, n) + 5 * normal(n)
    y = 3 * A[:, 0] + 7 + 0.5 * normal(m)
    return sbl.Measurements(y, A, intercept=True, normalise=normalise)


def dense(data, sites):
    """Intercept and coefficients as one normal vector, from its precision matrix."""
    A, y = np.asarray(data.dictionaries[0]), np.asarray(data.y)
    noise = float(MODEL.noise(sites, data))
    (γ,) = MODEL.scales(sites, data).variance()
    if data.normalise:
        γ = γ / (np.abs(A - A.mean(0)) ** 2).mean(0)
    Z = np.column_stack([np.ones(len(y)), A])
    precision = Z.conj().T @ Z / noise + np.diag([0, *(1 / np.asarray(γ))])
    covariance = np.linalg.inv(precision)
    Σ = noise * np.eye(len(y)) + (A * γ) @ A.conj().T
    return covariance @ Z.conj().T @ y / noise, covariance, Σ, y


def log_flat(y, Σ):
    r"""$\log ∫ N(y; b 1, Σ) \, db$, of real or circular complex vectors."""
    P, one = np.linalg.inv(Σ), np.ones(len(y))
    sure = (one @ P @ one).real
    rest = y - one @ P @ y / sure
    cost = np.linalg.slogdet(Σ)[1] + np.log(sure) + (rest.conj() @ P @ rest).real
    size = len(y) - 1
    if np.iscomplexobj(Σ):
        return -(size * np.log(np.pi) + cost)
    return -0.5 * (size * np.log(2 * np.pi) + cost)


every_table = pytest.mark.parametrize(
    "shape, is_complex, normalise",
    [(TALL, False, True), (WIDE, False, False), (TALL, True, False), (WIDE, True, True)],
)


@pytest.fixture
def sites():
    return lambda data: scattered(MODEL.flat_start(data), KEY, 1.0)


@every_table
def test_the_posterior_is_that_of_a_column_of_ones_with_a_flat_prior(
    shape, is_complex, normalise, sites
):
    data = table(shape, is_complex=is_complex, normalise=normalise)
    here, rows = sites(data), np.random.default_rng(1).normal(size=(4, shape[1]))
    mean, covariance, _, _ = dense(data, here)
    post = MODEL.posterior(here, data)
    np.testing.assert_allclose(post.mean(), mean[1:], rtol=1e-9, atol=1e-11)
    sd = np.sqrt(np.diag(covariance).real)
    np.testing.assert_allclose(np.sqrt(post.variances()), sd[1:], rtol=1e-8)
    full = np.column_stack([np.ones(4), rows])
    level, variance = post.at([rows])
    np.testing.assert_allclose(level, full @ mean, rtol=1e-9)
    expected = np.diag(full @ covariance @ full.T).real
    np.testing.assert_allclose(variance, expected, rtol=1e-8)
    alone, _ = post.at([rows], intercept=False)
    np.testing.assert_allclose(alone, rows @ mean[1:], rtol=1e-9, atol=1e-11)
    found = MODEL.recover(here, data, KEY)
    np.testing.assert_allclose(found["intercept_mean"], mean[0], rtol=1e-9)
    np.testing.assert_allclose(found["intercept_sd"], sd[0], rtol=1e-8)


@every_table
def test_the_evidence_integrates_the_intercept_out(shape, is_complex, normalise, sites):
    # The density of the differences: its volume is √M times that of the integral over b.
    data = table(shape, is_complex=is_complex, normalise=normalise)
    here = sites(data)
    _, _, Σ, y = dense(data, here)
    half = 1.0 if is_complex else 0.5
    expected = log_flat(y, Σ) + half * np.log(len(y))
    evidence = MODEL.evidence(here, data)
    np.testing.assert_allclose(evidence.log_prob(data.y), expected, rtol=1e-10)
    np.testing.assert_allclose(
        MODEL.posterior(here, data).log_evidence(), expected, rtol=1e-10
    )
    every = np.arange(len(y))
    others = [np.delete(every, i) for i in every]
    left = [log_flat(y, Σ) - log_flat(y[k], Σ[np.ix_(k, k)]) for k in others]
    np.testing.assert_allclose(MODEL.pointwise(here, data)["y"], left, rtol=1e-8)


def test_draws_of_intercept_and_coefficients_have_the_joint_covariance(sites):
    # 20,000 draws: each of 4 means and 16 covariances is within 5 standard errors but for
    # one seed in 50,000.
    data, number = table(TALL), 20_000
    here = sites(data)
    mean, covariance, _, _ = dense(data, here)
    draw = jax.jit(jax.vmap(lambda key: MODEL.recover(here, data, key)))
    found = draw(jax.random.split(KEY, number))
    drawn = np.column_stack([found["intercept"], found["coefficient"]])
    sd, gap = np.sqrt(np.diag(covariance)), drawn - mean
    assert np.all(np.abs(gap.mean(0)) < 5 * sd / np.sqrt(number))
    error = np.abs(gap.T @ gap / number - covariance)
    assert np.all(error < 5 * np.sqrt(2) * np.outer(sd, sd) / np.sqrt(number))


def test_predicted_measurements_have_the_mean_and_spread_of_the_intercept(sites):
    # 4,000 draws at one row; mean and sd within 5 standard errors but for one seed in
    # 800,000.
    data, number = table(TALL), 4000
    here = sites(data)
    inputs = MODEL.inputs([np.zeros((1, 3))], data)
    predict = jax.jit(jax.vmap(lambda key: MODEL.predict(here, inputs, key)))
    found = predict(jax.random.split(KEY, number))
    mean, covariance, _, _ = dense(data, here)
    np.testing.assert_allclose(found["mean"][0], mean[:1], rtol=1e-9)
    sd = np.sqrt(covariance[0, 0] + float(MODEL.noise(here, data)))
    assert abs(found["y"].mean() - mean[0]) < 5 * sd / np.sqrt(number)
    assert abs(found["y"].std() / sd - 1) < 5 / np.sqrt(2 * number)


METHODS = {"type II": sbl.TypeII(num_restarts=2), "sequential": sbl.Sequential()}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
def test_columns_far_from_zero_have_a_slope_an_intercept_and_their_noise(method):
    r = np.random.default_rng(0)
    X = r.normal(size=(40, 5)) + 100
    noise = 0.1 * r.normal(size=40)
    data = sbl.Measurements.table(3 * X[:, 0] + 7 + noise, X)
    fitted = pk.fit(MODEL, data, method, key=KEY)
    assert pk.diagnose(fitted).ok
    found = pk.recover(fitted, key=KEY).isel(chain=0, draw=0)
    coefficient = found["coefficient_mean"].values
    assert list(np.flatnonzero(coefficient)) == [0]
    # Least squares on the right column is all that the data can say.
    Z = np.column_stack([np.ones(40), X[:, 0]])
    least = np.linalg.lstsq(Z, 3 * X[:, 0] + 7 + noise)[0]
    sd = float(found["intercept_sd"])
    assert coefficient[0] == pytest.approx(least[1], rel=1e-3)
    assert abs(float(found["intercept_mean"]) - least[0]) < 0.1 * sd
    assert abs(float(found["intercept_mean"]) - 7) < 3 * sd
    residual = noise - Z @ np.linalg.lstsq(Z, noise)[0]
    assert fitted.sites()["noise_sd"] == pytest.approx(residual.std(), rel=0.05)


@every_method
def test_the_fit_does_not_depend_on_the_units_of_a_column(method):
    r = np.random.default_rng(0)
    A = r.normal(size=(60, 20))
    y = A[:, [2, 5, 11]] @ [1, -1, 0.7] + 0.3 * r.normal(size=60)
    for k in (1, 1e-3, 1e3, 1e6):
        units = np.ones(20)
        units[5], units[11] = k, 1 / k
        fitted = pk.fit(MODEL, sbl.Measurements.table(y, A * units), method, key=KEY)
        mean = MODEL.posterior(fitted.sites(), fitted.data).mean() * units
        assert list(np.flatnonzero(mean)) == [2, 5, 11]
        first = mean if k == 1 else first  # noqa: F821
        np.testing.assert_allclose(mean, first, rtol=1e-5)


@every_method
def test_a_constant_is_the_intercept_and_nothing_else(method):
    X = np.random.default_rng(0).normal(size=(40, 5))
    for level in (5.0, 0.0):
        data = sbl.Measurements.table(np.full(40, level), X)
        fitted = pk.fit(MODEL, data, method, key=KEY)
        assert not np.any(fitted.sites()["local_scale_atom"])
        found = pk.predict(fitted, [X[:2]], key=KEY)
        np.testing.assert_allclose(found["mean"], level, atol=1e-12)
        np.testing.assert_allclose(found["sd"], 0.0, atol=1e-12)


def test_a_shift_of_columns_and_measurements_leaves_the_coefficients(sites):
    data = table(WIDE)
    moved = sbl.Measurements.table(data.y + 1e3, data.dictionaries[0] - 1e2)
    one, other = (MODEL.posterior(sites(d), d) for d in (data, moved))
    np.testing.assert_allclose(one.mean(), other.mean(), rtol=1e-7)
    np.testing.assert_allclose(one.log_evidence(), other.log_evidence(), rtol=1e-9)


def test_normalised_dictionaries_of_several_modes_have_no_units(sites):
    rng = np.random.default_rng(3)
    A, B = rng.normal(size=(4, 5)), rng.normal(size=(6, 3))
    s, t, y = rng.gamma(1, 1, 5), rng.gamma(1, 1, 3), rng.normal(size=(4, 6))
    plain = sbl.Measurements(y, [A, B], normalise=True)
    scaled = sbl.Measurements(y, [A * s, B * t], normalise=True)
    one, other = (MODEL.posterior(sites(d), d) for d in (plain, scaled))
    np.testing.assert_allclose(one.mean(), other.mean() * np.outer(s, t), rtol=1e-9)
    np.testing.assert_allclose(one.log_evidence(), other.log_evidence(), rtol=1e-11)


def test_a_file_keeps_intercept_and_lengths(tmp_path):
    fitted = pk.fit(MODEL, table(TALL), sbl.Sequential(), key=KEY)
    again = pk.load(pk.save(fitted, tmp_path / "table.nc"))
    assert again.data.intercept and again.data.normalise
    ours, theirs = (pk.predict(f, [jnp.ones((2, 3))], key=KEY) for f in (fitted, again))
    assert ours.equals(theirs)


Y, X = np.arange(4.0), np.random.default_rng(0).normal(size=(4, 2))
REFUSED = {
    "several modes": ((np.ones((4, 4)), [X, X]), {}, r"shape \(4, 4\): it takes one dict"),
    "one measurement": ((Y[:1], X[:1]), {}, r"two measurements or more"),
    "a constant column": ((Y, X * [1, 0] + 2), {}, r"column 1 .* constant \(1 of 2 are\)"),
    "a word": ((Y, X), {"intercept": "yes"}, r"`Measurements\(intercept='yes'\)`: .*False"),
    "a number": ((Y, X), {"normalise": 1}, r"`Measurements\(normalise=1\)`: .* True or"),
}


@pytest.mark.parametrize("given, settings, words", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("no_checker")
def test_what_an_intercept_cannot_have_is_refused(given, settings, words):
    refused(lambda: sbl.Measurements(*given, **{"intercept": True, **settings}), words)


def test_a_constant_takes_a_basis_whose_columns_sum_to_zero():
    refused(lambda: KroneckerNormal([np.eye(3)], 1.0, level=0.0), r"level=.* one factor")


def test_simulated_measurements_lie_around_the_level_of_the_data():
    # 2,000 draws of 9 measurements; the mean within 5 standard errors but for one seed in
    # 1,000,000.
    data = table(TALL)
    evidence = MODEL.evidence(MODEL.flat_start(data), data)
    drawn = evidence.sample(KEY, (2000,)).mean(1)
    sd = np.sqrt(float(MODEL.noise(MODEL.flat_start(data), data)) / 9)
    assert abs(drawn.mean() - data.y.mean()) < 5 * sd / np.sqrt(2000)
    np.testing.assert_allclose(drawn.std(), sd, rtol=5 / np.sqrt(4000))


# Kernel functions as columns.


def test_a_relevance_vector_machine_predicts_the_curve_from_few_centers():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-10, 10, 60))
    y = np.sinc(x / np.pi) + 0.05 * rng.normal(size=60)
    basis = sbl.KernelBasis(x, "rbf", lengthscale=2.0)
    data = sbl.Measurements.table(y, basis(x))
    fitted = pk.fit(MODEL, data, sbl.Sequential(), key=KEY)
    new = np.linspace(-9, 9, 50)
    found = pk.predict(fitted, [basis(new)], key=KEY)["mean"].values[0, 0]
    assert np.sqrt(np.mean((found - np.sinc(new / np.pi)) ** 2)) < 0.04
    assert np.count_nonzero(fitted.sites()["local_scale_atom"]) < 12


def test_kernels_of_three_kinds_are_one_matrix():
    from gpjax.kernels import RBF

    x, z = np.random.default_rng(0).normal(size=(2, 4, 3))

    def by_hand(x, z):
        return np.exp(-0.5 * ((x[:, None] - z[None]) ** 2).sum(-1) / 0.7**2)

    named = sbl.KernelBasis(z, "rbf", lengthscale=0.7)
    for kernel in (by_hand, RBF(lengthscale=0.7)):
        np.testing.assert_allclose(named(x), sbl.KernelBasis(z, kernel)(x), rtol=1e-10)


KERNELS = {
    "no lengthscale": (lambda: sbl.KernelBasis(X), r"lengthscale of `kernel=\"rbf\"`"),
    "a useless one": (lambda: sbl.KernelBasis(X, np.dot, 1.0), r"for no other"),
    "a negative one": (lambda: sbl.KernelBasis(X, "rbf", -1.0), r"a positive number"),
    "a word": (lambda: sbl.KernelBasis(X, "cubic"), r"takes \"rbf\", a kernel of GPJax"),
    "other points": (lambda: sbl.KernelBasis(X, "rbf", 1.0)(X[:, :1]), r"centers have 2"),
    "a tensor": (lambda: sbl.KernelBasis(X[None], "rbf", 1.0), r"one row per point"),
    "another shape": (lambda: sbl.KernelBasis(X, lambda x, z: x)(X[:3]), r"\(3, 2\); .*"),
}


@pytest.mark.parametrize("call, words", KERNELS.values(), ids=KERNELS.keys())
@pytest.mark.usefixtures("no_checker")
def test_what_is_no_kernel_is_refused(call, words):
    refused(call, words)
