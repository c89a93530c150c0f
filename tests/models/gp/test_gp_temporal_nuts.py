"""Temporal regression under NUTS: beside dense matrices, and beside a sampled function."""

import arviz_base as azb
import arviz_stats as azs
import jax
import numpy as np

import probkit as pk
from probkit.models import gp

KEY = jax.random.key(0)
METHOD = pk.NUTS(2, num_warmup=200, num_samples=300)
rng = np.random.default_rng(6)
T = np.sort(rng.uniform(0, 10, 8))
Y = np.sin(T) + 0.3 * rng.normal(size=8)
COUNTS = rng.poisson(200 * np.exp(np.sin(T)))


def agree(one, two, names):
    """Means of both within five standard errors of their difference."""
    for name in names:
        means, errors = [], []
        for fit in (one, two):
            values = fit.posterior[name]
            means.append(float(values.mean()))
            errors.append(float(values.std()) / np.sqrt(_size(values)))
        assert abs(means[0] - means[1]) < 5 * np.hypot(*errors), name


def _size(values) -> float:
    tree = azb.from_dict({"posterior": {"one": values.values}})
    return float(azs.ess(tree.posterior.dataset)["one"])


def test_the_posterior_is_that_of_dense_matrices():
    dense = gp.Observed(T, Y)
    one = pk.fit(gp.Regression(gp.Matern(0.5)), dense, METHOD, key=KEY)
    series = gp.Series(T, Y, units=dense.units)
    two = pk.fit(gp.Temporal(gp.Matern(0.5)), series, METHOD, key=KEY)
    agree(one, two, ["level", "noise_sd", "sd_matern", "lengthscale_matern"])


def test_laplace_is_what_a_sampled_function_has_where_counts_are_large():
    # The function is known to 7 % there, so that its posterior is close to normal.
    data = gp.Series(T, COUNTS)

    def fit(function):
        model = gp.Temporal(gp.Matern(0.5), gp.Poisson(), function)
        return pk.fit(model, data, METHOD, key=KEY)

    names = ["level", "sd_matern", "lengthscale_matern"]
    agree(fit("integrated"), fit("sampled"), names)
