"""Checks of a hierarchy: one case in which each fires, and one in which it does not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2, multivariate_normal

import probkit as pk
from probkit.models import meta
from probkit.models.meta.checks import check_episodes, check_gain, some_of
from probkit.models.meta.evidence import tails
from probkit.models.meta.network_checks import another_step, explained
from probkit.models.meta.spreads import Independent

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


@pytest.mark.parametrize("kinds", [1, 2])
def test_a_source_counts_for_all_its_data_sets(kinds):
    # Six data sets in each of five steps, or for as many as the source says it has.
    name, rows = "data sets with values", "values beyond the coefficients"
    method = meta.Episodic(max_steps=5, num_draws=20, num_starts=1)
    for count, seen in ((2000, 30), (18, 18)):
        source = meta.SineLine(KEY, batch_size=6, num_episodes=count)
        model = meta.Linear(num_components=kinds)
        fitted = pk.fit(model, source, method, key=KEY, throw=False)
        found = pk.diagnose(fitted)
        assert fitted.facts["episodes"] == seen
        assert found[name].value == seen
        assert found[rows].value == seen * 3
        assert found[name].limit == 4 * kinds
        if kinds == 2:
            least = found["data sets of the smallest component"].value
            weight = fitted.posterior["weight"].min("component").values * seen
            assert np.isclose(weight, least).any()


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


# Networks.

EXPLAINED = "explained of the values of left-out rows"
STEP = "how far another expansion moves the weights"
LINE = eqx.nn.Linear(1, 1, key=KEY)
UNITS = meta.Units(jnp.zeros(1), jnp.ones(1), jnp.zeros(()), jnp.ones(()))


def at(mean, sd=1.0, **more):
    """A draw of the hierarchy of a network that is a line: of slope and intercept."""
    return {"population_mean": jnp.array(mean), "between_sd": jnp.full(2, sd)} | more


def test_a_network_that_explains_nothing_is_told():
    model, sites = meta.Network(LINE), at([-0.5, 1.0], noise_sd=jnp.asarray(0.3))
    x, y = lines(12, 4)
    found = model.checks(sites, meta.Episodes(x[..., None], y, units=UNITS))
    assert [check.name for check in found] == [EXPLAINED, STEP]
    assert found[0].ok
    assert found[0].value > 0.5
    noise = np.random.default_rng(1).normal(size=y.shape)
    check = model.checks(sites, meta.Episodes(x[..., None], noise, units=UNITS))[0]
    assert not check.ok
    assert "no better than a constant" in check.remedy


def test_what_is_explained_is_one_for_the_truth_and_nothing_for_the_mean():
    # Rows 0 and 2 of those that there are count; the last row of the first is not there.
    y = np.array([[1.0, 2.0, 4.0, 0.0], [0.0, 3.0, 2.0, 2.0]])
    seen = np.array([[True, True, True, False], [True] * 4])
    data = meta.Episodes(np.zeros((2, 4, 1)), y, seen)
    model, mean = meta.Network(LINE), y[seen].mean()
    standard = (y - float(data.y_mean)) / float(data.y_sd)
    gain, of = explained(model, jnp.asarray(standard)[..., None], data)
    left_out = ((y - mean)[:, [0, 2]] ** 2).sum(1)
    np.testing.assert_allclose(of, left_out)
    np.testing.assert_allclose(gain, left_out)
    nothing, _ = explained(model, jnp.zeros((2, 4, 1)), data)
    np.testing.assert_allclose(nothing, 0.0, atol=1e-12)
    # Of classes by the squared errors of their probabilities, here of a fair coin.
    coins = meta.Episodes(np.zeros((2, 2, 1)), np.array([[1, 0], [0, 1]]))
    sure = jnp.asarray([[[0.0, 40.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found, of = explained(meta.Network(LINE, meta.Categorical()), sure, coins)
    np.testing.assert_allclose(found, [0.5, 0.0], atol=1e-9)
    np.testing.assert_allclose(of, [0.5, 0.5])


def test_a_quadratic_that_is_not_the_log_likelihood_is_told():
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (12, 4, 1))
    model, sites = meta.Network(LINE, meta.Poisson()), at([0.0, 0.0])
    for level, ok in ((0.0, True), (4.0, False)):
        # Two expansions about a rate of one do not reach a rate of 55.
        data = meta.Episodes(x, rng.poisson(np.exp(level + x[..., 0])))
        check = model.checks(sites, data)[1]
        assert check.name == STEP
        assert check.ok == ok
    assert "num_steps" in check.remedy
    noisy = meta.Network(LINE, meta.Poisson(), curvature=meta.Langevin())
    assert [check.name for check in noisy.checks(sites, data)] == [EXPLAINED]


def test_the_step_is_that_of_newton():
    rng = np.random.default_rng(3)
    model, C = meta.Network(LINE, meta.Poisson()), np.diag([0.5, 2.0])
    mean, one = jnp.array([0.3, 0.8]), jnp.ones(())
    x, y = rng.normal(size=(5, 1)), rng.poisson(4.0, 5).astype(float)
    problem = model.problem(jnp.asarray(x), jnp.asarray(y), jnp.ones(5, bool), (one, one))
    spread = Independent(jnp.diagonal(jnp.asarray(C)))

    @jax.jit
    def steps():
        own, _, _ = model.curvature.local(problem, mean, spread, KEY)
        slope = jax.grad(problem.loss)(mean + own.shift)
        return own, slope, another_step(own, problem, mean, spread)

    own, slope, found = steps()
    precision = np.asarray(own.factor.T @ own.factor) + np.linalg.inv(C)
    slope = slope + np.linalg.inv(C) @ own.shift
    assert float(np.linalg.norm(slope)) > 1e-3
    expected = slope @ np.linalg.solve(precision, slope)
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_a_gain_is_compared_with_its_error():
    def check(gain, of):
        return check_gain("", np.array(gain), np.array(of), "", "")

    assert not check([2.0, -1.0, 2.0, -1.0], [1.0] * 4).ok
    # The same share of each, however large it is.
    assert check([9.0, 0.1, 0.1, 0.1], [90.0, 1.0, 1.0, 1.0]).ok
    assert check([9.0, 0.1, 0.1, 0.1], [90.0, 1.0, 1.0, 1.0]).value == pytest.approx(0.1)
    assert not check([9.0, 0.1, 0.1, 0.1], [1.0] * 4).ok
    assert not check([0.0] * 4, [1.0] * 4).ok
    assert check([0.5], [1.0]).ok
    assert not check([-np.inf, 1.0], [1.0, 1.0]).ok
    np.testing.assert_array_equal(some_of(3), [0, 1, 2])
    assert len(some_of(10_000)) == 200


def test_few_data_sets_of_a_network_are_told():
    # A matrix of 2 x 4: each data set has 4 vectors of rows and 2 of columns.
    data, net = meta.Episodes(*lines(6, 4)), eqx.nn.MLP(1, 4, 2, 1, key=KEY)
    for structure, least in (
        ("diagonal", 3),
        ("full", 2 * 2 + 3 * 4 + 2),
        ({"layers.1.weight": "kronecker"}, 3),
        ({"layers.1": "full"}, 3 * 4 + 2),
    ):
        model = meta.Network(net, meta.Categorical(), covariance=structure)
        assert model.least_episodes(data) == least
    for count, ok in ((13, False), (14, True)):
        (check,) = check_episodes({"episodes": count, "least_episodes": 14})
        assert check.ok == ok
    # Those of a linear model are checked by the model, and old files have no such number.
    assert check_episodes({"least_episodes": meta.Linear().least_episodes(data)}) == ()
    assert check_episodes({}) == ()
