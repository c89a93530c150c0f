"""Noise is not taken for signal, and signal far above the noise is fitted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import probkit as pk
from probkit.models import sbl
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.prune import best_noise, prices

KEY = jax.random.key(0)
MODEL = sbl.KroneckerSBL()
METHODS = pytest.mark.parametrize("method", [sbl.TypeII(), sbl.Sequential()], ids=repr)


def fitted(data, method, throw=True):
    return pk.fit(MODEL, data, method, key=KEY, throw=throw)


def mean_and_kept(fit):
    mean = np.asarray(MODEL.posterior(fit.sites(), fit.data).mean())
    return mean, int(np.count_nonzero(mean))


def three_atoms(snr_db, seed=0, dtype=float):
    """40 measurements of 3 of 60 atoms."""
    rng = np.random.default_rng(seed)
    A, x = rng.normal(size=(40, 60)), np.zeros(60)
    x[rng.choice(60, 3, replace=False)] = [1.5, -1.0, 0.7]
    sd = np.sqrt(np.mean((A @ x) ** 2)) * 10 ** (-snr_db / 20)
    y = A @ x + sd * rng.normal(size=40)
    return sbl.Measurements(y.astype(dtype), A.astype(dtype)), x


def sinusoids(seed):
    """Three sinusoids at 20 dB, on a Fourier grid four times finer than they resolve."""
    rng, t = np.random.default_rng(seed), np.arange(64)
    phases = np.exp(2j * np.pi * rng.uniform(size=3))
    clean = np.exp(2j * np.pi * np.outer(t, [0.1013, 0.2237, 0.2391])) @ phases
    sd = np.sqrt(np.mean(np.abs(clean) ** 2) / 100)
    noise = rng.normal(size=(64, 2)) @ [1, 1j] / np.sqrt(2)
    A = np.exp(2j * np.pi * np.outer(t, np.arange(256) / 256)) / 8
    return sbl.Measurements(clean + sd * noise, A), sd


@METHODS
def test_of_noise_alone_nothing_is_kept(method):
    kept = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        data = sbl.Measurements(rng.normal(size=40), rng.normal(size=(40, 60)))
        fit = fitted(data, method)
        kept += mean_and_kept(fit)[1]
        assert not pk.diagnose(fit)["evidence for what was kept"].ok
    assert kept <= 1


def test_of_noise_alone_nothing_is_kept_of_two_modes():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        matrices = [rng.normal(size=(8, 12)), rng.normal(size=(10, 12))]
        fit = fitted(sbl.Measurements(rng.normal(size=(8, 10)), matrices), sbl.TypeII())
        assert mean_and_kept(fit)[1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_coherent_atoms_do_not_fit_the_noise(seed):
    data, sd = sinusoids(seed)
    fit = fitted(data, sbl.TypeII(num_restarts=2))
    assert mean_and_kept(fit)[1] <= 8
    assert float(fit.sites()["noise_sd"]) == pytest.approx(sd, rel=0.2)
    assert pk.diagnose(fit)["evidence for what was kept"].ok


def test_more_restarts_do_not_add_false_atoms():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        A, x = rng.normal(size=(60, 120)), np.zeros(120)
        x[rng.choice(120, 6, replace=False)] = rng.normal(size=6)
        data = sbl.Measurements(A @ x + 0.1 * rng.normal(size=60), A)
        mean, _ = mean_and_kept(fitted(data, sbl.TypeII()))
        assert not np.any((mean != 0) & (x == 0))


@METHODS
@pytest.mark.parametrize("snr_db", [60, 100, 200])
def test_signal_far_above_the_noise_is_fitted(method, snr_db):
    data, x = three_atoms(snr_db)
    fit = fitted(data, method)
    mean, kept = mean_and_kept(fit)
    assert kept == 3
    np.testing.assert_allclose(mean, x, atol=2 * 10 ** (-snr_db / 20) + 1e-6)
    # The noise is below what can be learned, and a check says so.
    report = pk.diagnose(fit)
    assert not report["noise over its floor"].ok
    assert [c.name for c in report.checks if not c.ok] == ["noise over its floor"]


@METHODS
@pytest.mark.parametrize("snr_db", [20, 30, 60])
def test_in_float32_a_right_fit_is_not_refused(method, snr_db):
    data, x = three_atoms(snr_db, dtype=np.float32)
    assert data.y.dtype == jnp.float32
    fit = fitted(data, method)
    mean, kept = mean_and_kept(fit)
    if snr_db == 60:
        # The fit is right. To compute its mean takes more digits, as the check below says.
        sites = jax.tree.map(lambda a: jnp.asarray(a, float), fit.sites())
        mean = np.asarray(MODEL.posterior(sites, three_atoms(snr_db)[0]).mean())
    assert kept == 3 and np.sum((mean - x) ** 2) < 10 ** (-snr_db / 10) * np.sum(x**2)
    # From 30 dB on a check asks for float64.
    lost = pk.diagnose(fit)["digits lost to the range of signal over noise"]
    assert lost.ok == (snr_db < 30) and "float64" in lost.remedy


def with_known_noise(dtype, sd):
    data, x = three_atoms(50, dtype=dtype)
    return sbl.Measurements(data.y, data.dictionaries, noise_sd=sd), x


def test_a_known_noise_below_rounding_is_named_as_the_cause():
    data, _ = with_known_noise(np.float32, 0.005)
    with pytest.raises(pk.FitError, match=r"^Sequential: .* rounding .* Use float64"):
        fitted(data, sbl.Sequential())


@pytest.mark.parametrize("dtype, sd", [(np.float32, 0.02), (np.float64, 0.005)])
def test_a_known_noise_above_rounding_is_fitted(dtype, sd):
    data, x = with_known_noise(dtype, sd)
    mean, kept = mean_and_kept(fitted(data, sbl.Sequential()))
    assert kept == 3
    np.testing.assert_allclose(mean, x, atol=0.01)


@METHODS
def test_without_noise_the_atoms_are_found(method):
    data, x = three_atoms(np.inf)
    known = sbl.Measurements(data.y, data.dictionaries, noise_sd=1e-3)
    for one in (data, known):
        mean, kept = mean_and_kept(fitted(one, method))
        assert kept == 3
        np.testing.assert_allclose(mean, x, atol=1e-3)


@METHODS
def test_a_constant_is_the_column_of_ones(method):
    A = np.c_[np.random.default_rng(0).normal(size=(30, 6)), np.ones(30)]
    mean, kept = mean_and_kept(fitted(sbl.Measurements(np.full(30, 5.0), A), method))
    assert kept == 1 and mean[6] == pytest.approx(5.0, rel=1e-5)
    _, kept = mean_and_kept(fitted(sbl.Measurements(np.full(30, 5.0), A[:, :6]), method))
    assert kept == 0


@METHODS
@pytest.mark.parametrize("k", [1e-3, 1e6])
def test_the_support_does_not_depend_on_the_units_of_a_column(method, k):
    rng = np.random.default_rng(1)
    A, x = rng.normal(size=(60, 20)), np.zeros(20)
    x[[2, 5, 9]] = [2, -1.5, 1]
    y = A @ x + 0.3 * rng.normal(size=60)
    A[:, 5] *= k
    A[:, 11] /= k
    mean, _ = mean_and_kept(fitted(sbl.Measurements(y, A), method))
    assert np.flatnonzero(mean).tolist() == [2, 5, 9]


@functools.cache
def few():
    rng = np.random.default_rng(3)
    matrices = [rng.normal(size=(5, 3)), rng.normal(size=(4, 6))]
    return sbl.Measurements(rng.normal(size=(5, 4)), matrices)


def test_the_best_noise_is_that_of_a_search():
    data = few()
    variance = (jnp.array([0.3, 0.0, 0.5]), jnp.array([1.0, 0.2, 0, 0, 0, 0]))

    def cost(log):
        return -float(posterior(data, variance, jnp.exp(log)).log_evidence())

    found = minimize_scalar(cost, bounds=(-8, 3), method="bounded")
    noise, evidence = best_noise(data, variance)
    # A parabola through three points, of noises that differ by a quarter.
    assert float(evidence) == pytest.approx(-found.fun, abs=1e-3)
    assert float(noise) == pytest.approx(np.exp(found.x), rel=0.02)


def test_prices():
    data = few()
    assert prices(None, data, (3, 6)) == (0.0, 0.0)
    assert prices(1.5, data, (3, 6)) == (1.5, 1.5)
    half = 0.5 * np.log(20)
    assert prices("bic", data, (3, 6)) == pytest.approx((half, half))
    extended = (half + np.log(3), half + np.log(6))
    assert prices("ebic", data, (3, 6)) == pytest.approx(extended)


def test_noise_below_rounding_is_refused():
    data, _ = three_atoms(20)
    with pytest.raises(ValueError, match=r"noise_sd=1e-09.*give .* or more"):
        sbl.Measurements(data.y, data.dictionaries, noise_sd=1e-9)
