"""A posterior as a value: drawn from again, saved, asked for moments, started from."""

import json
from dataclasses import replace
from functools import cache

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array, Float
from numpyro.infer import autoguide

import probkit as pk
from doors import refused
from own import NormalMean, Values
from probkit.infer.laplace import Normal
from probkit.method import RESULTS, AbstractApproximation, AbstractMethod, Draws, Point
from probkit.model import AbstractModel
from probkit.models import gp

KEY = jax.random.key(0)


class Answers(AbstractModel):
    """`NormalMean` by other words, with exact moments under a normal posterior."""

    def __call__(self, data):
        level = numpyro.sample("level", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(level, 1.0).to_event(1), obs=data.y)

    def moments(self, approximation, inputs, data):
        if not isinstance(approximation, Normal):
            return None
        sd = jnp.sqrt((approximation.root**2).sum(1))
        both = {"mean": approximation.maximum, "sd": sd}
        return {k: jnp.broadcast_to(v, inputs.y.shape) for k, v in both.items()}

    def dims(self, data):
        axes = ("observation", "column")
        return {"level": ("column",), "mean": axes, "sd": axes, "y": axes}

    def coords(self, data):
        return {"observation": np.arange(len(data)), "column": ["a", "b"]}


@cache
def values():
    return Values(np.random.default_rng(1).normal([1.0, -2.0], 1.0, (40, 2)))


def exact():
    """Mean and sd of the posterior of `NormalMean`."""
    precision = 40 + 1 / 9
    return np.asarray(values().y).sum(0) / precision, precision**-0.5


METHODS = {
    "laplace": pk.MAP(num_starts=1, num_draws=50),
    "guide": pk.SVI(guide="multivariate_normal", num_draws=50, max_steps=3000),
    "flow": pk.SVI(guide="iaf", num_draws=50, max_steps=20, window=5),
    "point": pk.MAP(num_starts=1),
}


@cache
def fit_by(name):
    return pk.fit(NormalMean(), values(), METHODS[name], key=KEY, throw=False)


every_method = pytest.mark.parametrize("name", METHODS)


def test_laplace_keeps_the_posterior_itself():
    found = fit_by("laplace").approximation
    mean, sd = exact()
    assert isinstance(found, Normal)
    np.testing.assert_allclose(found.maximum, mean, atol=1e-4 * sd)
    np.testing.assert_allclose(found.root @ found.root.T, sd**2 * np.eye(2), atol=1e-12)


@every_method
def test_draws_have_the_shapes_and_names_of_the_posterior(name):
    fitted = fit_by(name)
    args = (fitted.model, fitted.data, KEY, 7)
    shapes = eqx.filter_eval_shape(fitted.approximation.sample, *args)
    assert {k: v.shape for k, v in shapes.items()} == {"mean": (7, 2)}


@pytest.mark.parametrize("name", ["laplace", "guide"])
def test_more_draws_than_a_fit_has_are_drawn_from_its_approximation(name):
    fitted = fit_by(name)
    found = pk.predict(fitted, 1, key=KEY, num_draws=20_000)["y"]
    assert (found.sizes["chain"], found.sizes["draw"]) == (1, 20_000)
    assert len(np.unique(found.isel(observation=0).values)) > 19_000
    mean, sd = exact()
    flat = found.values.reshape(-1, 2)
    spread = np.sqrt(1 + sd**2)
    # Four standard errors, and for a guide a fifth of the posterior's sd.
    np.testing.assert_allclose(flat.mean(0), mean, atol=4 * spread / 141 + 0.2 * sd)
    np.testing.assert_allclose(flat.std(0), spread, rtol=4 / 200)
    again = pk.predict(fitted, 1, key=KEY, num_draws=20_000)["y"]
    np.testing.assert_array_equal(again, found)


def test_as_many_draws_as_a_fit_has_are_its_own():
    fitted = fit_by("laplace")
    own = pk.predict(fitted, 1, key=KEY)
    assert own.equals(pk.predict(fitted, 1, key=KEY, num_draws=50))
    assert pk.predict(fitted, 1, key=KEY, num_draws=5).sizes["draw"] == 5


def test_a_fit_without_an_approximation_has_its_own_draws_only():
    fitted = replace(fit_by("laplace"), approximation=None)
    assert pk.predict(fitted, 1, key=KEY, num_draws=70).sizes["draw"] == 50


def test_a_point_predicts_as_often_as_asked():
    fitted = fit_by("point")
    found = pk.predict(fitted, 1, key=KEY, num_draws=4000)["y"].values.reshape(-1, 2)
    here = fitted.posterior["mean"].values[0, 0]
    np.testing.assert_allclose(found.mean(0), here, atol=4 / np.sqrt(4000))
    np.testing.assert_allclose(found.std(0), 1.0, rtol=4 / np.sqrt(8000))


def test_new_draws_have_the_labels_of_the_old_ones(em_fit):
    axes = em_fit.model.dims(em_fit.data)
    swapped = {
        name: jnp.flip(array, axes[name].index("expert"))
        if "expert" in axes[name]
        else array
        for name, array in em_fit.sites().items()
    }
    assert not np.allclose(swapped["coefficient"], em_fit.sites()["coefficient"])
    fitted = replace(em_fit, approximation=Point(swapped))
    more = pk.predict(fitted, [-1.0, 1.0], key=KEY, num_draws=2001)["membership"]
    one = pk.predict(em_fit, [-1.0, 1.0], key=KEY, num_draws=1)["membership"]
    assert more.sizes["draw"] == 2001
    np.testing.assert_allclose(more.isel(draw=0), one.isel(draw=0), rtol=1e-9)


# Started from.


@pytest.mark.parametrize("name", ["guide", "flow"])
def test_svi_starts_at_the_parameters_of_a_guide(name):
    first = fit_by(name)
    # Before the first window is full, its result is where it started.
    method = pk.SVI(guide=first.method.guide, max_steps=1, num_starts=2, num_draws=5)
    again = pk.fit(NormalMean(), values(), method, key=KEY, start=first, throw=False)
    found = again.approximation.params
    np.testing.assert_array_equal(found, first.approximation.params)


@pytest.mark.parametrize("name", ["guide", "point"])
def test_a_guide_of_another_kind_starts_at_draws(name):
    method = pk.SVI(guide="normal", max_steps=1, num_draws=5)
    found = pk.fit(
        NormalMean(), values(), method, key=KEY, start=fit_by(name), throw=False
    ).approximation
    assert found.kind == "normal"
    draws = fit_by(name).posterior["mean"].values.reshape(-1, 2)
    # The first two parameters are the centre.
    assert np.isclose(draws, found.params[:2]).all(1).any()


def test_a_flow_does_not_start_at_draws():
    refused(
        lambda: pk.fit(
            NormalMean(), values(), METHODS["flow"], key=KEY, start=fit_by("guide")
        ),
        r"the flow 'iaf' .* give a fit by `SVI\(guide='iaf'\)`, or leave `start` out",
    )


def test_an_approximation_of_another_model_is_refused():
    one = pk.fit(NormalMean(), values(), METHODS["point"], key=KEY)
    other = gp.Observed(np.arange(9.0), np.sin(np.arange(9.0)))
    refused(
        lambda: pk.fit(gp.Regression(gp.Matern()), other, pk.SVI(), key=KEY, start=one),
        "is a fit of `NormalMean` and has no",
    )


# Files.


@every_method
def test_a_file_keeps_the_approximation(name, tmp_path):
    fitted = fit_by(name)
    path = pk.save(fitted, tmp_path / "fit.nc")
    again = pk.load(path, families=[NormalMean, Values])
    assert eqx.tree_equal(again.approximation, fitted.approximation, typematch=True)
    assert again.tree.identical(fitted.tree)
    found, wanted = (
        pk.predict(fit, 3, key=KEY, num_draws=200)["y"] for fit in (again, fitted)
    )
    np.testing.assert_array_equal(found, wanted)


class Part(eqx.Module):
    mean: Float[Array, " p"]
    sd: float = eqx.field(static=True)


class Parts(AbstractApproximation):
    """Modules in a tuple: one per column."""

    parts: tuple[Part, ...]

    def sample(self, model, data, key, num):
        mean = jnp.stack([part.mean[0] for part in self.parts])
        sd = jnp.array([part.sd for part in self.parts])
        return {"mean": mean + sd * jax.random.normal(key, (num, len(self.parts)))}


class Known(AbstractMethod):
    """Gives what it is told to, or goes on from there by one."""

    def starts_at(self, approximation, model, data):
        return isinstance(approximation, Parts)

    def run(self, model, data, key, start, running):
        parts = tuple(Part(jnp.array([m]), 0.5) for m in (3.0, 4.0))
        if start is not None:
            assert start.parts[0].mean.shape == (1, 1)
            parts = tuple(Part(part.mean[0] + 1, part.sd) for part in start.parts)
        found = Parts(parts)
        draws = found.sample(model, data, key, 2)
        sites = {k: np.asarray(v)[None] for k, v in draws.items()}
        return Draws(sites, {}, {}, RESULTS.successful, approximation=found)

    def checks(self, tree, facts):
        return ()


def test_an_approximation_of_ones_own_is_kept_and_started_from(tmp_path):
    fitted = pk.fit(NormalMean(), values(), Known(), key=KEY)
    path = pk.save(fitted, tmp_path / "fit.nc")
    classes = [NormalMean, Values, Known, Parts, Part]
    loaded = pk.load(path, families=classes)
    assert eqx.tree_equal(loaded.approximation, fitted.approximation)
    again = pk.fit(NormalMean(), values(), Known(), key=KEY, start=loaded)
    assert [float(part.mean[0]) for part in again.approximation.parts] == [4.0, 5.0]


def test_what_a_file_does_not_restore_is_said_in_a_line(tmp_path):
    path = pk.save(pk.fit(NormalMean(), values(), Known(), key=KEY), tmp_path / "a.nc")
    with pytest.warns(UserWarning) as said:
        again = pk.load(path, families=[NormalMean, Values])
    assert again.approximation is None
    (line,) = (str(one.message) for one in said)
    assert "approximation `test_approximation.Parts`" in line
    assert "families=[Parts]" in line
    method = pk.SVI(guide=autoguide.AutoNormal, max_steps=5, num_draws=5)
    path = pk.save(
        pk.fit(NormalMean(), values(), method, key=KEY, throw=False), tmp_path / "b.nc"
    )
    with pytest.warns(UserWarning, match="only the name of `kind` is in the file") as said:
        again = pk.load(path, families=[NormalMean, Values])
    assert "\n" not in str(said[0].message)
    assert pk.predict(again, 1, key=KEY).sizes["draw"] == 5


@pytest.mark.parametrize("name", ["os.system", "own.NormalMean", "moe.os", ""])
def test_a_file_cannot_name_a_class_of_its_choice(name, tmp_path):
    path = pk.save(fit_by("point"), tmp_path / "fit.nc")
    with h5py.File(path, "r+") as file:
        record = json.loads(file.attrs["probkit"])
        record["approximation"]["class"] = name
        file.attrs["probkit"] = json.dumps(record)
    with pytest.warns(UserWarning, match=f"its approximation `{name}`: `{name}` is no"):
        again = pk.load(path, families=[NormalMean, Values])
    assert again.approximation is None


# Moments.


def test_moments_are_those_of_the_posterior():
    fitted = pk.fit(Answers(), values(), METHODS["laplace"], key=KEY)
    found = pk.moments(fitted, 3)
    assert found["mean"].dims == found["sd"].dims == ("observation", "column")
    assert found.sizes["observation"] == 3
    assert list(found["column"].values) == ["a", "b"]
    mean, sd = exact()
    np.testing.assert_allclose(found["mean"], np.tile(mean, (3, 1)), atol=1e-4 * sd)
    np.testing.assert_allclose(found["sd"], sd, rtol=1e-9)


def test_moments_of_a_regression_at_its_maximum_are_those_of_its_predictions():
    x = np.linspace(0, 6, 20)
    data = gp.Observed(x, np.sin(x) + 0.1 * np.cos(40 * x))
    fitted = pk.fit(
        gp.Regression(gp.Matern()), data, pk.MAP(num_starts=1), key=KEY, throw=False
    )
    found = pk.moments(fitted, [1.0, 2.5])
    drawn = pk.predict(fitted, [1.0, 2.5], key=KEY).isel(chain=0, draw=0)
    for name in ("mean", "sd"):
        assert found[name].dims == ("observation",)
        np.testing.assert_allclose(found[name], drawn[name], rtol=1e-9)


NO_MOMENTS = {
    "a model that knows none": (lambda: fit_by("laplace"), "`NormalMean` knows no exact"),
    "another approximation": (
        lambda: pk.fit(Answers(), values(), METHODS["point"], key=KEY),
        r"`Answers` knows no exact moments for a `Point`; use draws, `pk.predict",
    ),
    "draws only": (
        lambda: replace(fit_by("laplace"), approximation=None),
        "has draws and no approximation; use draws",
    ),
}


@pytest.mark.parametrize("make, words", NO_MOMENTS.values(), ids=NO_MOMENTS.keys())
def test_moments_that_nobody_knows_are_refused(make, words):
    refused(lambda: pk.moments(make(), 3), words)


def test_fits_by_nuts_have_draws_only(nuts_fit):
    assert nuts_fit.approximation is None
