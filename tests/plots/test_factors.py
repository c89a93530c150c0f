"""Pictures of factorised surfaces: what is drawn is what the arrays hold."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from doors import refused
from probkit import plots

rng = np.random.default_rng(0)
days = np.datetime64("2020-01-01") + np.array([0, 1, 5, 9])
CURVES = xr.Dataset(
    {
        "factor_day": (
            ("chain", "draw", "day", "component"),
            rng.normal(size=(2, 50, 4, 2)),
        ),
        "effect_station": (("chain", "draw", "station"), rng.normal(size=(2, 50, 3))),
        "surface": (("chain", "draw", "entry"), rng.normal(size=(2, 50, 6))),
    },
    {"day": days.astype("M8[us]"), "station": ["a", "b", "c"], "component": [0, 1]},
)
FIELD = xr.DataArray(
    rng.normal(size=(2, 50, 4, 3)),
    {"day": days.astype("M8[us]"), "depth": [1.0, 2.0, 4.0]},
    ("chain", "draw", "day", "depth"),
    "temperature",
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_factors_draws_a_panel_per_variable_and_a_curve_per_component():
    axes = plots.factors(CURVES)
    assert len(axes) == 2
    lines = axes[0].get_lines()
    assert len(lines) == 2
    mean = CURVES["factor_day"].mean(("chain", "draw"))
    for i, line in enumerate(lines):
        np.testing.assert_allclose(line.get_ydata(), mean.isel(component=i))
    texts = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert texts == ["component 0", "component 1"]


def test_factors_of_labels_are_dots_with_intervals():
    panel = plots.factors(CURVES[["effect_station"]], prob=0.5)[0]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["a", "b", "c"]
    low, high = CURVES["effect_station"].quantile([0.25, 0.75], ("chain", "draw")).values
    ends = np.array([path[:, 1] for path in panel.collections[0].get_segments()])
    np.testing.assert_allclose(ends, np.stack([low, high], 1))


def test_surface_draws_the_mean_on_the_coordinates():
    ax = plots.surface(FIELD)
    mesh = ax.collections[0]
    mean = FIELD.mean(("chain", "draw")).transpose("depth", "day")
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(3, 4), mean)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("day", "depth")
    turned = plots.surface(FIELD.mean(("chain", "draw")), x="depth")
    assert (turned.get_xlabel(), turned.get_ylabel()) == ("depth", "day")
    assert len(turned.collections) == 1  # one draw has no sd


def test_wrong_arrays_get_one_line():
    refused(lambda: plots.factors(CURVES[["surface"]]), r"neither of them")
    refused(lambda: plots.factors(CURVES, prob=2.0), r"prob=2")
    wrong = CURVES.rename(factor_day="factor_hour")
    refused(lambda: plots.factors(wrong), r"`factor_hour` has the axes chain, draw, day")
    refused(lambda: plots.surface(FIELD.isel(day=0)), r"over two modes, and here are depth")
    refused(lambda: plots.surface(FIELD, x="hour"), r"the modes are day and depth")
    refused(lambda: plots.surface(3), r"here are none")
