"""Small real data: what is in them is what their sources say."""

import numpy as np
import pytest

from probkit import datasets
from probkit.models import moe


def test_atlantic_ends_at_the_sea_floor():
    water = datasets.atlantic()
    assert dict(water.sizes) == {"depth": 15, "latitude": 6, "longitude": 8}
    there = water.temperature.notnull()
    assert (there == water.salinity.notnull()).all()
    # Where there is water, there is water all the way up.
    assert (there.astype(int).diff("depth") <= 0).all()
    assert int(there.sum()) == 687
    assert float(water.depth[~there.all(("latitude", "longitude"))].min()) == 2579


def test_atlantic_is_where_it_says():
    # Two values of the file that it was made from, by their places.
    water = datasets.atlantic()
    place = {"latitude": -9.834, "longitude": -34.5}
    assert float(water.temperature.sel(depth=303, **place)) == 12.421
    place = {"latitude": -1.501, "longitude": 0.5}
    assert float(water.salinity.sel(depth=4478, **place)) == 34.857
    for name, low, high in (("temperature", 1.2, 12.81), ("salinity", 34.5, 35.25)):
        assert low < float(water[name].min()) < float(water[name].max()) < high


def test_deep_water_of_the_atlantic_grows_colder_downward():
    mean = datasets.atlantic().temperature.mean(("latitude", "longitude"))
    assert (mean.diff("depth") < 0).all()


def test_motorcycle_has_133_readings_in_order_of_time():
    crash = datasets.motorcycle()
    assert dict(crash.sizes) == {"reading": 133}
    assert (np.diff(crash.time) >= 0).all()
    assert (crash.time.values[0], crash.time.values[-1]) == (2.4, 57.6)
    assert (float(crash.acceleration.min()), float(crash.acceleration.max())) == (-134, 75)


def test_penguins_are_the_complete_ones_of_three_species():
    birds = datasets.penguins()
    species, counts = np.unique(birds.species, return_counts=True)
    assert dict(zip(species, counts, strict=True)) == {
        "Adelie": 146,
        "Chinstrap": 68,
        "Gentoo": 119,
    }
    assert set(birds.sex.values) == {"female", "male"}
    for name in ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"):
        assert np.isfinite(birds[name]).all()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("bill_length_mm", 30, 60),
        ("bill_depth_mm", 13, 22),
        ("flipper_length_mm", 170, 235),
        ("body_mass_g", 2500, 6500),
    ],
)
def test_sizes_of_penguins_are_in_the_units_they_name(name, low, high):
    column = datasets.penguins()[name]
    assert low < float(column.min()) < float(column.max()) < high
    assert name.endswith("_" + column.attrs["units"])


def test_radon_has_919_homes_of_85_counties():
    homes = datasets.radon()
    assert dict(homes.sizes) == {"home": 919}
    counties, counts = np.unique(homes.county, return_counts=True)
    assert (len(counties), counts.min(), counts.max()) == (85, 1, 116)
    assert counties[counts == 116] == ["St. Louis"]
    assert (int((homes.floor == 0).sum()), int((homes.floor == 1).sum())) == (766, 153)
    # One number per county.
    assert len(set(zip(homes.county.values, homes.uranium.values, strict=True))) == 85


def test_radon_is_in_the_units_it_names():
    homes = datasets.radon()
    assert (float(homes.radon.min()), float(homes.radon.max())) == (0.0, 48.2)
    assert int((homes.radon == 0).sum()) == 3
    seen = homes.radon > 0
    np.testing.assert_allclose(np.exp(homes.log_radon[seen]), homes.radon[seen])
    # Radon comes from below: Gelman & Hill (2007) have -0.61 for complete pooling.
    slope, _ = np.polyfit(homes.floor, homes.log_radon, 1)
    assert slope == pytest.approx(-0.61, abs=0.005)


def test_weather_is_every_hour_of_a_month_with_one_wrong_reading():
    air = datasets.weather()
    assert dict(air.sizes) == {"time": 744, "airport": 3}
    assert (np.diff(air.time) == np.timedelta64(1, "h")).all()
    wrong = air.temperature < 5
    assert int(wrong.sum()) == 1
    assert float(air.temperature.sel(time="2013-05-08T22:00", airport="JFK")) == -10.5
    assert float(air.temperature.max()) == 33.9


@pytest.mark.parametrize("name", datasets.__all__)
def test_every_data_set_tells_origin_licence_and_units(name):
    data = getattr(datasets, name)()
    assert data.attrs["origin"]
    assert data.attrs["licence"]
    numbers = [v for v in data.data_vars.values() if v.dtype.kind == "f"]
    assert numbers
    assert all(v.attrs["units"] for v in numbers)


@pytest.mark.parametrize("name", datasets.__all__)
def test_a_call_returns_data_of_its_own(name):
    load = getattr(datasets, name)
    first = load()
    numeric = next(k for k, v in first.data_vars.items() if v.dtype.kind == "f")
    first[numeric][:] = -1
    assert (load()[numeric] != -1).all()


def test_columns_go_to_a_family_with_their_names():
    crash, birds = datasets.motorcycle(), datasets.penguins()
    assert moe.Pairs(crash.time, crash.acceleration).inputs == ("time",)
    bill = birds[["bill_length_mm", "bill_depth_mm"]].to_dataarray("input").T
    names = moe.Pairs(bill, birds.body_mass_g).inputs
    assert names == ("bill_length_mm", "bill_depth_mm")
