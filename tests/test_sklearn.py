"""Estimators: the conventions of scikit-learn, and the same answers as the library."""

import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

import probkit as pk
from probkit.method import RESULTS, AbstractMethod, Draws
from probkit.models import moe, sbl
from probkit.sklearn import (
    MixtureOfExpertsRegressor,
    RelevanceVectorClassifier,
    RelevanceVectorRegressor,
    SparseBayesRegressor,
)

ROOT = Path(__file__).parents[1]
KEY = jax.random.key(0)


@eqx.filter_jit
def first_sites(model, data, key):
    return model.start(data, key)


class Start(AbstractMethod):
    """The sites that a run would start from. With one expert they are ridge regression."""

    def sites(self, model, data, key):
        return jax.device_get(first_sites(model, data, key))

    def run(self, model, data, key, start, running):
        sites = self.sites(model, data, key)
        draws = {name: np.asarray(value)[None, None] for name, value in sites.items()}
        return Draws(draws, {}, {}, RESULTS.successful)

    def checks(self, tree, facts):
        return ()


class Means(Start):
    """A classifier along the difference of the means of two classes."""

    def sites(self, model, data, key):
        x, y = np.asarray(data.x), np.asarray(data.y)
        standard = (x - x.mean(0)) / x.std(0)
        along = (y - y.mean()) @ standard / len(y)
        level = np.log(y.mean() / (1 - y.mean()))
        ones = np.ones_like(along)
        sites = {"global_scale": 1.0, "local_scale": ones, "standard": along}
        return {**sites, "level": level}


# The checks fit two dozen shapes, each of which would be compiled. They are about the
# estimators, and ask of a fit that it is repeatable and better than a guess. `line`, which
# two of them share, gets a real one. What the methods compute is tested elsewhere.
CHECKED = [
    SparseBayesRegressor(method=sbl.Sequential()),
    RelevanceVectorRegressor(method=Start()),
    RelevanceVectorClassifier(method=Means()),
    MixtureOfExpertsRegressor(num_experts=1, method=Start()),
]


@parametrize_with_checks(CHECKED)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimators_keep_the_conventions(estimator, check):
    check(estimator)


def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5)) * [1, 10, 0.1, 1, 1] + 100
    X[:, 4] = 3.0  # says nothing beside the intercept
    return X, 3 * X[:, 0] - 20 * X[:, 2] + 7 + 0.1 * rng.normal(size=40)


def test_a_regressor_has_the_answers_of_the_fit():
    X, y = table()
    ours = SparseBayesRegressor(method=sbl.Sequential(), random_state=0).fit(X, y)
    data = sbl.Measurements.table(y, X[:, :4])
    fitted = pk.fit(sbl.KroneckerSBL(), data, sbl.Sequential(), key=KEY)
    found = pk.recover(fitted, key=KEY).isel(chain=0, draw=0)
    np.testing.assert_allclose(ours.coef_[:4], found["coefficient_mean"], rtol=1e-6)
    np.testing.assert_allclose(ours.coef_sd_[:4], found["coefficient_sd"], rtol=1e-6)
    assert ours.coef_[4] == 0 and list(np.flatnonzero(ours.support_)) == [0, 2]
    assert ours.intercept_ == pytest.approx(float(found["intercept_mean"]), rel=1e-6)
    new = np.random.default_rng(1).normal(size=(3, 5)) + 90
    mean, sd = ours.predict(new, return_std=True)
    there = pk.predict(fitted, [new[:, :4]], key=KEY).isel(chain=0, draw=0)
    np.testing.assert_allclose(mean, there["mean"], rtol=1e-6)
    np.testing.assert_allclose(sd**2 - ours.noise_sd_**2, there["sd"] ** 2, rtol=1e-5)
    assert pk.diagnose(ours.fit_).ok


def test_an_estimator_computes_in_float64_and_changes_no_setting():
    X, y = table()
    estimator = SparseBayesRegressor(method=sbl.Sequential(), random_state=0)
    with jax.enable_x64(True):
        expected = estimator.fit(X, y).coef_
    with jax.enable_x64(False):
        found = estimator.fit(X, y).coef_
        assert jax.numpy.ones(1).dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_without_an_intercept_the_line_goes_through_zero():
    X, y = table()
    estimator = SparseBayesRegressor(fit_intercept=False, method=sbl.Sequential())
    assert estimator.fit(X, y).intercept_ == 0
    assert estimator.predict(np.zeros((1, 5))) == 0


def test_columns_that_are_all_constant_are_refused():
    with pytest.raises(ValueError, match="no column that varies"):
        SparseBayesRegressor().fit(np.ones((5, 2)), np.arange(5.0))


def test_a_run_that_has_not_settled_warns():
    X, y = table()
    estimator = SparseBayesRegressor(method=sbl.Sequential(max_steps=1))
    with pytest.warns(ConvergenceWarning, match="Sequential: .*`max_steps`"):
        estimator.fit(X, y)


def test_relevance_vectors_are_few_and_follow_the_curve():
    rng = np.random.default_rng(0)
    X = rng.uniform(-10, 10, (60, 1))
    y = np.sinc(X[:, 0] / np.pi) + 0.05 * rng.normal(size=60)
    found = RelevanceVectorRegressor(lengthscale=2.0).fit(X, y)
    new = np.linspace(-9, 9, 50)[:, None]
    mean, sd = found.predict(new, return_std=True)
    truth = np.sinc(new[:, 0] / np.pi)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.04 < sd.min()
    assert len(found.relevance_vectors_) == len(found.dual_coef_) < 12
    search = GridSearchCV(found, {"lengthscale": [0.02, 2.0]}, cv=3).fit(X, y)
    assert search.best_params_ == {"lengthscale": 2.0}


def test_a_classifier_of_three_classes_learns_them():
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [4, 0], [0, 4]])
    y = np.repeat(["a", "b", "c"], 20)
    X = np.repeat(centers, 20, axis=0) + rng.normal(size=(60, 2))
    found = RelevanceVectorClassifier(random_state=0).fit(X, y)
    assert found.score(X, y) > 0.9
    probability = found.predict_proba(centers)
    np.testing.assert_allclose(probability.sum(1), 1.0)
    assert np.all(np.diag(probability) > 0.7)
    assert len(found.relevance_) < 20


def test_a_mixture_has_the_answers_of_the_fit():
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (120, 1))
    y = np.where(X[:, 0] > 0, 4 - 2 * X[:, 0], 3 * X[:, 0]) + 0.2 * rng.normal(size=120)
    found = MixtureOfExpertsRegressor(random_state=0).fit(X, y)
    new = np.array([[-1.0], [0.1], [1.0]])
    there = pk.predict(found.fit_, new, key=KEY).isel(chain=0, draw=0)
    mean, sd = found.predict(new, return_std=True)
    np.testing.assert_allclose(mean, there["mean"], rtol=1e-10)
    np.testing.assert_allclose(found.memberships(new), there["membership"], rtol=1e-10)
    mixture = found.fit_.model.conditional(found.fit_.sites(), jax.numpy.asarray(new))
    np.testing.assert_allclose(sd**2, mixture.variance, rtol=1e-8)
    assert isinstance(found.fit_.data, moe.Pairs)


def test_without_scikit_learn_the_import_says_what_to_install():
    program = "import sys; sys.modules['sklearn'] = None; import probkit.sklearn"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "`probkit.sklearn` needs scikit-learn: `pip install" in last
