"""Many small data sets: what users give becomes arrays, or one clear line."""

import datetime
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import probkit as pk
from doors import refused
from lowering import programs
from probkit.distributions import NormalInverseWishart
from probkit.models import meta
from probkit.models.meta.beliefs import Full
from probkit.models.meta.noise import Noise
from probkit.models.meta.queries import queries
from probkit.record import plain

pytestmark = pytest.mark.usefixtures("no_checker")

rng = np.random.default_rng(0)
# Three schools of 4, 1 and 3 pupils, and what is known of them.
school = np.array(["b", "a", "b", "c", "b", "c", "b", "c"])
age = np.array([8.0, 9.0, 7.5, 8.0, 9.5, 7.0, 8.5, 10.0])
boy = np.array([True, False, False, True, True, False, False, True])
year = np.array([2001, 2001, 2002, 2002, 2001, 2002, 2002, 2001])
score = rng.normal(50.0, 10.0, 8)


def table(**changed):
    columns = {"school": school, "age": age, "boy": boy, "year": year, "score": score}
    return pd.DataFrame(columns | changed)


def from_table(given, group="school", x="age", y="score"):
    return meta.Episodes.from_table(given, group=group, x=x, y=y)


def with_one(value, array):
    return [value if i == 3 else one for i, one in enumerate(array.tolist())]


# Of a table.


def test_groups_are_in_order_of_first_appearance_and_rows_in_theirs():
    data = from_table(table(), x=["age", "boy"])
    assert data.names == ("b", "a", "c")
    assert data.columns == ("age", "boy")
    np.testing.assert_array_equal(data.sizes(), [4, 1, 3])
    for i, name in enumerate("bac"):
        own = school == name
        np.testing.assert_array_equal(data.y[i][data.seen[i]], score[own])
        rows = np.stack([age, boy], 1)[own]
        np.testing.assert_array_equal(data.x[i][data.seen[i]], rows)


def test_a_table_gives_what_lists_of_its_groups_give():
    lists = [[a[school == name] for name in "bac"] for a in (age, score)]
    expected = meta.Episodes(*lists, names=list("bac"), columns=["age"])
    assert eqx.tree_equal(from_table(table()), expected)


class Polars:
    """What is used of a data frame of polars."""

    def __init__(self, table):
        self.table, self.columns = table, list(table)

    def __getitem__(self, name):
        return np.asarray(self.table[name])


TABLES = {
    "a dict": dict(table()),
    "a dict of lists": {name: one.tolist() for name, one in table().items()},
    "an index": table().set_index(["school", "year"]),
    "a shuffled index": table().set_axis(rng.permutation(8)),
    "polars": Polars(table()),
    "xarray": table().to_xarray(),
    "categories": table(school=pd.Categorical(school)),
    "pandas' own dtypes": table().convert_dtypes(),
}


@pytest.mark.parametrize("given", TABLES.values(), ids=TABLES.keys())
def test_every_table_gives_the_same_data(given):
    assert eqx.tree_equal(from_table(given), from_table(table()))


GROUPS = {
    "numbers": ("year", (2001, 2002)),
    "truth values": ("boy", ("True", "False")),
    "several columns": (
        ["school", "year"],
        ("b, 2001", "a, 2001", "b, 2002", "c, 2002", "c, 2001"),
    ),
}


@pytest.mark.parametrize("given", GROUPS.values(), ids=GROUPS.keys())
def test_names_of_groups_are_the_values_of_their_columns(given):
    group, names = given
    assert from_table(table(), group=group).names == names


def test_dates_name_groups():
    days = [datetime.date(2020, 1, 1 + i % 2) for i in range(8)]
    names = from_table(table(school=days)).names
    assert [name[:10] for name in names] == ["2020-01-01", "2020-01-02"]


def test_pairs_with_the_same_joined_name_are_not_one_group():
    twice = {"one": ["a, b", "a"] * 4, "two": ["c", "b, c"] * 4}
    refused(
        lambda: from_table(table(**twice), group=["one", "two"]),
        r"has 'a, b, c' more than once; give each data set a name of its own",
    )


@pytest.mark.parametrize("gap", [np.nan, None, pd.NA])
def test_rows_without_a_value_are_left_out_with_a_warning(gap):
    given = table(score=pd.Series(with_one(gap, score), dtype=object))
    given.loc[3, "age"] = np.nan  # what nobody needs
    with pytest.warns(
        UserWarning,
        match=r"`Episodes.from_table` leaves out 1 of 8 rows, whose `score` is missing",
    ):
        data = from_table(given)
    assert eqx.tree_equal(data, from_table(table().drop(index=3)))


def test_a_group_without_a_value_stays_and_nothing_is_known_of_it():
    with pytest.warns(UserWarning, match="leaves out 1 of 8 rows"):
        data = from_table(table(score=np.where(school == "a", np.nan, score)))
    assert data.names == ("b", "a", "c")
    np.testing.assert_array_equal(data.sizes(), [4, 0, 3])


def test_without_inputs_there_is_an_intercept_alone():
    data = from_table(table(), x=[])
    assert data.x.shape == (3, 4, 0)
    assert meta.Linear().coords(data)["term"] == ["intercept"]


def test_real_data_come_as_they_are():
    homes = pk.datasets.radon()
    data = meta.Episodes.from_table(homes, "county", ["floor", "uranium"], "log_radon")
    assert (len(data), int(data.seen.sum())) == (85, 919)
    assert data.names[0] == "Aitkin"


# Of arrays and lists.


def test_lists_are_filled_up_with_rows_that_count_for_nothing():
    data = meta.Episodes([[1.0, 2.0], [3.0]], [[4.0, 5.0], [6.0]])
    np.testing.assert_array_equal(data.seen, [[True, True], [True, False]])
    np.testing.assert_array_equal(data.x[..., 0], [[1, 2], [3, 0]])
    np.testing.assert_array_equal(data.y, [[4, 5], [6, 0]])
    assert float(data.y_mean) == 5.0
    np.testing.assert_allclose(data.x_sd, [np.std([1, 2, 3])])


LISTS = {
    "of lists": ([[[8.0], [9.0]], [[7.0]]], [[1.0, 2.0], [3.0]]),
    "of numbers": ([[8.0, 9.0], [7.0]], [[1.0, 2.0], [3.0]]),
    "of whole numbers": ([[8, 9], [7]], [[1, 2], [3]]),
    "of arrays": (
        [np.array([[8.0], [9.0]]), jnp.array([[7.0]])],
        [np.array([1.0, 2.0]), pd.Series([3.0])],
    ),
    "in an array": (
        np.array([np.array([8.0, 9.0]), np.array([7.0])], object),
        np.array([np.array([1.0, 2.0]), np.array([3.0])], object),
    ),
    "filled with NaN": ([[8.0, 9.0], [7.0, np.nan]], [[1.0, 2.0], [3.0, np.nan]]),
    "filled with None": ([[8.0, 9.0], [7.0, None]], [[1.0, 2.0], [3.0, None]]),
    "masked": (
        np.array([[8.0, 9.0], [7.0, 0.0]]),
        np.ma.masked_equal([[1.0, 2.0], [3.0, 0.0]], 0.0),
    ),
}


@pytest.mark.parametrize("given", LISTS.values(), ids=LISTS.keys())
def test_every_form_of_unequal_sizes_gives_the_same_data(given):
    expected = meta.Episodes(
        [[[8.0], [9.0]], [[7.0], [0.0]]],
        [[1.0, 2.0], [3.0, 0.0]],
        seen=[[True, True], [True, False]],
    )
    assert eqx.tree_equal(meta.Episodes(*given), expected)


def test_a_data_set_may_have_no_rows():
    for empty in ([], np.zeros((0, 2))):
        data = meta.Episodes([[[1.0, 2.0], [3.0, 4.0]], empty], [[1.0, 2.0], []])
        assert data.x.shape == (2, 2, 2)
        np.testing.assert_array_equal(data.sizes(), [2, 0])


def test_one_data_set_and_data_sets_of_one_row_are_allowed():
    assert len(meta.Episodes([[1.0, 2.0]], [[3.0, 4.0]])) == 1
    assert meta.Episodes([[1.0], [2.0]], [[3.0], [4.0]]).y.shape == (2, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_input_has_no_scale_of_its_own(dtype):
    x = np.full((3, 7, 1), 0.1, dtype)
    data = meta.Episodes(x, np.arange(21, dtype=dtype).reshape(3, 7))
    assert float(data.x_sd[0]) == 1.0


FLOAT32 = {
    "arrays": (np.ones((2, 2, 1), "f4"), np.eye(2, dtype="f4")),
    "lists": ([np.ones(2, "f4"), np.ones(1, "f4")], [np.ones(2, "f4"), np.zeros(1, "f4")]),
    "whole inputs": (np.ones((2, 2, 1), int), np.eye(2, dtype="f4")),
    "whole values": (np.ones((2, 2, 1), "f4"), np.eye(2, dtype=int)),
    "half": (np.ones((2, 2, 1), "f2"), np.eye(2, dtype="f2")),
}


@pytest.mark.parametrize("given", FLOAT32.values(), ids=FLOAT32.keys())
def test_float32_stays_float32(given):
    data = meta.Episodes(*given)
    arrays = (data.x, data.y, data.x_mean, data.x_sd, data.y_mean, data.y_sd)
    assert {str(one.dtype) for one in arrays} == {"float32"}


def test_float32_of_a_table_stays_float32():
    small = table(score=score.astype("f4"), age=age.astype("f4"))
    assert from_table(small, x=["age", "boy", "year"]).dtype == jnp.float32
    assert from_table(table(age=age.astype("f4"))).dtype == jnp.float64


def test_given_units_hold_all_scales():
    data = meta.Episodes([[1.0, 2.0]], [[3.0, 5.0]])
    other = meta.Episodes([[7.0, 9.0]], [[1.0, 1.0]], units=data.units)
    assert eqx.tree_equal(other.units, data.units)


def test_a_part_keeps_names_columns_and_units():
    data = from_table(table())
    part = data.take(np.array([2, 0]))
    assert (part.names, part.columns) == (("c", "b"), ("age",))
    assert eqx.tree_equal(part.units, data.units)
    inside = jax.jit(lambda data, i: data.take(i))(data, jnp.array([2, 0]))
    assert (inside.names, inside.columns) == (None, ("age",))
    np.testing.assert_array_equal(inside.y, part.y)


def test_a_file_gives_the_same_data_back():
    images = meta.Episodes(rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 3)))
    numbered = from_table(table(), group="year", x=["boy", "age"])
    for data in (from_table(table()), numbered, images):
        arrays = {k: np.asarray(v) for k, v in data.arrays().items()}
        fields = json.loads(json.dumps({k: plain(v) for k, v in data.fields().items()}))
        assert eqx.tree_equal(meta.Episodes.restore(arrays, fields), data)


# What is refused.

X, Y = np.ones((3, 2, 1)), np.arange(6.0).reshape(3, 2)
BAD = {
    "a long table": ((np.ones((6, 2)), np.ones(6)), r"\(6, 2, 1\) and \(6,\).*from_table"),
    "a data frame": ((table()[["age"]], table().score), r"for n data sets of m rows"),
    "transposed values": ((X, Y.T), r"\(3, 2, 1\) and \(2, 3\); for n data sets"),
    "a number": ((3.0, Y), r"`Episodes\(x=...\)` got 3.0; it takes an array"),
    "nothing": ((X, None), r"`Episodes\(y=...\)` got None; it takes an array"),
    "a dict": (({"a": [1.0]}, Y), r"got a dict; it takes real numbers"),
    "other numbers of data sets": (
        ([[1.0], [2.0, 3.0]], [[1.0]]),
        r"inputs of 2 data sets and values of 1; give one array of both",
    ),
    "other numbers of rows": (
        ([[1.0], [2.0, 3.0]], [[1.0], [2.0]]),
        r"shape \(2, 1\) and values of shape \(1,\) in data set 1; it takes \(m, 1\)",
    ),
    "other numbers of inputs": (
        ([[[1.0, 2.0]], [[3.0], [4.0]]], [[1.0], [2.0, 3.0]]),
        r"inputs of shapes \[\(1, 2\), \(2, 1\)\]; it takes \(m, d\) for each",
    ),
    "rows of unequal length": (([[[1.0], [2.0, 3.0]]], [[1.0, 2.0]]), r"rows of equal"),
    "unequal lengths inside": (
        ([[[1.0, 2.0], [3.0]], [[1.0]]], [[1.0, 2.0], [1.0]]),
        r"it takes an array, or one array per data set",
    ),
    "numbers for data sets": (
        ([1.0, [2.0, 3.0]], [[1.0], [2.0, 3.0]]),
        r"inputs of shapes \[\(\), \(2, 1\)\]",
    ),
    "text in lists": (([["a"], ["b", "c"]], [[1.0], [2.0, 3.0]]), r"x=...\)` holds text"),
    "text": ((X, [["a", "b"]] * 3), r"`Episodes\(y=...\)` holds text; .*0/1 columns"),
    "dates": ((np.full((3, 2), np.datetime64("2020")), Y), r"holds dates; .*time since"),
    "complex numbers": ((X + 1j, Y), r"holds complex numbers"),
    "NaN in inputs": ((np.where(Y == 3, np.nan, Y), Y), r"x=...\)` has 1 value missing"),
    "an infinite input": ((np.where(Y == 3, np.inf, Y), Y), r"infinite, the first at"),
    "an infinite value": (
        (X, np.where(Y == 3, np.inf, Y)),
        r"y=...\)` has 1 value missing",
    ),
    "all values missing": ((X, np.full((3, 2), np.nan)), r"\(3, 2\) has no value; give"),
    "no data sets": ((np.ones((0, 2, 1)), np.ones((0, 2))), r"has no value; give at least"),
    "no rows": (([[], []], [[], []]), r"\(2, 0\) has no value; give at least"),
    "constant values": ((X, np.ones((3, 2))), r"is constant and leaves nothing to explain"),
    "one value": (([[1.0]], [[1.0]]), r"is constant and leaves nothing to explain"),
    "seen of another shape": (
        (X, Y, np.ones((2, 3), bool)),
        r"\(2, 3\) .* value, \(3, 2\)",
    ),
    "seen in numbers": ((X, Y, np.ones((3, 2))), r"holds float64; give one truth value"),
    "seen with lists": (
        ([[1.0], [2.0, 3.0]], [[1.0], [2.0, 3.0]], [[True], [True, False]]),
        r"seen=...\)` goes with arrays of equal length",
    ),
}


@pytest.mark.parametrize("given", BAD.values(), ids=BAD.keys())
def test_wrong_arrays_get_one_line(given):
    arguments, pattern = given
    refused(lambda: meta.Episodes(*arguments), pattern)


SETTINGS = {
    "too few names": ({"names": ["a"]}, r"has 1 names for 3 data sets; give one for each"),
    "a name twice": ({"names": ["a", "b", "a"]}, r"has 'a' more than once"),
    "one text": ({"names": "abc"}, r"names=...\)` got 'abc'; give a list of names"),
    "names that are lists": ({"names": [["a"], ["b"], ["c"]]}, r"has \['a'\]; give text"),
    "NaN as a name": ({"names": [1.0, 2.0, np.nan]}, r"has nan; give text or numbers"),
    "too many columns": ({"columns": ["a", "b"]}, r"per row; it takes 1 different names"),
    "one column as text": ({"columns": "a"}, r"got 'a' for inputs of shape \(1,\)"),
    "numbers for columns": ({"columns": [0]}, r"got \[0\] for inputs"),
    "an intercept": ({"columns": ["intercept"]}, r"name of the coefficient of no input"),
    "units of other inputs": (
        {"units": meta.Episodes(np.ones((3, 2, 2)), Y).units},
        r"units of data with the same inputs, such as",
    ),
    "no units": ({"units": (0.0, 1.0)}, r"units=\(0.0, 1.0\)\)`: it takes the units"),
}


@pytest.mark.parametrize("given", SETTINGS.values(), ids=SETTINGS.keys())
def test_wrong_settings_get_one_line(given):
    settings, pattern = given
    refused(lambda: meta.Episodes(X, Y, **settings), pattern)


def test_images_have_no_columns():
    x, y = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 3))
    refused(
        lambda: meta.Episodes(x, y, columns=["a", "b", "c", "d"]),
        r"shape \(4, 4\) per row; it takes vectors of inputs only",
    )


FROM_TABLE = {
    "no table": ((3,), r"got a int; it takes a data frame of pandas or polars"),
    "no column": ((table(), "scool"), r"no column `scool`; there are school, age"),
    "no group": ((table(), []), r"names of one column or more for `group`"),
    "a number for a group": ((table(), 0), r"group=0\)`: it takes the name of a column"),
    "one column for two": ((table(), "school", ["age", "score"]), r"all different"),
    "text": ((table(age=school),), r"\(age\)` holds text; .* 0/1 columns"),
    "categories": ((table(age=pd.Categorical(year)),), r"`age` holds categories.*0/1"),
    "dates": (
        (table(age=pd.to_datetime(["2020-01-01"] * 8)),),
        r"\(age\)` holds dates; .* Give the time since a date",
    ),
    "spans": ((table(age=pd.to_timedelta(age, "D")),), r"holds time spans.* Divide"),
    "NaN": ((table(age=with_one(np.nan, age)),), r"first at 3; drop or impute those rows"),
    "infinity": ((table(age=with_one(np.inf, age)),), r"\(age\)` has 1 value missing"),
    "no name": ((table(school=with_one(None, school)),), r"`school` has 1 missing.* at 3"),
    "NaN for a name": ((table(year=with_one(np.nan, year)), "year"), r"`year` has 1 miss"),
    "text for values": ((table(score=school),), r"\(score\)` holds text"),
    "an infinite value": ((table(score=with_one(np.inf, score)),), r"\(score\)` .* at 3"),
    "constant values": ((table(score=1.0),), r"is constant and leaves nothing to explain"),
    "empty": ((table()[:0],), r"has 0 rows"),
    "other lengths": (
        ({"school": school, "age": age[:5], "score": score},),
        r"`age` has 5 rows and `score` 8; give one value of each per row",
    ),
    "a number in place of a column": (
        ({"school": school, "age": 1.0, "score": score},),
        r"`age` has 0 rows and `score` 8",
    ),
    "an intercept": ((table(intercept=1.0), "school", ["intercept"]), r"leave it out if"),
}


@pytest.mark.parametrize("given", FROM_TABLE.values(), ids=FROM_TABLE.keys())
def test_wrong_tables_get_one_line(given):
    arguments, pattern = given
    refused(lambda: from_table(*arguments), pattern)


# Queries.


@pytest.fixture(scope="module")
def data():
    return from_table(table(), x=["age", "boy"])


def test_queries_by_name_have_the_rows_of_these_data_sets(data):
    found = queries({"c": [[8.0, 1.0]], "b": [[7.0, 0.0], [6.0, 1.0]]}, data)
    assert found.labels().tolist() == ["c", "b"]
    np.testing.assert_array_equal(found.support.y, data.y[np.array([2, 0])])
    np.testing.assert_array_equal(found.asked, [[True, False], [True, True]])
    np.testing.assert_array_equal(found.x[1], [[7.0, 0.0], [6.0, 1.0]])


def test_names_of_several_types_are_told_apart():
    mixed = meta.Episodes(X, Y, names=[1, "1", "a"])
    found = queries({"1": [[0.0]]}, mixed)
    np.testing.assert_array_equal(found.support.y, Y[1:2])
    assert found.labels().tolist() == ["1"]


def test_data_sets_without_names_are_asked_by_number():
    found = queries({2: [[0.0]], 0: [[1.0]]}, meta.Episodes(X, Y))
    np.testing.assert_array_equal(found.support.y, Y[[2, 0]])
    assert found.labels().tolist() == [2, 0]


def test_new_data_sets_may_have_no_known_rows(data):
    x = np.ones((2, 3, 2))
    for given in (
        meta.New(x),
        meta.New(x, [[], []], [[], []]),
        meta.New(x, np.ones((2, 1, 2)), [[np.nan], [np.nan]]),
    ):
        found = queries(given, data)
        np.testing.assert_array_equal(found.support.sizes(), [0, 0])
        assert eqx.tree_equal(found.support.units, data.units)


def test_episodes_as_queries_get_the_units_and_the_dtype_of_the_fit(data):
    other = meta.Episodes(np.ones((2, 3, 2), "f4"), rng.normal(size=(2, 3)).astype("f4"))
    found = queries(other, data)
    assert eqx.tree_equal(found.support.units, data.units)
    assert found.x.dtype == found.support.y.dtype == jnp.float64


QUERIES = {
    "an array": (np.ones((2, 3, 2)), r"it takes `\{name: inputs\}`"),
    "nothing": ({}, r"got \{\}; it takes `\{name: inputs\}`"),
    "an unknown group": ({"d": [[1.0, 1.0]]}, r"has 'd', which is no data set of the fit"),
    "a number in place of a name": ({0: [[1.0, 1.0]]}, r"has 0, which is no data set"),
    "one input": ({"a": [1.0, 2.0]}, r"inputs of shape \(1,\) per row; .* have \(2,\)"),
    "numbers": ({"a": 1.0}, r"has inputs of shape \(1,\); for n data sets"),
    "text": ({"a": [["x", "y"]]}, r"`predict\(..., inputs\)` holds text"),
    "NaN": ({"a": [[np.nan, 1.0]]}, r"has 1 value missing, NaN or infinite"),
    "unlike inputs": (
        {"a": [[1.0, 1.0]], "b": [[1.0], [2.0]]},
        r"inputs of shapes \[\(1, 2\), \(2, 1\)\]",
    ),
    "new of one input": (meta.New([[1.0]]), r"inputs of shape \(1,\) per row"),
    "new without data sets": (meta.New([1.0]), r"inputs of shape \(1,\); for n data sets"),
    "support of one input": (
        meta.New([[[1.0, 1.0]]], [[1.0]], [[2.0]]),
        r"inputs of shape \(1,\) per row; the data of the fit have \(2,\)",
    ),
    "support of more data sets": (
        meta.New([[[1.0, 1.0]]], np.ones((2, 3, 2)), np.ones((2, 3))),
        r"rows of 1 data sets to predict, and known rows of 2; give both for each",
    ),
    "other columns": (
        from_table(table(), x=["boy", "age"]),
        r"has the inputs boy, age; the data of the fit have age, boy, in this order",
    ),
}


@pytest.mark.parametrize("given", QUERIES.values(), ids=QUERIES.keys())
def test_wrong_queries_get_one_line(given, data):
    asked, pattern = given
    refused(lambda: queries(asked, data), pattern)


def test_support_is_two_or_none():
    refused(lambda: meta.New([[1.0]], [[1.0]]), r"takes both, or neither")


# A fit.


@pytest.fixture(scope="module")
def fitted():
    columns = {"age": age.astype(float), "boy": boy}
    data = meta.Episodes.from_table(
        table(**columns, score=score + 3 * age), "school", ["age", "boy"], "score"
    )
    method = meta.Episodic(max_steps=500, num_draws=20)
    return pk.fit(meta.Linear(), data, method, key=jax.random.key(0))


def test_coefficients_and_inputs_have_the_names_of_the_columns(fitted):
    terms = ["intercept", "age", "boy"]
    assert fitted.posterior["population_mean"].term.values.tolist() == terms
    assert fitted.posterior["covariance"].other_term.values.tolist() == terms
    assert fitted.tree["constant_data"].input_0.values.tolist() == ["age", "boy"]
    assert fitted.posterior["covariance"].sel(term="age", other_term="boy").shape == (1, 20)


def test_a_network_names_its_inputs_too(data):
    net = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    assert meta.Network(net).coords(data)["input_0"].tolist() == ["age", "boy"]


def test_a_group_is_asked_by_its_name(fitted):
    new = pk.predict(fitted, {"c": [[8.0, 1.0]], "a": [[8.0, 0.0]]}, key=jax.random.key(1))
    assert new["y"].group.values.tolist() == ["c", "a"]
    assert bool(np.isfinite(new["y"]).all())


def of_names(*names):
    """Data sets that the fit has not seen."""
    x = np.array([[[8.0, 1.0]], [[9.0, 0.0]]])
    return meta.Episodes(x, [[50.0], [60.0]], names=names)


def test_other_names_compile_nothing(fitted):
    # The first query of a shape is compiled; the names are no part of it.
    pk.predict(fitted, {"c": [[8.0, 1.0]]}, key=jax.random.key(1))
    with programs() as made:
        new = pk.predict(fitted, {"a": [[7.0, 0.0]]}, key=jax.random.key(2))
    assert new["y"].group.values.tolist() == ["a"]
    assert made == []
    with programs() as made:
        new = pk.predict(fitted, of_names("d", "e"), key=jax.random.key(2))
    assert made
    with programs() as made:
        new = pk.predict(fitted, of_names("f", "g"), key=jax.random.key(2))
    assert new["y"].group.values.tolist() == ["f", "g"]
    assert made == []
    with programs() as made:
        pk.predict(fitted, {"a": [[7.0, 0.0]] * 3}, key=jax.random.key(2))
    assert made


def test_a_saved_fit_keeps_names_and_columns(fitted, tmp_path):
    pk.save(fitted, tmp_path / "schools.nc")
    kinds = [meta.Episodes, meta.Episodic, meta.Linear, meta.Posterior, Full, Noise]
    again = pk.load(tmp_path / "schools.nc", families=[*kinds, NormalInverseWishart])
    assert eqx.tree_equal(again.data, fitted.data)
    assert again.data.names == ("b", "a", "c")
    assert again.data.columns == ("age", "boy")
    assert again.posterior.equals(fitted.posterior)
    assert eqx.tree_equal(again.approximation, fitted.approximation)
    asked = {"c": [[8.0, 1.0]]}
    one, two = (pk.predict(f, asked, key=jax.random.key(1)) for f in (fitted, again))
    assert one.equals(two)
