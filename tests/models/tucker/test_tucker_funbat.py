"""The tables of the paper: splits, scales, scores, and a fit of the simulated surface."""

import importlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from probkit.models import tucker
from probkit.models.tucker.funbat import data, fits, table

POWERS = pytest.mark.parametrize("power", fits.POWERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of the same form as those of the paper, with few rows, and five folds."""
    path, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    day, station = (a.ravel() for a in np.meshgrid(np.arange(40), np.arange(6)))
    n = len(day)
    temp = 10 + 5 * np.sin(day / 6) + rng.normal(size=n).round()
    found = {"day": day, "station": station, "temp": temp, "pres": 1010 + day % 7}
    for name in data.AIR:
        found[name] = np.exp(3 + 0.2 * station + np.cos(day / 5) + 0.1 * rng.normal(size=n))
        found[f"folds_{name}"] = np.stack([rng.permutation(n) for _ in range(5)])
    np.savez(path / "beijing_daily.npz", n_train=192, **found)
    return path


@pytest.mark.parametrize("kind", ["distinct", "days", "stations"])
def test_groups_are_held_out_whole(folder, kind):
    made = data.read(folder, "pm25")
    kept, held = made.split(kind, 0)
    rows = made.rows
    of = {"distinct": rows.x, "days": rows.day[:, None], "stations": rows.station[:, None]}
    apart = {tuple(one) for one in of[kind][kept]} & {tuple(one) for one in of[kind][held]}
    assert not apart
    assert len(kept) == len(set(kept)) == made.num_train
    assert 0 < len(held) <= len(made.rows) - made.num_train
    assert not np.array_equal(held, made.split(kind, 1)[1])


def test_published_folds_share_groups_and_are_as_in_the_file(folder):
    made = data.read(folder, "so2")
    kept, held = made.split("published", 3)
    assert set(made.rows.day[kept]) & set(made.rows.day[held])
    np.testing.assert_array_equal(np.append(kept, held), made.folds[3])
    assert made.rows.y.mean() == pytest.approx(0, abs=1e-12)
    assert made.rows.y.std(ddof=1) == pytest.approx(1)


@POWERS
def test_a_power_goes_back_and_its_slope_is_that_of_a_difference(folder, power):
    rows = data.read(folder, "pm25").rows
    scale, step = fits.Scale.of(rows, power), 1e-6
    value = scale.forward(rows.y)
    np.testing.assert_allclose(scale.back(value), rows.y, atol=1e-12)
    slope = (scale.forward(rows.y + step) - scale.forward(rows.y - step)) / (2 * step)
    np.testing.assert_allclose(scale.log_slope(rows.y), np.log(slope), atol=1e-6)


def test_values_without_a_zero_keep_their_scale():
    rows = data.simulated().rows
    assert fits.Scale.of(rows, 0.25) == fits.Scale()
    np.testing.assert_array_equal(fits.Scale().forward(rows.y), rows.y)
    np.testing.assert_array_equal(fits.Scale().log_slope(rows.y), 0.0)


@pytest.mark.parametrize(
    ("observation", "unit"),
    [
        (tucker.Normal(), scipy.stats.norm),
        (tucker.StudentT(4.0), scipy.stats.t(4.0)),
    ],
)
def test_scores_are_those_of_the_mixture_of_the_draws(observation, unit):
    surface, sd = np.array([[0.0, 1.0], [0.5, 1.0]]), np.array([0.3, 0.6])
    found = fits.Predicted(surface, sd, fits.Scale(), observation, {})
    inside, outside = 0.3, 1.0 + 10 * 0.6
    scores = found.scores(np.array([inside, outside]))
    density = [
        np.mean([unit.pdf((y - f) / s) / s for f, s in zip(row, sd, strict=True)])
        for y, row in zip((inside, outside), surface.T, strict=True)
    ]
    assert scores["nlpd"] == pytest.approx(-np.mean(np.log(density)))
    assert scores["in_90"] == 0.5
    np.testing.assert_allclose(found.center(), [0.25, 1.0])


def test_a_power_has_the_density_of_the_values(folder):
    # Integrated over the values by the trapezoid rule.
    rows = data.read(folder, "pm25").rows
    scale = fits.Scale.of(rows, 0.25)
    y = rows.zero + np.linspace(1e-3, 12, 4001)
    one = fits.Predicted(np.ones((1, 1)), np.array([0.1]), scale, tucker.Normal(), {})
    density = [np.exp(-one.scores(at[None])["nlpd"]) for at in y]
    assert np.trapezoid(density, y) == pytest.approx(1, abs=1e-3)


def test_held_out_values_change_no_prior_and_their_points_are_there(folder):
    made = data.read(folder, "pm25")
    kept, held = made.split("days", 0)
    train, test = made.rows.take(kept), made.rows.take(held, hide=True)
    assert np.isnan(test.y).all()
    assert train.table is not None
    assert np.isnan(train.table.y).all()
    np.testing.assert_array_equal(train.table.x[test.index], test.x)
    scale = fits.Scale.of(train, 0.25)
    entries, whole = fits.entries_of(train, scale)
    (day,) = (axis for axis in entries.axes if axis.name == "day")
    assert len(day) == 40 > len(set(train.day))
    assert (len(entries), len(whole)) == (len(kept), len(made.rows))
    np.testing.assert_allclose(entries.y, scale.forward(train.y))
    np.testing.assert_allclose(entries.y_sd, entries.y.std())
    assert float(day.length) == pytest.approx(np.ptp(train.day))
    # The points of all splits are the same, and so is the compiled program.
    again, _ = fits.entries_of(made.rows.take(made.split("stations", 1)[0]), scale)
    assert [a.points.shape for a in again.axes] == [a.points.shape for a in entries.axes]
    assert jnp.array_equal(again.axes[0].points, entries.axes[0].points)


def test_the_simulated_surface_is_closer_than_the_authors_have_it():
    found = table.attempt(None, "surface", 1)
    assert found.error < 1e-4 < table.AUTHORS["surface"].error
    assert found.in_90 > 0.9
    cells = table.line(found).split()
    assert cells[:3] == ["surface", "1", "0.0042"]


def test_rows_of_a_table_are_means_over_folds(folder, monkeypatch):
    def known(train, test, power):
        day = table.day_mean(train, test)
        scale = fits.Scale.of(train, power)
        surface = scale.forward(day)[None]
        return fits.Predicted(surface, np.array([0.1]), scale, tucker.Normal(), {})

    monkeypatch.setattr(fits, "power_of", lambda train: 0.25)
    monkeypatch.setattr(fits, "predicted", known)
    found = table.attempt(folder, "pm10", 2)
    assert found.error == pytest.approx(found.day_mean)
    assert found.powers == (0.25, 0.25)
    _, row, missing = table.rows(folder, ["pm10", "us_temp"], 2)
    assert row.split()[:3] == ["pm10", "2", "0.4311"]
    assert missing.startswith("not run: us_temp")
    assert "us_temp.npz" in missing
    assert "beijing" not in missing


def test_a_table_whose_file_is_missing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`so2` needs `beijing_daily\.npz`"):
        data.read(tmp_path, "so2")


@pytest.mark.parametrize(
    ("commit", "rank", "goes_on"),
    [("abc", 2, True), ("abc", 3, False), ("abc+", 2, False)],
)
def test_a_run_that_was_cut_off_goes_on(commit, rank, goes_on, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    script = importlib.import_module("funbat")
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    row = {"set": "pm25", "split": "days", "fold": 0, "side": "mean"}
    first = script.Rowed(False, {"commit": commit, "rank": 2})
    first.add(row | {"rmse": 0.5})
    assert first.has(row)
    again = script.Rowed(False, {"commit": commit, "rank": rank})
    assert again.has(row) == goes_on
    assert not again.has(row | {"fold": 1})
