"""Regression with wrong input: one clear line; odd but right input works."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import probkit as pk
from doors import NO_COUNT, NO_SIZE, POSITIVE, WHOLE, refused
from probkit.models import gp, moe

pytestmark = pytest.mark.usefixtures("no_checker")

KEY = jax.random.key(0)
x = np.linspace(0, 3, 12)
y = np.sin(x)
X = np.stack([x, y], 1)
MODEL = gp.Regression(gp.Matern())


def with_one(value):
    a = y.copy()
    a[3] = value
    return a


DATA = {
    "other lengths": (x, y[:-1], r"12 rows of `x` but 11 values of `y`"),
    "a matrix of y": (x, X, r"`y` of shape \(12, 2\)"),
    "three axes": (X[None], y, r"`x` of shape \(1, 12, 2\)"),
    "NaN in y": (x, with_one(np.nan), r"`Observed\(y=...\)` has 1 value missing.* at 3"),
    "infinite x": (with_one(np.inf), y, r"`Observed\(x=...\)` has 1 value"),
    "one point": ([1.0], [2.0], r"two observations or more"),
    "no point": ([], [], r"two observations or more"),
    "no column": (np.zeros((3, 0)), [1.0, 2.0, 3.0], r"one column or more"),
    "a constant y": (x, np.ones(12), r"`Observed\(y=...\)` is constant and leaves nothing"),
    "a constant column": (np.stack([x, 0 * x], 1), y, r"column `x1` is constant"),
    "one place": (np.ones(12), y, r"column `x` is constant"),
    "text": (["a"] * 12, y, r"`Observed\(x=...\)` holds text"),
    "dates": (pd.date_range("2020", periods=12), y, r"holds dates"),
    "complex": (x, y + 1j, r"holds complex numbers"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_refuse(case):
    a, b, pattern = DATA[case]
    refused(lambda: gp.Observed(a, b), pattern)


@pytest.mark.parametrize("value", NO_SIZE[:-2])
def test_a_known_noise_is_positive(value):
    if value is not None:
        refused(lambda: gp.Observed(x, y, noise_sd=value), rf"noise_sd=.*{POSITIVE}")


SETTINGS = {
    "names of inputs": (lambda: gp.Observed(X, y, inputs=["a"]), r"`x` has 2 columns"),
    "two inputs of one name": (
        lambda: gp.Observed(X, y, inputs="aa"),
        r"a name of its own",
    ),
    "units of other data": (
        lambda: gp.Observed(X, y, units=gp.Observed(x, y).units),
        r"units of data with as many columns, here 2",
    ),
    "no kernel": (lambda: gp.Regression("rbf"), r"`Regression\(kernel='rbf'\)`"),
    "a class": (lambda: gp.Regression(gp.Matern), r"it takes a kernel"),
    "a number in a sum": (lambda: gp.Matern() + 1, r"`kernel \+ 1`"),
    "a number in a product": (lambda: gp.Matern() * 2.0, r"`kernel \* 2.0`"),
    "a smoothness": (
        lambda: gp.Matern(2.0),
        r"`Matern\(smoothness=2.0\)`.*0.5, 1.5 or 2.5",
    ),
    "a smoothness in words": (lambda: gp.Matern("5/2"), r"0.5, 1.5 or 2.5"),
    "a period": (lambda: gp.Periodic(-1.0), rf"`Periodic\(period=-1.0\).*{POSITIVE}"),
    "frequencies": (lambda: gp.SpectralMixture(frequencies=[0.0]), r"positive numbers"),
    "no frequencies": (lambda: gp.SpectralMixture(frequencies=[]), r"positive numbers"),
    "one frequency": (lambda: gp.SpectralGrid(1), rf"num_frequencies=1.*{WHOLE.format(2)}"),
    "a highest frequency": (lambda: gp.SpectralGrid(highest=0), rf"highest=0.*{POSITIVE}"),
    "a width": (
        lambda: gp.SpectralGrid(lengthscale=-1),
        rf"lengthscale=-1.*{POSITIVE}",
    ),
    "what a weight is worth": (
        lambda: gp.SparseWeights(prune="aic"),
        r"`SparseWeights\(prune='aic'\)`.*\"bic\"",
    ),
    "no starts": (lambda: gp.SparseWeights(0), rf"num_starts=0.*{WHOLE.format(1)}"),
    "an envelope": (lambda: gp.SpectralMixture(envelope="box"), r"envelope='box'"),
    "an input by number": (lambda: gp.Matern(on=0), r"`kernel\(on=0\)`"),
    "a name with a space": (
        lambda: gp.Matern(name="my kernel"),
        r"a name as of a variable",
    ),
    "no parts": (lambda: gp.Sum([]), r"`Sum\(parts=\[\]\)`"),
    "one name twice": (
        lambda: gp.Regression(gp.Matern(name="a") + gp.Linear(name="a")),
        r"two kernels called `a`",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_refuse(case):
    refused(*SETTINGS[case])


@pytest.mark.parametrize("value", [v for v in NO_COUNT if v is not None])
def test_components_are_counted(value):
    pattern = rf"num_components=.*{WHOLE.format(1)}"
    refused(lambda: gp.SpectralMixture(value), pattern)


FITS = {
    "other data": (
        MODEL,
        moe.Pairs(x, y),
        r"takes `gp.Observed` or `gp.Grid`, not `Pairs`",
    ),
    "an input that is not there": (
        gp.Regression(gp.Matern(on="z")),
        gp.Observed(x, y),
        r"`Matern\(on='z'\)`: the data have the inputs x",
    ),
    "a mixture of two inputs": (
        gp.Regression(gp.SpectralMixture()),
        gp.Observed(X, y),
        r"function of one input.* `SpectralMixture\(on='x0'\)`",
    ),
    "batches": (MODEL, gp.Observed(x, y), r"no part stands for the whole"),
}


@pytest.mark.parametrize("case", FITS)
def test_fit_refuses(case):
    model, data, pattern = FITS[case]
    method = pk.SVI(batch_size=4) if case == "batches" else pk.MAP()
    refused(lambda: pk.fit(model, data, method, key=KEY), pattern)


SPARSE = {
    "other unknowns": (
        gp.Regression(gp.SpectralGrid() + gp.Matern()),
        gp.Observed(x, y),
        r"`lengthscale_matern` is not one; use `gp.SpectralGrid`",
    ),
    "waves that move": (
        gp.Regression(gp.SpectralMixture(2)),
        gp.Observed(x, y),
        r"variances only, and `frequency_mixture`",
    ),
    "products of weights": (
        gp.Regression(gp.SpectralGrid(name="a") * gp.SpectralGrid(name="b")),
        gp.Observed(x, y),
        r"product a \* b, which has products of weights",
    ),
    "a grid of values": (
        gp.Regression(gp.SpectralGrid()),
        gp.Grid(y, {"x": x}),
        r"fits `gp.Regression` to `gp.Observed`, not `Regression` to `Grid`",
    ),
    "two inputs": (
        gp.Regression(gp.SpectralGrid()),
        gp.Observed(X, y),
        r"function of one input.* `SpectralGrid\(on='x0'\)`",
    ),
}


@pytest.mark.parametrize("case", SPARSE)
def test_sparse_weights_refuse(case):
    model, data, pattern = SPARSE[case]
    refused(lambda: pk.fit(model, data, gp.SparseWeights(), key=KEY), pattern)


def test_too_many_observations_of_two_inputs_are_refused():
    many = np.linspace(0, 1, 10_001)
    places = np.stack([many, np.cos(40 * many)], 1)
    data = gp.Observed(places, np.sin(many), units=gp.Observed(X, y).units)
    refused(
        lambda: pk.fit(MODEL, data, pk.MAP(), key=KEY),
        r"10,001 observations of several inputs",
    )


BY_WAVES = gp.Observed(x, y, num_waves=5)
WAVES = {
    "a drift": (
        lambda: pk.fit(gp.Regression(gp.Drift()), BY_WAVES, pk.MAP(), key=KEY),
        r"`Drift\(\)` for 12 observations by `num_waves`; it takes functions of the lag",
    ),
    "a product with a line": (
        lambda: pk.fit(
            gp.Regression(gp.Linear() * gp.Matern()), BY_WAVES, pk.MAP(), key=KEY
        ),
        r"`Linear\(\)` for 12 observations.*a term of its own",
    ),
    "sparse weights": (
        lambda: pk.fit(
            gp.Regression(gp.SpectralGrid()), BY_WAVES, gp.SparseWeights(), key=KEY
        ),
        r"`gp.SparseWeights` got 12 observations by `num_waves`",
    ),
    "places too far": (
        lambda: gp.Regression(gp.Matern()).inputs([30.0], BY_WAVES),
        r"further from the data than their length, 3, where fixed waves repeat",
    ),
    "several inputs": (
        lambda: gp.Observed(X, y, num_waves=10),
        r"`Observed\(num_waves=10\)`: waves take the place of the covariance on a line",
    ),
}


@pytest.mark.parametrize("name", WAVES)
def test_what_waves_cannot_do_is_refused(name):
    refused(*WAVES[name])


@pytest.mark.parametrize("value", [v for v in NO_COUNT if v is not None])
def test_waves_are_counted(value):
    pattern = rf"num_waves=.*{WHOLE.format(1)}"
    refused(lambda: gp.Observed(x, y, num_waves=value), pattern)


PLACES = {
    "no place": ([], r"shape \(0,\)"),
    "two columns": (X, r"shape \(12, 2\); the fit has the inputs x"),
    "NaN": ([np.nan], r"`predict\(..., inputs\)` has 1 value"),
    "a number": (1.0, r"shape \(\)"),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_refuse(case):
    given, pattern = PLACES[case]
    refused(lambda: MODEL.inputs(given, gp.Observed(x, y)), pattern)


ODD = {
    "lists": (x.tolist(), y.tolist()),
    "a column": (x[:, None], y),
    "a data frame": (pd.DataFrame({"x": x}), pd.Series(y)),
    "a JAX array": (jnp.asarray(x), jnp.asarray(y)),
}


@pytest.mark.parametrize("case", ODD)
def test_any_array_of_the_same_numbers_gives_the_same_data(case):
    data, usual = gp.Observed(*ODD[case]), gp.Observed(x, y)
    assert data.inputs == ("x",) and data.even
    for one, other in zip(jax.tree.leaves(data), jax.tree.leaves(usual), strict=True):
        np.testing.assert_array_equal(one, other)


def test_names_of_columns_are_names_of_inputs():
    assert gp.Observed(pd.DataFrame(X, columns=["t", "z"]), y).inputs == ("t", "z")


def test_whole_numbers_become_floats():
    data = gp.Observed([1, 2, 3], [0, 1, 0])
    assert data.x.dtype == data.y.dtype == np.float64


def test_places_may_repeat_and_come_in_any_order():
    places = np.array([3.0, 1.0, 1.0, 2.0, 1.0, 3.0])
    values = np.array([0.1, 1.0, 1.1, 0.5, 0.9, 0.0])
    fit = pk.fit(MODEL, gp.Observed(places, values), pk.MAP(2), key=KEY)
    found = pk.predict(fit, [1.0], key=KEY)
    assert abs(float(found["mean"].mean()) - 1.0) < 0.2


def test_two_points_can_be_fitted():
    fit = pk.fit(MODEL, gp.Observed([0.0, 1.0], [1.0, 2.0]), pk.MAP(2), key=KEY)
    assert np.isfinite(pk.predict(fit, [0.5], key=KEY)["y"].values).all()
