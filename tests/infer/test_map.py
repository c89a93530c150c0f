"""A maximum of any program, against closed forms and against other engines."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import scipy.optimize
from numpyro.infer import SVI, Trace_ELBO, autoguide

import probkit as pk
from lowering import lowers_for_cuda
from own import Counts, NormalMean, PoissonRegression, Values
from probkit.infer.lbfgs import direction, empty, remembered
from probkit.model import AbstractModel
from probkit.model.density import log_densities

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def normal():
    y = jax.random.normal(KEY, (40, 2)) + jnp.array([1.0, -2.0])
    precision = 40 + 1 / 9
    return Values(y), np.asarray(y.sum(0)) / precision, precision**-0.5


def test_it_is_exact_for_a_normal_posterior(normal):
    data, mean, sd = normal
    fitted = pk.fit(NormalMean(), data, pk.MAP(num_draws=4000), key=KEY)
    draws = fitted.posterior["mean"]
    # 4,000 independent draws: four standard errors are 0.063 sd, and 4.5 % of an sd.
    np.testing.assert_allclose(draws.mean(("chain", "draw")), mean, atol=0.07 * sd)
    np.testing.assert_allclose(draws.std(("chain", "draw")), sd, rtol=0.05)
    assert pk.diagnose(fitted).ok
    point = pk.fit(NormalMean(), data, pk.MAP(), key=KEY).posterior["mean"]
    assert point.sizes["draw"] == 1
    np.testing.assert_allclose(point.values[0, 0], mean, atol=1e-3 * sd)


def test_em_and_map_find_the_same_maximum(pair, regimes, em_fit):
    fitted = pk.fit(pair, regimes, pk.MAP(atol=1e-4), key=KEY)
    assert fitted.facts["objective"] == pytest.approx(em_fit.facts["objective"], abs=1e-5)
    assert pk.diagnose(fitted).ok


def test_an_svi_of_points_and_map_find_the_same_maximum():
    x = jnp.linspace(-1, 1, 60)
    data = Counts(x, jax.random.poisson(KEY, jnp.exp(1 + x)))
    model = PoissonRegression()
    guide = autoguide.AutoDelta(model)
    rate = optax.exponential_decay(0.1, 200, 0.2)
    svi = SVI(model, guide, optax.adam(rate), Trace_ELBO())
    params = svi.run(KEY, 1500, data, progress_bar=False).params
    fitted = pk.fit(model, data, pk.MAP(atol=1e-5), key=KEY)
    for name, value in guide.median(params).items():
        found = float(fitted.posterior[name].values[0, 0])
        # Their posterior sds are 0.08 and 0.12.
        assert found == pytest.approx(float(value), abs=1e-3)


class TwoHills(AbstractModel):
    """Two maxima, the higher one at 4: only some starts find it."""

    def __call__(self, data):
        place = numpyro.sample("place", dist.Normal(0.0, 100.0))
        ends = dist.MixtureSameFamily(
            dist.Categorical(jnp.array([0.3, 0.7])),
            dist.Normal(jnp.array([-4.0, 4.0]), 0.5),
        )
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", ends, obs=data.y + place)


def test_several_starts_find_the_higher_of_two_maxima():
    fitted = pk.fit(TwoHills(), Values([0.0]), pk.MAP(num_starts=16), key=KEY)
    assert float(fitted.posterior["place"].values[0, 0]) == pytest.approx(4.0, abs=0.01)
    assert fitted.facts["distinct"] == 2


class Corner(AbstractModel):
    """A density whose slope never is zero: it has a corner at its maximum."""

    def __call__(self, data):
        numpyro.sample("x", dist.Laplace(0.0, 1e-3))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=data.y)


def test_a_slope_at_the_optimum_needs_a_look():
    fitted = pk.fit(Corner(), Values([0.0]), pk.MAP(num_starts=2), key=KEY, throw=False)
    assert abs(float(fitted.posterior["x"].values[0, 0])) < 1e-5
    assert not pk.diagnose(fitted)["slope at the optimum"].ok


class Misled(AbstractModel):
    """A slope of one that leads nowhere, as a wrong derivative of one's own may have."""

    def __call__(self, data):
        x = numpyro.sample("x", dist.Uniform(0.0, 1.0))
        numpyro.factor("misled", x - jax.lax.stop_gradient(x))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=data.y)


def test_a_search_that_its_slope_misleads_is_no_success():
    fitted = pk.fit(Misled(), Values([0.0]), pk.MAP(num_starts=2), key=KEY, throw=False)
    assert fitted.result == "stalled"


class Nowhere(AbstractModel):
    def __call__(self, data):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(x * jnp.inf, 1.0), obs=data.y)


def test_a_density_that_is_nowhere_finite_is_said():
    with pytest.raises(pk.FitError, match="not finite"):
        pk.fit(Nowhere(), Values([0.0]), pk.MAP(num_starts=2), key=KEY)


def test_no_steps_and_few_steps_are_no_success(normal):
    with pytest.raises(pk.FitError, match="took no step"):
        pk.fit(NormalMean(), normal[0], pk.MAP(max_steps=0), key=KEY)
    with pytest.raises(pk.FitError, match="used all its steps"):
        pk.fit(NormalMean(), normal[0], pk.MAP(max_steps=2), key=KEY)


def test_a_ridge_is_not_identified():
    class Ridge(AbstractModel):
        def __call__(self, data):
            a = numpyro.sample("a", dist.Normal(0.0, 1e6))
            b = numpyro.sample("b", dist.Normal(0.0, 1e6))
            with numpyro.plate("observation", len(data)):
                numpyro.sample("y", dist.Normal(a + b, 1.0), obs=data.y)

    fitted = pk.fit(Ridge(), Values([1.0, 2.0]), pk.MAP(num_draws=10), key=KEY)
    assert not pk.diagnose(fitted)["least curvature at the optimum"].ok


def test_its_steps_lower_for_cuda(pair, regimes):
    lowers_for_cuda(pk.MAP(2), pair, regimes)


# The direction of L-BFGS, against the matrix that it stands for.


def test_the_direction_is_that_of_the_dense_update():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    hessian = root @ root.T + np.eye(6)
    memory, pairs = empty(jnp.zeros(6)), []
    for _ in range(4):
        move = rng.normal(size=6)
        pairs.append((move, hessian @ move))
        memory = remembered(memory, jnp.asarray(move), jnp.asarray(hessian @ move))
    move, change = pairs[-1]
    inverse = np.eye(6) * (move @ change) / (change @ change)
    for move, change in pairs:
        rho = 1 / (move @ change)
        left = np.eye(6) - rho * np.outer(move, change)
        inverse = left @ inverse @ left.T + rho * np.outer(move, move)
    slope = rng.normal(size=6)
    np.testing.assert_allclose(direction(memory, jnp.asarray(slope)), -inverse @ slope)


def test_a_move_along_which_the_loss_curves_down_is_not_kept():
    memory = empty(jnp.zeros(2))
    same = remembered(memory, jnp.ones(2), -jnp.ones(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), memory, same))


class Rosenbrock(AbstractModel):
    """A narrow bent valley, with its maximum at one."""

    def __call__(self, data):
        a = numpyro.sample("a", dist.Normal(0.0, 1e6))
        b = numpyro.sample("b", dist.Normal(0.0, 1e6))
        numpyro.factor("valley", -((1 - a) ** 2) - 100 * (b - a**2) ** 2)


def test_a_bent_valley_takes_about_as_many_evaluations_as_scipy():
    method, data, start = pk.MAP(), Values([0.0]), {"a": -1.2, "b": 1.0}
    state = method.init(Rosenbrock(), data, KEY, jax.tree.map(jnp.asarray, start))
    step = jax.jit(lambda state: method.step(Rosenbrock(), data, state))
    while not method.terminate(state):
        state = step(state)
    np.testing.assert_allclose(state.position, 1.0, atol=1e-4)

    def loss(z):
        return 0.0 - sum(log_densities(Rosenbrock(), data, {"a": z[0], "b": z[1]}))

    both = jax.jit(jax.value_and_grad(loss))
    found = scipy.optimize.minimize(
        lambda z: jax.device_get(both(jnp.asarray(z))),
        [-1.2, 1.0],
        jac=True,
        method="L-BFGS-B",
    )
    assert int(state.num_steps) < 2 * found.nfev
