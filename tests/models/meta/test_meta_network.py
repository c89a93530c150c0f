"""Networks per episode: what is exact, what is compared, and what is refused."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpyro.handlers import seed, trace
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal

import probkit as pk
from bounds import bounds_of
from doors import refused
from lowering import lowers_for_cuda
from probkit.method.minibatch import Counted
from probkit.models import meta
from probkit.models.meta import gradient
from probkit.models.meta.curvature import Problem, Separate, thin
from probkit.models.meta.spreads import Blocks, Dense, Independent

KEY = jax.random.key(0)
PLAIN = meta.Units(jnp.zeros(1), jnp.ones(1), jnp.zeros(()), jnp.ones(()))


def episodes(n=6, m=4, units=PLAIN):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, m, 1))
    y = (1 + rng.normal(size=(n, 1))) * x[..., 0] + 0.3 * rng.normal(size=(n, m))
    seen = rng.uniform(size=(n, m)) < 0.8
    seen[:, 0] = True
    return meta.Episodes(x, y, seen, units=units)


@pytest.fixture(scope="module")
def line():
    """A network that is a line."""
    return eqx.nn.Linear(1, 1, key=KEY)


def reversed_features(x):
    return jnp.concatenate([x, jnp.ones_like(x)], -1)


# The quadratic, and the posterior that it gives.


@pytest.mark.parametrize("kind", ["dense", "independent", "blocks"])
def test_a_thin_posterior_is_the_dense_one(kind):
    rng = np.random.default_rng(1)
    d, r = 5, 3
    F, g = rng.normal(size=(r, d)), rng.normal(size=d)
    root = rng.normal(size=(d, d))
    if kind == "dense":
        C = root @ root.T
        spread = Dense(jnp.asarray(C))
    elif kind == "independent":
        C = np.diag(root[0] ** 2)
        spread = Independent(jnp.asarray(root[0] ** 2))
    else:
        small = root[:2, :2] @ root[:2, :2].T
        C = np.zeros((d, d))
        C[:2, :2], C[2:, 2:] = small, np.diag(root[0, :3] ** 2)
        parts = Dense(jnp.asarray(small)), Independent(jnp.asarray(root[0, :3] ** 2))
        spread = Blocks(parts, (2, 3))
    rows = rng.normal(size=(2, d))

    @jax.jit
    def everything(F, g):
        found = thin(jnp.asarray(2.0), g, F, spread)
        keys = jax.random.split(KEY, 40_000)
        draws = jax.vmap(lambda key: found.drawn(spread, key))(keys)
        variance = found.variance(spread, jnp.asarray(rows))
        return found.shift, found.cost, variance, found.second(spread), draws

    shift, found_cost, variance, found_second, draws = everything(F, g)
    V = np.linalg.inv(F.T @ F + np.linalg.inv(C))
    cost = 2 - g @ V @ g / 2 + np.linalg.slogdet(np.eye(d) + F.T @ F @ C)[1] / 2
    np.testing.assert_allclose(shift, -V @ g, rtol=1e-9)
    np.testing.assert_allclose(found_cost, cost, rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(rows @ V @ rows.T), rtol=1e-9)
    second = V + np.outer(V @ g, V @ g)
    wanted = {
        "dense": lambda: second,
        "independent": lambda: np.diag(second),
        "blocks": lambda: (second[:2, :2], np.diag(second)[2:]),
    }[kind]()
    for ours, theirs in zip(
        jax.tree.leaves(found_second), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
    draws = np.asarray(draws)
    scale = np.sqrt(np.outer(np.diag(V), np.diag(V)))
    # Of 40,000 draws the covariances have sds below 1 % of the scale.
    assert np.abs(np.cov(draws.T) - V).max() < 0.05 * scale.max()
    assert np.abs((draws.mean(0) + V @ g) / np.sqrt(np.diag(V))).max() < 0.03


@pytest.mark.parametrize(
    ("outcome", "y", "o"),
    [(meta.Normal(), 0.4, 1), (meta.Categorical(), 2, 4), (meta.Poisson(), 3, 1)],
)
def test_the_root_is_that_of_the_hessian_of_the_loss(outcome, y, o):
    @jax.jit
    def everything(f, precision):
        def loss(f):
            return outcome.loss(f, jnp.asarray(float(y)), precision, jnp.log(precision))

        root = outcome.root(f, precision)
        log_p = outcome.distribution(f, precision**-0.5).log_prob(y)
        return root @ root.T, jax.hessian(loss)(f), loss(f), log_p

    f = np.random.default_rng(2).normal(size=o)
    square, hessian, loss, log_p = everything(f, 2.5)
    np.testing.assert_allclose(square, hessian, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(loss, -log_p, rtol=1e-9)


def test_the_fisher_matrix_is_that_of_the_gradients_of_the_rows(line):
    model = meta.Network(line, meta.Normal(0.5), curvature=meta.Fisher(1))

    @jax.jit
    def both(data):
        (prior,) = model.block_priors(data)

        def outputs(theta):
            return model.outputs(theta, data.x[0])

        one = jnp.asarray(4.0)
        problem = Problem(
            outputs, model.outcome, data.y[0], data.seen[0] * 1.0, one, jnp.log(one)
        )
        spread = Independent(prior.sd**2)
        found, _, _ = meta.Fisher(1).local(problem, prior.loc, spread, KEY)
        each = jax.jacrev(lambda theta: problem.losses(outputs(theta)))(prior.loc)
        return found.factor.T @ found.factor, each.T @ each

    ours, theirs = both(episodes())
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert ours.shape == (len(model.leaves().labels()),) * 2


@partial(jax.jit, static_argnums=(0, 2, 3))
def langevin(steps, A, size, runs=200):
    """The mean curvature that the scatter of noisy steps reads off a known one."""
    outcome = meta.Normal(1.0)
    rows = jnp.ones((1,))
    problem = Problem(
        lambda theta: jnp.sqrt(A) * theta[:, None],
        outcome,
        rows * 0,
        rows,
        rows[0],
        rows[0],
    )
    method = meta.Langevin(steps, 0, size, largest=1e12)
    spread = Independent(rows)

    def read(key):
        own, _, _ = method.local(problem, jnp.zeros(1), spread, key)
        assert isinstance(own, Separate)
        return 1 / own.own[0] - 1

    # The mean of the scatter, because the mean of its inverse has a heavy tail.
    found = jax.vmap(read)(jax.random.split(KEY, runs))
    return 1 / jnp.mean(1 / found)


def test_the_scatter_of_noisy_steps_is_curvature_after_many_steps_only():
    # With steps of size ε the scatter of many has the precision A (1 - ε A / 4), in
    # proportion to their length; that of a few is the noise that was put in.
    size, A = 1e-3, 100.0
    many = langevin(4000, A, size, runs=20)
    np.testing.assert_allclose(many, A * (1 - size * A / 4), rtol=0.1)
    assert langevin(3, A, size) > 3 * A
    assert langevin(3, 1.0, size) > 1000


# The whole model.


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_network_that_is_a_line_is_the_linear_model(line, covariance):
    data = episodes()
    network = meta.Network(line, covariance=covariance)
    linear = meta.Linear(covariance, features=reversed_features)

    @jax.jit
    def gathered(data):
        post = network.first(data, KEY, None)
        return [model.gather(data, post, KEY) for model in (network, linear)]

    ours, theirs = gathered(data)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


class Bilinear(eqx.Module):
    """A linear network with a matrix of weights."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return (jnp.stack([jnp.ones(()), x[0]]) @ self.weight @ x)[None] + self.bias


@pytest.fixture(scope="module")
def bilinear():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(12, 8, 2))
    theta = 1 + rng.normal(size=(12, 2, 1)) * [1.0, 0.3]
    features = np.stack([np.ones(x.shape[:2]), x[..., 0]], -1)
    y = np.einsum("nmi,nmj,nij->nm", features, x, theta)
    data = meta.Episodes(x, y + 0.3 * rng.normal(size=y.shape))
    return Bilinear(jnp.asarray(rng.normal(size=(2, 2))), jnp.ones(1)), data


STRUCTURES = ["diagonal", "full", "block", "kronecker", {"bias": "full"}]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_the_bound_of_a_linear_network_never_falls(bilinear, structure):
    net, data = bilinear
    model = meta.Network(net, meta.Normal(0.3), covariance=structure)
    rises = np.diff(bounds_of(model, data))
    assert rises.min() > -1e-8
    assert rises.max() > 1  # it rose at all


def test_the_density_of_rows_and_columns_is_the_dense_one(bilinear):
    net, data = bilinear
    model = meta.Network(net, meta.Normal(0.3), covariance="kronecker")

    @jax.jit
    def drawn(data):
        traced = trace(seed(model, KEY)).get_trace(data)
        values = {name: site["value"] for name, site in traced.items()}
        sites = {name: traced[name] for name in ("population_mean", "theta")}
        return values, {k: v["fn"].log_prob(v["value"]) for k, v in sites.items()}

    values, log_p = jax.device_get(drawn(data))
    rows, columns, bias = (
        values[name]
        for name in (
            "row_covariance_weight",
            "column_covariance_weight",
            "covariance_bias",
        )
    )
    C = block_diag(np.kron(rows, columns), bias)
    mean, theta = values["population_mean"], values["theta"]
    loc = np.asarray(model.leaves().vector(net))
    expected = multivariate_normal.logpdf(mean, loc, C / 1e-3)
    np.testing.assert_allclose(log_p["population_mean"], expected, rtol=1e-9)
    expected = multivariate_normal.logpdf(theta, mean, C)
    np.testing.assert_allclose(log_p["theta"], expected, rtol=1e-8)


def test_nuts_runs_on_rows_and_columns_and_stays_where_the_steps_end(bilinear):
    net, data = bilinear
    # The bias takes the mean of the values off, and is not learned.
    bias = -(data.y_mean / data.y_sd)[None]
    net = eqx.tree_at(lambda net: net.bias, net, bias)
    model = meta.Network(net, meta.Normal(0.3), ["weight"], "kronecker")
    steps = pk.fit(model, data, meta.Episodic(num_draws=400), key=KEY)
    method = pk.NUTS(
        num_chains=1, num_warmup=100, num_samples=100, max_tree_depth=6, jitter=0
    )
    exact = pk.fit(model, data, method, key=KEY, throw=False, start=steps)
    sites = ["row_covariance_weight", "column_covariance_weight"]

    def log_variances(fitted):
        rows, columns = (fitted.posterior[site].values for site in sites)
        both = np.einsum("...ii,...jj->...ij", rows, columns)
        return np.log(both).reshape(-1, 4)

    ours, theirs = log_variances(steps), log_variances(exact)
    sd = ours.std(0)
    # Rows and columns differ by six sds. The run is short, and steps take each side of
    # the product as known to the other.
    assert abs(np.median(ours, 0) - np.median(theirs, 0)).max() < 1.5 * sd.max()
    assert (theirs.std(0) > sd / 3).all()
    assert (theirs.std(0) < 3 * sd).all()


def test_slopes_are_those_of_the_cost_and_the_divergence(line):
    # The envelope theorem: they are total derivatives, the search included.
    data = episodes()
    model = meta.Network(line, meta.Normal(0.4))
    num = jnp.asarray(50.0)

    @jax.jit
    def begun(data):
        (prior,) = priors = model.block_priors(data)
        post = model.first(data, KEY, None)
        n, strength = prior.degrees() + num, prior.strength + num
        return priors, post, n, strength, gradient.parameters(post)

    priors, post, n, strength, here = begun(data)

    @jax.jit
    def objective(given):
        given = jax.tree.map(jnp.asarray, given)
        post_at = gradient.with_parameters(post, given, n, strength)
        cost = -model.gather(data, post_at, KEY).bound.mean()
        return cost + post_at.divergence(priors, model.noise_scale(data)) / num

    @jax.jit
    def both(here):
        at = gradient.with_parameters(post, here, n, strength)
        ours = gradient.slopes(at, priors, model.gather(data, at, KEY), num)
        return ours, jax.grad(objective)(here)

    ours, theirs = both(here)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
    check_grads(objective, (here,), order=1, modes=["rev"], rtol=1e-5, atol=1e-5)


def test_gradient_steps_reach_what_conjugate_steps_reach(line):
    data = episodes(20, 4)
    model = meta.Network(line, meta.Normal(0.3))
    exact = pk.fit(model, data, meta.Episodic(num_draws=2, atol=1e-6), key=KEY)
    method = meta.Episodic(
        step_by="gradient", learning_rate=0.02, max_steps=1500, num_draws=2
    )
    steps = pk.fit(model, data, method, key=KEY, throw=False)
    assert exact.facts["elbo"] - steps.facts["elbo"] < 0.5
    ours, theirs = (f.approximation.blocks[0].loc for f in (steps, exact))
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.fixture(scope="module")
def classes():
    """Episodes of two classes on a line, the first of which is on either side."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 8, 1))
    side = rng.choice([-1, 1], (12, 1))
    y = (side * x[..., 0] + 0.3 * rng.normal(size=(12, 8)) > 0).astype(int)
    net = eqx.nn.MLP(1, 2, 4, 1, activation=jnp.tanh, key=KEY)
    data = meta.Episodes(x, y)
    structure = {"layers.1.weight": "kronecker"}
    model = meta.Network(net, meta.Categorical(), ["layers.1"], structure)
    return pk.fit(
        model, data, meta.Episodic(num_draws=40, max_steps=60), key=KEY, throw=False
    )


def asked():
    """A new data set whose first class is on the left."""
    x, y = np.linspace(-2, 2, 6), (np.linspace(-2, 2, 6) > 0).astype(float)
    return meta.New([x], [x], [y])


def test_probabilities_are_averaged_over_draws(classes):
    found = pk.predict(classes, asked(), key=KEY)
    probability = found["probability"]
    assert probability.dims == ("chain", "draw", "group", "row", "class")
    np.testing.assert_allclose(probability.sum("class"), 1, rtol=1e-9)
    mean = probability.mean(("chain", "draw")).values[0]
    assert mean[0, 0] > 0.6
    assert mean[-1, 1] > 0.6
    assert set(np.unique(found["y"])) <= {0.0, 1.0}


def test_only_bayesian_arrays_have_sites(classes):
    labels = classes.posterior["weight"].values
    assert len(labels) == 4 * 2 + 2
    assert labels[0] == "layers.1.weight[0, 0]"
    assert classes.posterior["theta"].dims == ("chain", "draw", "group", "weight")


def test_a_file_keeps_sites_with_dots_in_their_names(classes, tmp_path):
    again = pk.load(pk.save(classes, tmp_path / "net.nc"), model=classes.model)
    assert {
        "between_sd_layers.1.bias",
        "row_covariance_layers.1.weight",
        "column_covariance_layers.1.weight",
    } < set(again.posterior)
    assert again.tree.identical(classes.tree)
    assert eqx.tree_equal(again.approximation, classes.approximation, typematch=True)
    report = pk.diagnose(classes)
    assert str(pk.diagnose(again)) == str(report)
    assert report["explained of the values of left-out rows"].ok
    assert report["how far another expansion moves the weights"].ok
    assert report["episodes"].value == 12
    one, two = (pk.predict(f, asked(), key=KEY) for f in (classes, again))
    assert one.equals(two)


def test_the_program_agrees_with_the_steps(line):
    # Posterior means of the population, by NUTS and by conjugate steps.
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 5, 1))
    slope, level = rng.normal([[2.0], [-1.0]], 1.0, (2, 30))[..., None]
    y = level + slope * x[..., 0] + 0.3 * rng.normal(size=(30, 5))
    data = meta.Episodes(x, y, units=PLAIN)
    model = meta.Network(line, meta.Normal(0.3))
    method = pk.NUTS(num_chains=2, num_warmup=500, num_samples=500)
    exact = pk.fit(model, data, method, key=KEY, throw=False)
    steps = pk.fit(model, data, meta.Episodic(num_draws=2000), key=KEY)
    for name in ("population_mean", "between_sd"):
        ours, theirs = (f.posterior[name] for f in (steps, exact))
        sd = theirs.std(("chain", "draw"))
        away = abs(ours.median(("chain", "draw")) - theirs.median(("chain", "draw"))) / sd
        # Of 1,000 draws of each, whose medians are known to a tenth of an sd.
        assert float(away.max()) < 0.5, name


def test_a_small_network_lowers_for_cuda():
    net = eqx.nn.MLP(1, 1, 3, 1, key=KEY)
    data = episodes()
    lowers_for_cuda(meta.Episodic(num_starts=1), Counted(meta.Network(net), 2.0), data)


# What is refused.


def test_networks_without_bayesian_arrays_are_refused(line):
    refused(lambda: meta.Network(jnp.tanh), r"without arrays")
    refused(lambda: meta.Network(line, bayesian=[]), r"chooses no array")
    refused(lambda: meta.Network(line, bayesian=["layers.3"]), r"layers\.3.*weight, bias")
    refused(lambda: meta.Network(line, bayesian=lambda name: False), r"chooses no array")


def test_other_settings_are_refused(line):
    refused(lambda: meta.Network(line, "normal"), r"it takes `meta\.Normal")
    refused(lambda: meta.Network(line, covariance="dense"), r"'diagonal'")
    refused(lambda: meta.Network(line, between=0.0), r"positive number")
    refused(lambda: meta.Network(line, curvature=3), r"GaussNewton")
    refused(lambda: meta.Episodic(step_by="newton"), r"'conjugate' or 'gradient'")


def test_a_gradient_step_needs_one_variance_per_parameter(line):
    model = meta.Network(line, covariance="full")
    method = meta.Episodic(step_by="gradient")
    refused(lambda: pk.fit(model, episodes(), method, key=KEY), r'covariance="diagonal"')


def test_noisy_steps_need_one_variance_per_weight(line):
    model = meta.Network(line, covariance="full", curvature=meta.Langevin())
    refused(
        lambda: pk.fit(model, episodes(), meta.Episodic(), key=KEY),
        r'covariance="diagonal"',
    )
