"""Normal classes and their tasks: known answers, learned features, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import probkit as pk
from doors import NO_COUNT, WHOLE, refused
from probkit.distributions import NormalInverseWishart
from probkit.method.batches import on_cpu
from probkit.method.minibatch import Counted
from probkit.model.density import log_likelihood
from probkit.models import meta
from probkit.models.meta.beliefs import Full, Within
from probkit.models.meta.classes import ClassNormal
from probkit.models.meta.tasks import Members, mapped
from reference import classes as dense

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
MEAN = np.array([1.0, -2.0, 0.5])
BETWEEN = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
WITHIN = np.array([[0.5, -0.1, 0.1], [-0.1, 0.4, 0.0], [0.1, 0.0, 0.3]])
SITES = {"population_mean": MEAN, "covariance": BETWEEN, "within": WITHIN}
SITES = {name: jnp.asarray(value) for name, value in SITES.items()}


def examples(num_classes, count, seed=1):
    """Of the model itself."""
    rng = np.random.default_rng(seed)
    means = rng.multivariate_normal(MEAN, BETWEEN, num_classes)
    noise = rng.multivariate_normal(np.zeros(3), WITHIN, (num_classes, count))
    x = (means[:, None] + noise).reshape(-1, 3)
    return x, np.repeat(np.arange(num_classes), count)


SHOTS = meta.Shots(RNG.normal(size=(2, 3, 2, 3)), RNG.normal(size=(2, 3, 4, 3)))


# The density, and what follows from it.


def test_the_density_is_that_of_all_examples_at_once():
    f = RNG.normal(size=(2, 3, 4, 3))
    density = ClassNormal(*SITES.values(), f.shape[:3])
    expected = [
        sum(dense.log_density(own, MEAN, BETWEEN, WITHIN) for own in task) for task in f
    ]
    np.testing.assert_allclose(density.log_prob(jnp.asarray(f)), expected, rtol=1e-10)
    found = log_likelihood(meta.GaussianClasses(), SHOTS, SITES)["features"]
    every = np.concatenate([SHOTS.support, SHOTS.query], 2)
    expected = [
        sum(dense.log_density(own, MEAN, BETWEEN, WITHIN) for own in task) for task in every
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_draws_have_the_covariance_of_the_density():
    density = ClassNormal(*SITES.values(), (4000, 2, 3))
    drawn = np.asarray(density.sample(KEY)).reshape(-1, 9)
    expected = dense.joint_covariance(BETWEEN, WITHIN, 3)
    # An entry has a standard error of at most 2.5 sqrt(2 / 8000).
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.16)
    np.testing.assert_allclose(drawn.mean(0), np.tile(MEAN, 3), atol=0.08)


def test_probabilities_are_ratios_of_dense_densities():
    model = meta.GaussianClasses()
    found = model.predict(SITES, model.inputs(SHOTS, SHOTS), KEY)["probability"]
    for task in range(2):
        expected = dense.probabilities(
            np.asarray(SHOTS.support[task]),
            np.asarray(SHOTS.queries()[task]),
            MEAN,
            BETWEEN,
            WITHIN,
        )
        np.testing.assert_allclose(found[task], expected, rtol=1e-9, atol=1e-12)


def believed(d, strength=1e9):
    """A posterior as sharp as that, at the truth."""
    model = meta.GaussianClasses()
    post = model.first(SHOTS, KEY, None)
    block = jax.tree.map(lambda a: a[0], post.blocks[0])
    (prior,) = model.block_priors(SHOTS)
    sharp = prior.belief(jnp.asarray(BETWEEN), strength)
    sharp = eqx.tree_at(lambda b: b.niw.loc, sharp, jnp.asarray(MEAN))
    assert block.location().shape == (d,)
    within = Within.at(jnp.asarray(WITHIN), strength)
    return eqx.tree_at(
        lambda p: (p.blocks, p.noise),
        post,
        ((jax.tree.map(lambda a: a[None], sharp),), within),
    )


def test_what_a_batch_says_is_the_posterior_of_each_mean():
    model, post = meta.GaussianClasses(), believed(3)
    found = jax.jit(lambda data: model.gather(data, post, KEY))(SHOTS)
    every = np.concatenate([SHOTS.support, SHOTS.query], 2)
    first, second, misfit, bound = 0, 0, 0, []
    for task in every:
        bound.append(0.0)
        for own in task:
            m, V = dense.mean_of_class(own, MEAN, BETWEEN, WITHIN)
            away = own - m
            first = first + (m - MEAN) / 2
            second = second + (V + np.outer(m - MEAN, m - MEAN)) / 2
            misfit = misfit + (away.T @ away + len(own) * V) / 2
            bound[-1] += dense.log_density(own, MEAN, BETWEEN, WITHIN)
    (averages,) = found.averages
    np.testing.assert_allclose(averages.first[0], first, rtol=1e-6)
    np.testing.assert_allclose(averages.second[0], second, rtol=1e-6)
    np.testing.assert_allclose(found.misfit, misfit, rtol=1e-6)
    assert float(averages.share[0]) == 3 and float(found.rows) == 3 * 6
    # So sharp a belief costs next to nothing.
    np.testing.assert_allclose(found.bound, bound, rtol=1e-6)


def test_the_loss_is_minus_the_log_probability_of_the_classes():
    model, post = meta.GaussianClasses(), believed(3)
    found = float(model.loss(SHOTS, post, model.gather(SHOTS, post, KEY)))
    every = np.concatenate([SHOTS.support, SHOTS.query], 2)
    # Of examples that have the mean and scale that are believed.
    away = every - every.mean((0, 1, 2))
    precision = np.linalg.inv(BETWEEN + WITHIN)
    squares = np.einsum("...i,ij,...j->...", away, precision, away)
    every = MEAN + away / np.sqrt(squares.mean() / 3)
    own = []
    # Each of six examples in turn is the first of two in the support.
    for turn in range(6):
        for task in np.roll(every, -turn, axis=2):
            support, query = task[:, :2], task[:, 2:].reshape(-1, 3)
            p = dense.probabilities(support, query, MEAN, BETWEEN, WITHIN)
            own.append(np.log(p[np.arange(12), SHOTS.classes()]).sum())
    assert found == pytest.approx(-np.mean(own), rel=1e-6)


def test_the_divergence_of_a_covariance_is_a_mean_over_draws():
    # Given the scales a of the prior, of which q is gamma: by draws of both.
    q = Within(jnp.array([[6.0, 1.0], [1.0, 4.0]]), jnp.array(9.0), jnp.array([1.5, 2.0]))
    sd = jnp.array([1.0, 0.7])

    def one(key):
        import numpyro.distributions as dist

        key_a, key_w = jax.random.split(key)
        shape = 2.0  # (DF + d) / 2
        a = jax.random.gamma(key_a, shape, (2,)) / q.rate
        W = q.sample(key_w)
        given = dist.InverseWishart(q.dof, scale_matrix=q.scale).log_prob(W)
        given = given + dist.Gamma(shape, q.rate).log_prob(a).sum()
        prior = dist.InverseWishart(3.0, scale_matrix=jnp.diag(4 * a)).log_prob(W)
        return given - prior - dist.Gamma(0.5, sd**-2).log_prob(a).sum()

    found = jax.jit(jax.vmap(one))(jax.random.split(KEY, 100_000))
    error = float(found.std() / np.sqrt(len(found)))
    assert error < 0.02
    # Four standard errors.
    assert float(q.divergence(sd)) == pytest.approx(float(found.mean()), abs=4 * error)


# Fits.


@pytest.fixture(scope="module")
def whole():
    """100 classes in 20 tasks, all in each step."""
    x, _ = examples(100, 10)
    x = x.reshape(20, 5, 10, 3)
    data = meta.Shots(x[:, :, :4], x[:, :, 4:])
    method = meta.Episodic(num_draws=400)
    return pk.fit(meta.GaussianClasses(), data, method, key=KEY)


def test_a_fit_finds_the_hierarchy(whole):
    mean, sd = (
        whole.posterior.mean(("chain", "draw")),
        whole.posterior.std(("chain", "draw")),
    )
    for name, truth in SITES.items():
        apart = (mean[name] - np.asarray(truth)) / sd[name]
        assert float(np.abs(apart).max()) < 4, name
    # 1,000 rows give each entry of the covariance within classes, 100 those between.
    assert 0.01 < float(sd["within"].mean()) < 0.03
    assert 0.03 < float(sd["covariance"].mean()) < 0.3


def test_all_tasks_in_each_step_is_coordinate_ascent(whole):
    bound = whole.tree["trace"]["objective"].values[0]
    assert whole.result == "successful"
    assert (np.diff(bound) > -1e-9 * abs(bound[-1])).all()


STEPS = meta.Episodic(num_draws=400, max_steps=300, patience=99)


@pytest.fixture(scope="module")
def parts():
    x, labels = examples(100, 10)
    tasks = meta.Tasks(x, labels, 5, 4, 6, key=KEY, batch_size=8)
    return pk.fit(meta.GaussianClasses(), tasks, STEPS, key=KEY, throw=False)


def test_batches_end_near_all_tasks(whole, parts):
    for name in SITES:
        ours, theirs = (f.posterior[name].mean(("chain", "draw")) for f in (parts, whole))
        apart = (ours - theirs) / whole.posterior[name].std(("chain", "draw"))
        assert float(np.abs(apart).max()) < 1, name


def test_a_fit_of_a_file_is_that_of_memory(parts, tmp_path):
    x, labels = examples(100, 10)
    np.save(tmp_path / "x.npy", x)
    tasks = meta.StoredTasks(tmp_path / "x.npy", labels, 5, 4, 6, key=KEY, batch_size=8)
    stored = pk.fit(meta.GaussianClasses(), tasks, STEPS, key=KEY, throw=False)
    np.testing.assert_allclose(
        stored.posterior["within"], parts.posterior["within"], rtol=1e-9
    )


def test_predictions_are_named_and_average_over_draws(whole):
    asked = meta.Shots(whole.data.support[:2], whole.data.query[:2])
    found = pk.predict(whole, asked, key=KEY, num_draws=4)
    assert found["probability"].dims == ("chain", "draw", "task", "query", "class")
    p = found["probability"].values[0]
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-9)
    for i, draw in enumerate(found["draw"].values):
        sites = whole.posterior.sel(chain=0, draw=draw)
        expected = dense.probabilities(
            np.asarray(asked.support[1]),
            np.asarray(asked.queries()[1]),
            *(sites[name].values for name in SITES),
        )
        np.testing.assert_allclose(p[i, 1], expected, rtol=1e-8, atol=1e-12)
    # Any number of queries of any class.
    other = {"support": asked.support, "query": asked.queries()[:, :7]}
    again = pk.predict(whole, other, key=KEY, num_draws=4)["probability"]
    np.testing.assert_allclose(again[0], p[:, :, :7], rtol=1e-9)


def test_features_that_distinguish_no_classes_are_told(whole):
    name = "log probability of the classes of queries, over chance"
    check = pk.diagnose(whole)[name]
    assert check.ok
    assert "of the classes of the data are found" in check.note
    model, sites = meta.GaussianClasses(), whole.sites()
    some = meta.Shots(whole.data.support[:2], whole.data.query[:2])
    p = pk.predict(whole, some, key=KEY, num_draws=4)["probability"].mean("draw")[0].values
    own = p[:, np.arange(p.shape[1]), some.classes()]
    assert check.value == pytest.approx(np.log(own).mean() + np.log(5), abs=0.3)
    support, query = (
        MEAN + 2 * RNG.normal(size=a.shape) for a in (whole.data.support, whole.data.query)
    )
    (check,) = model.checks(sites, meta.Shots(support, query))
    assert not check.ok
    assert "do not distinguish" in check.remedy


def test_episodes_of_a_fit_are_counted(whole, parts):
    # A source stands for as many tasks as have all classes once, however many steps.
    assert pk.diagnose(whole)["episodes"].value == len(whole.data)
    assert pk.diagnose(parts)["episodes"].value == 100 // 5
    # Five numbers of variances and means of classes, from five classes per task.
    assert whole.facts["least_episodes"] == 1
    wide = meta.Shots(RNG.normal(size=(2, 3, 2, 8)), RNG.normal(size=(2, 3, 4, 8)))
    assert meta.GaussianClasses().least_episodes(wide) == 4


class Bent(eqx.Module):
    """Features of which a rotation and a stretch are learned."""

    layer: eqx.nn.Linear

    def __call__(self, x):
        return jnp.tanh(self.layer(x))


def test_gradients_of_the_loss_match_finite_differences():
    net = Bent(eqx.nn.Linear(3, 2, key=KEY))
    model = meta.GaussianClasses(net)
    post = model.first(SHOTS, KEY, None)
    arrays, rest = eqx.partition(net, eqx.is_array)

    @jax.jit
    def loss(arrays):
        bent = meta.GaussianClasses(eqx.combine(arrays, rest))
        return bent.loss(SHOTS, post, bent.gather(SHOTS, post, KEY))

    check_grads(loss, (arrays,), order=1, modes=["rev"], rtol=1e-5)


class Moved(eqx.Module):
    """Examples, multiplied and shifted."""

    factor: jax.Array
    shift: jax.Array

    def __call__(self, x):
        return self.factor * x + self.shift


def test_the_loss_does_not_depend_on_scale_and_location_of_features():
    post = believed(3)

    @jax.jit
    def loss(net):
        model = meta.GaussianClasses(net)
        return model.loss(SHOTS, post, model.gather(SHOTS, post, KEY))

    nets = [Moved(jnp.array(a), jnp.full(3, b)) for a, b in ((1.0, 0.0), (1e-3, 50.0))]
    first, second = (float(loss(net)) for net in nets)
    assert second == pytest.approx(first, rel=1e-9)
    slope = jax.jit(jax.grad(loss))(nets[0])
    assert float(abs(slope.factor)) < 1e-9
    assert float(abs(slope.shift).max()) < 1e-9


@pytest.fixture(scope="module")
def learned():
    """Two of twelve numbers distinguish classes; a linear layer has to find them."""
    rng = np.random.default_rng(3)
    means = rng.normal(size=(60, 2))
    x = 4.0 * rng.normal(size=(60, 20, 12))
    x[:, :, :2] = means[:, None] + 0.2 * rng.normal(size=(60, 20, 2))
    labels = np.repeat([f"class {i}" for i in range(60)], 20)
    net = Bent(eqx.nn.Linear(12, 2, key=jax.random.key(5)))
    tasks = meta.Tasks(x.reshape(-1, 12), labels, 5, 3, 5, key=KEY, batch_size=8)
    method = meta.Episodic(
        num_draws=50, max_steps=600, learning_rate=0.01, window=50, patience=99
    )
    model = meta.GaussianClasses(net)
    return model, tasks, pk.fit(model, tasks, method, key=KEY, throw=False)


def accuracy(fitted, tasks):
    shots = tasks.at(10_000)
    p = pk.predict(fitted, shots, key=KEY)["probability"].mean(("chain", "draw"))
    return float((p.values.argmax(-1) == shots.classes()).mean())


def test_features_are_learned(learned):
    model, tasks, fitted = learned
    assert meta.GaussianClasses(model.features, learn=False).learned() is None
    # Those of the start find 0.3.
    assert accuracy(fitted, tasks) > 0.75
    # The two numbers weigh more than the ten.
    weight = np.abs(np.asarray(fitted.model.features.layer.weight))
    assert weight[:, :2].mean() > 5 * weight[:, 2:].mean()
    loss = -fitted.tree["trace"]["objective"].values[0]
    assert loss[-50:].mean() < 0.7 * loss[:20].mean()
    assert fitted.facts["loss"] > 0 and "elbo" not in fitted.facts
    assert "per episode" in str(pk.diagnose(fitted))


class Filtered(eqx.Module):
    """Features by a convolution."""

    filters: eqx.nn.Conv1d

    def __call__(self, x):
        return self.filters(x[None]).mean(1)


@pytest.mark.parametrize("alone", [True, False])
def test_steps_with_convolutions_are_programs_of_their_own(alone, monkeypatch):
    # A run of seven steps is the same as seven calls of `step`.
    net = Filtered(eqx.nn.Conv1d(1, 2, 3, key=KEY))
    x, labels = np.random.default_rng(1).normal(size=(60, 6)), np.repeat(range(6), 10)
    tasks = meta.Tasks(x, labels, 2, 2, 2, key=KEY, batch_size=2)
    method = meta.Episodic(max_steps=7, num_draws=2, patience=99, learning_rate=0.01)
    model = meta.GaussianClasses(net)
    program, like = Counted(model, 2.0), tasks.at(0)
    assert method.steps_alone(program, like) == on_cpu()
    plain = eqx.nn.Linear(6, 2, key=KEY)
    assert not method.steps_alone(Counted(meta.GaussianClasses(plain), 2.0), like)
    monkeypatch.setattr(meta.Episodic, "steps_alone", lambda *_: alone)
    fitted = pk.fit(model, tasks, method, key=KEY, throw=False)
    assert fitted.tree["trace"]["objective"].shape == (1, 7)
    program = Counted(model, tasks.num_rows() / 2)
    state = method.init(program, like, KEY, None)
    step = eqx.filter_jit(lambda state, data: method.step(program, data, state))
    for number in range(7):
        state = step(state, tasks.at(number))
    expected = state.learned.features.filters.weight
    found = fitted.model.features.filters.weight
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_file_keeps_learned_features(learned, tmp_path):
    model, tasks, fitted = learned
    path = pk.save(fitted, tmp_path / "classes.nc")
    again = pk.load(
        path,
        families=[
            *(meta.GaussianClasses, meta.Shots, meta.Episodic, meta.Posterior),
            *(Full, NormalInverseWishart, Within),
        ],
        model=model,
    )
    kept, saved = (f.model.features.layer.weight for f in (again, fitted))
    np.testing.assert_array_equal(kept, saved)
    assert not np.array_equal(kept, model.features.layer.weight)
    assert accuracy(again, tasks) == accuracy(fitted, tasks)


def test_components_are_those_of_a_singular_value_decomposition():
    x = RNG.normal(size=(50, 4, 3)) * np.array([1.0, 2.0, 5.0])
    found = meta.principal_components(x, 3)
    flat = x.reshape(50, 12) - x.reshape(50, 12).mean(0)
    _, _, rows = np.linalg.svd(flat, full_matrices=False)
    ours = np.asarray(jax.vmap(found)(jnp.asarray(x)))
    np.testing.assert_allclose(np.abs(ours), np.abs(flat @ rows[:3].T), rtol=1e-8)
    assert meta.GaussianClasses(found).learned() is None


# Tasks.


def labelled(num_classes=6, count=5):
    """The examples are their own numbers, so that one sees which were drawn."""
    labels = np.repeat(list("abcdefgh"[:num_classes]), count)
    return np.arange(len(labels), dtype=float)[:, None] * np.ones(2), labels


def test_tasks_are_drawn_without_replacement():
    x, labels = labelled()
    order = np.random.default_rng(0).permutation(len(x))
    tasks = meta.Tasks(x[order], labels[order], 4, 2, 3, key=KEY, batch_size=200)
    data = tasks.at(3)
    assert data.support.shape == (200, 4, 2, 2) and data.query.shape == (200, 4, 3, 2)
    number = np.concatenate([data.support, data.query], 2)[..., 0].astype(int)
    classes = number // 5
    assert (classes == classes[:, :, :1]).all()
    for task in range(200):
        assert len(set(number[task].ravel().tolist())) == 20
        assert len(set(classes[task, :, 0].tolist())) == 4
    # Each of six classes is in 4 of 6 tasks: 133, with an sd of 7; four of them.
    assert np.abs(np.bincount(classes[:, :, 0].ravel()) - 400 / 3).max() < 27
    assert tasks.num_rows() == 1


def test_classes_of_unequal_size_are_used_whole():
    x = np.arange(13.0)[:, None]
    labels = ["a"] * 3 + ["b"] * 10
    data = meta.Tasks(x, labels, 2, 1, 2, key=KEY, batch_size=300).at(0)
    number = np.concatenate([data.support, data.query], 2)[..., 0]
    assert set(number[number < 3].tolist()) == {0.0, 1.0, 2.0}
    assert set(number[number >= 3].tolist()) == set(range(3, 13))


def test_tasks_follow_from_the_step_alone():
    tasks = meta.Tasks(*labelled(), 3, 1, 2, key=KEY, batch_size=4)
    one, again = tasks.at(7), jax.jit(lambda step: tasks.at(step))(7)
    np.testing.assert_array_equal(one.support, again.support)
    np.testing.assert_array_equal(one.query, again.query)
    assert not np.array_equal(one.support, tasks.at(8).support)
    other = meta.Tasks(*labelled(), 3, 1, 2, key=jax.random.key(1), batch_size=4)
    assert not np.array_equal(one.support, other.at(7).support)


def test_tasks_of_another_step_compile_nothing(monkeypatch):
    traced, drawn = [], Members.drawn
    monkeypatch.setattr(Members, "drawn", lambda *given: traced.append(1) or drawn(*given))
    tasks = meta.Tasks(*labelled(), 3, 1, 2, key=KEY, batch_size=7)  # a size of its own
    for step in (0, 1, 1000):
        tasks.at(step)
    assert len(traced) == 1


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_a_file_gives_the_tasks_of_memory(ending, tmp_path):
    x, labels = labelled()
    path = tmp_path / f"x.{ending}"
    np.save(path, x) if ending == "npy" else np.savez(path, x=x)
    assert isinstance(mapped(str(path)), np.memmap)
    memory = meta.Tasks(x, labels, 3, 1, 2, key=KEY, batch_size=4)
    stored = meta.StoredTasks(path, labels, 3, 1, 2, key=KEY, batch_size=4)
    for step in (0, 5):
        np.testing.assert_array_equal(stored.at(step).support, memory.at(step).support)
        np.testing.assert_array_equal(stored.at(step).query, memory.at(step).query)
    assert stored.chunk(2, 3)["query"].shape == (3, 4, 3, 2, 2)
    np.testing.assert_allclose(stored.center, memory.center)


def with_nan(x):
    x = x.copy()
    x[4, 1] = np.nan
    return x


X, LABELS = labelled()
TASKS = {
    "one class": ((X, ["a"] * 30), {}, r"has one class, 'a'; .* two or more"),
    "few classes": ((X, LABELS, 7), {}, r"ways=7.*there are 6 classes"),
    "few examples": (
        (X, LABELS, 5, 2, 4),
        {},
        r"takes 6 examples of a class, and 'a' has 5",
    ),
    "NaN": (
        (with_nan(X), LABELS, 3, 1, 2),
        {},
        r"images=...\)` has 1 value missing.*\(4, 1\)",
    ),
    "text": ((X.astype(str), LABELS), {}, r"images=...\)` holds text"),
    "one axis": ((X[:, 0], LABELS), {}, r"has shape \(30,\); .* \(n, \*s\)"),
    "no example": ((X[:0], LABELS[:0]), {}, r"has shape \(0, 2\)"),
    "few labels": ((X, LABELS[:-1]), {}, r"labels=...\)` has shape \(29,\) for 30"),
    "labels of two axes": ((X, LABELS[:, None]), {}, r"has shape \(30, 1\) for 30"),
    "labels of NaN": ((X, [np.nan] + [1.0] * 29), {}, r"has 1 labels that are NaN"),
    "labels of all kinds": ((X, [None, *LABELS[1:]]), {}, r"holds None and others"),
    "one way": ((X, LABELS, 1), {}, WHOLE.format(2)),
    "no key": ((X, LABELS), {"key": 3}, r"key=...\)` got 3; it takes a JAX random key"),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_refused(name, tmp_path):
    given, more, pattern = TASKS[name]
    refused(lambda: meta.Tasks(*given, **({"key": KEY} | more)), pattern)
    if name not in ("text", "no example"):
        np.save(tmp_path / "x.npy", given[0])
        stored = (tmp_path / "x.npy", *given[1:])
        words = pattern.replace("images=...", "'x.npy'")
        refused(lambda: meta.StoredTasks(*stored, **({"key": KEY} | more)), words)


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("name", ["shots", "queries", "batch_size"])
def test_sizes_are_whole_numbers(name):
    for value in NO_COUNT:
        refused(
            lambda v=value: meta.Tasks(X, LABELS, key=KEY, **{name: v}), WHOLE.format(1)
        )


@pytest.mark.usefixtures("no_checker")
def test_files_are_refused(tmp_path):
    def stored(file, **more):
        more = {"ways": 2, "queries": 2} | more
        return meta.StoredTasks(tmp_path / file, LABELS, key=KEY, **more)

    with pytest.raises(FileNotFoundError, match="there is no file"):
        stored("nothing.npy")
    (tmp_path / "text.npy").write_text("1, 2, 3")
    refused(lambda: stored("text.npy"), r"'text.npy'.* is no file of NumPy")
    np.savez_compressed(tmp_path / "small.npz", x=X)
    refused(lambda: stored("small.npz"), r"is compressed and cannot be mapped")
    np.savez(tmp_path / "two.npz", x=X, y=X)
    refused(lambda: stored("two.npz"), r"has the arrays x, y; choose one by `name=`")
    refused(lambda: stored("two.npz", name="z"), r"has no array 'z'; it has x, y")
    np.save(tmp_path / "one.npy", X)
    refused(lambda: stored("one.npy", name="x"), r"is one array; leave `name='x'` out")
    assert stored("two.npz", name="y").at(0).support.shape[1] == 2


SUPPORT, QUERY = np.zeros((2, 3, 1, 4)), np.zeros((2, 3, 2, 4))
DATA = {
    "other tasks": ((SUPPORT, QUERY[:1]), r"shapes \(2, 3, 1, 4\) and \(1, 3, 2, 4\)"),
    "other ways": ((SUPPORT, QUERY[:, :2]), r"and \(2, 2, 2, 4\); for t tasks"),
    "other examples": ((SUPPORT, QUERY[..., :3]), r"and \(2, 3, 2, 3\)"),
    "no shape": ((SUPPORT[..., 0], QUERY[..., 0]), r"they are \(t, n, k, \*s\)"),
    "one way": ((SUPPORT[:, :1], QUERY[:, :1]), r"two classes"),
    "no query": ((SUPPORT, QUERY[:, :, :0]), r"one example of each"),
    "text": ((SUPPORT.astype(str), QUERY), r"support=...\)` holds text"),
    "half a scale": ((SUPPORT, QUERY, np.zeros(4)), r"takes both, or neither"),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("name", DATA)
def test_shots_are_refused(name):
    given, pattern = DATA[name]
    refused(lambda: meta.Shots(*given), pattern)


IMAGES = meta.Shots(np.ones((1, 2, 1, 4, 4)), np.zeros((1, 2, 1, 4, 4)))


@pytest.mark.usefixtures("no_checker")
def test_models_are_refused(whole):
    model, method = meta.GaussianClasses(), meta.Episodic()
    refused(lambda: meta.GaussianClasses(3), r"features=...\)` got a `int`")
    refused(lambda: meta.GaussianClasses(learn="no"), r"learn='no'.*True or False")
    refused(
        lambda: pk.fit(model, IMAGES, method, key=KEY),
        r"shape \(4, 4\). Give `features=`, .*principal_components",
    )
    flat = meta.GaussianClasses(lambda x: x)
    refused(
        lambda: pk.fit(flat, IMAGES, method, key=KEY), r"\(4, 4\) for an .*returns a vector"
    )
    other = meta.Episodes(np.zeros((2, 3, 1)), np.arange(6.0).reshape(2, 3))
    refused(lambda: pk.fit(model, other, method, key=KEY), r"not `Episodes`")
    refused(lambda: meta.principal_components(np.ones((3, 9)), 4), r"at most 3 components")
    for given, pattern in (
        (3, r"got a `int`; it takes `meta.Shots`"),
        ({"support": SUPPORT}, r"got a `dict`"),
        ({"support": SUPPORT, "query": QUERY[:, 0]}, r"for examples of shape \(3,\)"),
        (
            {"support": SUPPORT[..., :3], "query": QUERY[:1, 0, :, :3]},
            r"give both for each task",
        ),
    ):
        refused(lambda g=given: pk.predict(whole, g, key=KEY), pattern)


# Reliability.


def test_the_calibration_error_of_known_probabilities():
    # Ten queries at 0.9, of which six are right; ten at 0.6, of which six are right.
    p = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    y = np.array([0] * 6 + [1] * 4 + [1] * 6 + [0] * 4)
    found = meta.reliability(p, y, num_bins=10)
    assert found.error == pytest.approx((0.3 + 0.0) / 2)
    assert found.num.tolist() == [0] * 5 + [10, 0, 0, 10, 0]
    assert found.accuracy[[5, 8]] == pytest.approx([0.6, 0.6])
    assert found.confidence[[5, 8]] == pytest.approx([0.6, 0.9])
    # One class for each query of all tasks.
    tasks = np.stack([p, p])
    assert meta.reliability(tasks, y, num_bins=10).error == pytest.approx(found.error)
    assert meta.reliability(np.eye(2), [0, 1]).error == 0
    assert meta.reliability(np.eye(2), [1, 0]).error == 1


@pytest.mark.usefixtures("no_checker")
def test_probabilities_are_refused():
    refused(lambda: meta.reliability(np.ones((3, 2)), [0, 1, 1]), r"does not sum to one")
    refused(lambda: meta.reliability(np.eye(2), [0, 1, 1]), r"shapes \(2, 2\) and \(3,\)")
    refused(lambda: meta.reliability(np.eye(2), [0, 2]), r"the classes 0 to 1")
    refused(lambda: meta.reliability(np.eye(2), [0, 1], num_bins=0), WHOLE.format(1))
