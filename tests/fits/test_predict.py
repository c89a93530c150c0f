"""Predictions of a program that says nothing of them, and how large they may be."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import probkit as pk
from doors import refused
from own import Counts, NormalMean, PoissonRegression, Values
from probkit.fits import predict as predictions
from probkit.model import AbstractData, AbstractModel

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def poisson():
    x = jnp.linspace(-1, 1, 60)
    data = Counts(x, jax.random.poisson(KEY, jnp.exp(1 + x)))
    return pk.fit(PoissonRegression(), data, pk.NUTS(2, 300, 300), key=KEY)


def test_a_program_predicts_at_other_inputs(poisson):
    found = pk.predict(poisson, [0.0, 0.5], key=KEY)["y"]
    assert found.dims == ("chain", "draw", "observation")
    draws = poisson.posterior
    for k, x in enumerate((0.0, 0.5)):
        rate = np.exp(draws["intercept"] + draws["slope"] * x)
        # 600 draws of variance about the rate: four standard errors.
        error = 4 * float(np.sqrt((rate.mean() + rate.var()) / 600))
        assert float(found[..., k].mean()) == pytest.approx(float(rate.mean()), abs=error)


def test_a_dict_and_data_say_the_same(poisson):
    by_list = pk.predict(poisson, [0.0, 0.5], key=KEY)
    by_name = pk.predict(poisson, {"x": [0.0, 0.5]}, key=KEY)
    by_data = pk.predict(poisson, Counts([0.0, 0.5], [0, 0]), key=KEY)
    assert by_name.equals(by_list)
    assert by_data.equals(by_list)


WRONG = {
    "NaN": ([0.0, np.nan], r"`predict\(..., inputs\)\[x\]` has 1 value"),
    "two axes": ([[1.0, 2.0]], r"`x` has shape \(1, 2\).* takes \(m,\)"),
    "nothing": ([], "has no rows"),
    "another name": ({"z": [1.0]}, "has z; `Counts` takes x"),
    "text": (["a"], "holds text"),
}


@pytest.mark.parametrize("given, words", WRONG.values(), ids=WRONG.keys())
def test_inputs_of_another_kind_are_refused(poisson, given, words):
    refused(lambda: pk.predict(poisson, given, key=KEY), words)


def test_a_program_without_inputs_predicts_as_many_as_asked_for():
    y = jax.random.normal(KEY, (30, 2)) + jnp.array([1.0, -2.0])
    fitted = pk.fit(NormalMean(), Values(y), pk.MAP(num_draws=100), key=KEY)
    found = pk.predict(fitted, 5, key=KEY)["y"]
    assert found.dims[2] == "observation"
    assert found.sizes["observation"] == 5
    refused(lambda: pk.predict(fitted, 0, key=KEY), "takes a whole number, 1 or more")


class Panel(AbstractData):
    group: Array
    x: Array
    y: Array


class Levels(AbstractModel):
    """Groups with a level each, observations with an error each; and what is computed."""

    def __call__(self, data):
        with numpyro.plate("group_id", 3):
            level = numpyro.sample("level", dist.Normal(0.0, 3.0))
        with numpyro.plate("observation", len(data)):
            error = numpyro.sample("error", dist.Normal(0.0, 1.0))
            mean = numpyro.deterministic("mean", level[data.group] + data.x)
            numpyro.sample("y", dist.Normal(mean + error, 0.1), obs=data.y)


def test_latents_of_observations_are_drawn_again_and_others_kept():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 20)
    x = rng.normal(size=60)
    y = np.array([-5.0, 0.0, 5.0])[group] + x + rng.normal(0, 1, 60)
    fitted = pk.fit(
        Levels(), Panel(group, x, y), pk.NUTS(2, 200, 200), key=KEY, throw=False
    )
    # As many new observations as old ones: the old errors do not belong to them.
    found = pk.predict(fitted, {"group": group, "x": x}, key=KEY)
    assert float(found["y"].std(("chain", "draw")).mean()) == pytest.approx(1.03, abs=0.1)
    np.testing.assert_allclose(
        found["mean"].mean(("chain", "draw", "observation")), y.mean(), atol=0.3
    )
    refused(
        lambda: pk.predict(fitted, {"group": [0.5], "x": [0.0]}, key=KEY),
        "`group` has fractions",
    )
    refused(lambda: pk.predict(fitted, [0.5], key=KEY), "has the inputs group, x.* a dict")


# Fewer draws, and too many numbers.


def test_fewer_draws_are_evenly_spaced(poisson):
    found = pk.predict(poisson, [0.0], key=KEY, num_draws=7)
    assert found.sizes["chain"] == 2
    np.testing.assert_array_equal(found["draw"], [0, 100, 199, 299])
    scored = pk.with_log_likelihood(poisson, num_draws=4)
    assert scored.tree["log_likelihood"]["y"].shape == (2, 2, 60)
    every = pk.with_log_likelihood(poisson).tree["log_likelihood"]["y"]
    np.testing.assert_array_equal(
        scored.tree["log_likelihood"]["y"], every.isel(draw=[0, 299])
    )


def test_what_would_not_fit_into_memory_is_refused_with_its_size(poisson, monkeypatch):
    monkeypatch.setattr(predictions, "MOST_NUMBERS", 10_000)
    x = np.zeros(100)
    refused(
        lambda: pk.predict(poisson, x, key=KEY),
        r"600 draws make 60,000 numbers, `y` of shape \(2, 300, 100\).*`num_draws=100`",
    )
    assert pk.predict(poisson, x, key=KEY, num_draws=100).sizes["draw"] == 50
    refused(lambda: pk.with_log_likelihood(poisson), "36,000 numbers")


def test_a_run_is_not_lost_to_scores_that_are_too_many(poisson, monkeypatch):
    monkeypatch.setattr(predictions, "MOST_NUMBERS", 100)
    method = pk.MAP(num_starts=2, num_draws=10)
    with pytest.raises(pk.FitError, match="600 numbers") as caught:
        pk.fit(poisson.model, poisson.data, method, key=KEY, log_likelihood=True)
    assert caught.value.fit.posterior.sizes["draw"] == 10


def test_a_start_is_where_it_says():
    data = Values(jnp.full((10, 2), 150.0))
    first = pk.fit(NormalMean(), data, pk.NUTS(1, 300, 100), key=KEY, throw=False)
    method = pk.NUTS(1, num_warmup=0, num_samples=5, jitter=0)
    again = pk.fit(NormalMean(), data, method, key=KEY, start=first, throw=False)
    assert float(again.posterior["mean"].min()) > 100


NO_FIT = {
    "predict": lambda value: pk.predict(value, [0.0], key=KEY),
    "recover": lambda value: pk.recover(value, key=KEY),
    "with_log_likelihood": lambda value: pk.with_log_likelihood(value),
    "diagnose": lambda value: pk.diagnose(value),
    "save": lambda value: pk.save(value, "fit.nc"),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("call", NO_FIT.values(), ids=NO_FIT.keys())
def test_what_is_no_fit_is_refused(call):
    for value in (PoissonRegression(), PoissonRegression, None, "fit.nc"):
        refused(lambda value=value: call(value), "takes what `pk.fit` returns")


@pytest.mark.usefixtures("no_checker")
def test_other_arguments_are_refused(poisson):
    model, data = poisson.model, poisson.data
    refused(lambda: pk.prior(model, data, key=0), "takes a JAX random key")
    refused(lambda: pk.prior(type(model), data, key=KEY), "without its `")
    refused(lambda: pk.prior(model, [1, 2], key=KEY), "takes the data of a family")
    refused(lambda: pk.prior(model, data, key=KEY, num_draws=0), "takes a whole number")
    refused(lambda: pk.save(poisson, 3), "takes the path of a file")
    refused(lambda: pk.load(None), "takes the path of a file")
    refused(lambda: pk.predict(poisson, [0.0], key=KEY, num_draws=-1), "whole number")


# What follows from a draw


def fourth_power(mean):
    return mean**4


class Powers(NormalMean):
    """What its predictions need of a draw is computed before them."""

    def integrated(self, sites, data):
        return fourth_power(sites["mean"])

    def predict(self, given, inputs, key):
        return {"power": given}

    def recover(self, given, data, key):
        return {"again": given}

    def checks(self, given, data):
        return (pk.model.Check("power", float(given[0]), "at least", 0.0, "", ""),)

    def dims(self, data):
        return super().dims(data) | {"power": ("part",), "again": ("part",)}

    def coords(self, data):
        return super().coords(data) | {"part": ["a", "b"]}


@pytest.fixture(scope="module")
def powers():
    y = jax.random.normal(KEY, (30, 2)) + jnp.array([1.0, -2.0])
    return pk.fit(Powers(), Values(y), pk.MAP(num_draws=7), key=KEY)


def both(fitted):
    found = pk.predict(fitted, 5, key=KEY)["power"], pk.recover(fitted, key=KEY)["again"]
    return [array.values for array in found]


def test_predictions_get_what_a_draw_implies(powers, monkeypatch):
    wanted = powers.posterior["mean"].values ** 4
    for found in both(powers):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert pk.diagnose(powers)["power"].value == pytest.approx(wanted[0, 0, 0], rel=1e-6)
    # A helper of a user's own model may change.
    monkeypatch.setitem(globals(), "fourth_power", lambda mean: mean**2)
    for found in both(powers):
        np.testing.assert_allclose(found, np.sqrt(wanted), rtol=1e-6)
    now = pk.diagnose(powers)["power"].value
    assert now == pytest.approx(wanted[0, 0, 0] ** 0.5, rel=1e-6)


def test_it_is_kept_if_it_is_not_too_large(powers, monkeypatch):
    monkeypatch.setattr(predictions, "is_ours", lambda model: True)
    first = both(powers)
    (kept,) = powers.kept.values()
    assert kept.shape == (7, 2)
    pk.predict(powers, 5, key=KEY, num_draws=3)
    (kept,) = powers.kept.values()
    assert kept.shape == (3, 2)
    powers.kept.clear()
    monkeypatch.setattr(predictions, "MOST_KEPT", 13)
    for one, other in zip(first, both(powers), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not powers.kept
