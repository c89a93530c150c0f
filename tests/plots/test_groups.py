"""Pictures of many small data sets: what is drawn is what the fit and its data hold."""

import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

import probkit as pk
from doors import refused
from probkit import plots
from probkit.models import meta
from probkit.plots.groups import LONGEST, label_rows, least_squares

KEY = jax.random.key(0)
SIZES = (1, 2, 5, 8)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(1)
    x = [rng.uniform(0, 10, size) for size in SIZES]
    y = [3 + i + own + 0.5 * rng.normal(size=len(own)) for i, own in enumerate(x)]
    data = meta.Episodes(x, y, names=["one", "two", "five", "eight"])
    method = meta.Episodic(num_draws=50, draws="approximation")
    return pk.fit(meta.Linear(), data, method, key=KEY)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_least_squares_are_those_of_numpy(fitted):
    data = fitted.data
    own, pooled = least_squares(fitted.model, data)
    assert np.isnan(own[0]).all()
    x, y, seen = (np.asarray(a) for a in (data.x[..., 0], data.y, data.seen))
    for i in range(1, len(SIZES)):
        slope, level = np.polyfit(x[i, seen[i]], y[i, seen[i]], 1)
        np.testing.assert_allclose(own[i], [level, slope], rtol=1e-8)
    np.testing.assert_allclose(pooled[::-1], np.polyfit(x[seen], y[seen], 1), rtol=1e-8)


def test_shrinkage_draws_each_data_set_in_order(fitted):
    ax = plots.shrinkage(fitted, key=KEY, term="x0", prob=0.5)
    each = pk.recover(fitted, key=KEY)["coefficient"].sel(term="x0")
    middle = each.median(("chain", "draw"))
    dots = next(line for line in ax.get_lines() if line.get_label() == "fit, 50%")
    np.testing.assert_allclose(dots.get_xdata(), np.sort(middle))
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == list(middle["group"].values[np.argsort(middle.values)])
    low, high = each.quantile([0.25, 0.75], ("chain", "draw")).values
    ends = np.array([path[:, 0] for path in ax.collections[0].get_segments()])
    order = np.argsort(middle.values)
    np.testing.assert_allclose(ends, np.stack([low, high], 1)[order])
    # A data set of one row has no estimate of its own.
    alone = [line for line in ax.get_lines() if line.get_marker() in "o<>"][1:]
    assert sum(len(line.get_xdata()) for line in alone) == len(SIZES) - 1
    assert ax.get_xlabel() == "x0"


def test_long_names_keep_both_ends():
    ax = plt.subplots()[1]
    label_rows(ax, ["one", "Saint Bartholomew's Hospital, ward 12"])
    short, cut = [label.get_text() for label in ax.get_yticklabels()]
    assert short == "one"
    assert cut.startswith("Saint B") and cut.endswith("ward 12") and len(cut) <= LONGEST


def test_arriving_draws_a_panel_per_count(fitted):
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 10, 6)
    y = 12 + x + 0.5 * rng.normal(size=6)
    panels = plots.arriving(fitted, x, y, key=KEY, counts=(0, 1, 6), num=5)
    titles = [panel.get_title("left") for panel in panels]
    assert titles == ["0 points known", "1 point known", "6 points known"]
    for panel, count in zip(panels, (0, 1, 6), strict=True):
        known = panel.get_lines()[1]
        np.testing.assert_allclose(known.get_xdata(), x[:count])
    (legend,) = panels[0].figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["new y, 90%", "mean of y", "known", "to come"]
    widths = []
    for panel in panels:
        band = panel.collections[0].get_paths()[0].vertices[:, 1]
        widths.append(np.ptp(band))
    # The level of a new data set is known better with each of its points.
    assert widths[2] < widths[0]
    mean = panels[2].get_lines()[0].get_ydata()
    assert abs(mean.mean() - (12 + 5)) < 1.5


def test_an_exponent_does_not_move_the_title_of_its_panel(fitted):
    own = plt.subplots(1, 3)[1]
    x = np.arange(6.0)
    plots.arriving(fitted, x, 1e7 * x, own, key=KEY, counts=(0, 1, 6), num=5)
    (figure,) = {panel.figure for panel in own}
    assert not figure.legends  # only a figure of its own gets one
    figure.canvas.draw()
    assert "1e" in own[0].yaxis.get_offset_text().get_text()
    heights = [panel._left_title.get_window_extent().y0 for panel in own]
    assert np.ptp(heights) < 1


def test_what_cannot_be_drawn_is_refused(fitted):
    def shrink(**settings):
        return plots.shrinkage(fitted, key=KEY, **settings)

    def arrive(x=(1.0, 2.0), y=(1.0, 2.0), **settings):
        return plots.arriving(fitted, x, y, key=KEY, **settings)

    refused(lambda: shrink(term="x1"), "coefficients are intercept, x0")
    refused(lambda: shrink(prob=1.0), "prob")
    refused(lambda: arrive(y=(1.0,)), r"\(2,\) and \(1,\)")
    refused(lambda: arrive(counts=(3,)), "from 0 to 2")
    refused(lambda: arrive(counts=()), "from 0 to 2")
    refused(lambda: arrive(num=1), "at least 2")
    refused(lambda: arrive(ax=plt.subplots()[1], counts=(0, 1)), r"plt.subplots\(1, 2\)")


def test_other_fits_are_refused():
    rng = np.random.default_rng(3)
    data = meta.Episodes(rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3)))
    net = eqx.nn.Linear(2, 1, key=KEY)
    method = meta.Episodic(num_draws=2, max_steps=2)
    other = pk.fit(meta.Network(net), data, method, key=KEY, throw=False)
    refused(lambda: plots.shrinkage(other, key=KEY), "meta.Linear.*`Network`")
    refused(lambda: plots.arriving(other, [1.0], [1.0], key=KEY), "one input")
