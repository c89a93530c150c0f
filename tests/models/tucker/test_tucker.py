"""Functional Tucker models: known answers, and agreement between methods."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from lowering import lowers_for_cuda
from probkit.gp.state_space import Sites as Terms
from probkit.models import tucker
from probkit.models.tucker.gibbs import ACCEPTED, adapted
from probkit.models.tucker.messages import check_draws, facts_of_draws
from probkit.models.tucker.moments import Diagonal, Full, Moments, design, surface
from probkit.models.tucker.parameters import centres
from probkit.models.tucker.posterior import messages
from probkit.models.tucker.starts import started

KEY = jax.random.key(0)
RANK = 3


def random_moments(rng, count, spread):
    """Of `count` modes: means, and second moments of draws around them."""
    found = []
    for _ in range(count):
        mean = rng.normal(size=RANK + 1)
        root = spread * rng.normal(size=(RANK + 1, RANK + 1))
        found.append(
            Moments(jnp.array(mean), jnp.array(root @ root.T + np.outer(mean, mean)))
        )
    return found


def full_core(rng, count, spread):
    shape = (RANK,) * count
    mean = rng.normal(size=shape)
    root = spread * rng.normal(size=(mean.size, mean.size))
    second = root @ root.T + np.outer(mean, mean)
    return Full(jnp.array(mean), jnp.array(second.reshape(*shape, *shape)))


LEVEL = (jnp.array(0.7), jnp.array(0.7**2 + 0.3))


@partial(jax.jit, static_argnums=1)
def _seen(core, k, modes, level):
    """Moments of the surface, as mode `k` sees it."""
    return surface(design(core, k, modes, level), modes[k])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_modes_see_the_same_surface(count):
    rng = np.random.default_rng(count)
    modes = random_moments(rng, count, 0.5)
    for core in (Diagonal(jnp.array(rng.normal(size=RANK))), full_core(rng, count, 0.1)):
        seen = [_seen(core, k, modes, LEVEL) for k in range(count)]
        for one in seen[1:]:
            np.testing.assert_allclose(one, seen[0], rtol=1e-10)


def test_the_surface_of_known_values_is_the_formula():
    rng = np.random.default_rng(1)
    modes = random_moments(rng, 3, 0.0)
    core = full_core(rng, 3, 0.0)
    u = [np.asarray(x.mean) for x in modes]
    inside = np.einsum("abc,a,b,c", core.mean, u[0][:-1], u[1][:-1], u[2][:-1])
    f = 0.7 + sum(x[-1] for x in u) + inside
    known = (jnp.array(0.7), jnp.array(0.49))
    for k in range(3):
        mean, second = _seen(core, k, modes, known)
        np.testing.assert_allclose([mean, second], [f, f**2], rtol=1e-12)


def test_moments_of_the_surface_are_those_of_draws():
    rng = np.random.default_rng(2)
    modes = random_moments(rng, 3, 0.4)
    scale = jnp.array(rng.normal(size=RANK))
    draws = []
    for x in modes:
        covariance = np.asarray(x.second - jnp.outer(x.mean, x.mean))
        draws.append(rng.multivariate_normal(x.mean, covariance, 100_000))
    level = rng.normal(0.7, np.sqrt(0.3), 100_000)
    product = draws[0][:, :-1] * draws[1][:, :-1] * draws[2][:, :-1]
    f = level + sum(d[:, -1] for d in draws) + product @ np.asarray(scale)
    mean, second = _seen(Diagonal(scale), 1, modes, LEVEL)
    # Within five standard errors: one run in two million fails by chance.
    assert abs(f.mean() - mean) < 5 * f.std() / np.sqrt(len(f))
    assert abs((f**2).mean() - second) < 5 * (f**2).std() / np.sqrt(len(f))


def test_a_superdiagonal_core_is_cp():
    rng = np.random.default_rng(3)
    modes = random_moments(rng, 3, 0.5)
    core = np.zeros((RANK,) * 3)
    core[range(RANK), range(RANK), range(RANK)] = 1
    second = np.multiply.outer(core, core)
    of_tucker = design(Full(jnp.array(core), jnp.array(second)), 1, modes, LEVEL)
    of_cp = design(Diagonal(jnp.ones(RANK)), 1, modes, LEVEL)
    for one, other in zip(of_tucker, of_cp, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def entries(seed, sizes, n=150, labels=True, noise=0.1):
    """Entries of a surface with main effects and one product, and that surface."""
    rng = np.random.default_rng(seed)
    index = [rng.integers(0, size, n) for size in sizes]
    for column, size in zip(index, sizes, strict=True):
        column[:size] = np.arange(size)
    curves = [np.sin(np.arange(size) * (1 + k)) for k, size in enumerate(sizes)]
    at = [c[i] for c, i in zip(curves, index, strict=True)]
    f = 3 + at[0] + 2 * at[0] * at[1]
    kind = (lambda i: np.char.add("s", i.astype(str))) if labels else (lambda i: i / 10)
    coords = {f"m{k}": kind(i) for k, i in enumerate(index)}
    return tucker.Entries(coords, f + noise * rng.normal(size=n)), f


def begun(model, data):
    """A random start at the centres of the priors."""
    return jax.jit(lambda key: started(model, data, centres(model, data), key))(KEY)


@pytest.mark.parametrize(
    ("sizes", "model", "labels"),
    [
        ((6, 5), tucker.CP(2), False),
        ((6, 5), tucker.Tucker((2, 1)), True),
        ((5, 4, 3), tucker.CP(2, observation=tucker.StudentT()), True),
        ((5, 4, 3), tucker.Tucker(2, effects=False), True),
        ((5, 4, 3, 3), tucker.CP(2), True),
        ((5, 4, 3, 3), tucker.Tucker(2), True),
    ],
    ids=["CP-2", "Tucker-2", "CP-3-t", "Tucker-3", "CP-4", "Tucker-4"],
)
def test_the_bound_never_falls(sizes, model, labels):
    data, _ = entries(0, sizes, labels=labels)
    method = tucker.MessagePassing(warm=2)
    step = jax.jit(lambda state: method.step(model, data, state))
    state = jax.jit(lambda key: method.init(model, data, key, None))(KEY)
    bounds = []
    for _ in range(25):
        state = step(state)
        bounds.append(float(state.climb.objective))
    falls = -np.diff(bounds)
    assert falls.max() < 1e-9 * np.abs(bounds).max()
    assert bounds[-1] > bounds[0]


def test_bernoulli_entries_never_lower_the_bound_either():
    data, f = entries(0, (6, 5))
    likely = np.random.default_rng(0).uniform(size=len(f)) < 1 / (1 + np.exp(3 - f))
    data = tucker.Entries(
        {a.name: a.coords()[data.places[:, k]] for k, a in enumerate(data.axes)},
        likely.astype(float),
    )
    model = tucker.CP(1, observation=tucker.Bernoulli())
    method = tucker.MessagePassing(num_starts=1, max_steps=200, num_draws=20)
    fitted = pk.fit(model, data, method, key=KEY, throw=False)
    assert fitted.facts["largest_fall"] < 1e-9 * abs(fitted.facts["elbo"])
    rate = jax.nn.sigmoid(pk.recover(fitted, key=KEY)["surface"].values.mean((0, 1)))
    assert np.corrcoef(rate, f)[0, 1] > 0.8


def test_the_divergence_of_a_mode_is_that_of_dense_gaussians():
    rng = np.random.default_rng(4)
    data, _ = entries(0, (6, 5), labels=False)
    model = tucker.CP(2)
    post = begun(model, data)
    root = rng.normal(size=(6, 3, 3))
    terms = Terms(
        jnp.array(root @ np.swapaxes(root, 1, 2)), jnp.array(rng.normal(size=(6, 3)))
    )
    found = jax.jit(lambda terms: model.prior(post.sites, data, 0).smooth(terms))(terms)
    second = found.covariance + found.mean[:, :, None] * found.mean[:, None]
    expected = jnp.sum(terms.shift * found.mean) - jnp.sum(terms.precision * second) / 2
    # The dense prior, point by point and function by function.
    kinds = [post.sites["lengthscale_m0"]] * 2 + [post.sites["lengthscale_effect_m0"]]
    x = np.asarray(data.axes[0].points)
    K = np.zeros((6, 3, 6, 3))
    for j, lengthscale in enumerate(kinds):
        z = np.sqrt(3) * np.abs(x[:, None] - x) / float(lengthscale)
        K[:, j, :, j] = (1 + z) * np.exp(-z)
    K = K.reshape(18, 18)
    Λ = np.zeros((6, 3, 6, 3))
    Λ[range(6), :, range(6), :] = terms.precision
    C = np.linalg.inv(np.linalg.inv(K) + Λ.reshape(18, 18))
    m = C @ np.asarray(terms.shift).reshape(-1)
    inside = np.trace(np.linalg.solve(K, C)) + m @ np.linalg.solve(K, m) - 18
    divergence = (inside + np.linalg.slogdet(K)[1] - np.linalg.slogdet(C)[1]) / 2
    np.testing.assert_allclose(expected - found.log_evidence, divergence, rtol=1e-8)
    np.testing.assert_allclose(found.mean.reshape(-1), m, rtol=1e-8, atol=1e-10)


def test_messages_add_up_over_the_entries_of_a_point():
    data, _ = entries(0, (5, 4, 3))
    model = tucker.CP(2)
    post = begun(model, data)

    @jax.jit
    def of(rows):
        part = replace(post, weight=post.weight[rows], shift=post.shift[rows])
        return messages(model, data.take(rows), part, 1).precision

    one_each = [np.asarray(of(jnp.array([i]))) for i in range(20)]
    of_first = of(jnp.arange(20))
    np.testing.assert_allclose(of_first, sum(one_each), atol=1e-10)
    assert of_first.shape == (4, 3, 3)


# One small problem for all engines.

SMALL = tucker.CP(1, effects=False)


@pytest.fixture(scope="module")
def small():
    data, f = entries(5, (5, 4), n=60, noise=0.3)
    method = tucker.MessagePassing(num_starts=2, num_draws=1500, num_warmup=200)
    return data, f, pk.fit(SMALL, data, method, key=KEY)


def test_gibbs_draws_are_those_of_nuts(small):
    data, _, fitted = small
    method = pk.NUTS(num_chains=2, num_warmup=500, num_samples=1000)
    exact = pk.fit(SMALL, data, method, key=KEY, throw=False)
    ours = pk.recover(fitted, key=KEY)["surface"]
    theirs = pk.recover(exact, key=KEY)["surface"]
    sd = theirs.values.std((0, 1))
    apart = (ours.values.mean((0, 1)) - theirs.values.mean((0, 1))) / sd
    # 200 independent draws or more on either side; the largest of 20 cells.
    assert np.abs(apart).max() < 0.4
    np.testing.assert_allclose(ours.values.std((0, 1)), sd, rtol=0.25)
    noise = fitted.posterior["noise_sd"].values, exact.posterior["noise_sd"].values
    np.testing.assert_allclose(noise[0].mean(), noise[1].mean(), rtol=0.05)


def test_the_approximation_has_the_right_mean_and_too_narrow_a_band(small):
    data, _, fitted = small
    found = pk.moments(fitted, data)
    drawn = pk.recover(fitted, key=KEY)["surface"].values
    sd = drawn.std((0, 1))
    assert np.abs((found["mean"] - drawn.mean((0, 1))) / sd).max() < 1
    assert np.mean(found["sd"] / sd) < 1


def test_bands_hold_the_surface(small):
    _, f, fitted = small
    drawn = pk.recover(fitted, key=KEY)["surface"].values[0]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    assert np.mean((low <= f) & (f <= high)) > 0.7


def test_a_grid_is_answered_along_its_modes(small):
    data, _, fitted = small
    asked = tucker.grid(data, m0=["s2", "new"], m1="s1")
    new = pk.predict(fitted, asked, key=KEY, num_draws=20)
    assert new["surface"].dims == ("chain", "draw", "m0")
    assert list(new["y"].m0.values) == ["new", "s2"]
    both = tucker.grid(data, m0=["s2"])
    mean = pk.moments(fitted, both)["mean"]
    assert mean.dims == ("m0", "m1")
    assert mean.shape == (1, 4)
    listed = tucker.queries(data, {"m0": ["s2"] * 4, "m1": ["s3", "s0", "s1", "s2"]})
    found = pk.moments(fitted, listed)["mean"]
    assert found.dims == ("entry",)
    np.testing.assert_allclose(found.values, mean.values[0, [3, 0, 1, 2]], rtol=1e-10)
    for values in (mean, mean.values, mean.values.ravel()):
        np.testing.assert_array_equal(both.labelled(values).sel(m1="s3"), mean[:, 3])


def test_proposals_become_longer_where_they_are_accepted_and_shorter_where_not(small):
    root, noise = jnp.eye(2), jnp.array([1.0, 2.0])
    for chance, changed in ((1.0, 1), (0.0, -1), (jnp.nan, -1), (ACCEPTED, 0)):
        found = adapted(root, noise, jnp.array(chance), jnp.array(0.5))
        longer = jnp.linalg.norm(found.T @ noise) - jnp.linalg.norm(noise)
        assert jnp.sign(jnp.round(longer, 10)) == changed
        # Across the proposal nothing changes.
        across = jnp.array([2.0, -1.0])
        np.testing.assert_allclose(across @ found @ found.T @ across, 5.0)
    still = adapted(root, noise, jnp.array(1.0), jnp.array(0.0))
    np.testing.assert_array_equal(still, root)
    assert 0.2 < small[2].facts["accepted"] < 0.5


def test_queries_at_the_data_are_the_data(small):
    data, _, fitted = small
    at = pk.predict(fitted, data, key=KEY, num_draws=20)["surface"]
    drawn = pk.recover(fitted, key=KEY, num_draws=20)["surface"]
    np.testing.assert_allclose(at.values, drawn.values, rtol=1e-8)


def test_a_label_that_the_data_lack_has_the_prior(small):
    data, _, fitted = small
    asked = tucker.queries(data, {"m0": ["new"], "m1": ["s1"]})
    found = pk.moments(fitted, asked)
    level = fitted.approximation.level.mean[0] * data.y_sd + data.y_mean
    np.testing.assert_allclose(found["mean"], level, rtol=1e-8)
    assert found["sd"] ** 2 > 0.1 * data.y_sd**2


def test_a_fit_is_the_same_in_other_units_and_in_another_order():
    data, _ = entries(6, (5, 4), n=60)
    coords = {a.name: a.coords()[data.places[:, k]] for k, a in enumerate(data.axes)}
    order = np.random.default_rng(0).permutation(60)
    other = tucker.Entries(
        {k: v[order] for k, v in coords.items()}, 100 * data.y[order] - 7
    )
    method = tucker.MessagePassing(num_starts=1, max_steps=30)
    ends = []
    for one in (data, other):
        state = jax.jit(lambda key, one=one: method.init(SMALL, one, key, None))(KEY)
        step = jax.jit(lambda state, one=one: method.step(SMALL, one, state))
        for _ in range(10):
            state = step(state)
        ends.append(state)
    first, second = (end.posterior.sites["scale"] for end in ends)
    np.testing.assert_allclose(second, 100 * first, rtol=1e-6)
    gained = [float(end.climb.objective) for end in ends]
    # Densities of 60 values and of one scale, per unit of the values.
    np.testing.assert_allclose(gained[1], gained[0] - 61 * np.log(100), rtol=1e-6)


def test_values_without_noise_are_fitted_without_noise():
    rng = np.random.default_rng(7)
    coords = {k: rng.integers(0, 8, 200).astype(float) for k in ("s", "t")}
    y = np.sin(coords["s"]) * np.cos(coords["t"] / 3)
    data = tucker.Entries(coords, y)
    method = tucker.MessagePassing(num_starts=1, max_steps=100, draws="approximation")
    fitted = pk.fit(tucker.CP(1), data, method, key=KEY, throw=False)
    assert fitted.posterior["noise_sd"].mean() < 0.01 * y.std()


def test_a_surface_of_noise_is_told_and_an_unused_component_too(small):
    data, _, fitted = small
    assert pk.diagnose(fitted)["share of the entries explained"].ok
    coords = {a.name: a.coords()[data.places[:, k]] for k, a in enumerate(data.axes)}
    noise = np.random.default_rng(8).normal(size=len(data))
    bare = pk.fit(
        tucker.CP(2, effects=False),
        tucker.Entries(coords, noise),
        tucker.MessagePassing(num_starts=1, num_draws=20, num_warmup=20),
        key=KEY,
        throw=False,
    )
    assert not pk.diagnose(bare)["share of the entries explained"].ok


def test_components_that_are_not_in_use_are_counted(small):
    data, _, fitted = small
    assert pk.diagnose(fitted)["components in use"].ok
    sites = dict(fitted.sites())
    from probkit.models.tucker.checks import checks

    idle = checks(SMALL, sites | {"scale": 0 * sites["scale"]}, data)
    assert not {c.name: c for c in idle}["components in use"].ok


def test_the_sweep_lowers_for_a_gpu():
    data, _ = entries(0, (6, 5), n=40, labels=False)
    lowers_for_cuda(tucker.MessagePassing(learn=False), tucker.CP(1), data)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tucker.CP(5), r"rank 5 is above the 4 distinct values of `m1`"),
        (tucker.Tucker((2, 2, 2)), r"has 3 ranks; the data have 2 modes"),
        (tucker.CP(1, modes={"m7": tucker.Smooth()}), r"names m7; the data have the modes"),
        (tucker.CP(1, modes={"m0": tucker.Smooth()}), r"takes `Exchangeable`"),
        (tucker.CP(1, observation=tucker.Bernoulli()), r"takes zeros and ones"),
        (tucker.CP(1, observation=tucker.Poisson()), r"takes counts, whole numbers"),
    ],
)
def test_models_that_do_not_fit_the_data_are_refused(model, message):
    data, _ = entries(0, (5, 4))
    with pytest.raises(ValueError, match=message):
        pk.fit(model, data, tucker.MessagePassing(), key=KEY)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tucker.CP(0), r"CP\(rank"),
        (lambda: tucker.Tucker((2, 0)), r"Tucker\(rank"),
        (lambda: tucker.CP(1, observation="counts"), r"takes `tucker.Normal\(\)`"),
        (lambda: tucker.Smooth(2.0), r"takes 0.5, 1.5 or 2.5"),
        (lambda: tucker.CP(1, modes=[1]), r"takes the modes by their names"),
        (lambda: tucker.MessagePassing(draws="many"), r"'gibbs', 'approximation'"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_fit_from_a_file_has_its_approximation(small, tmp_path):
    _, _, fitted = small
    again = pk.load(pk.save(fitted, tmp_path / "fit.nc"))
    asked = {"m0": ["s1", "s2"], "m1": ["s0", "s3"]}
    ours, theirs = (pk.moments(one, asked) for one in (fitted, again))
    np.testing.assert_array_equal(ours["sd"], theirs["sd"])


def test_draws_that_drift_have_another_surface_in_their_second_half():
    rng = np.random.default_rng(0)
    noise, still = rng.normal(size=(1, 200)), rng.normal(size=(1, 200, 3))
    drift = still + np.linspace(0, 3, 200)[:, None] * np.array([0, 0, 1])
    for drawn, ok in ((still, True), (drift, False)):
        found = {c.name: c for c in check_draws(facts_of_draws({"noise_sd": noise}, drawn))}
        assert found["R-hat of the surface"].ok is ok
        assert found["effective draws of noise and level"].ok


def test_a_start_at_a_fit_is_done_at_once(small):
    data, _, fitted = small
    method = tucker.MessagePassing(num_starts=1, num_draws=5, num_warmup=0)
    again = pk.fit(SMALL, data, method, key=KEY, start=fitted)
    assert again.tree["trace"]["steps"].values.max() < 15
    for what in ("noise and level", "the surface"):
        assert pk.diagnose(fitted)[f"effective draws of {what}"].ok
        assert not pk.diagnose(again)[f"effective draws of {what}"].ok
    assert pk.diagnose(fitted)["R-hat of the surface"].ok
    assert again.facts["elbo"] >= fitted.facts["elbo"] - 0.01
