"""Two classes: the bound of the evidence, its steps, and what the fit keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import probkit as pk
from doors import NO_COUNT, NO_SIZE, POSITIVE, WHOLE, refused
from probkit.method.climb import at_foot
from probkit.models import sbl
from probkit.models.sbl.logistic import (
    LogisticState,
    bounded,
    evidence_alone,
    laplace,
)

KEY = jax.random.key(0)
MODEL = sbl.LogisticSBL(level_scale=3.0)


def classes(n, p, weights, seed=0):
    rng = np.random.default_rng(seed)
    X = 2 * rng.normal(size=(n, p)) + 3
    f = (X - 3)[:, : len(weights)] @ weights + 0.5
    return sbl.Classes(rng.uniform(size=n) < 1 / (1 + np.exp(-f)), X)


@pytest.fixture(scope="module")
def grid():
    """One column: level and standardised coefficient on a grid, with prior and logits."""
    data, γ = classes(30, 1, [1.2]), 1.5
    b, a = np.linspace(-12, 12, 1201), np.linspace(-8, 8, 801)
    f = b[:, None, None] + a[None, :, None] * np.asarray(data.columns())[:, 0]
    prior = -0.5 * (b[:, None] ** 2 / 9 + a**2 / γ) - 0.5 * np.log(4 * np.pi**2 * 9 * γ)
    cell = np.log((b[1] - b[0]) * (a[1] - a[0]))
    return data, jnp.asarray([γ]), b, a, f, prior + cell


def test_the_bound_is_the_integral_of_the_bounded_likelihood(grid):
    data, γ, b, a, f, prior = grid
    squares = np.random.default_rng(1).gamma(1.0, 2.0, len(data))
    ξ = np.sqrt(squares)
    w, t = np.tanh(ξ / 2) / (2 * ξ), np.asarray(data.y) - 0.5
    log = (t * f - 0.5 * w * (f**2 - squares) - np.log(2 * np.cosh(ξ / 2))).sum(-1) + prior
    regression, constant = bounded(MODEL, data, jnp.asarray(squares))
    post = regression.posterior(γ)
    assert float(post.log_evidence() + constant) == pytest.approx(logsumexp(log), abs=1e-8)
    weight = np.exp(log - logsumexp(log))
    at = b[:, None] + 0.7 * a
    mean, variance = post.at([np.array([[0.7]])])
    assert float(mean[0]) == pytest.approx((weight * at).sum(), abs=1e-8)
    spread = (weight * at**2).sum() - (weight * at).sum() ** 2
    assert float(variance[0]) == pytest.approx(spread, abs=1e-8)


def test_the_bound_of_no_logit_at_all_is_its_limit(grid):
    data, γ, *_ = grid
    for squares in (0.0, 1e-9):
        regression, constant = bounded(MODEL, data, jnp.full(len(data), squares))
        near = bounded(MODEL, data, jnp.full(len(data), 1e-7))
        one, other = (
            r.posterior(γ).log_evidence() + c for r, c in ((regression, constant), near)
        )
        assert float(one) == pytest.approx(float(other), abs=1e-5)


@pytest.fixture(scope="module")
def climb():
    data = classes(40, 6, [2.0, -1.0])

    @jax.jit
    def run(start):
        def step(state, _):
            new = sbl.LogisticTypeII().step(MODEL, data, state)
            return new, new.climb.objective

        return jax.lax.scan(step, start, None, length=100)

    start = LogisticState(jnp.full(6, 0.5), jnp.full(40, 9.0), at_foot(jnp.float64))
    return data, *run(start)


def test_the_bound_never_falls(climb):
    _, _, trace = climb
    assert np.all(np.diff(trace) >= -1e-9 * np.abs(trace[1:]))
    assert trace[-1] > trace[0] + 1


def test_the_bound_is_below_the_evidence_and_close_to_it(grid):
    data, γ, _, _, f, prior = grid
    likelihood = (np.asarray(data.y) - 0.5) * f - np.log(2 * np.cosh(f / 2))
    exact = logsumexp(likelihood.sum(-1) + prior)
    squares = jnp.full(len(data), 4.0)
    for _ in range(50):
        regression, constant = bounded(MODEL, data, squares)
        post = regression.posterior(γ)
        mean, variance = post.at([data.columns()])
        squares = mean**2 + variance
    bound = float(post.log_evidence() + constant)
    alone = evidence_alone(MODEL, data)
    # Of what the column adds, the bound keeps most.
    assert bound < exact
    assert exact - bound < 0.1 * (exact - alone)


def test_the_evidence_of_an_intercept_alone_is_an_integral(grid):
    data, _, b, _, _, _ = grid
    y = np.asarray(data.y)
    terms = y.sum() * b - len(y) * np.logaddexp(0, b) - 0.5 * b**2 / 9
    expected = logsumexp(terms) + np.log((b[1] - b[0]) / 3) - 0.5 * np.log(2 * np.pi)
    assert evidence_alone(MODEL, data) == pytest.approx(expected, abs=1e-8)


def test_the_normal_approximation_is_at_the_mode_with_its_curvature():
    data, γ = classes(40, 3, [2.0, -1.0]), jnp.asarray([1.0, 0.5, 2.0])
    post = laplace(MODEL, data, γ, jnp.zeros(40))
    Z = np.column_stack([np.ones(40), data.columns()])
    level = float(post.at([np.zeros((1, 3))])[0][0])
    mode = np.array([level, *post.mean()])
    p = 1 / (1 + np.exp(-Z @ mode))
    precision = np.array([1 / 9, *(1 / γ)])
    slope = Z.T @ (np.asarray(data.y) - p) - precision * mode
    np.testing.assert_allclose(slope, 0.0, atol=1e-9)
    covariance = np.linalg.inv((Z.T * (p * (1 - p))) @ Z + np.diag(precision))
    np.testing.assert_allclose(post.variances(), np.diag(covariance)[1:], rtol=1e-8)
    np.testing.assert_allclose(post.at([np.zeros((1, 3))])[1], covariance[0, 0], rtol=1e-8)


@pytest.fixture(scope="module")
def fitted():
    data = classes(120, 10, [1.5, 0, 0, -1.0])
    return pk.fit(MODEL, data, sbl.LogisticTypeII(), key=KEY)


def test_a_fit_keeps_the_columns_that_matter(fitted):
    assert pk.diagnose(fitted).ok
    found = pk.recover(fitted, key=KEY).mean(("chain", "draw"))
    assert list(np.flatnonzero(found["coefficient"])) == [0, 3]
    np.testing.assert_allclose(found["coefficient"][[0, 3]], [1.5, -1.0], rtol=0.4)


def test_a_fit_does_not_depend_on_the_units_of_a_column(fitted):
    units = np.array([1e3, 1, 1, 1e-3, 1, 1, 1, 1, 1, 1e6])
    data = sbl.Classes(fitted.data.y, fitted.data.x * units - 7)
    other = pk.fit(MODEL, data, sbl.LogisticTypeII(), key=KEY)
    assert other.facts["evidence"] == pytest.approx(fitted.facts["evidence"], abs=1e-6)
    rows = np.asarray(fitted.data.x[:5])
    ours = pk.predict(fitted, rows, key=KEY)["probability"].mean(("chain", "draw"))
    theirs = pk.predict(other, rows * units - 7, key=KEY)["probability"]
    np.testing.assert_allclose(ours, theirs.mean(("chain", "draw")), atol=1e-6)


def test_probabilities_are_those_of_nuts_at_the_same_scales(fitted):
    # With the scales held, two columns: 1,000 draws each, whose averages have standard
    # errors below 0.01.
    from numpyro import handlers
    from numpyro.infer import MCMC, NUTS

    sites = fitted.sites()
    kept = np.flatnonzero(sites["local_scale"])
    data = sbl.Classes(fitted.data.y, fitted.data.x[:, kept])
    held = {
        "global_scale": sites["global_scale"],
        "local_scale": sites["local_scale"][kept],
    }
    chain = MCMC(
        NUTS(handlers.condition(MODEL, held)),
        num_warmup=300,
        num_samples=1000,
        progress_bar=False,
    )
    chain.run(KEY, data)
    drawn = chain.get_samples()
    by_nuts = jax.vmap(
        lambda z, b: jax.nn.sigmoid(MODEL.logits(held | {"standard": z, "level": b}, data))
    )(drawn["standard"], drawn["level"])
    ours = pk.predict(fitted, fitted.data.x, key=KEY)["probability"]
    np.testing.assert_allclose(ours.mean(("chain", "draw")), by_nuts.mean(0), atol=0.05)


def test_labels_of_chance_keep_no_column():
    rng = np.random.default_rng(0)
    data = sbl.Classes(rng.uniform(size=120) < 0.5, rng.normal(size=(120, 10)))
    noise = pk.fit(MODEL, data, sbl.LogisticTypeII(), key=KEY)
    assert not np.any(noise.sites()["local_scale"])
    assert not pk.diagnose(noise)["evidence for what was kept"].ok


def test_a_file_keeps_a_fit_of_two_classes(fitted, tmp_path):
    again = pk.load(pk.save(fitted, tmp_path / "classes.nc"))
    rows = np.asarray(fitted.data.x[:5])
    assert pk.predict(again, rows, key=KEY).equals(pk.predict(fitted, rows, key=KEY))


X = np.random.default_rng(0).normal(size=(6, 2))
Y = [0, 1, 0, 1, 1, 0]
REFUSED = {
    "one class": (lambda: sbl.Classes(np.ones(6), X), r"zeros and ones, some of each"),
    "other labels": (lambda: sbl.Classes([1, 2, 1, 2, 1, 2], X), r"zeros and ones"),
    "text": (lambda: sbl.Classes(["a"] * 6, X), r"`Classes\(y=...\)` holds text"),
    "a constant column": (lambda: sbl.Classes(Y, X * 0 + 1), r"column 0 .* constant"),
    "a row more": (lambda: sbl.Classes(Y[:5], X), r"shape \(5,\).* have 6"),
    "another model": (
        lambda: pk.fit(sbl.KroneckerSBL(), sbl.Classes(Y, X), sbl.TypeII(), key=KEY),
        r"fits `sbl.KroneckerSBL` to `sbl.Measurements`",
    ),
    "another method": (
        lambda: pk.fit(MODEL, sbl.Measurements.table(Y, X), sbl.LogisticTypeII(), key=KEY),
        r"`sbl.LogisticTypeII` fits `sbl.LogisticSBL` to `sbl.Classes`",
    ),
}


@pytest.mark.parametrize("call, words", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("no_checker")
def test_what_is_no_problem_of_two_classes_is_refused(call, words):
    refused(call, words)


@pytest.mark.usefixtures("no_checker")
def test_settings_out_of_range_are_refused():
    for value in NO_COUNT:
        if value != 0:
            refused(lambda v=value: sbl.LogisticTypeII(max_steps=v), WHOLE.format(0))
        refused(lambda v=value: sbl.LogisticTypeII(num_draws=v), WHOLE.format(1))
    for value in NO_SIZE:
        refused(lambda v=value: sbl.LogisticTypeII(atol=v), POSITIVE)
        refused(lambda v=value: sbl.LogisticSBL(level_scale=v), POSITIVE)
        refused(lambda v=value: sbl.LogisticSBL(global_scale=v), POSITIVE)
