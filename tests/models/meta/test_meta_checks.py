"""Checks of a hierarchy: one case in which each fires, and one in which it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2, multivariate_normal

import probkit as pk
from probkit.models import meta
from probkit.models.meta.evidence import tails

KEY = jax.random.key(0)


def lines(n, m, seed=0, kinds=1):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, (n, 1))
    theta = np.array([1.0, -0.5]) + 8 * kind + rng.normal(size=(n, 2)) * [1.0, 0.5]
    x = rng.uniform(-2, 2, (n, m))
    return x, theta[:, :1] + theta[:, 1:] * x + 0.3 * rng.normal(size=(n, m))


def report(data, model=None):
    method = meta.Episodic(num_draws=20, draws="approximation")
    fitted = pk.fit(model or meta.Linear(), data, method, key=KEY, throw=False)
    return pk.diagnose(fitted)


@pytest.fixture(scope="module")
def good():
    return report(meta.Episodes(*lines(12, 4)))


def test_enough_data_sets_of_enough_values_pass(good):
    assert good["data sets with values"].ok
    assert good["values beyond the coefficients"].ok
    assert good["probability of the least probable data set"].ok


def test_few_data_sets_are_named():
    check = report(meta.Episodes(*lines(3, 6)))["data sets with values"]
    assert not check.ok
    assert 'covariance="diagonal"' in check.remedy
    one = report(meta.Episodes(*lines(1, 6)))["data sets with values"]
    assert one.value == 1
    assert not one.ok


def test_data_sets_of_one_value_leave_nothing_for_the_noise():
    check = report(meta.Episodes(*lines(12, 1)))["values beyond the coefficients"]
    assert not check.ok
    assert "noise_sd" in check.remedy
    known = report(meta.Episodes(*lines(12, 1)), meta.Linear(noise_sd=0.3))
    assert all(one.name != check.name for one in known)


def test_a_data_set_unlike_the_others_is_named():
    x, y = lines(30, 5)
    y[7] = 6 * np.sin(40 * x[7])
    names = [f"school {i}" for i in range(30)]
    found = report(meta.Episodes(x, y, names=names))
    check = found["probability of the least probable data set"]
    assert not check.ok
    assert "school 7" in check.note


def test_a_component_of_few_data_sets_is_told():
    name = "data sets of the smallest component"
    two = meta.Linear(num_components=2)
    assert report(meta.Episodes(*lines(24, 4, kinds=2)), two)[name].ok
    x, y = lines(24, 4)
    y[0] += 40
    assert not report(meta.Episodes(x, y), two)[name].ok


def test_the_probability_is_that_of_a_chi_square():
    data = meta.Episodes(*lines(4, 3))
    seen = data.seen.at[1, 2].set(False)
    data = data.replaced({"seen": seen})
    model = meta.Linear()
    prior = {
        "population_mean": jnp.array([0.5, 0.2]),
        "covariance": jnp.array([[1.0, 0.3], [0.3, 0.5]]),
        "noise_sd": jnp.asarray(0.4),
    }
    ours = tails(model.rows(data), model.believed(prior, data))
    for i in range(4):
        keep = np.asarray(seen[i])
        X = np.stack([np.ones(3), np.asarray(data.x[i, :, 0])], 1)[keep]
        S = X @ np.asarray(prior["covariance"]) @ X.T + 0.16 * np.eye(keep.sum())
        r = np.asarray(data.y[i])[keep] - X @ [0.5, 0.2]
        np.testing.assert_allclose(
            ours[i], chi2.sf(r @ np.linalg.solve(S, r), keep.sum()), rtol=1e-8
        )
        density = multivariate_normal(X @ [0.5, 0.2], S).logpdf(np.asarray(data.y[i])[keep])
        np.testing.assert_allclose(model.pointwise(prior, data)["y"][i], density, rtol=1e-9)
