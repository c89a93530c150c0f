"""AIC, BIC and ICL of mixtures of experts."""

import jax
import numpy as np
import pytest
from scipy import stats

import probkit as pk
from probkit.models import moe

METHOD = pk.EM(num_restarts=4, maximise="likelihood")


@pytest.fixture(scope="module")
def of_one_line():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, 300)
    data = moe.Pairs(x, 5 - 0.3 * x + rng.normal(size=300))
    fits = [
        pk.fit(moe.MixtureOfExperts(k), data, METHOD, key=jax.random.key(0)) for k in (1, 2)
    ]
    return data, fits


def test_one_expert_by_hand(of_one_line):
    data, fits = of_one_line
    row = moe.criteria(fits).loc[1]
    x, y = np.asarray(data.x)[:, 0], np.asarray(data.y)
    line = stats.linregress(x, y)
    sd = np.std(y - line.intercept - line.slope * x)
    L = stats.norm(line.intercept + line.slope * x, sd).logpdf(y).sum()
    assert row["log_likelihood"] == pytest.approx(L, rel=1e-9)
    assert row["parameters"] == 3
    assert row["aic"] == pytest.approx(6 - 2 * L)
    assert row["bic"] == pytest.approx(3 * np.log(300) - 2 * L)
    assert row["icl"] == pytest.approx(row["bic"])
    assert row["effective_experts"] == pytest.approx(1)


def test_an_expert_too_many_is_seen(of_one_line):
    table = moe.criteria(of_one_line[1])
    assert table["parameters"].tolist() == [3, 8]
    assert table["log_likelihood"].is_monotonic_increasing
    assert table["bic"].idxmin() == table["icl"].idxmin() == 1


def test_two_regimes_are_seen(regimes):
    fits = [
        pk.fit(moe.MixtureOfExperts(k), regimes, METHOD, key=jax.random.key(1))
        for k in (1, 2)
    ]
    table = moe.criteria(fits)
    assert table["bic"].idxmin() == table["icl"].idxmin() == 2
    assert 1 < table["effective_experts"][2] < 2


def test_fits_of_different_data_or_models_are_refused(of_one_line, em_fit):
    with pytest.raises(ValueError, match="fits of different data"):
        moe.criteria([*of_one_line[1], em_fit])
    with pytest.raises(ValueError, match=r"takes fits of `moe\.MixtureOfExperts`"):
        moe.criteria(["fit"])
