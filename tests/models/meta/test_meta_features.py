"""Linear episodes on learned features: known answers, files, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import probkit as pk
from doors import refused
from probkit.distributions import NormalInverseWishart
from probkit.models import meta
from probkit.models.meta.beliefs import Full
from probkit.models.meta.noise import Noise

KEY = jax.random.key(0)
NOISE = 0.3
METHOD = meta.Episodic(
    max_steps=500, learning_rate=0.02, patience=99, draws="approximation", num_draws=50
)


def parabolas(seed, num_tasks, num_rows=5):
    """Rows of $a_i (x^2 - 1)$ with $a_i$ standard normal: no line explains them."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (num_tasks, num_rows))
    mean = rng.normal(size=(num_tasks, 1)) * (x**2 - 1)
    return x, mean + NOISE * rng.normal(size=x.shape), mean


X, Y, _ = parabolas(1, 60)
Y[:5, 3:] = np.nan  # some have fewer rows
DATA = meta.Episodes(X, Y)
NET = eqx.nn.MLP(1, 2, 8, 1, activation=jnp.tanh, key=KEY)


@pytest.fixture(scope="module")
def learned():
    return pk.fit(meta.Linear(features=NET), DATA, METHOD, key=KEY, throw=False)


def error(fitted):
    """The mean squared error for new parabolas, of which two values are known."""
    x, y, mean = parabolas(2, 100)
    asked = meta.New(x[:, 2:], x[:, :2], y[:, :2])
    found = pk.predict(fitted, asked, key=KEY)["mean"].mean(("chain", "draw"))
    return float(np.mean((found.values - mean[:, 2:]) ** 2))


def least_error():
    """That of the posterior mean of $a_i$, with all else known."""
    x, y, mean = parabolas(2, 100)
    known, asked = x[:, :2] ** 2 - 1, x[:, 2:] ** 2 - 1
    a = (known * y[:, :2]).sum(1) / ((known**2).sum(1) + NOISE**2)
    return np.mean((a[:, None] * asked - mean[:, 2:]) ** 2)


def test_learned_features_explain_what_lines_cannot(learned):
    lines = pk.fit(meta.Linear(), DATA, METHOD, key=KEY)
    least = least_error()
    assert error(learned) < 1.3 * least
    assert error(lines) > 10 * least


def test_the_loss_falls_to_the_cost_of_a_known_feature(learned):
    loss = -learned.tree["trace"]["objective"].values[0]
    # Minus the log evidence of each data set, with all known but its own coefficient.
    found = []
    for φ, y in zip(X**2 - 1, Y, strict=True):
        φ, y = φ[~np.isnan(y)], y[~np.isnan(y)]
        C = np.outer(φ, φ) + NOISE**2 * np.eye(len(y))
        found.append(scipy.stats.multivariate_normal.logpdf(y, cov=C))
    known = -np.mean(found)
    assert loss[-1] < loss[0] - 8
    assert loss[-1] == pytest.approx(known, abs=0.3)
    assert learned.facts["loss"] == pytest.approx(known, abs=0.3)
    assert "per episode" in str(pk.diagnose(learned))


# The arrays of a belief have an axis of components in front.
@pytest.mark.usefixtures("no_checker")
def test_a_file_keeps_learned_features(learned, tmp_path):
    kinds = [meta.Linear, meta.Episodes, meta.Episodic, meta.Posterior, Full, Noise]
    again = pk.load(
        pk.save(learned, tmp_path / "parabolas.nc"),
        families=[*kinds, NormalInverseWishart],
        model=meta.Linear(features=NET),
    )
    kept, saved = (f.model.features.layers[0].weight for f in (again, learned))
    np.testing.assert_array_equal(kept, saved)
    assert not np.array_equal(kept, NET.layers[0].weight)
    assert error(again) == error(learned)


def test_what_is_learned_is_a_network_only():
    assert meta.Linear(features=NET).learned() is not None
    assert meta.Linear(features=NET, learn=False).learned() is None
    assert meta.Linear(features=jnp.sin).learned() is None
    components = meta.principal_components(X[:, :, None], 1)
    assert meta.Linear(features=components).learned() is None


def test_a_module_gets_one_row_at_a_time():
    images = np.random.default_rng(3).normal(size=(4, 6, 3, 2))
    data = meta.Episodes(images, np.arange(24.0).reshape(4, 6))
    components = meta.principal_components(images.reshape(24, 3, 2), 2)
    model = meta.Linear(features=components)
    found = model.design(data.x, data, data.seen)
    assert found.shape == (4, 6, 2)
    np.testing.assert_allclose(found[2, 3], components(data.x[2, 3]), rtol=1e-12)
    assert model.value_center(data) == data.y_mean


class Scalar(eqx.Module):
    def __call__(self, x):
        return x.sum()


FEATURES = {
    "no vector": (Scalar(), r"gives \(\) for an input of shape \(1,\); .* a vector"),
    "other inputs": (
        eqx.nn.MLP(3, 2, 4, 1, key=KEY),
        r"fails for an input of shape \(1,\) \(.*\); it takes one at a time",
    ),
    "a function without features": (
        lambda x: x[..., 0],
        r"gives \(60, 5\) for inputs of shape \(60, 5, 1\); .* for each row",
    ),
    "a function of one row": (
        lambda x: x[0, 0, :2] @ jnp.ones((3, 2)),
        r"fails for inputs of shape \(60, 5, 1\) \(.*\); it takes those of all rows",
    ),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("given", FEATURES.values(), ids=FEATURES.keys())
def test_wrong_features_get_one_line(given):
    features, pattern = given
    model = meta.Linear(features=features)
    refused(lambda: pk.fit(model, DATA, METHOD, key=KEY), r"Linear\(features.*" + pattern)


@pytest.mark.usefixtures("no_checker")
def test_wrong_settings_get_one_line():
    refused(lambda: meta.Linear(features=3), r"features=...\)` got a `int`")
    refused(lambda: meta.Linear(learn=1), r"learn=1.*True or False")
