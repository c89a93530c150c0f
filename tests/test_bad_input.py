"""What users bring to the door: wrong things get one clear line, odd things work."""

import datetime
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from numpyro.infer import autoguide

import probkit as pk
from conftest import TRUTH
from doors import NO_COUNT, NO_SIZE, POSITIVE, WHOLE, refused
from probkit.models import moe
from probkit.validate import optional, pairs, positive

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("no_checker")

rng = np.random.default_rng(0)
n = 20
x, X = rng.normal(size=n), rng.normal(size=(n, 2))
y = 2 * x + rng.normal(size=n)
key = jax.random.key(0)
model = moe.MixtureOfExperts(num_experts=2)


def with_one(value, array=x):
    array = np.array(array)
    array[3] = value
    return array


def frame(**columns):
    return pd.DataFrame({"speed": X[:, 0], **columns})


# What was given, and words that the message must have, in their order.
PAIRS = {
    "three axes": ((x.reshape(5, 2, 2), y), r"`x` of shape \(5, 2, 2\).* takes .*\(n, d\)"),
    "a number": ((1.0, 2.0), r"`x` of shape \(\) and `y` of shape \(\).* takes `x`"),
    "a column for y": ((x, y[:, None]), r"`y` of shape \(20, 1\).* takes .*`y` of shape"),
    "a row for y": ((x, y[None]), r"`y` of shape \(1, 20\)"),
    "one value short": ((x, y[:-1]), r"20 rows of `x` but 19 values of `y`"),
    "a transposed x": ((X.T, y), r"2 rows of `x` but 20 values.* Transpose `x`"),
    "ragged rows": (([[1, 2], [3]], [1, 2]), r"`Pairs\(x=...\)` is ragged.* same number"),
    "a ragged y": (([1, 2], [[1], [2, 3]]), r"`Pairs\(y=...\)` is ragged"),
    "a NaN": ((with_one(np.nan), y), r"x=.*1 value .*NaN.* first at 3; drop or impute"),
    "NaNs in a table": ((with_one(np.nan, X), y), r"2 values .* first at \(3, 0\); drop"),
    "an infinity": ((x, with_one(np.inf)), r"`Pairs\(y=...\)` has 1 value .*infinite"),
    "minus infinity": ((x, with_one(-np.inf)), r"`Pairs\(y=...\)` has 1 value .*infinite"),
    "a None": (([1, None, 3], [1, 2, 4]), r"1 value missing.* first at 1"),
    "pandas' NA": ((frame(a=pd.array([1, None] * 10)), y), r"10 values .* at \(1, 1\)"),
    "a mask": ((np.ma.masked_array(x, mask=x > 0), y), r"9 values missing"),
    "nothing at all": (
        (None, y),
        r"`Pairs\(x=...\)` got a NoneType; it takes real numbers",
    ),
    "text": ((["a", "b", "c"], [1, 2, 3]), r"x=.* holds text; .* 0/1 columns, or drop"),
    "numbers as text": ((["1", "2"], [1, 2]), r"x=.* holds text; it takes real numbers"),
    "numbers as pandas text": ((pd.Series(["1", "2"]), [1, 2]), r"x=.* holds text"),
    "a word": (("hello", y), r"`Pairs\(x=...\)` holds text"),
    "bytes": (([b"1", b"2"], [1, 2]), r"`Pairs\(x=...\)` holds text"),
    "a column of text": ((frame(port=["C", "S"] * 10), y), r"x=.* holds text"),
    "categories": ((frame(a=pd.Categorical(["u", "v"] * 10)), y), r"x=.* holds text"),
    "dates": ((pd.date_range("2020", periods=n), y), r"holds dates; .* time since a date"),
    "days": ((np.arange(n).astype("datetime64[D]"), y), r"x=.* holds dates"),
    "a list of dates": (([datetime.date(2020, 1, i + 1) for i in range(n)], y), "dates"),
    "a column of dates": ((frame(d=pd.date_range("2020", periods=n)), y), "holds dates"),
    "time spans": ((np.arange(n).astype("m8[D]"), y), r"time spans; .* Divide by a unit"),
    "complex numbers": ((x + 1j, y), r"holds complex numbers; .* imaginary .* columns"),
    "a list with 2j": (([1, 2j, 3], [1, 2, 3]), r"holds complex numbers"),
    "objects with 2j": ((np.array([1, 2j], object), [1, 2]), r"holds complex numbers"),
    "records": ((np.zeros(n, [("a", float)]), y), r"holds records.* fields as columns"),
    "a dict": (({"a": x}, y), r"got a dict; it takes real numbers in an array, a list"),
    "a set": (({1.0, 2.0}, [1, 2]), r"got a set; it takes"),
    "a generator": (((i for i in x), y), r"got a generator; it takes"),
    "a function": ((np.sin, y), r"got a ufunc; it takes"),
    "a sparse matrix": ((scipy.sparse.csr_array(X), y), r"got a csr_array; it takes"),
    "a random key": ((key, y), r"got a PRNGKeyArray; it takes"),
    "a list of objects": (([object(), 1], [1, 2]), r"holds values of type object"),
    "too large for a float": (([10**400, 2, 3], [1, 2, 3]), r"1 value .*infinite"),
    "one observation": (([1.0], [2.0]), r"`Pairs\(x=..., y=...\)` needs two .* got 1"),
    "no observation": (([], []), r"has no observations"),
    "an empty table": ((np.zeros((0, 2)), []), r"has no observations"),
    "no column": (
        (np.zeros((n, 0)), y),
        r"`Pairs\(x=...\)` has no columns; .* one or more",
    ),
    "a constant x": ((np.full(n, 0.1), y), r"column `x` is constant .* intercept; drop it"),
    "a constant column": ((frame(lane=7), y), r"column `lane` is constant"),
    "a column of zeros": ((np.stack([x, 0 * x], 1), y), r"column `x1` is constant"),
    "a constant y": ((x, np.full(n, 0.1)), r"`Pairs\(y=...\)` is constant"),
    "a y of zeros": ((x, 0 * y), r"`Pairs\(y=...\)` is constant"),
    "squares too large": ((1e200 * x, y), r"column `x` .* range of float64; .* units"),
    "squares too small": ((1e-200 * x, y), r"column `x` .* range of float64; .* units"),
    "too large for float32": (
        (np.float32(1e30) * x.astype("f4"), y),
        r"column `x` .* range of float32; .* units",
    ),
    "a y too large for x": (
        (x.astype("f4"), 1e60 * y),
        r"`Pairs\(y=...\)` .* range of float32; .* units",
    ),
    "too few names": ((X, y, ["a"]), r"`Pairs\(inputs=\['a'\]\)` has 1 of 2 names"),
    "one name for two": ((X, y, "ab"), r"`Pairs\(inputs='ab'\)` has 1 of 2 names"),
    "a number for names": ((X, y, 3), r"`Pairs\(inputs=3\)` has 0 of 2 names; give a name"),
    "a name twice": ((X, y, ["a", "a"]), r"inputs=.* two terms called `a`; .* of its own"),
    "a column twice": (
        (pd.DataFrame(X, columns=["a", "a"]), y),
        r"x=.* two terms called `a`; .* `Pairs\(..., inputs=\[...\]\)`",
    ),
    "the intercept's name": ((X, y, ["intercept", "b"]), r"`intercept` is taken"),
    "units of text": ((X, y, None, "kg"), r"`Pairs\(units=...\)` takes .*=other.units`"),
    "units of other columns": (
        (X, y, None, moe.Pairs(x, y).units),
        r"`Pairs\(units=...\)` takes .* as many columns, here 2",
    ),
}


@pytest.mark.parametrize("args, pattern", PAIRS.values(), ids=PAIRS.keys())
def test_pairs_refuses(args, pattern):
    refused(lambda: a_fit(data=moe.Pairs(*args)), pattern)


def settings():
    """`(class, field, value, words)` of every setting that is refused."""
    counts = {
        (moe.MixtureOfExperts, 1): ["num_experts"],
        (moe.Softmax, 1): ["degree"],
        (moe.Normal, 1): ["degree"],
        (moe.TopK, 1): ["num_selected"],
        (pk.EM, 1): ["num_restarts"],
        (pk.EM, 0): ["max_steps", "num_draws"],
        (pk.SVI, 1): ["num_starts", "num_particles", "window", "patience", "num_draws"],
        (pk.SVI, 0): ["max_steps"],
        (pk.NUTS, 1): ["num_chains", "num_samples", "max_tree_depth"],
        (pk.NUTS, 0): ["num_warmup"],
    }
    for (cls, least), names in counts.items():
        for value in NO_COUNT:
            if not (least == 0 and type(value) is int and value == 0):
                yield from ((cls, k, value, WHOLE.format(least)) for k in names)
    yield from (
        (pk.SVI, "batch_size", v, WHOLE.format(1)) for v in NO_COUNT if v is not None
    )
    sizes = {
        moe.Softmax: ["scale", "df", "temperature"],
        moe.Constant: ["concentration"],
        moe.Normal: ["coefficient_scale", "coefficient_df", "noise_scale", "noise_df"],
        moe.StudentT: ["df"],
        moe.Poisson: ["scale", "df"],
        pk.EM: ["atol"],
        pk.SVI: ["learning_rate"],
        pk.NUTS: ["target_accept"],
    }
    for cls, names in sizes.items():
        yield from ((cls, k, v, POSITIVE) for k in names for v in NO_SIZE)
    for cls, name in ((pk.NUTS, "jitter"), (pk.SVI, "atol")):
        yield from ((cls, name, v, r"takes 0 or a positive number") for v in NO_SIZE[1:])
    yield pk.NUTS, "target_accept", 1.0, "between 0 and 1, 0.8 for most models"
    yield pk.NUTS, "dense_mass", "gate", r"takes True, False, or blocks of site names"
    yield pk.NUTS, "dense_mass", ["gate"], r"takes True, False, or blocks of site names"
    for value in ("many", None, 1):
        methods = "is not one of auto, parallel, sequential, vectorized"
        yield pk.NUTS, "chain_method", value, methods
        yield pk.EM, "maximise", value, '"posterior" or "likelihood"'
    for value in ("gauss", None, 3):
        yield (
            pk.SVI,
            "guide",
            value,
            "is not one of normal, .* or give a NumPyro guide class",
        )
    for value in (autoguide.AutoDelta, autoguide.AutoDelta(model)):
        yield pk.SVI, "guide", value, "AutoDelta.* finds a point.* use `pk.MAP"
    for value in ("adam", 0.1, numpyro.optim.Adam(0.1)):
        yield pk.SVI, "optimizer", value, "takes an optax optimiser, such as `optax.adam"


def test_settings_refuse():
    # Some hundred values, each of which takes no time: one test.
    refusals = list(settings())
    assert len(refusals) > 200
    for cls, name, value, words in refusals:
        given = {"num_experts": 2} if cls is moe.MixtureOfExperts else {}
        refused(
            lambda: cls(**{**given, name: value}),  # noqa: B023
            rf"`{cls.__name__}\({name}=.*{words}",
        )


def a_fit(**changes):
    call = {"model": model, "data": moe.Pairs(x, y), "method": pk.EM(), "key": key}
    return pk.fit(**{**call, **changes})


KEY = r"`fit\(key=...\)` got {}; it takes a JAX random key, `jax.random.key\(0\)`"
FIT = {
    "the class of a model": (
        {"model": moe.MixtureOfExperts},
        r"`fit\(model, ...\)` got the class `MixtureOfExperts`, without its `\(...\)`",
    ),
    "the name of a model": (
        {"model": "moe"},
        r"`fit\(model, ...\)` got a value of type `str`; it takes a probkit model",
    ),
    "a NumPyro function": (
        {"model": lambda data: None},
        r"type `function`; it takes a prob",
    ),
    "model and data swapped": ({"model": moe.Pairs(x, y), "data": model}, r"type `Pairs`"),
    "arrays for data": (
        {"data": (x, y)},
        r"`fit\(..., data\)` got a value of type `tuple`; it takes .* `moe.Pairs\(x, y\)`",
    ),
    "an array for data": ({"data": x}, r"`fit\(..., data\)` got .*`ndarray`"),
    "a frame for data": ({"data": frame(y=y)}, r"`fit\(..., data\)` got .*`DataFrame`"),
    "no data": ({"data": None}, r"`fit\(..., data\)` got .*`NoneType`"),
    "the class of a method": (
        {"method": pk.EM},
        r"`fit\(..., method\)` got the class `EM`, without its `\(...\)`; .* `pk.NUTS\(\)`",
    ),
    "the name of a method": (
        {"method": "EM"},
        r"`fit\(..., method\)` got a value of type `str`; it takes `pk.EM\(\)`",
    ),
    "a number for a key": ({"key": 0}, KEY.format("0")),
    "no key": ({"key": None}, KEY.format("None")),
    "an array for a key": ({"key": jnp.zeros(3)}, KEY.format("an array")),
    "two floats for a key": ({"key": jnp.zeros(2)}, KEY.format("an array")),
    "NumPy numbers for a key": ({"key": np.zeros(2, np.uint32)}, KEY.format("an array")),
    "many keys": ({"key": jax.random.split(key)}, r"`fit\(key=...\)` got 2 keys; .* one"),
    "more experts than observations": (
        {"model": moe.MixtureOfExperts(num_experts=n + 1)},
        r"`MixtureOfExperts\(num_experts=21\)` got 20 observations.* at least one per",
    ),
    "the same by NUTS": (
        {"model": moe.MixtureOfExperts(num_experts=n + 1), "method": pk.NUTS(1, 1, 1)},
        r"`MixtureOfExperts\(num_experts=21\)` got 20 observations",
    ),
    "the same by SVI": (
        {"model": moe.MixtureOfExperts(num_experts=n + 1), "method": pk.SVI(max_steps=1)},
        r"`MixtureOfExperts\(num_experts=21\)` got 20 observations",
    ),
    "a batch larger than the data": (
        {"method": pk.SVI(batch_size=n + 1)},
        r"`SVI\(batch_size=21\)` exceeds the 20 observations; leave `batch_size=None`",
    ),
    "a block of unknown sites": (
        {"method": pk.NUTS(1, 1, 1, dense_mass=(("slope",),))},
        r"`NUTS\(dense_mass=...\)`: the model has no site `slope`; it has gate, coef",
    ),
    "an unknown field": (
        {"method": pk.NUTS(1, 1, 1, extra_fields=("depth",))},
        r"`NUTS\(extra_fields=...\)`: HMCState has no `depth`; it has i, z,",
    ),
    "sites for a start": (
        {"start": {"gate": 0}},
        r"`fit\(start=...\)` got a value of type `dict`; it takes an earlier `Fit`",
    ),
    "a number for a folder": (
        {"checkpoint": 3},
        r"`fit\(checkpoint=...\)` got a value of type `int`; it takes the path of a folder",
    ),
}


@pytest.mark.parametrize("changes, pattern", FIT.values(), ids=FIT.keys())
def test_fit_refuses(changes, pattern):
    refused(lambda: a_fit(**changes), pattern)


@pytest.mark.parametrize(
    "changes",
    [{"model": moe.MixtureOfExperts(num_experts=3)}, {"data": moe.Pairs(X, y)}],
    ids=["another number of experts", "another number of inputs"],
)
def test_fit_refuses_a_start_of_other_shapes(em_fit, changes):
    pattern = r"`fit\(start=...\)` has `\w+` of shape \(2, 2\), but .* want \(\d, \d\)"
    refused(lambda: a_fit(start=em_fit, **changes), pattern)


PREDICT = {
    "too many columns": (X, r"has shape \(20, 2\); the fit has the inputs x, .* \(m, 1\)"),
    "a number": (1.0, r"`predict\(..., inputs\)` has shape \(\); .* takes shape \(m, 1\)"),
    "no rows": ([], r"`predict\(..., inputs\)` has no rows; give one or more"),
    "a NaN": ([1.0, np.nan], r"`predict\(..., inputs\)` has 1 value .*NaN.* at 1"),
    "text": (["a"], r"`predict\(..., inputs\)` holds text"),
    "nothing": (None, r"`predict\(..., inputs\)` got a NoneType; it takes real numbers"),
}


@pytest.mark.parametrize("inputs, pattern", PREDICT.values(), ids=PREDICT.keys())
def test_predict_refuses(em_fit, inputs, pattern):
    refused(lambda: pk.predict(em_fit, inputs, key=key), pattern)


def test_predict_refuses_what_is_no_key(em_fit):
    refused(
        lambda: pk.predict(em_fit, [1.0], key=0), r"`predict\(key=...\)` got 0; it takes"
    )


def test_predict_refuses_what_is_no_fit():
    refused(lambda: pk.predict(model, x, key=key), r"`predict\(fit, ...\)` got .*MixtureOf")


NAMED = moe.Pairs(frame(mass=X[:, 1]), y)
AB = {"speed": X[:, 0], "mass": X[:, 1]}
COLUMNS = {
    "in another order": pd.DataFrame(AB)[["mass", "speed"]],
    "by other names": pd.DataFrame(X, columns=["v", "m"]),
    "of other pairs": moe.Pairs(X, y, inputs=["mass", "speed"]),
    "of an xarray": xr.DataArray(X, dims=("i", "j"), coords={"j": ["mass", "speed"]}),
}


@pytest.mark.parametrize("given", COLUMNS.values(), ids=COLUMNS.keys())
def test_predict_refuses_columns_that_are_not_the_fits(given):
    pattern = r"`predict\(..., inputs\)` has the columns .* fit has speed, mass; give these"
    refused(lambda: model.inputs(given, NAMED), pattern)


@pytest.mark.parametrize("given", [X, X.tolist(), pd.DataFrame(AB), pd.DataFrame(X), NAMED])
def test_predict_takes_the_fits_columns_and_those_without_names(given):
    np.testing.assert_array_equal(model.inputs(given, NAMED).x, X)


def a_simulation(**changes):
    return moe.simulate(**{"key": key, "x": x, **TRUTH, **changes})


SIMULATE = {
    "a number for a key": ({"key": 0}, r"`simulate\(key=...\)` got 0; .* JAX random key"),
    "one row of the gate": (
        {"gate": [0, 1]},
        r"`simulate\(gate=...\)` has shape \(2,\); wi",
    ),
    "three experts": (
        {"coefficient": np.zeros((2, 3))},
        r"`simulate\(coefficient=...\)` .* \(2, 3\); with 2 experts .* takes \(2, 2\)",
    ),
    "one noise": ({"noise_sd": 0.5}, r"`simulate\(noise_sd=0.5\)`: .* positive .* \(K,\)"),
    "no noise": ({"noise_sd": []}, r"`simulate\(noise_sd=\[\]\)`: .* positive number"),
    "a table of noise": ({"noise_sd": [[1, 1]]}, r"`simulate\(noise_sd=.* shape \(K,\)"),
    "a negative noise": ({"noise_sd": [1, -1]}, r"`simulate\(noise_sd=.* positive number"),
    "a noise of zero": ({"noise_sd": [1, 0]}, r"`simulate\(noise_sd=.* positive number"),
    "a long array of it": (
        {"noise_sd": -np.ones(99)},
        r"`simulate\(noise_sd=array.*\.\.\.",
    ),
    "three axes": (
        {"x": np.ones((2, 2, 2))},
        r"`simulate\(x=...\)` has shape \(2, 2, 2\);",
    ),
    "a number": ({"x": 1.0}, r"`simulate\(x=...\)` has shape \(\); it takes \(n,\)"),
    "one observation": ({"x": [1.0]}, r"`simulate\(x=...\)` .* two observations or more"),
    "no observation": ({"x": []}, r"`simulate\(x=...\)` .* two observations or more"),
    "a constant x": ({"x": np.ones(9)}, r"column `x` is constant"),
    "a NaN": ({"x": with_one(np.nan)}, r"`simulate\(x=...\)` has 1 value .*NaN"),
    "text": ({"gate": "steep"}, r"`simulate\(gate=...\)` holds text"),
}


@pytest.mark.parametrize("changes, pattern", SIMULATE.values(), ids=SIMULATE.keys())
def test_simulate_refuses(changes, pattern):
    refused(lambda: a_simulation(**changes), pattern)


# Odd, but right.

read_only = X.copy()
read_only.flags.writeable = False
ODD = {
    "a list": X.tolist(),
    "a tuple of tuples": tuple(map(tuple, X)),
    "a data frame": pd.DataFrame(X, columns=["a", "b"]),
    "a frame of objects": pd.DataFrame(X, dtype=object),
    "an xarray": xr.DataArray(X, dims=("i", "j")),
    "a JAX array": jnp.asarray(X),
    "in Fortran order": np.asfortranarray(X),
    "every other row": np.repeat(X, 2, axis=0)[::2],
    "backwards and back": X[::-1][::-1],
    "read-only": read_only,
    "of the other byte order": X.astype(">f8"),
    "long double": X.astype(np.longdouble),
    "a matrix without a mask": np.ma.masked_array(X),
}


@pytest.mark.parametrize("given", ODD.values(), ids=ODD.keys())
def test_any_array_of_the_same_numbers_gives_the_same_data(given):
    data = moe.Pairs(given, y)
    assert data.x.dtype == np.float64
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.units.x_center, np.median(X, 0))


@pytest.mark.parametrize(
    "given",
    [
        [1, 0, 1],
        [True, False, True],
        np.array([1, 0, 1], np.uint8),
        pd.Series([1, 0, 1]),
        pd.Series([True, False, True], dtype="boolean"),
        pd.Series([1, 0, 1], dtype="Int64"),
    ],
    ids=["list", "booleans", "bytes", "series", "pandas booleans", "pandas integers"],
)
def test_whole_numbers_and_booleans_become_floats(given):
    data = moe.Pairs(given, given)
    assert data.x.dtype == data.y.dtype == np.float64
    np.testing.assert_array_equal(data.x[:, 0], [1, 0, 1])
    np.testing.assert_array_equal(data.y, [1, 0, 1])


@pytest.mark.parametrize(
    "given, names",
    [
        (x, ("x",)),
        (X, ("x0", "x1")),
        (pd.Series(x, name="age"), ("age",)),
        (pd.DataFrame(AB), ("speed", "mass")),
        (pd.DataFrame(X), ("x0", "x1")),
        (pd.DataFrame({"age": x}), ("age",)),
        (xr.DataArray(x, dims="i", name="age"), ("age",)),
        (COLUMNS["of an xarray"], ("mass", "speed")),
        (xr.DataArray(X, dims=("i", "j")), ("x0", "x1")),
    ],
)
def test_names_of_columns_become_names_of_terms(given, names):
    data = moe.Pairs(given, pd.Series(y, name="output"))
    assert data.inputs == names
    assert model.coords(data)["term"] == ("intercept", *names)


def test_names_that_are_given_win():
    assert moe.Pairs(pd.DataFrame(AB), y, inputs=["a", "b"]).inputs == ("a", "b")
    assert moe.Pairs(x, y, inputs="time").inputs == ("time",)


def test_simulated_data_keep_the_names_of_their_inputs():
    assert a_simulation(x=pd.Series(x, name="age")).inputs == ("age",)


def test_changing_an_array_afterwards_changes_no_data():
    mine, values = X.copy(), y.copy()
    data = moe.Pairs(mine, values)
    mine[:], values[:] = 7.0, 7.0
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, y)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_raised_to_float32(dtype):
    data = moe.Pairs(jnp.asarray(X, dtype), y)
    assert {a.dtype for a in jax.tree.leaves(data)} == {np.dtype("float32")}


def test_units_given_by_hand_take_the_dtype_of_the_data():
    data = moe.Pairs(X.astype("f4"), y, units=moe.Pairs(X, y).units)
    assert {a.dtype for a in jax.tree.leaves(data)} == {np.dtype("float32")}


def test_numbers_of_numpy_and_jax_are_settings_like_others():
    odd = moe.Normal(np.float64(2.5), jnp.asarray(1.5), 2, np.array(0.5))
    usual = moe.Normal(2.5, 1.5, 2.0, 0.5)
    assert odd == usual and hash(odd) == hash(usual)
    assert pk.EM(np.int32(16), atol=np.float32(2.0) ** -20) == pk.EM(16, atol=2.0**-20)
    assert pk.SVI(batch_size=np.int64(5), learning_rate=1) == pk.SVI(
        batch_size=5, learning_rate=1.0
    )
    odd = pk.NUTS(np.int64(2), target_accept=np.float32(0.5), dense_mass=[["gate"]])
    assert odd == pk.NUTS(2, target_accept=0.5, dense_mass=(("gate",),))
    assert pk.NUTS(extra_fields="energy") == pk.NUTS(extra_fields=["energy"])


def test_a_setting_that_may_be_none_is_otherwise_converted_as_ever():
    convert = optional(positive("Model(scale"))
    assert convert(None) is None
    assert convert(np.float32(2.0)) == 2.0
    refused(lambda: convert(-1), r"`Model\(scale=-1\)`: it takes a positive number")


RAISED = pairs(
    "Model(rows", "a mode", "a dict from modes to numbers", lambda name, value: value + 1
)


@pytest.mark.parametrize("given", [{"x": 1, 2: 3}, [("x", 1), [2, 3]], (("x", 1), (2, 3))])
def test_a_dict_and_a_list_of_pairs_are_the_same_setting(given):
    assert RAISED(given) == (("x", 2), ("2", 4))


def test_a_setting_of_pairs_can_be_converted_again():
    kept = pairs("Model(rows", "a mode", "a dict", lambda name, value: value)
    assert kept(kept({"x": 1})) == (("x", 1),)


@pytest.mark.parametrize(
    "given, pattern",
    [
        ([1, 2], r"`Model\(rows=\[1, 2\]\)`: it takes a dict from modes to numbers\."),
        ("ab", r"`Model\(rows='ab'\)`: it takes a dict"),
        (None, r"`Model\(rows=None\)`: it takes a dict"),
        ([("x", 1, 2)], r"it takes a dict"),
        ([("x", 1), ("x", 2)], r"names a mode twice"),
        ({1: 1, "1": 2}, r"names a mode twice"),
    ],
)
def test_what_are_no_pairs_is_refused(given, pattern):
    refused(lambda: RAISED(given), pattern)


def test_an_old_key_is_a_key(em_fit):
    with_old = pk.predict(em_fit, [0.5], key=jax.random.PRNGKey(3))
    assert with_old.equals(pk.predict(em_fit, [0.5], key=jax.random.key(3)))


# Whole fits of odd data. EM of one shape, so that one program is compiled for all.

EM = pk.EM(num_restarts=4)


@pytest.fixture(scope="module")
def usual(regimes):
    return pk.fit(model, regimes, EM, key=key)


def test_other_units_give_the_same_fit_in_those_units(regimes, usual):
    grand = moe.Pairs(1e6 * np.asarray(regimes.x), 1e-6 * np.asarray(regimes.y))
    fitted = pk.fit(model, grand, EM, key=key)
    per_term = xr.DataArray([1.0, 1e6], dims="term", coords={"term": ["intercept", "x"]})
    back = {
        "gate": fitted.posterior["gate"] * per_term,
        "coefficient": fitted.posterior["coefficient"] * per_term * 1e6,
        "noise_sd": fitted.posterior["noise_sd"] * 1e6,
    }
    for name, again in back.items():
        np.testing.assert_allclose(again, usual.posterior[name], rtol=1e-6, atol=1e-6)


def test_a_fit_of_lists_is_the_fit_of_arrays(regimes, usual):
    data = moe.Pairs(np.asarray(regimes.x).tolist(), list(map(float, regimes.y)))
    assert (
        pk.fit(model, data, EM, key=key).tree["posterior"].equals(usual.tree["posterior"])
    )


def test_float32_stays_float32_through_em_and_agrees_with_float64(regimes, usual):
    data = moe.Pairs(*(np.asarray(a, np.float32) for a in (regimes.x, regimes.y)))
    fitted = pk.fit(model, data, EM, key=key)
    for name, array in fitted.posterior.data_vars.items():
        assert array.dtype == np.float32, name
        np.testing.assert_allclose(array, usual.posterior[name], atol=1e-2)
    assert fitted.tree["trace"]["objective"].dtype == np.float32
    grid = np.linspace(-2, 2, 5)
    low, high = (pk.predict(f, grid, key=key) for f in (fitted, usual))
    assert low["mean"].dtype == low["membership"].dtype == np.float32
    np.testing.assert_allclose(low["mean"], high["mean"], atol=1e-2)


SINGLE = """
import sys, jax, numpy as np, probkit as pk
from probkit.models import moe
pk.use_compilation_cache({cache!r})
with np.load({data!r}) as file:
    data = moe.Pairs(file["x"], file["y"])
assert data.x.dtype == np.float32
fitted = pk.fit(moe.MixtureOfExperts(2), data, pk.EM(num_restarts=4), key=jax.random.key(0))
assert not jax.config.jax_enable_x64
assert {{v.dtype for v in fitted.posterior.data_vars.values()}} == {{np.dtype("float32")}}
pk.save(fitted, {out!r})
"""


def test_without_float64_the_same_call_fits_in_float32(regimes, usual, tmp_path):
    data, out = str(tmp_path / "data.npz"), str(tmp_path / "fit.nc")
    np.savez(data, x=regimes.x, y=regimes.y)
    program = SINGLE.format(cache=str(ROOT / ".jax-cache"), data=data, out=out)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    fitted = pk.load(out)
    for name, array in fitted.posterior.data_vars.items():
        np.testing.assert_allclose(array, usual.posterior[name], atol=1e-2)
