"""Whether new data sets are like those of a fit: size and power."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import probkit as pk
from doors import refused
from probkit.models import meta
from reference import meta as slow

KEY = jax.random.key(0)
LINES = meta.LinearGaussian(KEY, [1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]], 400)


@pytest.fixture(scope="module", params=[1, 2])
def fitted(request):
    model = meta.Linear(num_components=request.param)
    method = meta.Episodic(num_starts=1, max_steps=60, num_draws=400, draws="approximation")
    return pk.fit(model, LINES.at(0), method, key=KEY, throw=False)


def test_p_values_of_data_sets_of_the_same_kind_are_uniform(fitted):
    found = meta.novelty(fitted, LINES.at(1), key=KEY)
    assert found["p_value"].dims == ("group",)
    # One in a thousand.
    assert scipy.stats.kstest(found["p_value"].values, "uniform").pvalue > 1e-3


def test_curves_and_noise_are_found(fitted):
    new = LINES.at(1)
    curved = new.replaced({"y": new.y + 0.5 * new.x[..., 0] ** 2})
    loud = new.replaced({"y": new.y + jax.random.normal(KEY, new.y.shape)})
    for other in (curved, loud):
        found = meta.novelty(fitted, other, key=KEY)["p_value"].values
        assert (found < 0.05).mean() > 0.5


def test_given_the_hierarchy_it_is_a_chi_square():
    model = meta.Linear(noise_sd=0.3)
    data = meta.Episodes([[0.0, 1.0, 2.0], [1.0, 3.0]], [[1.0, 0.2, -2.0], [0.0, 1.0]])
    method = meta.Episodic(num_draws=1, draws="approximation")
    fitted = pk.fit(model, data, method, key=KEY)
    mean = fitted.posterior["population_mean"].values[0, 0]
    covariance = fitted.posterior["covariance"].values[0, 0]
    found = meta.novelty(fitted, data, key=KEY)
    for i, (x, y) in enumerate([([0.0, 1, 2], [1.0, 0.2, -2]), ([1.0, 3], [0.0, 1])]):
        X, y = np.stack([np.ones(len(x)), x], 1), np.array(y)
        S = X @ covariance @ X.T + 0.09 * np.eye(len(y))
        away = y - X @ mean
        expected = scipy.stats.chi2(len(y)).sf(away @ np.linalg.solve(S, away))
        assert float(found["p_value"][i]) == pytest.approx(expected, rel=1e-8)
        evidence = slow.evidence(X, y, mean, covariance, 0.3)
        assert float(found["log_evidence"][i]) == pytest.approx(evidence, rel=1e-8)


def test_other_arguments_are_refused(fitted):
    refused(lambda: meta.novelty(fitted, [1.0], key=KEY), "takes `meta.Episodes`")
    refused(lambda: meta.novelty(None, LINES.at(0), key=KEY), "one of `meta.Linear`")
    other = meta.Episodes(jnp.ones((2, 3, 4)), [[1.0, 2.0, 3.0], [0.0, 1.0, 2.0]])
    refused(lambda: meta.novelty(fitted, other, key=KEY), "inputs of shape")
