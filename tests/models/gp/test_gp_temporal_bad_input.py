"""Temporal regression with wrong input: one clear line."""

import datetime

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import probkit as pk
from doors import POSITIVE, WHOLE, refused
from probkit.models import gp

pytestmark = pytest.mark.usefixtures("no_checker")

KEY = jax.random.key(0)
t = np.linspace(0, 3, 12)
y = np.sin(t)
days = pd.date_range("2020-01-01", periods=12)


def with_one(array, value):
    changed = np.array(array)
    changed[3] = value
    return changed


DATA = {
    "other lengths": (t, y[:-1], r"`t` of shape \(12,\) and `y` of shape \(11,\)"),
    "a matrix of y": (t, np.stack([y, y]), r"`y` of shape \(2, 12\)"),
    "a matrix of t": (np.stack([t, t]), y, r"`t` of shape \(2, 12\)"),
    "NaN in t": (with_one(t, np.nan), y, r"`Series\(t=...\)` has 1 value missing.* at 3"),
    "no date": (with_one(days, "NaT"), y, r"`Series\(t=...\)` has 1 missing"),
    "infinite y": (t, with_one(y, np.inf), r"`Series\(y=...\)` has 1 value"),
    "one point": ([1.0], [2.0], r"has 1 values that are not NaN.*two or more"),
    "no point": ([], [], r"has 0 values that are not NaN"),
    "all missing": (t, y * np.nan, r"has 0 values that are not NaN"),
    "a constant y": (t, np.ones(12), r"`Series\(y=...\)` is constant"),
    "one time": (np.ones(12), y, r"`Series\(t=...\)` is constant and has one time only"),
    "text": (["a"] * 12, y, r"`Series\(t=...\)` holds text"),
    "text for y": (t, ["a"] * 12, r"`Series\(y=...\)` holds text"),
    "spans of time": (np.array(days) - days[0].to_numpy(), y, r"holds time spans"),
    "time zones": (days.tz_localize("Europe/Berlin"), y, r"has a time zone; give .* UTC"),
    "a time zone": (
        [datetime.datetime(2020, 1, i + 1, tzinfo=datetime.UTC) for i in range(12)],
        y,
        r"has a time zone",
    ),
    "complex": (t, y + 1j, r"holds complex numbers"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_refuse(case):
    a, b, pattern = DATA[case]
    refused(lambda: gp.Series(a, b), pattern)


def test_float32_that_would_move_times_is_refused():
    seconds = 1.7e9 + np.arange(12.0)
    with jax.enable_x64(False):
        refused(lambda: gp.Series(seconds, y), r"float32 moves times by up to .*enable_x64")


COUNTS = gp.Series(t, np.arange(12.0))
MODEL = gp.Temporal(gp.Matern())
SETTINGS = {
    "exposure of one time": (
        lambda: gp.Series(t, y, exposure=[1.0]),
        r"exposure=...\)` has shape \(1,\); .* of shape \(12,\)",
    ),
    "no exposure at a time": (
        lambda: gp.Series(t, y, exposure=with_one(t + 1, 0.0)),
        r"one positive number per time",
    ),
    "units of other data": (
        lambda: gp.Series(t, y, units=3.0),
        r"units of another series",
    ),
    "a known noise": (lambda: gp.Series(t, y, -1.0), rf"noise_sd=-1.0.*{POSITIVE}"),
    "an origin": (lambda: gp.Series(t, y, origin="soon"), r"origin='soon'.*takes a date"),
    "no kernel": (lambda: gp.Temporal("rbf"), r"`Temporal\(kernel='rbf'\)`"),
    "observations": (
        lambda: gp.Temporal(gp.Matern(), "poisson"),
        r"observations='poisson'.*`gp.Poisson\(\)`",
    ),
    "a function": (
        lambda: gp.Temporal(gp.Matern(), function="exact"),
        r"function='exact'.*'integrated' or 'sampled'",
    ),
    "waves": (
        lambda: gp.Temporal(gp.Matern(), num_waves=0),
        rf"num_waves=0.*{WHOLE.format(1)}",
    ),
    "degrees of freedom": (lambda: gp.StudentT(0.0), rf"df=0.0.*{POSITIVE}"),
    "a smooth kernel": (
        lambda: gp.Temporal(gp.SquaredExponential() + gp.Matern()),
        r"`SquaredExponential\(\)`, which is no Markov process; use `gp.Matern\(2.5\)`",
    ),
    "Gaussian bumps": (
        lambda: gp.Temporal(gp.SpectralMixture()),
        r"`SpectralMixture\(\)`.*envelope=\"student_t\"",
    ),
    "a line": (
        lambda: gp.Temporal(gp.Linear() + gp.Matern()),
        r"`Linear\(\)`.*`gp.Matern\(\)` of its own for the trend",
    ),
    "a drift": (lambda: gp.Temporal(gp.Drift()), r"`Drift\(\)`"),
    "a grid": (lambda: gp.Temporal(gp.SpectralGrid()), r"`SpectralGrid\(\)`"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_refuse(case):
    refused(*SETTINGS[case])


def of(model, data):
    return lambda: pk.fit(model, data, pk.MAP(), key=KEY)


FITS = {
    "other data": (
        of(MODEL, gp.Observed(t, y)),
        r"`Temporal` takes `gp.Series`, not `Observed`",
    ),
    "a series in a regression": (
        of(gp.Regression(gp.Matern()), COUNTS),
        r"takes `gp.Observed` or `gp.Grid`, not `Series`",
    ),
    "fractions as counts": (
        of(gp.Temporal(gp.Matern(), gp.Poisson()), gp.Series(t, y**2)),
        r"`gp.Poisson\(\)` takes counts, whole numbers from zero",
    ),
    "counts as yes and no": (
        of(gp.Temporal(gp.Matern(), gp.Bernoulli()), COUNTS),
        r"`gp.Bernoulli\(\)` takes zeros and ones",
    ),
    "exposure without counts": (
        of(MODEL, gp.Series(t, y, exposure=t + 1)),
        r"exposure=...\)` is for counts, `gp.Poisson\(\)`, not `gp.Normal\(\)`",
    ),
    "noise of counts": (
        of(gp.Temporal(gp.Matern(), gp.Poisson()), gp.Series(t, np.arange(12.0), 1.0)),
        r"noise_sd=...\)`: `gp.Poisson\(\)` has no noise",
    ),
    "batches": (
        lambda: pk.fit(MODEL, COUNTS, pk.SVI(batch_size=4), key=KEY),
        r"values of a `Series` depend on each other",
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_fits_refuse(case):
    refused(*FITS[case])


DATED = gp.Series(days, y)
INPUTS = {
    "numbers for dates": (DATED, [1.0], r"has numbers as times; the fit has dates"),
    "dates for numbers": (COUNTS, days, r"has dates as times; the fit has numbers"),
    "a matrix": (COUNTS, [[1.0]], r"times of shape \(1, 1\); it takes \(m,\)"),
    "nothing": (COUNTS, [], r"times of shape \(0,\)"),
    "another name": (COUNTS, {"x": [1.0]}, r"has x; it takes `t`, and `exposure`"),
    "exposure": (
        COUNTS,
        {"t": [1.0, 2.0], "exposure": [1.0]},
        r"\[exposure\]` has shape \(1,\)",
    ),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_refuse(case):
    data, given, pattern = INPUTS[case]
    refused(lambda: MODEL.inputs(given, data), pattern)


GOOD = {
    "lists": lambda: gp.Series([1, 2, 3], [1, None, 2]),
    "a pandas series": lambda: gp.Series(days, pd.Series(y)),
    "days": lambda: gp.Series([d.date() for d in days], y),
    "a masked array": lambda: gp.Series(t, np.ma.masked_less(y, 0.5)),
    "whole numbers": lambda: gp.Series(np.arange(12), np.arange(12) % 3),
    "far dates": lambda: gp.Series(
        np.array(["0900-01-01", "2900-01-01"], "M8[D]"), [0.0, 1.0]
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_odd_but_right_input_works(case):
    data = GOOD[case]()
    assert bool(jnp.isfinite(data.t).all()) and len(data.labels()) == len(data)


def test_what_is_masked_is_missing():
    assert int(GOOD["a masked array"]().seen.sum()) == int((y >= 0.5).sum())
