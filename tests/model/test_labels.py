"""Names of axes and labels: read off the program, and checked before a run."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import probkit as pk
from doors import refused
from own import Counts, NormalMean, PoissonRegression, Values
from probkit.method import AbstractMethod
from probkit.model import AbstractModel

Y = Values([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


class Nested(AbstractModel):
    """Plates in plates, an event with a name and one without, a computed site."""

    def __call__(self, data):
        size = dist.HalfNormal(jnp.ones(4)).to_event(1)
        numpyro.sample("size", size, infer={"event_dims": ["feature"]})
        with numpyro.plate("group", 3):
            effect = numpyro.sample("effect", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.deterministic("total", effect.sum(0))
        with numpyro.plate("observation", len(data)):
            mean = jnp.broadcast_to(effect.sum(0), data.y.shape)
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=data.y)


def test_axes_have_the_names_of_plates_and_events():
    dims = Nested().dims(Y)
    assert dims["size"] == ("feature",)
    assert dims["effect"] == ("group", "effect_dim_1")
    assert dims["total"] == ("total_dim_0",)
    assert dims["y"] == ("observation", "y_dim_1")
    coords = Nested().coords(Y)
    assert {name: len(labels) for name, labels in coords.items()} == {
        "feature": 4,
        "group": 3,
        "effect_dim_1": 2,
        "total_dim_0": 2,
        "observation": 3,
        "y_dim_1": 2,
    }


def test_inputs_share_the_axis_of_what_is_observed():
    dims = PoissonRegression().dims(Counts([1.0, 2.0], [3, 4]))
    assert dims == {
        "intercept": (),
        "slope": (),
        "x": ("observation",),
        "y": ("observation",),
    }


class Untouched(AbstractMethod):
    """A method that must not be reached."""

    def run(self, model, data, key, start, running):
        raise AssertionError("a run has begun")

    def checks(self, tree, facts):
        return ()


class Labelled(NormalMean):
    """The labels that a user gives."""

    dims_given: dict
    coords_given: dict

    def dims(self, data):
        return {"mean": ("side",), "y": ("observation", "side")} | self.dims_given

    def coords(self, data):
        return {"side": ["left", "right"]} | self.coords_given


WRONG = {
    "labels too many": (
        {},
        {"side": ["a", "b", "c"]},
        r"3 labels for `side`, but `\w+` has 2",
    ),
    "tuples": ({}, {"side": [("a", 1), ("b", 2)]}, "labels of `side` are not plain values"),
    "tuples of two lengths": ({}, {"side": [("a",), ("b", 2)]}, "are not plain values"),
    "a MultiIndex": (
        {},
        {"side": pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])},
        "labels of `side` are not plain values",
    ),
    "names too few": ({"y": ("observation",)}, {}, r"names 1 axes of `y`.* shape \(3, 2\)"),
    "a text for names": ({"mean": "side"}, {}, "takes a tuple of names"),
    "an axis named as its site": (
        {"mean": ("mean",)},
        {"mean": [0, 1]},
        "`mean` names an axis of `mean` and also a variable",
    ),
    "an axis of the draws": (
        {"mean": ("draw",)},
        {},
        "`draw`, which is the name of an axis of the draws",
    ),
    "one name for two axes": (
        {"y": ("side", "side")},
        {},
        "gives two axes of `y` one name",
    ),
}


@pytest.mark.parametrize("dims, coords, words", WRONG.values(), ids=WRONG.keys())
def test_wrong_labels_are_refused_before_the_run(dims, coords, words):
    model = Labelled(dims, coords)
    refused(lambda: pk.fit(model, Y, Untouched(), key=jax.random.key(0)), words)


def test_labels_of_an_index_and_of_numbers_are_taken():
    for labels in (pd.Index(["a", "b"]), np.array([1.5, 2.5]), range(2)):
        with pytest.raises(AssertionError, match="a run has begun"):
            pk.fit(Labelled({}, {"side": labels}), Y, Untouched(), key=jax.random.key(0))


class Slashed(AbstractModel):
    def __call__(self, data):
        mean = numpyro.sample("net/weight", dist.Normal(0.0, 1.0))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(mean, 1.0).expand([2]).to_event(1), obs=data.y)


def test_a_site_with_a_slash_is_refused_before_the_run():
    fit = lambda: pk.fit(Slashed(), Y, Untouched(), key=jax.random.key(0))  # noqa: E731
    refused(fit, r"the site `net/weight` has a `/` in its name.* another divider")
