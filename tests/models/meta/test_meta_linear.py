"""Linear episodes: known answers, dense normals, other engines, and promises."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import probkit as pk
from bounds import bounds_of
from lowering import lowers_for_cuda
from probkit.distributions import NormalInverseWishart
from probkit.method.minibatch import Counted
from probkit.model.density import log_densities
from probkit.model.source import AbstractSource
from probkit.models import meta
from probkit.models.meta.beliefs import Diagonal, Full
from probkit.models.meta.evidence import locals_of
from probkit.models.meta.local import local
from reference import meta as slow

KEY = jax.random.key(0)
PRIOR = NormalInverseWishart(jnp.zeros(2), jnp.asarray(1.0), jnp.eye(2), jnp.asarray(4.0))
NOISE = 0.3
MODEL = meta.Linear(prior=PRIOR, noise_sd=NOISE)
EXACT = meta.Episodic(atol=1e-9, draws="approximation")


def lines():
    """The lines of a worked example, whose exact posterior is known."""
    rng = np.random.default_rng(0)
    theta = rng.multivariate_normal([1, -0.5], [[0.5, 0.2], [0.2, 0.3]], size=20)
    x = rng.uniform(-2, 2, (20, 5))
    y = theta[:, :1] + x * theta[:, 1:] + NOISE * rng.standard_normal((20, 5))
    assert y.sum() == pytest.approx(115.315075, abs=1e-6)
    return x, y


X, Y = lines()
DATA = meta.Episodes(X, Y)


def in_units(fitted):
    """The posterior of the first component, in units of the data."""
    first = jax.tree.map(lambda a: a[0], fitted.approximation.blocks[0])
    return first.niw.transformed(*fitted.model.to_units(fitted.data))


@pytest.fixture(scope="module")
def fitted():
    return pk.fit(MODEL, DATA, EXACT, key=KEY)


SAMPLERS = {
    "NUTS": pk.NUTS(num_chains=2, num_warmup=300, num_samples=1500),
    "Gibbs": meta.Gibbs(num_chains=2, num_warmup=100, num_samples=2000),
}


@pytest.fixture(scope="module", params=SAMPLERS)
def sampled(request):
    return pk.fit(MODEL, DATA, SAMPLERS[request.param], key=KEY)


# The worked example.


def test_coordinate_ascent_ends_at_the_known_posterior(fitted):
    q = in_units(fitted)
    np.testing.assert_allclose(q.loc, [1.07478, -0.18630], atol=6e-6)
    expected = [[11.15080, 2.39165], [2.39165, 3.09544]]
    np.testing.assert_allclose(q.scale, expected, atol=6e-6)
    assert float(q.strength) == pytest.approx(21)
    assert float(q.dof) == pytest.approx(24)
    assert fitted.facts["elbo"] == pytest.approx(-79.98551, abs=6e-6)


def test_two_devices_end_where_one_does(fitted):
    method = replace(EXACT, devices=2, draws="approximation", num_draws=1)
    other = pk.fit(MODEL, DATA, method, key=KEY)
    for ours, theirs in zip(*map(as_numpy, map(in_units, (fitted, other))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_the_bound_is_below_the_evidence_by_what_is_known(fitted):
    q = in_units(fitted)

    def log_weight(key):
        mean, covariance = q.sample(key)
        sites = {"population_mean": mean, "covariance": covariance}
        return sum(log_densities(MODEL, DATA, sites)) - q.log_prob(mean, covariance)

    each = jax.jit(lambda keys: jax.lax.map(log_weight, keys))(jax.random.split(KEY, 8000))
    evidence = float(jax.nn.logsumexp(each) - np.log(len(each)))
    # The sd of this estimate is 0.008.
    assert evidence == pytest.approx(-79.678, abs=0.04)
    assert fitted.facts["elbo"] < evidence


def test_draws_have_the_exact_moments(sampled):
    draws = sampled.posterior
    mean = draws["population_mean"].values.reshape(-1, 2)
    np.testing.assert_allclose(mean.mean(0), [1.0749, -0.1861], atol=0.02)
    np.testing.assert_allclose(mean.std(0), [0.1617, 0.0893], atol=0.02)
    covariance = draws["covariance"].values.reshape(-1, 2, 2).mean(0)
    expected = [[0.529, 0.1137], [0.1137, 0.1469]]
    np.testing.assert_allclose(covariance, expected, atol=0.02)


SUPPORT = np.array([[1.0, -1.0], [1.0, 0.5]]), np.array([1.8, 0.9])
PLACE = np.array([1.0, 1.5])


def test_a_new_data_set_is_predicted_as_is_known(sampled, fitted):
    # Given the two draws of a hierarchy all is normal.
    def moments(draws):
        each = np.array(
            [
                slow.predicted(PLACE, *SUPPORT, mean, covariance, NOISE)
                for mean, covariance in draws
            ]
        )
        return each[:, 0].mean(), each[:, 1].mean() + each[:, 0].var()

    draws = sampled.posterior
    means = draws["population_mean"].values.reshape(-1, 2)
    covariances = draws["covariance"].values.reshape(-1, 2, 2)
    mean, variance = moments(zip(means, covariances, strict=True))
    assert mean == pytest.approx(0.574, abs=0.02)
    assert variance == pytest.approx(0.293, abs=0.02)
    new = meta.New([[1.5]], [[-1.0, 0.5]], [[1.8, 0.9]])
    y = pk.predict(sampled, new, key=KEY)["y"].values.ravel()
    # Four standard errors of 3,000 draws.
    assert y.mean() == pytest.approx(mean, abs=0.04)
    assert y.var() == pytest.approx(variance, rel=0.11)
    q = in_units(fitted)
    plug_in = slow.predicted(PLACE, *SUPPORT, q.loc, q.covariance(), NOISE)
    np.testing.assert_allclose(plug_in, (0.577, 0.286), atol=6e-4)


@eqx.filter_jit
def in_units_of(model, data, support, believed):
    """Means and roots of covariances of coefficients given rows, in units of the data."""
    found = locals_of(model.rows(support), believed)
    T, t = model.to_units(data)
    return (believed.mean + found.shift) @ T.T + t, T @ found.root


def test_the_plug_in_is_what_an_episode_gets(fitted):
    model, data = fitted.model, fitted.data
    new = model.inputs(meta.New([[1.5]], [[-1.0, 0.5]], [[1.8, 0.9]]), data)
    believed = model.expected(fitted.approximation, data)
    theta, root = map(np.asarray, in_units_of(model, data, new.support, believed))
    theta, root = theta[0, 0], root[0, 0]
    assert PLACE @ theta == pytest.approx(0.577, abs=6e-4)
    variance = np.sum((PLACE @ root) ** 2) + NOISE**2
    assert variance == pytest.approx(0.286, abs=6e-4)


# Formulas.


def random_instance(seed, d=3):
    rng = np.random.default_rng(seed)

    def matrix():
        root = rng.normal(size=(d, d))
        return root @ root.T + 0.3 * np.eye(d)

    niw = NormalInverseWishart(
        jnp.asarray(rng.normal(size=d)),
        jnp.asarray(rng.uniform(0.5, 5)),
        jnp.asarray(matrix()),
        jnp.asarray(d + rng.uniform(0.5, 6)),
    )
    return rng, niw, matrix(), rng.normal(size=d)


def as_numpy(niw):
    return [np.asarray(a) for a in (niw.loc, niw.strength, niw.scale, niw.dof)]


def test_the_expected_divergence_is_a_mean_over_draws():
    _, niw, V, m = random_instance(0)
    draws = jax.jit(lambda keys: jax.lax.map(niw.sample, keys))(jax.random.split(KEY, 8000))
    means, covariances = map(np.asarray, draws)
    precision, away = np.linalg.inv(covariances), m - means
    each = np.einsum("nij,ji->n", precision, V) - len(m)
    each += np.einsum("ni,nij,nj->n", away, precision, away)
    each = (each + np.linalg.slogdet(covariances)[1] - np.linalg.slogdet(V)[1]) / 2
    expected = slow.divergence(m, V, *as_numpy(niw))
    # Five standard errors.
    assert abs(each.mean() - expected) < 5 * each.std() / np.sqrt(len(each))


@pytest.mark.parametrize("seed", range(3))
def test_the_local_posterior_is_the_best_one(seed):
    rng, niw, A, middle = random_instance(seed)
    root = jnp.linalg.cholesky(niw.covariance())
    loc = np.asarray(niw.loc)
    c = 0.5 * (loc - middle) @ A @ (loc - middle)
    found = local(jnp.asarray(c), jnp.asarray(A @ (loc - middle)), jnp.asarray(A), root)

    def objective(m, V):
        loss = 0.5 * (np.trace(A @ V) + (m - middle) @ A @ (m - middle))
        return loss + slow.divergence(m, V, *as_numpy(niw))

    m, V = loc + np.asarray(found.shift), np.asarray(found.covariance())
    best = objective(m, V)
    penalty = Full(niw, None).penalty()
    assert best == pytest.approx(float(found.cost + penalty), abs=1e-10)
    for size in (1e-3, 1e-2, 0.3):
        for _ in range(10):
            other = np.eye(3) + size * rng.normal(size=(3, 3))
            moved = m + size * rng.normal(size=3)
            assert objective(moved, V) > best
            assert objective(m, other @ V @ other.T) > best


def test_without_data_an_episode_is_a_draw_of_the_hierarchy():
    _, niw, _, _ = random_instance(4)
    root, none = jnp.linalg.cholesky(niw.covariance()), jnp.zeros(3)
    found = local(jnp.zeros(()), none, jnp.zeros((3, 3)), root)
    np.testing.assert_allclose(found.covariance(), niw.covariance(), rtol=1e-12)
    np.testing.assert_allclose(found.shift, none, atol=1e-12)
    assert float(found.cost) == pytest.approx(0.0, abs=1e-12)


def test_with_many_rows_an_episode_forgets_the_hierarchy():
    _, niw, A, middle = random_instance(5)
    root, loc = jnp.linalg.cholesky(niw.covariance()), np.asarray(niw.loc)
    found = local(
        jnp.zeros(()), jnp.asarray(1e9 * A @ (loc - middle)), jnp.asarray(1e9 * A), root
    )
    np.testing.assert_allclose(loc + found.shift, middle, atol=1e-6)


PENALTIES = {0.5: 1.42058, 1: 0.63518, 2: 0.28861, 5: 0.10657, 10: 0.05166, 100: 0.00502}
PENALTIES_OF_THREE = {3: 1.86032, 5: 0.79322, 10: 0.33860, 30: 0.10381, 100: 0.03033}


def test_an_unknown_hierarchy_costs_what_is_known():
    far, one = jnp.asarray(1e30), jnp.ones(1)
    for n, expected in PENALTIES.items():
        found = Diagonal(jnp.zeros(1), far, one, jnp.asarray(float(n)), None).penalty()
        assert found == pytest.approx(expected, abs=6e-6)
    for n, expected in PENALTIES_OF_THREE.items():
        niw = NormalInverseWishart(jnp.zeros(3), far, jnp.eye(3), jnp.asarray(float(n)))
        assert Full(niw, None).penalty() == pytest.approx(expected, abs=6e-6)
        assert slow.penalty(n, 1e30, 3) == pytest.approx(expected, abs=6e-6)


# Data sets of unequal size, beside dense normals.


def ragged(sizes=(3, 1, 6, 4, 2), num_inputs=2):
    rng = np.random.default_rng(7)
    x = [rng.normal([50.0, -1.0], [10.0, 0.2], (m, num_inputs)) for m in sizes]
    y = [200 + a @ [2.0, -30.0] + 5 * rng.normal(size=len(a)) for a in x]
    return x, y


HIERARCHIES = {
    "full": (
        meta.Linear(),
        {
            "population_mean": [180.0, 2.0, -20.0],
            "covariance": [[400.0, -3.0, 10.0], [-3.0, 0.5, 0.2], [10.0, 0.2, 90.0]],
            "noise_sd": 4.0,
        },
    ),
    "diagonal": (
        meta.Linear("diagonal"),
        {
            "population_mean": [180.0, 2.0, -20.0],
            "between_sd": [20.0, 0.7, 9.0],
            "noise_sd": 4.0,
        },
    ),
    "two components": (
        meta.Linear(num_components=2),
        {
            "weight": [0.7, 0.3],
            "population_mean": [[180.0, 2.0, -20.0], [150.0, 3.0, 5.0]],
            "covariance": [np.diag([400.0, 0.5, 90.0]), np.diag([100.0, 2.0, 400.0])],
            "noise_sd": 4.0,
        },
    ),
}
every_hierarchy = pytest.mark.parametrize("name", HIERARCHIES)


def hierarchy(name):
    model, sites = HIERARCHIES[name]
    x, y = ragged()
    designs = [np.concatenate([np.ones((len(a), 1)), a], 1) for a in x]
    weights = np.atleast_1d(sites.get("weight", 1.0))
    means = np.reshape(sites["population_mean"], (-1, 3))
    if "covariance" in sites:
        covariances = np.reshape(sites["covariance"], (-1, 3, 3))
    else:
        covariances = np.diag(sites["between_sd"])[None] ** 2
    arrays = {k: jnp.asarray(v, float) for k, v in sites.items()}
    return model, arrays, meta.Episodes(x, y), designs, y, (weights, means, covariances)


@every_hierarchy
def test_the_evidence_of_each_data_set_is_that_of_a_dense_normal(name):
    model, sites, data, designs, y, dense = hierarchy(name)
    found = eqx.filter_jit(lambda s, d: model.pointwise(s, d)["y"])(sites, data)
    for i, (X, own) in enumerate(zip(designs, y, strict=True)):
        _, expected = slow.shares(X, own, *dense, 4.0)
        assert found[i] == pytest.approx(expected, rel=1e-9), i


@every_hierarchy
def test_coefficients_and_predictions_are_those_of_conditioned_normals(name):
    model, sites, data, designs, y, dense = hierarchy(name)

    @eqx.filter_jit
    def given(sites, data):
        believed = model.believed(sites, data)
        cost = locals_of(model.rows(data), believed).cost
        share = jax.nn.softmax(believed.log_weight - cost, 1)
        return share, *in_units_of(model, data, data, believed)

    share, coefficients, roots = jax.device_get(given(sites, data))
    for i, (X, own) in enumerate(zip(designs, y, strict=True)):
        expected, _ = slow.shares(X, own, *dense, 4.0)
        np.testing.assert_allclose(share[i], expected, rtol=1e-8, atol=1e-12)
        for k, (mean, covariance) in enumerate(zip(*dense[1:], strict=True)):
            m, V = slow.coefficients(X, own, mean, covariance, 4.0)
            np.testing.assert_allclose(coefficients[i, k], m, rtol=1e-7)
            root = roots[i, k]
            np.testing.assert_allclose(root @ root.T, V, rtol=1e-6, atol=1e-6)


def test_draws_of_predictions_have_the_moments_of_conditioned_normals():
    model, sites, data, designs, y, dense = hierarchy("two components")
    place = np.array([55.0, -0.9])
    asked = model.inputs({i: place[None] for i in range(len(y))}, data)
    draw = jax.jit(lambda keys: jax.lax.map(lambda k: model.predict(sites, asked, k), keys))
    drawn = np.asarray(draw(jax.random.split(KEY, 4000))["y"][:, :, 0])
    for i, (X, own) in enumerate(zip(designs, y, strict=True)):
        share, _ = slow.shares(X, own, *dense, 4.0)
        each = [
            slow.predicted(np.array([1.0, *place]), X, own, mean, covariance, 4.0)
            for mean, covariance in zip(*dense[1:], strict=True)
        ]
        m, v = np.array(each).T
        mean = share @ m
        variance = share @ (v + m**2) - mean**2
        # Five standard errors.
        assert abs(drawn[:, i].mean() - mean) < 5 * np.sqrt(variance / 4000)
        assert drawn[:, i].var() == pytest.approx(variance, rel=0.15)


# Promises.


def test_the_order_of_data_sets_does_not_matter(fitted):
    order = np.random.default_rng(1).permutation(20)
    other = pk.fit(MODEL, meta.Episodes(X[order], Y[order]), EXACT, key=KEY)
    for ours, theirs in zip(*map(as_numpy, map(in_units, (fitted, other))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_rescaled_data_give_the_rescaled_fit(covariance):
    model = meta.Linear(covariance)
    # With independent coefficients the zero of the input matters.
    shift = 300.0 if covariance == "full" else 0.0
    one, other = (
        pk.fit(model, data, EXACT, key=KEY)
        for data in (meta.Episodes(X, Y), meta.Episodes(60 * X + shift, 1000 * Y + 7))
    )
    assert other.facts["elbo"] == pytest.approx(
        one.facts["elbo"] - Y.size * np.log(1000), rel=1e-9
    )
    a, b = (f.posterior["population_mean"].values[0] for f in (one, other))
    slope = a[:, 1] * 1000 / 60
    np.testing.assert_allclose(b[:, 1], slope, rtol=1e-6)
    np.testing.assert_allclose(b[:, 0], 1000 * a[:, 0] + 7 - slope * shift, rtol=1e-6)
    np.testing.assert_allclose(
        other.posterior["noise_sd"], 1000 * one.posterior["noise_sd"], rtol=1e-6
    )


class Whole(AbstractSource):
    """All data in each step."""

    data: meta.Episodes

    def at(self, step):
        return self.data

    def num_rows(self):
        return len(self.data)


def test_steps_of_length_one_on_all_data_are_coordinate_ascent(fitted):
    method = replace(EXACT, atol=0.1, decay=0.0, max_steps=60)
    other = pk.fit(MODEL, Whole(DATA), method, key=KEY, throw=False)
    for ours, theirs in zip(*map(as_numpy, map(in_units, (fitted, other))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batches_come_close_to_coordinate_ascent(fitted):
    method = replace(EXACT, atol=0.1, batch_size=5, max_steps=2000, decay=0.9)
    other = pk.fit(MODEL, DATA, method, key=KEY, throw=False)
    q, found = in_units(fitted), in_units(other)
    # A tenth of an sd of the mean of the coefficients, and a tenth of a variance.
    sd = np.sqrt(np.diag(q.covariance()) / float(q.strength))
    assert (np.abs(found.loc - q.loc) / sd).max() < 0.1
    np.testing.assert_allclose(found.scale, q.scale, rtol=0.1)
    assert float(found.dof) == pytest.approx(float(q.dof), rel=1e-6)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_bound_never_falls(covariance):
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, (40, 4))
    slope = np.where(rng.uniform(size=(40, 1)) < 0.5, 3.0, -3.0)
    y = slope * x + rng.normal(size=(40, 1)) + 0.3 * rng.normal(size=x.shape)
    model = meta.Linear(covariance, num_components=3)
    bounds = bounds_of(model, meta.Episodes(x, y), num_starts=4, num_steps=80)
    steps = np.diff(bounds, axis=-1)
    assert steps.min() > -1e-9 * np.abs(bounds).max()
    assert steps.max() > 1  # it rose at all


def test_float32_is_close_to_float64(fitted):
    cast = lambda a: a.astype(jnp.float32)  # noqa: E731
    small = meta.Episodes(X.astype("float32"), Y.astype("float32"))
    model = meta.Linear(prior=jax.tree.map(cast, PRIOR), noise_sd=NOISE)
    method = replace(EXACT, atol=0.01)
    q = in_units(pk.fit(model, small, method, key=KEY))
    assert q.loc.dtype == jnp.float32
    expected = in_units(fitted)
    # In sds of the posterior, and in parts of a variance.
    sd = np.sqrt(np.diag(expected.covariance()) / float(expected.strength))
    assert (np.abs(q.loc - expected.loc) / sd).max() < 0.02
    np.testing.assert_allclose(q.scale, expected.scale, rtol=0.01)


@pytest.mark.parametrize("num_components", [1, 2])
def test_steps_lower_for_a_gpu(num_components):
    model = meta.Linear(num_components=num_components)
    lowers_for_cuda(meta.Episodic(), Counted(model, 1.0), DATA)


def test_two_kinds_of_data_sets_are_told_apart():
    rng = np.random.default_rng(4)
    x = rng.uniform(-2, 2, (60, 5))
    rising = np.arange(60) < 40
    slope = np.where(rising, 2.0, -2.0)[:, None] + 0.3 * rng.normal(size=(60, 1))
    y = slope * x + 0.2 * rng.normal(size=x.shape)
    model = meta.Linear(num_components=2)
    method = replace(EXACT, atol=0.1, num_starts=2)
    fitted = pk.fit(model, meta.Episodes(x, y), method, key=KEY)
    weight = fitted.posterior["weight"].mean(("chain", "draw")).values
    np.testing.assert_allclose(weight, [2 / 3, 1 / 3], atol=0.05)
    kind = pk.recover(fitted, key=KEY, num_draws=50)["kind"].values
    assert (kind[..., rising] == 0).mean() > 0.99
    assert (kind[..., ~rising] == 1).mean() > 0.99
    q = scipy.stats.dirichlet(np.asarray(fitted.approximation.concentration))
    np.testing.assert_allclose(np.sort(q.mean()), [1 / 3, 2 / 3], atol=0.01)
