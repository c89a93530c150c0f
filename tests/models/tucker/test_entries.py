"""Tables of entries: what users give becomes coordinates, or one clear line."""

import datetime
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from doors import refused
from probkit.models import tucker
from probkit.record import plain

pytestmark = pytest.mark.usefixtures("no_checker")

rng = np.random.default_rng(0)
n = 12
time = np.array([3.0, 1.0, 2.0, 1.0, 3.0, 2.5, 2.0, 1.0, 3.0, 2.5, 2.0, 1.0])
lat = np.tile([40.0, 39.5, 40.0], 4)
lon = np.tile([116.0, 116.5, 116.5], 4)
station = np.tile(["b", "a", "c", "a"], 3)
day = np.datetime64("2013-03-05") + np.tile([3, 0, 1], 4)
y = rng.normal(5.0, 2.0, n)


def table(**changed):
    columns = {"time": time, "lat": lat, "lon": lon, "station": station, "day": day}
    return pd.DataFrame(columns | {"pm25": y} | changed)


MODES = {"place": ["lat", "lon"], "date": "day", "station": "station"}


@pytest.fixture(scope="module")
def entries():
    return tucker.Entries.from_table(table(), MODES, "pm25")


# What becomes of good columns.


def test_points_are_distinct_and_sorted_and_places_point_back():
    data = tucker.Entries({"time": time, "station": station}, y)
    np.testing.assert_array_equal(data.axes[0].points, [1.0, 2.0, 2.5, 3.0])
    np.testing.assert_array_equal(data.axes[0].points[data.places[:, 0]], time)
    assert data.axes[1].labels == ("a", "b", "c")
    np.testing.assert_array_equal(data.axes[1].coords()[data.places[:, 1]], station)


def test_several_columns_make_a_space(entries):
    place = entries.axes[0]
    assert (place.kind, place.columns) == ("space", ("lat", "lon"))
    assert len(place) == 3
    where = place.points[entries.places[:, 0]]
    np.testing.assert_array_equal(where, np.stack([lat, lon], 1))


def test_dates_are_days_from_the_first_and_are_answered_as_dates(entries):
    date = entries.axes[1]
    assert (date.kind, date.origin, date.resolution) == ("line", "2013-03-05", "D")
    np.testing.assert_array_equal(date.points, [0.0, 1.0, 3.0])
    np.testing.assert_array_equal(date.coords()[entries.places[:, 1]], day)


def test_length_and_spacing_are_in_units_of_the_coordinate(entries):
    data = tucker.Entries({"time": time}, y)
    assert float(data.axes[0].length) == 2.0
    assert float(data.axes[0].spacing) == pytest.approx(2 / 3)
    np.testing.assert_allclose(entries.axes[0].length, [0.5, 0.5])
    np.testing.assert_allclose(entries.axes[0].spacing, [0.5, 0.5])


ZONED = pd.date_range("2020-01-01", periods=n, freq="h", tz="Asia/Shanghai")
DATES = {
    "numpy": (np.datetime64("2020-01-01T05") + np.arange(n), "h", None),
    "pandas": (pd.date_range("2020-01-01 06:30", periods=n, freq="D"), "m", None),
    "dates": ([datetime.date(2020, 1, 1 + i) for i in range(n)], "D", None),
    "datetimes": ([datetime.datetime(1743, 1, 1, 0, 0, i) for i in range(n)], "s", None),
    "microseconds": (np.datetime64("2020-01-01", "us") + np.arange(n), "us", None),
    "a zone": (ZONED, "h", "Asia/Shanghai"),
    "a series with a zone": (pd.Series(ZONED), "h", "Asia/Shanghai"),
    "zoned objects": (list(ZONED), "h", "Asia/Shanghai"),
    "two zones": ([*ZONED[:6], *ZONED[6:].tz_convert("UTC")], "h", "UTC"),
}


@pytest.mark.parametrize("given", DATES.values(), ids=DATES.keys())
def test_dates_of_every_kind_come_back_to_the_microsecond(given):
    dates, resolution, zone = given
    axis = tucker.Entries({"date": dates}, y).axes[0]
    assert (axis.resolution, axis.zone) == (resolution, zone)
    expected = pd.DatetimeIndex(pd.to_datetime(pd.Series(dates), utc=True)).tz_localize(
        None
    )
    np.testing.assert_array_equal(axis.coords(), expected.values.astype("M8[us]"))


LABELS = {
    "text": list("ab" * 6),
    "numpy text": np.array(list("ab" * 6)),
    "pandas text": pd.Series(list("ab" * 6)),
    "categories": pd.Categorical(list("ab" * 6), categories=["b", "a", "unused"]),
}


@pytest.mark.parametrize("given", LABELS.values(), ids=LABELS.keys())
def test_text_and_categories_are_labels(given):
    data = tucker.Entries({"station": given}, y)
    assert data.axes[0].labels == ("a", "b")
    np.testing.assert_array_equal(data.places[:, 0], [0, 1] * 6)


def test_numbers_and_truth_values_can_be_labels_in_their_order():
    person = np.tile([10, 9, 2], 4)
    data = tucker.Entries({"person": person, "wet": time > 2}, y, labels=["person"])
    assert data.axes[0].labels == ("2", "9", "10")
    assert data.axes[1].labels == ("False", "True")
    codes = tucker.Entries({"person": pd.Categorical(person)}, y)
    assert codes.axes[0].labels == ("2", "9", "10")


def test_text_that_reads_as_dates_can_be_labels():
    text = [str(one) for one in day]
    data = tucker.Entries({"day": text}, y, labels="day")
    assert data.axes[0].labels == ("2013-03-05", "2013-03-06", "2013-03-08")


def test_rounding_makes_multiples_of_the_step():
    near = time + 1e-3 * rng.normal(size=n)
    dates = np.datetime64("2020-01-01T06", "us") + (np.arange(n) * 3_600_000_000)
    rounding = {"time": 0.5, "date": 0.25, "temp": 0.1}
    data = tucker.Entries(
        {"time": near, "date": dates, "temp": time / 10}, y, rounding=rounding
    )
    np.testing.assert_array_equal(data.axes[0].points, [1.0, 2.0, 2.5, 3.0])
    np.testing.assert_array_equal(data.axes[2].points, [0.1, 0.2, 0.3])
    assert set(np.asarray(data.axes[1].points) % 0.25) == {0.0}
    assert data.axes[1].resolution == "h"


def test_minus_zero_and_zero_are_one_coordinate():
    data = tucker.Entries({"x": [0.0, -0.0, 1.0], "p": [[0, 1], [-0.0, 1], [1, 0]]}, y[:3])
    assert [len(axis) for axis in data.axes] == [2, 2]


class Polars:
    """What is used of a data frame of polars."""

    def __init__(self, table):
        self.table, self.columns = table, list(table)

    def __getitem__(self, name):
        return np.asarray(self.table[name])


def _cube():
    coords = {"time": [1.0, 2.0], "station": ["a", "b", "c"]}
    values = xr.DataArray(y[:6].reshape(2, 3), coords, name="pm25")
    return values


TABLES = {
    "a dict": dict(table()),
    "an index": table().set_index(["time", "station"]),
    "a shuffled index": table().set_axis(rng.permutation(n)),
    "polars": Polars(table()),
    "xarray": table().to_xarray(),
}


@pytest.mark.parametrize("given", TABLES.values(), ids=TABLES.keys())
def test_every_table_gives_the_same_entries(given):
    data = tucker.Entries.from_table(given, ["time", "station"], "pm25")
    expected = tucker.Entries({"time": time, "station": station}, y)
    assert eqx.tree_equal(data, expected)


def test_a_cube_becomes_a_long_table_and_gaps_are_left_out():
    cube = _cube().copy()
    cube[0, 1] = np.nan
    with pytest.warns(
        UserWarning, match=r"leaves out 1 of 6 entries, whose `pm25` is missing"
    ):
        data = tucker.Entries.from_table(cube, ["time", "station"], "pm25")
    assert len(data) == 5
    np.testing.assert_allclose(data.y, np.delete(y[:6], 1))


@pytest.mark.parametrize("gap", [np.nan, None, pd.NA])
def test_rows_without_a_value_are_left_out_even_without_coordinates(gap):
    values = pd.Series(y, dtype=object)
    values[3] = gap
    gone = np.where(np.arange(n) == 3, np.nan, time)
    with pytest.warns(UserWarning, match="1 of 12"):
        data = tucker.Entries({"time": gone}, values)
    kept = np.arange(n) != 3
    assert eqx.tree_equal(data, tucker.Entries({"time": time[kept]}, y[kept]))


def test_given_units_hold_all_scales():
    data = tucker.Entries({"time": time, "lat": lat}, y)
    part = tucker.Entries({"time": time[:6], "lat": lat[:6]}, y[:6], units=data.units)
    assert eqx.tree_equal(part.units, data.units)
    assert float(part.y_mean) == pytest.approx(y.mean())
    flat = tucker.Entries({"time": time, "lat": np.ones(n)}, np.ones(n), units=data.units)
    assert eqx.tree_equal(flat.units, data.units)


def test_float32_stays_float32():
    data = tucker.Entries({"time": time}, y.astype(np.float32))
    arrays = (data.y, data.y_mean, data.axes[0].points, data.axes[0].length)
    assert {str(one.dtype) for one in arrays} == {"float32"}
    assert data.dtype == jnp.float32


def test_a_batch_keeps_the_axes_inside_a_compiled_program(entries):
    index = jnp.array([4, 4, 0])
    batch = jax.jit(lambda data, i: data.take(i))(entries, index)
    assert len(batch) == 3
    np.testing.assert_array_equal(batch.y, y[np.array(index)])
    assert eqx.tree_equal(batch.axes, entries.axes)


def test_a_file_gives_the_same_entries_back(entries):
    exposed = tucker.Entries({"date": ZONED, "place": np.stack([lat, lon], 1)}, y, time)
    for data in (entries, exposed, entries.take(jnp.array([0, 5]))):
        arrays = {k: np.asarray(v) for k, v in data.arrays().items()}
        fields = json.loads(json.dumps({k: plain(v) for k, v in data.fields().items()}))
        assert eqx.tree_equal(tucker.Entries.restore(arrays, fields), data)


def test_every_array_has_names_and_labels(entries):
    dims, coords = entries.dims(), entries.coords()
    for name, array in entries.arrays().items():
        assert array.shape == tuple(len(coords[one]) for one in dims.get(name, ()))
    tree = xr.Dataset(
        {k: (dims.get(k, ()), v) for k, v in entries.arrays().items()}, coords
    )
    assert tree["points_date"].sel(date="2013-03-06") == 1.0


# Queries.


def test_queries_find_seen_points_and_keep_new_ones():
    data = tucker.Entries({"time": time, "station": station}, y)
    found = tucker.queries(data, {"time": [2.5, 9.0, 2.5], "station": ["c", "new", "a"]})
    np.testing.assert_array_equal(found.axes[0].points, [2.5, 9.0])
    np.testing.assert_array_equal(found.seen[0], [2, -1])
    assert found.axes[1].labels == ("a", "c", "new")
    np.testing.assert_array_equal(found.seen[1], [0, 2, -1])
    np.testing.assert_array_equal(found.places, [[0, 1], [1, 2], [0, 0]])
    assert float(found.axes[0].length) == 2.0  # of the data


def test_queries_by_table_by_entries_and_by_value_agree(entries):
    by_table = tucker.queries(entries, table())
    by_entries = tucker.queries(entries, entries)
    by_mode = {"place": np.stack([lat, lon], 1), "date": day, "station": station}
    assert eqx.tree_equal(by_table, by_entries)
    assert eqx.tree_equal(by_table, tucker.queries(entries, by_mode))
    np.testing.assert_array_equal(by_table.places, entries.places)
    held = by_mode | {"station": "a", "place": [40.0, 116.0]}
    assert len(tucker.queries(entries, held)) == n


def test_dates_of_queries_count_from_the_origin_of_the_data(entries):
    given = {"place": [40.0, 116.0], "date": ["2013-03-04T12:00"], "station": "a"}
    given["date"] = pd.to_datetime(given["date"])
    found = tucker.queries(entries, given).axes[1]
    np.testing.assert_array_equal(found.points, [-0.5])
    np.testing.assert_array_equal(found.coords(), given["date"].values)


def test_dates_of_queries_may_be_text(entries):
    found = tucker.grid(entries, date=["2013-03-06", "2013-03-05T06:00"], station="a")
    np.testing.assert_array_equal(found.axes[1].points, [0.25, 1.0])
    assert tucker.grid(entries, date="2013-03-06").dims == ("place", "station")


def test_columns_that_are_not_used_do_not_matter():
    cube = xr.Dataset({"pm25": _cube(), "other": (("site",), np.zeros(1000))})
    data = tucker.Entries.from_table(cube, ["time", "station"], "pm25")
    assert len(data) == 6
    twice = table().set_index("time", drop=False)
    assert len(tucker.Entries.from_table(twice, ["time", "station"], "pm25")) == n


def test_queries_with_a_zone_agree_in_any_zone():
    data = tucker.Entries({"date": ZONED}, y)
    found = tucker.queries(data, {"date": ZONED.tz_convert("Europe/Berlin")})
    np.testing.assert_array_equal(found.seen[0], np.arange(n))
    assert eqx.tree_equal(found.places, tucker.queries(data, data).places)


def test_a_grid_is_the_product_in_c_order(entries):
    found = tucker.grid(entries, date=day[:3], place=[40.0, 116.0])
    assert (found.dims, found.shape, len(found)) == (("date", "station"), (3, 3), 9)
    labels = found.axes[2].coords()[found.places[:, 2]].reshape(3, 3)
    np.testing.assert_array_equal(labels, [["a", "b", "c"]] * 3)
    np.testing.assert_array_equal(found.coords()["date"], np.sort(day[:3]))


def test_a_grid_takes_one_label_and_one_date(entries):
    found = tucker.grid(entries, station="unseen", date=day[0])
    assert (found.dims, found.shape) == (("place",), (3,))
    np.testing.assert_array_equal(found.seen[2], [-1])


# What is refused.


def with_one(value, array=time):
    return [value if i == 3 else one for i, one in enumerate(array)]


COORDS = {
    "nothing": ({}, r"coordinates of each mode, such as"),
    "a list": ([time, time], r"coordinates of each mode, such as"),
    "one value": ({"time": 1.0}, r"mode `time` is 1.0; give it one"),
    "a taken name": ({"y": time}, r"cannot have the name `y`.* give it another"),
    "short": ({"time": time[:5]}, r"12 values of `y` but 5 of `time`"),
    "NaN": ({"time": with_one(np.nan)}, r"`time` has 1 missing .* first at 3; drop"),
    "infinity": ({"time": with_one(np.inf)}, r"`time` has 1 missing or infinite"),
    "None": ({"time": with_one(None, station)}, r"`time` has 1 missing"),
    "NaT": ({"time": with_one(pd.NaT, list(ZONED))}, r"`time` has 1 missing"),
    "one point": ({"time": time, "x": np.ones(n)}, r"`x` has one distinct .* leave it out"),
    "one label": ({"s": ["a"] * n}, r"`s` has one distinct value.* leave it out"),
    "one latitude": (
        {"place": {"lat": np.ones(n), "lon": lon}},
        r"`lat` has one distinct value",
    ),
    "text dates": (
        {"day": [str(one) for one in day]},
        r"reads as dates.* `pd.to_datetime`",
    ),
    "mixed zones": (
        {"day": [*ZONED[:6], *ZONED[6:].tz_localize(None)]},
        r"with and without a time zone; give all of them one, or none",
    ),
    "mixed types": ({"x": with_one("a")}, r"`x` holds values of the types float.*, str"),
    "spans": ({"x": day - day[0]}, r"`x` holds timedelta64.*; divide by a unit"),
    "complex": ({"x": time + 1j}, r"`x` holds complex128; convert it"),
    "ragged": ({"x": [[1], [1, 2]] * 6}, r"`x` is ragged"),
    "a cube": ({"x": np.ones((n, 2, 2))}, r"`x` .*shape \(12, 2, 2\)"),
    "a space of text": (
        {"place": {"lat": lat, "name": station}},
        r"several columns, of labels and numbers; several columns are numbers",
    ),
}


@pytest.mark.parametrize("given", COORDS.values(), ids=COORDS.keys())
def test_wrong_coordinates_get_one_line(given):
    coords, pattern = given
    refused(lambda: tucker.Entries(coords, y), pattern)


VALUES = {
    "one": (y[:1], r"has 1 values; a surface needs two"),
    "none": ([], r"has 0 values; a surface needs two"),
    "constant": (np.ones(n), r"is constant and leaves nothing to explain"),
    "infinite": (with_one(np.inf, y), r"`Entries\(y=...\)` has 1 value missing.*infinite"),
    "text": (station, r"`Entries\(y=...\)` holds text"),
    "a matrix": (y.reshape(3, 4), r"has shape \(3, 4\); it takes one value per entry"),
}


@pytest.mark.parametrize("given", VALUES.values(), ids=VALUES.keys())
def test_wrong_values_get_one_line(given):
    values, pattern = given
    refused(lambda: tucker.Entries({"time": time[: np.size(values)]}, values), pattern)


SETTINGS = {
    "an unknown label": ({"labels": ["x"]}, r"labels=...\)` names 'x'; the modes are time"),
    "an unknown rounding": ({"rounding": {"x": 1}}, r"rounding=...\)` names 'x'"),
    "a step of zero": ({"rounding": {"time": 0}}, r"a positive number"),
    "rounded labels": ({"rounding": {"station": 1}}, r"labels, which cannot be rounded"),
    "negative exposure": ({"exposure": -time}, r"values down to -3; it takes positive"),
    "short exposure": ({"exposure": time[:3]}, r"12 values of `y` but 3 of `exposure`"),
    "other units": ({"units": (0.0, 1.0)}, r"units of data with the same modes"),
}


@pytest.mark.parametrize("given", SETTINGS.values(), ids=SETTINGS.keys())
def test_wrong_settings_get_one_line(given):
    settings, pattern = given
    coords = {"time": time, "station": station}
    refused(lambda: tucker.Entries(coords, y, **settings), pattern)


FROM_TABLE = {
    "no table": ((3, ["time"], "pm25"), r"got a int; it takes a data frame"),
    "no column": ((table(), ["tim"], "pm25"), r"no column `tim`; there are time, lat"),
    "no value": ((table(), ["time"], None), r"name of one column"),
    "twice": ((table(), ["time", "pm25"], "pm25"), r"all different"),
    "text": ((table(), "time", "pm25"), r"modes='time'\)`: it takes names of columns"),
    "NaN": ((table(lat=with_one(np.nan)), ["lat"], "pm25"), r"`lat` has 1 missing"),
    "constant": ((table(pm25=1.0), ["time"], "pm25"), r"\(pm25=...\)` is constant"),
    "empty": ((table()[:0], ["time"], "pm25"), r"\(pm25=...\)` has 0 values"),
    "one row": ((table()[:1], ["time"], "pm25"), r"\(pm25=...\)` has 1 values"),
}


@pytest.mark.parametrize("given", FROM_TABLE.values(), ids=FROM_TABLE.keys())
def test_wrong_tables_get_one_line(given):
    arguments, pattern = given
    refused(lambda: tucker.Entries.from_table(*arguments), pattern)


QUERIES = {
    "no mode": ({"date": day}, r"no column `lat`"),
    "a table without it": (table().drop(columns="day"), r"no column `day`; there are time"),
    "an array": (time, r"takes a table with the columns lat, lon"),
    "numbers for dates": ({"date": time}, r"`day` holds numbers; .* have dates there"),
    "dates for labels": ({"date": station}, r"`day` holds labels; .* have dates there"),
    "a zone": ({"date": ZONED}, r"dates with a time zone; .* have none"),
    "NaN": ({"place": with_one([np.nan, 1.0], np.stack([lat, lon], 1))}, r"has 1 missing"),
    "a triple": ({"place": [1.0, 2.0, 3.0]}, r"has shape \(3,\); it takes \(m, 2\)"),
    "lengths": ({"date": day[:3]}, r"columns of 3 and 12 values; each query"),
}


@pytest.mark.parametrize("given", QUERIES.values(), ids=QUERIES.keys())
def test_wrong_queries_get_one_line(given, entries):
    changed, pattern = given
    if type(changed) is dict and pattern != QUERIES["no mode"][1]:
        right = {"place": np.stack([lat, lon], 1), "date": day, "station": station}
        changed = right | changed
    refused(lambda: tucker.queries(entries, changed), pattern)


def test_wrong_grids_get_one_line(entries):
    refused(
        lambda: tucker.grid(entries, hour=3), r"`grid\(hour=...\)`: the modes are place"
    )
    refused(lambda: tucker.grid(entries, station=[]), r"is empty; give it a coordinate")


def test_float32_refuses_what_it_cannot_distinguish():
    small = y.astype(np.float32)
    seconds = 1.6e9 + 60 * np.arange(n)
    refused(lambda: tucker.Entries({"time": seconds}, small), r"float32 cannot distinguish")
    tucker.Entries({"time": seconds}, y)
    far = np.datetime64("2010-01-01", "s") + np.timedelta64(
        86400 * 300 + 1, "s"
    ) * np.arange(n)
    refused(lambda: tucker.Entries({"date": far}, small), r"float32 cannot hold the dates")
    hours = np.datetime64("2010-01-01", "h") + np.timedelta64(997, "h") * np.arange(n)
    data = tucker.Entries({"date": hours}, small)
    np.testing.assert_array_equal(data.axes[0].coords(), hours)


def test_answers_on_a_grid_have_the_coordinates_of_the_modes(entries):
    found = tucker.grid(entries, date=day[:3], station="a", place=[40.0, 116.0])
    array = found.labelled(np.arange(6.0).reshape(2, 3), "pm25")
    assert (array.dims, array.shape) == (("chain", "date"), (2, 3))
    assert array.sel(date="2013-03-06", chain=1) == 4.0


def test_listed_answers_have_coordinates_along_the_entries(entries):
    array = tucker.queries(entries, table()).labelled(y)
    assert array.dims == ("entry",)
    np.testing.assert_array_equal(array["lat"], lat)
    np.testing.assert_array_equal(array["day"], day)
    np.testing.assert_array_equal(array["station"], station)
    refused(lambda: tucker.queries(entries, entries).labelled(y[:3]), r"for 12 queries")
