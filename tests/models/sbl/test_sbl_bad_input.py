"""What users give to sparse Bayesian learning: errors are clear, odd input works."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import probkit as pk
from doors import NO_COUNT, NO_SIZE, POSITIVE, WHOLE, refused
from probkit.models import moe, sbl

pytestmark = pytest.mark.usefixtures("no_checker")


rng = np.random.default_rng(0)
A, B = rng.normal(size=(6, 8)), rng.normal(size=(5, 4))
Y = rng.normal(size=(6, 5))
KEY = jax.random.key(0)


def with_one(value, array):
    array = np.array(array, np.result_type(array, type(value)))
    array[2, 1] = value
    return array


def without_column(matrix, j):
    matrix = matrix.copy()
    matrix[:, j] = 0.0
    return matrix


# What was given, and words that the message must have, in their order.

ROWS = r"have 6 \(`mode0`\), 5 \(`mode1`\) rows: .* shape \(6, 5\), or a vector of 30"
MATRIX = r"it takes a matrix, or a list of one matrix per mode"
RANGE = r"squares of some are beyond the range of {}; use other units"
NAMES = r"there are 2 dictionaries; give each a name of its own"
MEASUREMENTS = {
    "a transposed y": (
        (Y.T, [A, B]),
        r"`Measurements\(y=...\)` has shape \(5, 6\).*" + ROWS,
    ),
    "one value short": ((Y.ravel()[:-1], [A, B]), r"has shape \(29,\).*" + ROWS),
    "a column for y": ((Y.ravel()[:, None], [A, B]), r"has shape \(30, 1\).*" + ROWS),
    "one axis more": ((Y[None], [A, B]), r"has shape \(1, 6, 5\).*" + ROWS),
    "a number": ((1.0, [A, B]), r"has shape \(\).*" + ROWS),
    "nothing measured": (([], [A, B]), r"has shape \(0,\).*" + ROWS),
    "dictionaries swapped": ((Y, [B, A]), r"5 \(`mode0`\), 6 \(`mode1`\) rows.* \(5, 6\)"),
    "one dictionary of two": ((Y, A), r"has shape \(6, 5\).* have 6 \(`atom`\) rows"),
    "y and dictionaries swapped": (([A, B], Y), r"`Measurements\(y=...\)` is ragged"),
    "no dictionary": ((Y, []), r"`Measurements\(dictionaries=\[\]\)`: it takes one matrix"),
    "None": ((Y, None), r"`Measurements\(dictionaries=...\)` got a NoneType; " + MATRIX),
    "a dict": ((Y, {"a": A, "b": B}), r"got a dict; " + MATRIX),
    "a generator": ((Y, (a for a in (A, B))), r"got a generator; " + MATRIX),
    "a stack": ((Y, np.ones((2, 6, 8))), r"got a ndarray; " + MATRIX),
    "one that is missing": ((Y, [A, None]), r"dictionaries=...\)\[1\]` got a NoneType"),
    "one of three axes": ((Y, [A[None], B]), r"\[0\]` has shape \(1, 6, 8\); .* a matrix"),
    "rows for matrices": ((Y[:, 0], A.tolist()), r"\[0\]` has shape \(8,\); .* a matrix"),
    "a word": ((Y, "ab"), r"got a str; " + MATRIX),
    "text in it": ((Y, [A, [["a"]]]), r"dictionaries=...\)\[1\]` holds text"),
    "no column": ((Y, [A[:, :0], B]), r"\[0\]` has shape \(6, 0\); it takes a matrix"),
    "no row": ((Y, [A[:0], B]), r"\[0\]` has shape \(0, 8\); it takes a matrix"),
    "a column of zeros": (
        (Y, [without_column(A, 3), B]),
        r"column 3 of mode `mode0` is zero \(1 of 8 are\): .*; drop it",
    ),
    "a ragged dictionary": ((Y, [A, [[1, 2], [3]]]), r"\[1\]` is ragged"),
    "a NaN": (
        (with_one(np.nan, Y), [A, B]),
        r"y=.* 1 value .*NaN.* first at \(2, 1\); .* such as `seen=~np.isnan\(y\)`",
    ),
    "an infinity": ((Y, [with_one(np.inf, A), B]), r"\[0\]` has 1 value .*infinite"),
    "an imaginary NaN": ((with_one(complex(0, np.nan), Y), [A + 0j, B]), r"has 1 value"),
    "None for y": ((None, [A, B]), r"`Measurements\(y=...\)` got a NoneType"),
    "text for y": (([["a"] * 5] * 6, [A, B]), r"`Measurements\(y=...\)` holds text"),
    "dates": ((pd.date_range("2020", periods=30), [A, B]), r"holds dates"),
    "a y of zeros": ((0 * Y, [A, B]), r"`Measurements\(y=...\)` is zero everywhere"),
    "a complex y": (
        (Y + 1j, [A, B]),
        r"is complex, but every dictionary is real: .*astype",
    ),
    "a complex dictionary": ((Y, [A + 1j, B]), r"is real, but a dictionary is complex: "),
    "a y too large": ((1e200 * Y, [A, B]), RANGE.format("float64")),
    "a y too small": ((1e-200 * Y, [A, B]), RANGE.format("float64")),
    "a dictionary too large": ((Y, [1e200 * A, B]), RANGE.format("float64")),
    "dictionaries that multiply": ((Y, [1e80 * A, 1e80 * B]), RANGE.format("float64")),
    "a noise too small": ((Y, [A, B], 1e-200), RANGE.format("float64")),
    "too large for float32": (
        tuple([np.float32(1e30) * Y.astype("f4"), [A.astype("f4"), B.astype("f4")]]),
        RANGE.format("float32"),
    ),
    "too few modes": ((Y, [A, B], None, ["a"]), r"modes=\['a'\]\)`: " + NAMES),
    "one word for two": ((Y, [A, B], None, "ab"), r"modes='ab'\)`: " + NAMES),
    "a mode twice": ((Y, [A, B], None, ["a", "a"]), NAMES),
    "a number of modes": ((Y, [A, B], None, 2), r"modes=2\)`: " + NAMES),
    "a mode with a space": ((Y, [A, B], None, ["a b", "c"]), r"'a b'; .* as of variables"),
    "an empty name": ((Y, [A, B], None, ["", "c"]), r"has ''; .* as of variables"),
    "the name of an axis": (
        (Y, [A, B], None, ["a", "draw"]),
        r"'draw', which names another",
    ),
    "of measured axes": ((Y, [A, B], None, ["a", "a_measured"]), r"'a_measured', which"),
}


@pytest.mark.parametrize("args, pattern", MEASUREMENTS.values(), ids=MEASUREMENTS.keys())
def test_measurements_refuse(args, pattern):
    refused(lambda: sbl.Measurements(*args), pattern)


@pytest.mark.parametrize("name", ["noise_sd", "power"])
@pytest.mark.parametrize("value", [*NO_SIZE, 1j, np.ones(5), ""], ids=repr)
def test_noise_and_power_are_positive_numbers_or_none(name, value):
    if value is not None:
        pattern = rf"`Measurements\({name}=.*{POSITIVE}, or None"
        refused(lambda: sbl.Measurements(Y, [A, B], **{name: value}), pattern)


SOME = np.ones(Y.shape, bool)
SOME[2, 1] = False
WHERE = r"it takes truth values, True where something was measured"
SEEN = {
    "numbers": (
        SOME.astype(float),
        Y,
        r"`Measurements\(seen=...\)` holds float64; " + WHERE,
    ),
    "a word": ("all", Y, r"holds <U3; " + WHERE),
    "NaN": (with_one(np.nan, Y), Y, r"holds float64; " + WHERE),
    "ragged": ([[True], [True, False]], Y, r"`Measurements\(seen=...\)` is ragged"),
    "another shape": (SOME.T, Y, r"y=.* shape \(6, 5\), but `seen` has \(5, 6\); give one"),
    "one truth value": (True, Y, r"shape \(6, 5\), but `seen` has \(\); give one truth"),
    "nothing seen": (~SOME & SOME, Y, r"seen=...\)` is False everywhere: nothing was"),
    "a seen NaN": (
        SOME,
        with_one(np.nan, Y.T).T,
        r"y=.* 1 value .*NaN.* first at \(1, 2\)",
    ),
    "zeros where seen": (~SOME, 0 * Y, r"`Measurements\(y=...\)` is zero everywhere"),
}


@pytest.mark.parametrize("seen, y, pattern", SEEN.values(), ids=SEEN.keys())
def test_seen_refuses(seen, y, pattern):
    refused(lambda: sbl.Measurements(y, [A, B], seen=seen), pattern)


def test_an_atom_that_no_seen_row_measures_is_refused():
    rows = np.ones((6, 5), bool)
    rows[3] = False
    pattern = r"column 3 of mode `atom` is zero .* nothing measures that atom"
    each = np.eye(6)
    refused(lambda: sbl.Measurements(Y[:, 0], each, seen=rows[:, 0]), pattern)
    pattern = pattern.replace("atom` is", "mode0` is")
    refused(lambda: sbl.Measurements(Y, [each, B], seen=rows), pattern)


def test_too_many_seen_entries_are_refused():
    seen = np.ones((60, 60), bool)
    seen[0, 0] = False
    pattern = r"seen=...\)` is True for 3,599 of 3,600 entries; .* at most 3,000"
    refused(
        lambda: sbl.Measurements(np.ones((60, 60)), [np.eye(60)] * 2, seen=seen), pattern
    )


SNAPSHOTS = {
    "one snapshot": ((Y[:, 0], A), r"snapshots\(y=...\)` has shape \(6,\); .* \(M, L\)"),
    "in rows": (
        (Y.T, A),
        r"has shape \(5, 6\), but .* 6 \(`atom`\), 6 \(`snapshot`\) rows",
    ),
    "two dictionaries": ((Y, [A, A]), r"\[0\]` has shape \(2, 6, 8\); it takes a matrix"),
}


@pytest.mark.parametrize("args, pattern", SNAPSHOTS.values(), ids=SNAPSHOTS.keys())
def test_snapshots_refuse(args, pattern):
    refused(lambda: sbl.Measurements.snapshots(*args), pattern)


WEIGHT = r"takes the weight of both neighbours, in \[0, 1\], or a matrix"
PAIRS = r"it takes a dict from modes to weights or matrices"
MODEL = {
    "a number for frozen": (
        {"frozen": 1},
        r"`KroneckerSBL\(frozen=1\)`: .* names of modes",
    ),
    "None for frozen": (
        {"frozen": None},
        r"`KroneckerSBL\(frozen=None\)`: .* names of mod",
    ),
    "no mode to couple": ({"coupling": 0.5}, r"`KroneckerSBL\(coupling=0.5\)`: " + PAIRS),
    "None for coupling": ({"coupling": None}, r"coupling=None\)`: " + PAIRS),
    "a mode alone": ({"coupling": "mode0"}, r"coupling='mode0'\)`: " + PAIRS),
    "modes alone": ({"coupling": ["mode0"]}, r"coupling=\['mode0'\]\)`: " + PAIRS),
    "a mode twice": (
        {"coupling": [("a", 0.5), ("a", 1)]},
        r"coupling=.* names a mode twice",
    ),
    "too large a weight": ({"coupling": {"a": 1.5}}, r"\{'a': ...\}\)` " + WEIGHT),
    "a negative weight": ({"coupling": {"a": -0.1}}, WEIGHT),
    "a weight of None": ({"coupling": {"a": None}}, r"\{'a': ...\}\)` got a NoneType"),
    "a weight of text": ({"coupling": {"a": "much"}}, r"\{'a': ...\}\)` holds text"),
    "a weight of NaN": ({"coupling": {"a": np.nan}}, r"\{'a': ...\}\)` has 1 value"),
    "a complex weight": ({"coupling": {"a": 1j}}, r"holds complex numbers"),
    "a list of weights": ({"coupling": {"a": np.ones(8)}}, WEIGHT),
    "three axes": ({"coupling": {"a": np.ones((2, 2, 2))}}, WEIGHT),
    "a negative entry": ({"coupling": {"a": with_one(-0.1, np.eye(8))}}, WEIGHT),
    "a row of zeros": ({"coupling": {"a": np.eye(8)[:, :7]}}, r"no row or column of zeros"),
    "a group of nobody": ({"coupling": {"a": np.eye(8)[:7]}}, r"no row or column of zeros"),
    "an empty matrix": ({"coupling": {"a": np.ones((0, 0))}}, WEIGHT),
}


@pytest.mark.parametrize("settings, pattern", MODEL.values(), ids=MODEL.keys())
def test_the_model_refuses(settings, pattern):
    refused(lambda: sbl.KroneckerSBL(**settings), pattern)


@pytest.fixture(scope="module")
def data():
    return sbl.Measurements(Y, [A, B])


AGAINST = {
    "an unknown frozen mode": ({"frozen": "row"}, r"frozen=.* mode `row`; .* mode0, mode1"),
    "an unknown coupled mode": ({"coupling": {"row": 0.5}}, r"coupling=.* names .* `row`"),
    "a row short": (
        {"coupling": {"mode0": sbl.neighbours(7, 0.5)}},
        r"\{'mode0': ...\}\)` has 7 rows, but the mode has 8 atoms; give one row per atom",
    ),
}


@pytest.mark.parametrize("settings, pattern", AGAINST.values(), ids=AGAINST.keys())
def test_the_model_refuses_what_the_data_do_not_have(data, settings, pattern):
    model = sbl.KroneckerSBL(**settings)
    refused(lambda: pk.fit(model, data, sbl.TypeII(), key=KEY), pattern)


COUPLINGS = {
    "half an atom": (
        lambda: sbl.neighbours(2.5, 0.5),
        r"`neighbours\(size=2.5\)`: .* whole",
    ),
    "a word": (lambda: sbl.neighbours(3, "a"), r"`neighbours\(weight='a'\)`: .* positive"),
    "below zero": (
        lambda: sbl.neighbours(3, -1),
        r"`neighbours\(weight=-1\)`: .* positive",
    ),
    "no labels": (
        lambda: sbl.blocks([]),
        r"`blocks\(labels=\[\]\)`: .* one label per atom",
    ),
    "None": (lambda: sbl.blocks(None), r"`blocks\(labels=None\)`: .* one label per atom"),
    "one word": (lambda: sbl.blocks("aab"), r"`blocks\(labels='aab'\)`: .* one label"),
    "a table": (lambda: sbl.blocks([[0, 1]]), r"`blocks\(labels=\[\[0, 1\]\]\)`: .* one "),
    "a gap": (lambda: sbl.blocks([0, "a", None]), r"all numbers or all text"),
    "places alike": (
        lambda: sbl.smooth([1, 1], 2),
        r"`smooth\(places=...\)` .* not all eq",
    ),
    "a place": (lambda: sbl.smooth(3.0, 2), r"places=...\)` has shape \(\); .* one number"),
    "text": (lambda: sbl.smooth(["a", "b"], 2), r"`smooth\(places=...\)` holds text"),
    "one knot": (lambda: sbl.smooth([1, 2], 1), r"`smooth\(num_knots=1\)`: .* whole"),
    "too many knots": (
        lambda: sbl.smooth([0, 1, 2, 9], 8),
        r"`smooth\(num_knots=8\)`: a knot has no atom within one step of it; use fewer",
    ),
}


@pytest.mark.parametrize("call, pattern", COUPLINGS.values(), ids=COUPLINGS.keys())
def test_couplings_refuse(call, pattern):
    refused(call, pattern)


def settings():
    """`(class, field, value, words)` of every setting that is refused."""
    counts = {
        (sbl.TypeII, 1): ["num_restarts", "inner_sweeps", "num_draws"],
        (sbl.TypeII, 0): ["max_steps", "search"],
        (sbl.Sequential, 1): ["refresh", "num_draws"],
        (sbl.Sequential, 0): ["max_steps"],
    }
    for (cls, least), names in counts.items():
        for value in NO_COUNT:
            if not (least == 0 and type(value) is int and value == 0):
                yield from ((cls, k, value, WHOLE.format(least)) for k in names)
    sizes = {
        sbl.KroneckerSBL: ["global_scale", "noise_scale"],
        sbl.TypeII: ["spread", "atol"],
        sbl.Sequential: ["atol"],
    }
    for cls, names in sizes.items():
        yield from ((cls, k, v, POSITIVE) for k in names for v in NO_SIZE)
    for value in ("newton", None, 3, ["mm"]):
        yield sbl.TypeII, "update", value, "'mm', 'mackay', 'em', 'svd', 'kl'"


def test_settings_refuse():
    refusals = list(settings())
    assert len(refusals) > 80
    for cls, name, value, words in refusals:
        refused(
            lambda: cls(**{name: value}),  # noqa: B023
            rf"`{cls.__name__}\({name}=.*{words}",
        )


@pytest.mark.parametrize("cls", [sbl.TypeII, sbl.Sequential])
@pytest.mark.parametrize("value", ["aic", -1, float("nan"), 1j, np.ones(2)], ids=repr)
def test_prune_refuses(cls, value):
    refused(
        lambda: cls(prune=value), r'prune=.*`: it takes "ebic", "bic", nats .*, or None'
    )


# Together, but not with each other.

EXPERTS = moe.MixtureOfExperts(num_experts=2)
ROAD = moe.Pairs(np.arange(9.0), np.sin(np.arange(9.0)))
PLAIN = sbl.KroneckerSBL()
GENERAL = r"has no rule for frozen or coupled modes; use `update=\"mm\"`"
ONE_MODE = r"`sbl.Sequential` fits a .* with one dictionary; .* use `sbl.TypeII`"
FITS = {
    "svd with a frozen mode": (
        (sbl.KroneckerSBL(frozen="mode0"), None, sbl.TypeII("svd")),
        r"`TypeII\(update=\"svd\"\)` " + GENERAL,
    ),
    "kl with a coupled mode": (
        (sbl.KroneckerSBL(coupling={"mode0": 0.5}), None, sbl.TypeII("kl")),
        r"`TypeII\(update=\"kl\"\)` " + GENERAL,
    ),
    "sequential with two modes": ((PLAIN, None, sbl.Sequential()), ONE_MODE),
    "sequential with a coupled mode": (
        (
            sbl.KroneckerSBL(coupling={"atom": 0.5}),
            sbl.Measurements(Y[:, 0], A),
            sbl.Sequential(),
        ),
        ONE_MODE,
    ),
    "minibatches": (
        (PLAIN, None, pk.SVI(batch_size=4)),
        r"`Measurements` are one observation.* `SVI\(batch_size=None\)`",
    ),
    "another family": (
        (EXPERTS, ROAD, sbl.TypeII()),
        r"`sbl.TypeII` fits .* not `MixtureOfExperts` to `Pairs`",
    ),
    "data of another family": (
        (PLAIN, ROAD, sbl.TypeII()),
        r"`sbl.TypeII` fits .* not `KroneckerSBL` to `Pairs`",
    ),
    "the same by EM": (
        (PLAIN, ROAD, pk.EM()),
        r"`KroneckerSBL` takes `sbl.Measurements`, not `Pairs`",
    ),
    "the same by NUTS": (
        (PLAIN, ROAD, pk.NUTS()),
        r"`KroneckerSBL` takes `sbl.Measurements`, not `Pairs`",
    ),
    "arrays for data": (
        (PLAIN, (Y, [A, B]), sbl.TypeII()),
        r"`fit\(..., data\)` got .* `tuple`; it takes the data of a family",
    ),
    "the class of the method": (
        (PLAIN, None, sbl.TypeII),
        r"`fit\(..., method\)` got the class `TypeII`, without its `\(...\)`",
    ),
}


@pytest.mark.parametrize("args, pattern", FITS.values(), ids=FITS.keys())
def test_fit_refuses(data, args, pattern):
    model, given, method = args
    given = data if given is None else given
    refused(lambda: pk.fit(model, given, method, key=KEY), pattern)


LIST = r"it takes a list of one matrix of new rows per mode \(mode0, mode1\), None for"
INPUTS = {
    "nothing": (None, r"`predict\(..., inputs\)` got None; " + LIST),
    "one matrix of two": (A, LIST),
    "one too many": ([A, B, B], LIST),
    "a dict": ({"mode0": A, "mode1": B}, LIST),
    "other columns": ([A[:, :3], B], r"shape \(6, 3\) for `mode0`; .* 8 atoms.* \(k, 8\)"),
    "one row": ([A[0], B], r"rows of shape \(8,\) for `mode0`; .* it takes \(k, 8\)"),
    "no row": ([A[:0], B], r"rows of shape \(0, 8\) for `mode0`; .* it takes \(k, 8\)"),
    "a NaN": ([with_one(np.nan, A), None], r"inputs\)\[mode0\]` has 1 value .*NaN"),
    "text": ([[["a"]], None], r"inputs\)\[mode0\]` holds text"),
    "complex rows": ([A + 1j, None], r"inputs\)\[mode0\]` holds complex numbers"),
    "measurements of other atoms": (
        sbl.Measurements(Y, [A[:, :3], B]),
        r"shape \(6, 3\) for `mode0`; .* 8 atoms",
    ),
}


@pytest.mark.parametrize("given, pattern", INPUTS.values(), ids=INPUTS.keys())
def test_predict_refuses(data, given, pattern):
    refused(lambda: PLAIN.inputs(given, data), pattern)


# Odd, but right.

ODD = {
    "lists": (Y.tolist(), [A.tolist(), B.tolist()]),
    "a vector": (Y.ravel(), [A, B]),
    "a tuple": (Y, (A, B)),
    "data frames": (pd.DataFrame(Y), [pd.DataFrame(A), pd.DataFrame(B)]),
    "xarray": (xr.DataArray(Y), [xr.DataArray(A), xr.DataArray(B)]),
    "JAX arrays": (jnp.asarray(Y), [jnp.asarray(A), jnp.asarray(B)]),
    "in Fortran order": (np.asfortranarray(Y), [np.asfortranarray(A), B]),
    "of the other byte order": (Y.astype(">f8"), [A.astype(">f8"), B]),
}


@pytest.mark.parametrize("given", ODD.values(), ids=ODD.keys())
def test_any_arrays_of_the_same_numbers_are_the_same_data(data, given):
    again = sbl.Measurements(*given)
    assert jax.tree.structure(again) == jax.tree.structure(data)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(data), strict=True):
        assert one.dtype == np.float64
        np.testing.assert_array_equal(one, other)


def test_seen_may_be_of_any_kind_that_y_may_be():
    hidden = np.ma.masked_array(with_one(9.0, Y), ~SOME)
    usual = sbl.Measurements(Y, [A, B], seen=SOME)
    assert len(usual) == 29
    for y, seen in (
        (with_one(np.nan, Y).tolist(), SOME.tolist()),
        (with_one(np.nan, Y).ravel(), SOME.ravel()),
        (pd.DataFrame(with_one(np.nan, Y)), pd.DataFrame(SOME)),
        (xr.DataArray(Y), xr.DataArray(SOME)),
        (hidden, ~hidden.mask),
        (np.where(SOME, Y, None), SOME),
    ):
        again = sbl.Measurements(y, [A, B], seen=seen)
        assert jax.tree.structure(again) == jax.tree.structure(usual)
        for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(usual), strict=True):
            np.testing.assert_array_equal(one, other)
    each = sbl.Measurements.snapshots(Y, A, seen=SOME)
    assert len(each) == 29 and each.modes == ("atom", "snapshot")


def test_smooth_interpolates_between_its_knots():
    C = sbl.smooth([0, 1, 2, 4], 3)
    np.testing.assert_allclose(C, [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("single", [A, pd.DataFrame(A), [A], (A.tolist(),)])
def test_a_single_matrix_is_one_mode(single):
    one = sbl.Measurements(Y[:, 0], single)
    assert one.modes == ("atom",) and one.num_atoms == (8,)
    np.testing.assert_array_equal(one.dictionaries[0], A)


def test_whole_numbers_become_floats():
    whole = sbl.Measurements([1, 0, 2], np.eye(3, dtype=int), 1)
    assert {a.dtype for a in jax.tree.leaves(whole)} == {np.dtype("float64")}


def test_half_precision_is_raised_to_float32():
    half = sbl.Measurements(np.float16(Y), [np.float16(A), np.float16(B)], np.float16(0.5))
    assert {a.dtype for a in jax.tree.leaves(half)} == {np.dtype("float32")}


def test_of_two_precisions_the_finer_is_kept():
    mixed = sbl.Measurements(np.float32(Y), [A, np.float32(B)], 0.5)
    assert {a.dtype for a in jax.tree.leaves(mixed)} == {np.dtype("float64")}


@pytest.mark.parametrize("real", [0, 1])
def test_one_complex_dictionary_is_enough(real):
    pair = [A + 0j, B + 0j]
    pair[real] = pair[real].real
    mixed = sbl.Measurements(Y + 1j, pair, 0.5)
    assert mixed.is_complex
    assert {d.dtype for d in mixed.dictionaries} == {np.dtype("complex128")}
    assert mixed.noise_sd.dtype == np.float64


def test_names_of_modes_come_from_any_sequence():
    for names in (["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Index(["a", "b"])):
        assert sbl.Measurements(Y, [A, B], modes=names).modes == ("a", "b")
    assert sbl.Measurements(Y[:, 0], A, modes="antenna").modes == ("antenna",)


def test_settings_of_numpy_are_settings_like_others():
    odd = sbl.KroneckerSBL(["a"], {"b": np.float64(0.5)}, np.float64(2), jnp.asarray(1.0))
    usual = sbl.KroneckerSBL("a", (("b", 0.5),), 2.0)
    assert odd == usual and hash(odd) == hash(usual)
    assert sbl.TypeII(num_restarts=np.int64(2), prune=np.float64(0)) == sbl.TypeII(
        num_restarts=2, prune=0.0
    )
    sizes = sbl.blocks(pd.Series(["b", "a", "b"])), sbl.blocks(np.array([1, 0, 1]))
    np.testing.assert_array_equal(*sizes)


def test_changing_an_array_afterwards_changes_no_data():
    mine, matrix = Y.copy(), A.copy()
    kept = sbl.Measurements(mine, [matrix, B])
    mine[:], matrix[:] = 7.0, 7.0
    np.testing.assert_array_equal(kept.y, Y)
    np.testing.assert_array_equal(kept.dictionaries[0], A)


def test_new_rows_may_be_given_for_some_modes(data):
    rows = PLAIN.inputs([None, pd.DataFrame(B[:2])], data).rows
    np.testing.assert_array_equal(rows[0], A)
    np.testing.assert_array_equal(rows[1], B[:2])
    same = PLAIN.inputs(sbl.Measurements(Y[:3], [A[:3], B]), data).rows
    np.testing.assert_array_equal(same[0], A[:3])


@pytest.mark.parametrize("method", [pk.EM(1), sbl.TypeII()], ids=["EM", "TypeII"])
def test_data_of_another_family_are_refused(method):
    if isinstance(method, pk.EM):
        pattern = r"`MixtureOfExperts` takes `moe.Pairs`, not `Measurements`"
    else:
        pattern = r"`sbl.TypeII` fits `sbl.KroneckerSBL` .* not `MixtureOfExperts` to"
    data = sbl.Measurements(Y, [A, B])
    refused(lambda: pk.fit(EXPERTS, data, method, key=jax.random.key(0)), pattern)


SIMULATE = {
    "a number for a key": ({"key": 0}, r"`simulate\(key=...\)` got 0; .* JAX random key"),
    "too few coefficients": (
        {"coefficients": np.ones(3)},
        r"`simulate\(coefficients=...\)` has shape \(3,\), but .* columns; give one",
    ),
    "no noise": (
        {"noise_sd": 0.0},
        r"`simulate\(noise_sd=0.0\)`: it takes a positive number",
    ),
}


@pytest.mark.parametrize("changes, pattern", SIMULATE.values(), ids=SIMULATE.keys())
def test_simulate_refuses(changes, pattern):
    usual = {"coefficients": np.ones((A.shape[1], B.shape[1])), "noise_sd": 0.5}
    given = {"key": KEY, "dictionaries": [A, B], **usual, **changes}
    refused(lambda: sbl.simulate(**given), pattern)
