"""Sparse weights: the step by a dense reference, tones that are found, resumed runs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from lowering import lowers_for_cuda
from probkit.method import checkpoint, loop
from probkit.models import gp
from probkit.models.gp.sparse import Here, flat_start, moments
from reference import gp as slow

KEY = jax.random.key(0)
N, Q = 60, 31
T = np.arange(N) * 0.5
rng = np.random.default_rng(4)
# Two tones on the grid of frequencies 0, 1/30, …, 1, whose highest is Nyquist's.
TONES = (4 / 30, 11 / 30)
SIGNAL = 2 * np.sin(2 * np.pi * TONES[0] * T) + np.cos(2 * np.pi * TONES[1] * T + 1)
Y = 5 + SIGNAL + 0.3 * rng.normal(size=N)
GRID = gp.SpectralGrid(Q, lengthscale=30.0)
EVEN = gp.Observed(T, Y)
UNEVEN = gp.Observed(np.sort(rng.uniform(0, 30, N)), Y)
KERNELS = {
    "even": (GRID, EVEN),
    "uneven": (GRID, UNEVEN),
    "with a line": (GRID + gp.Linear() + gp.Drift(), EVEN),
    "noise known": (GRID, gp.Observed(T, Y, noise_sd=0.3)),
}
every_case = pytest.mark.parametrize("name", KERNELS)


def somewhere(name):
    """Weights that differ, some of them zero."""
    kernel, data = KERNELS[name]
    model = gp.Regression(kernel)
    start = flat_start(model, data)
    sds = {k: v for k, v in start.items() if k.startswith("sd_")}
    sds["sd_grid"] = jnp.asarray(np.random.default_rng(1).uniform(0, 1, Q)).at[3].set(0.0)
    return model, data, Here(sds, jnp.asarray(0.2))


@every_case
def test_the_step_is_that_of_dense_matrices(name):
    model, data, here = somewhere(name)
    found = jax.jit(lambda here: moments(model, data, here))(here)
    x, y = np.asarray(data.x), np.asarray(data.y)
    low, half = x.min(), np.ptp(x) / 2
    nyquist = 0.5 * (N - 1) / np.ptp(x)

    def of_weight(q):
        one = np.eye(Q)[q]
        return slow.matrix(lambda a, b: slow.grid_of_waves(a, b, one, nyquist, 30.0), x, x)

    parts = {("sd_grid", q): of_weight(q) for q in range(Q)}
    if "line" in name:
        middle = low + half
        line = slow.matrix(lambda a, b: slow.linear(a, b, middle, half), x, x)
        parts["sd_linear", ()] = line
        # The drift by its own closed form, which another test holds to an integral.
        sites = {**here.sds, "level": jnp.zeros(()), "noise_sd": jnp.zeros(())}
        terms = model.structure().covariance(sites, data)
        parts["sd_drift", ()] = np.asarray(terms[2]) / float(here.sds["sd_drift"]) ** 2
    variance = {k: float(np.asarray(here.sds[k[0]])[k[1]]) ** 2 for k in parts}
    S = 0.2 * np.eye(N) + sum(variance[k] * parts[k] for k in parts)
    inverse = np.linalg.inv(S)
    level = inverse.sum(0) @ y / inverse.sum()
    a = inverse @ (y - level)
    evidence = -0.5 * (
        (y - level) @ a + np.linalg.slogdet(S)[1] + N * math.log(2 * math.pi)
    )
    assert float(found.evidence) == pytest.approx(evidence, rel=1e-9)
    assert float(found.level) == pytest.approx(level, rel=1e-9)
    assert float(found.noise_ratio) == pytest.approx(a @ a / np.trace(inverse), rel=1e-7)
    for k, K in parts.items():
        expected = a @ K @ a / np.trace(inverse @ K) if variance[k] > 0 else 1.0
        assert float(found.ratios[k[0]][k[1]]) == pytest.approx(expected, rel=1e-6), k


@functools.cache
def fitted(name, **settings):
    kernel, data = KERNELS[name]
    return pk.fit(
        gp.Regression(kernel), data, gp.SparseWeights(**settings), key=KEY, throw=False
    )


@every_case
def test_the_evidence_never_falls(name):
    trace = fitted(name).tree["trace"]["objective"].values
    steps = trace[~np.isnan(trace)]
    assert len(steps) > 20
    assert np.diff(steps).min() > -1e-9 * abs(steps[-1])
    assert steps[-1] - steps[0] > 10


@pytest.mark.parametrize("name", ["even", "noise known"])
def test_the_tones_are_found_and_little_else(name):
    fit = fitted(name)
    assert fit.result == "successful"
    sd = fit.posterior["sd_grid"][0, 0]
    assert sd.dims == ("frequency_grid",)
    # Half the power of a wave is its variance; each tone is at most one bump away.
    for tone, variance in zip(TONES, (2.0, 0.5), strict=True):
        near = np.abs(sd["frequency_grid"] - tone) < 1.1 / 30
        assert 0.3 < float((sd[near] ** 2).sum()) / variance < 3
    assert fit.facts["num_weights"] <= 4
    far = np.abs(sd["frequency_grid"].values[:, None] - TONES).min(1) > 1.1 / 30
    assert float((sd.values[far] ** 2).sum()) < 0.05
    assert abs(float(fit.posterior["level"].mean()) - 5) < 0.2
    assert pk.diagnose(fit).ok


def test_a_weight_that_was_kept_is_worth_its_price():
    fit = fitted("even")
    model, data = gp.Regression(GRID), EVEN
    sites = fit.sites()
    at = jax.jit(lambda sd, noise: moments(model, data, Here({"sd_grid": sd}, noise)))
    sd, noise = sites["sd_grid"], sites["noise_sd"] ** 2
    best = float(at(sd, noise).evidence)
    assert best == pytest.approx(fit.facts["evidence"], abs=1e-6)
    for q in np.flatnonzero(np.asarray(sd) > 0):
        without = at(sd.at[q].set(0.0), noise + sd[q] ** 2)
        # The others have moved since it was tried, by less than a nat.
        assert best - float(without.evidence) > 0.5 * math.log(N) - 1


def test_without_a_price_noise_is_explained_as_signal_and_said():
    loose = fitted("even", prune=None)
    assert loose.facts["num_weights"] > 10
    assert loose.facts["evidence"] > fitted("even").facts["evidence"]
    report = pk.diagnose(loose)
    assert not report["number of weights over that of observations"].ok


def test_predictions_are_those_of_the_sites():
    fit = fitted("uneven")
    new = np.array([3.3, 31.0])
    found = pk.predict(fit, new, key=KEY)
    sites = {k: np.asarray(v) for k, v in fit.sites().items()}
    nyquist = 0.5 * (N - 1) / np.ptp(np.asarray(UNEVEN.x))

    def kernel(a, b):
        return slow.grid_of_waves(a, b, sites["sd_grid"], nyquist, 30.0)

    x, y = np.asarray(UNEVEN.x), np.asarray(UNEVEN.y)
    mean, C = slow.conditional(
        kernel, x, y, sites["level"], sites["noise_sd"], new[:, None]
    )
    np.testing.assert_allclose(found["mean"].values[0, 0], mean, rtol=1e-7)
    np.testing.assert_allclose(found["sd"].values[0, 0] ** 2, np.diag(C), rtol=1e-6)


def test_other_units_give_the_same_fit_in_those_units():
    method, usual = gp.SparseWeights(), fitted("even")
    kernel = gp.SpectralGrid(Q, lengthscale=3e4)
    other = pk.fit(gp.Regression(kernel), gp.Observed(1e3 * T, 7 - 10 * Y), method, key=KEY)
    one, two = (f.posterior["sd_grid"].values for f in (usual, other))
    np.testing.assert_allclose(two, 10 * one, rtol=1e-5, atol=1e-6)


def test_random_starts_end_no_lower_than_the_flat_one():
    several = fitted("even", num_starts=3)
    ends = several.tree["trace"]["final_objective"].values
    assert len(ends) == 3 and len(set(ends)) == 3
    assert several.facts["before_pruning"] == max(ends) >= ends[0]


def test_a_run_goes_on_where_it_was_left(tmp_path, monkeypatch):
    opened, begin = [], loop.Checkpoint.open

    def open_and_note(*args, **settings):
        keep = begin(*args, **settings)
        opened.append(keep.taken)
        return keep

    monkeypatch.setattr(loop.Checkpoint, "open", open_and_note)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)  # written after every chunk
    model, short = gp.Regression(GRID), gp.SparseWeights(max_steps=20)
    pk.fit(model, EVEN, short, key=KEY, checkpoint=tmp_path, throw=False)
    again = pk.fit(model, EVEN, gp.SparseWeights(), key=KEY, checkpoint=tmp_path)
    assert opened == [0, 20]
    assert again.posterior.equals(fitted("even").posterior)


@pytest.mark.parametrize("name", ["even", "uneven"])
def test_hot_paths_lower_for_cuda(name):
    kernel, data = KERNELS[name]
    lowers_for_cuda(gp.SparseWeights(2), gp.Regression(kernel), data)
