"""Regression on grids with missing cells: that of the dense matrix, at the cost of axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax.test_util import check_grads

import probkit as pk
from doors import refused
from probkit.distributions import KroneckerNormal, PartialKroneckerNormal
from probkit.model.density import log_densities
from probkit.models import gp

KEY = jax.random.key(0)
rng = np.random.default_rng(4)
T, Z = np.linspace(0, 3, 7), np.array([0.0, 0.5, 1.5, 2.0, 4.0])
FULL = np.sin(2 * T)[:, None] * np.cos(Z) + 0.1 * rng.normal(size=(7, 5))
GAPS = FULL.copy()
GAPS[2, 1:4] = GAPS[5, 0] = np.nan
AXES = {"time": T, "depth": Z}
WAVES = gp.SpectralMixture(2, on="time")
MODEL = gp.Regression(WAVES * gp.Matern(on="depth", name="deep"))
SITES = {
    "level": 0.1,
    "noise_sd": 0.2,
    "sd_mixture": [0.8, 0.5],
    "frequency_mixture": [0.0, 0.4],
    "lengthscale_mixture": [1.5, 3.0],
    "lengthscale_deep": 1.2,
}
SITES = {k: jnp.asarray(v) for k, v in SITES.items()}


@functools.cache
def pair(values):
    """The grid, and its observed cells as scattered places, with the same units."""
    y = {"full": FULL, "gaps": GAPS}[values]
    grid = gp.Grid(y, AXES)
    seen = ~np.isnan(y)
    places = np.stack([a[seen] for a in np.meshgrid(T, Z, indexing="ij")], 1)
    inputs = ["time", "depth"]
    return grid, gp.Observed(places, y[seen], inputs=inputs, units=grid.units)


both = pytest.mark.parametrize("values", ["full", "gaps"])


@both
def test_the_evidence_is_that_of_the_observed_cells(values):
    on_grid, scattered = (
        jax.jit(lambda s, d=d: log_densities(MODEL, d, s))(SITES) for d in pair(values)
    )
    np.testing.assert_allclose(on_grid, scattered, rtol=1e-10)


@both
def test_predictions_are_those_of_the_observed_cells(values):
    grid, scattered = pair(values)
    new = {"time": [0.2, 3.5], "depth": [0.0, 1.0, 5.0]}
    places = np.stack([a.ravel() for a in np.meshgrid(*new.values(), indexing="ij")], 1)

    @jax.jit
    def predicted(sites):
        one = MODEL.predict(sites, MODEL.inputs(new, grid), KEY)
        return one, MODEL.predict(sites, MODEL.inputs(places, scattered), KEY)

    found, expected = predicted(SITES)
    for name in ("mean", "sd"):
        np.testing.assert_allclose(
            found[name].ravel(), expected[name], rtol=1e-8, err_msg=name
        )


def test_draws_have_the_mean_and_the_covariance_of_the_conditional():
    grid, scattered = pair("gaps")
    new = {"time": [0.2, 3.5], "depth": [0.0, 5.0]}
    places = np.stack([a.ravel() for a in np.meshgrid(*new.values(), indexing="ij")], 1)
    inputs, also = MODEL.inputs(new, grid), MODEL.inputs(places, scattered)
    keys = jax.random.split(KEY, 5000)
    one, other = (
        np.asarray(
            jax.jit(jax.vmap(lambda k, i=i: MODEL.predict(SITES, i, k)["y"].ravel()))(keys)
        )
        for i in (inputs, also)
    )
    sd = other.std(0)
    # Standard errors: 0.02 of a mean, 0.02 to 0.03 of a covariance.
    np.testing.assert_allclose(one.mean(0) / sd, other.mean(0) / sd, atol=0.1)
    np.testing.assert_allclose(
        np.cov(one.T) / sd / sd[:, None], np.cov(other.T) / sd / sd[:, None], atol=0.12
    )


@both
def test_each_cell_given_the_others(values):
    grid, scattered = pair(values)
    found, expected = (
        jax.jit(lambda s, d=d: MODEL.pointwise(s, d)["y"])(SITES) for d in (grid, scattered)
    )
    seen = ~np.isnan({"full": FULL, "gaps": GAPS}[values])
    np.testing.assert_allclose(found[seen], expected, rtol=1e-8)
    assert (np.asarray(found)[~seen] == 0).all()


def test_without_gaps_it_is_the_kronecker_normal():
    roots = [rng.normal(size=(3, 3)), rng.normal(size=(4, 4))]
    G = [jnp.asarray(r @ r.T) for r in roots]
    y = jnp.asarray(rng.normal(size=(3, 4)))
    found = PartialKroneckerNormal(0.0, G, 0.3, jnp.zeros(0, int)).log_prob(y)
    assert float(found) == pytest.approx(float(KroneckerNormal(G, 0.3).log_prob(y)))


def test_derivatives_match_finite_differences():
    grid, _ = pair("gaps")

    @jax.jit
    def density(sites):
        return log_densities(MODEL, grid, sites)[1]

    check_grads(density, (SITES,), order=1, modes=["rev"], rtol=1e-5)


def test_a_squared_exponential_of_all_inputs_is_a_product():
    grid, scattered = pair("gaps")
    model = gp.Regression(gp.SquaredExponential(name="k"))
    sites = {"level": 0.0, "noise_sd": 0.2, "sd_k": 0.7, "lengthscale_k": [0.9, 1.4]}
    sites = {k: jnp.asarray(v) for k, v in sites.items()}
    on_grid, off = (
        jax.jit(lambda s, d=d: log_densities(model, d, s)[1])(sites)
        for d in (grid, scattered)
    )
    assert float(on_grid) == pytest.approx(float(off), rel=1e-10)


@functools.cache
def fitted():
    model = gp.Regression(gp.Matern(on="time") * gp.Matern(on="depth"))
    return pk.fit(model, pair("gaps")[0], pk.MAP(4, num_draws=50), key=KEY)


def test_a_fit_predicts_the_missing_cells():
    found = pk.predict(fitted(), fitted().data, key=KEY)
    assert found["y"].dims == ("chain", "draw", "time", "depth")
    missing = np.isnan(GAPS)
    draws = found["y"].values[0]
    off = (FULL - draws.mean(0)) / draws.std(0)
    assert np.abs(off[missing]).max() < 3
    assert pk.diagnose(fitted())["share of the observations explained"].ok


def test_a_grid_comes_back_from_a_file(tmp_path):
    again = pk.load(pk.save(fitted(), tmp_path / "fit.nc"))
    kept = again.tree["observed_data"]["y"]
    np.testing.assert_array_equal(np.isnan(kept), np.isnan(GAPS))
    one, other = (pk.predict(f, f.data, key=KEY) for f in (fitted(), again))
    assert one.equals(other)


def test_an_xarray_brings_its_axes():
    cells = xr.DataArray(GAPS, AXES, dims=("time", "depth"))
    data = gp.Grid(cells)
    assert data.inputs == ("time", "depth")
    for one, other in zip(
        jax.tree.leaves(data), jax.tree.leaves(pair("gaps")[0]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


BAD = {
    "other shapes": (
        FULL.T,
        AXES,
        r"shape \(5, 7\), but the axes time, depth have \(7, 5\)",
    ),
    "no axes": (FULL, None, r"`Grid\(axes=None\)`.*dict from names"),
    "an axis that turns": (FULL, AXES | {"depth": Z[::-1]}, r"'depth'.*that ascend"),
    "all missing": (FULL * np.nan, AXES, r"fewer than two values"),
    "infinite": (FULL + np.inf, AXES, r"`Grid\(y=...\)` has .* infinite"),
    "constant": (FULL * 0, AXES, r"is constant"),
    "text": ([["a"]], {"t": [1.0]}, r"`Grid\(y=...\)` holds text"),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("case", BAD)
def test_grids_refuse(case):
    y, axes, pattern = BAD[case]
    refused(lambda: gp.Grid(y, axes), pattern)


@pytest.mark.usefixtures("no_checker")
def test_other_kernels_and_places_are_refused():
    grid, _ = pair("gaps")
    kernels = {
        r"a sum of kernels for a `Grid`": gp.Matern(on="time") + gp.Matern(on="depth"),
        r"`Matern` of several inputs": gp.Matern(),
    }
    for pattern, kernel in kernels.items():
        model = gp.Regression(kernel)
        refused(lambda m=model: pk.fit(m, grid, pk.MAP(), key=KEY), pattern)
    refused(lambda: MODEL.inputs([1.0], grid), r"coordinates of time, depth")
    refused(lambda: MODEL.inputs({"time": [1.0]}, grid), r"coordinates of time, depth")
    many = np.full((80, 80), np.nan)
    many[::2] = rng.normal(size=(40, 80))
    axes = {"a": np.arange(80.0), "b": np.arange(80.0)}
    refused(lambda: gp.Grid(many, axes), r"lacks 3,200 of 6,400 cells")
