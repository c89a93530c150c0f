"""The engines on a problem whose posterior is known in closed form."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import autoguide

import probkit as pk
from conftest import NUTS
from probkit.method import loop
from probkit.model import AbstractData, AbstractEMModel, AbstractModel
from probkit.models import moe

ROOT = Path(__file__).parents[2]


class Readings(AbstractData):
    y: jax.Array


class NormalMean(AbstractModel):
    """y_i ~ N(mean, 1), mean ~ N(0, 3): the posterior is normal."""

    def __call__(self, data):
        mean = numpyro.sample("mean", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=data.y)

    def dims(self, data):
        return {"mean": ("side",), "y": ("observation", "side")}

    def coords(self, data):
        return {"side": ["left", "right"], "observation": np.arange(len(data))}

    def inputs(self, given, data):
        return given

    def predict(self, sites, inputs, key):
        return {"y": sites["mean"] + jax.random.normal(key, (inputs, 2))}


@pytest.fixture(scope="module")
def known():
    y = jax.random.normal(jax.random.key(0), (40, 2)) + jnp.array([1.0, -2.0])
    precision = 40 + 1 / 9
    return NormalMean(), Readings(y), np.asarray(y.sum(0)) / precision, precision**-0.5


def _moments(fitted):
    draws = fitted.posterior["mean"]
    return draws.mean(("chain", "draw")).values, draws.std(("chain", "draw")).values


@pytest.mark.parametrize("chains", ["parallel", "vectorized", "sequential"])
def test_nuts_draws_from_the_posterior(known, chains):
    model, data, mean, sd = known
    method = pk.NUTS(2, num_warmup=300, num_samples=2000, chain_method=chains)
    fitted = pk.fit(model, data, method, key=jax.random.key(1))
    found, spread = _moments(fitted)
    # About 3,000 effective draws: five standard errors of a mean are 0.09 sd.
    np.testing.assert_allclose(found, mean, atol=0.1 * sd)
    np.testing.assert_allclose(spread, sd, rtol=0.1)
    assert fitted.posterior["mean"].dims == ("chain", "draw", "side")
    assert pk.diagnose(fitted).ok


def test_nuts_equals_numpyro_driven_by_hand():
    # The same start and key: the same warm-up and the same draws, bit for bit.
    flags = os.environ["XLA_FLAGS"].split()
    env = {
        **os.environ,
        "XLA_FLAGS": " ".join(f for f in flags if "optimization_level" not in f),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    script = Path(__file__).with_name("by_hand_script.py")
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == "the same ['mean']", done.stderr


@pytest.mark.parametrize("settings", [{"dense_mass": True}, {"dense_mass": (("mean",),)}])
def test_dense_mass_matrices_serve(known, settings):
    model, data, mean, sd = known
    method = pk.NUTS(2, num_warmup=300, num_samples=500, **settings)
    found, _ = _moments(pk.fit(model, data, method, key=jax.random.key(1)))
    np.testing.assert_allclose(found, mean, atol=0.25 * sd)


def test_extra_fields_are_kept(known):
    model, data, *_ = known
    extra = ("mean_accept_prob", "adapt_state.step_size")
    method = pk.NUTS(2, num_warmup=50, num_samples=60, extra_fields=extra)
    stats = pk.fit(model, data, method, key=jax.random.key(1)).tree["sample_stats"]
    assert {*extra, "lp", "energy", "diverging", "tree_depth"} <= set(stats.data_vars)


SVI_GUIDES = ["normal", "multivariate_normal", "low_rank", "iaf", "bnaf"]


@pytest.mark.parametrize("guide", SVI_GUIDES)
def test_svi_finds_the_posterior(known, guide):
    model, data, mean, sd = known
    # A flow creeps on by hundredths of nats; and a fixed step size leaves it more noise.
    is_flow = guide in ("iaf", "bnaf")
    method = pk.SVI(guide=guide, num_draws=4000, atol=0.05 if is_flow else 0.01)
    fitted = pk.fit(model, data, method, key=jax.random.key(2))
    found, spread = _moments(fitted)
    np.testing.assert_allclose(found, mean, atol=(0.3 if is_flow else 0.2) * sd)
    np.testing.assert_allclose(spread, sd, rtol=0.2)
    # The tails of a flow are its own affair; a normal guide has those of this posterior.
    report = pk.diagnose(fitted)
    assert report["windows without a gain"].ok if is_flow else report.ok


def test_svi_takes_a_guide_class_a_partial_and_an_object(known):
    model, data, mean, sd = known
    guides = (
        autoguide.AutoDiagonalNormal,
        partial(autoguide.AutoLowRankMultivariateNormal, rank=1),
        autoguide.AutoNormal(model),
    )
    for guide in guides:
        fitted = pk.fit(model, data, pk.SVI(guide=guide), key=jax.random.key(2))
        np.testing.assert_allclose(_moments(fitted)[0], mean, atol=0.25 * sd)


def test_svi_takes_minibatches_several_starts_and_an_optimiser(known):
    model, data, mean, sd = known
    method = pk.SVI(
        num_starts=3,
        batch_size=20,
        optimizer=optax.adam(optax.exponential_decay(0.03, 2000, 0.1)),
        max_steps=6000,
    )
    fitted = pk.fit(model, data, method, key=jax.random.key(2), throw=False)
    found, spread = _moments(fitted)
    np.testing.assert_allclose(found, mean, atol=0.35 * sd)
    np.testing.assert_allclose(spread, sd, rtol=0.3)
    assert fitted.tree["trace"]["loss"].sizes["lane"] == 3


def test_svi_of_a_mixture_takes_minibatches(pair, regimes, em_fit, nuts_fit):
    method = pk.SVI(batch_size=100, learning_rate=0.003, max_steps=8000)
    fitted = pk.fit(pair, regimes, method, key=jax.random.key(0), start=em_fit, throw=False)
    exact = nuts_fit.posterior["coefficient"]
    off = fitted.posterior["coefficient"].mean(("chain", "draw"))
    off = np.abs(off - exact.mean(("chain", "draw"))) / exact.std(("chain", "draw"))
    assert float(off.max()) < 1.0


class Ridge(NormalMean):
    """Only the sum of the two means is seen: their posterior is a narrow ridge."""

    def __call__(self, data):
        mean = numpyro.sample("mean", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
        with numpyro.plate("observation", len(data)):
            total = jnp.full(2, mean.sum())
            numpyro.sample("y", dist.Normal(total, 0.3).to_event(1), obs=data.y)


def test_khat_flags_a_guide_that_misses(known):
    # A guide without correlations fits the ridge's width and misses its length; the
    # weights then have a tail of shape 1 - (width / length)^2, close to one.
    fitted = pk.fit(Ridge(), known[1], pk.SVI(guide="normal"), key=jax.random.key(0))
    check = pk.diagnose(fitted)["PSIS k-hat"]
    assert check.value > 0.7
    assert not check.ok


def test_laplace_is_exact_for_a_normal_posterior():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 400)
    data = moe.Pairs(x, 2 * x + rng.normal(0, 1, 400))
    method = pk.EM(num_restarts=1, num_draws=20_000, maximise="likelihood")
    fitted = pk.fit(moe.MixtureOfExperts(1), data, method, key=jax.random.key(0))
    slope = fitted.posterior["coefficient"].sel(term="x", expert=0)
    residual = float(fitted.posterior["noise_sd"].mean())
    expected = residual / np.sqrt(400) / x.std()
    # 20,000 draws: the sd is known to 0.5 %.
    assert float(slope.std()) == pytest.approx(expected, rel=0.03)


class Stub(AbstractEMModel):
    """One site and an objective by rule, to see how EM judges a run."""

    kind: str

    def __call__(self, data):
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.zeros(3), 1.0), obs=data.y)

    def start(self, data, key):
        return {"a": jnp.zeros(())}

    def e_step(self, sites, data):
        rules = {
            "falls": -sites["a"],
            "crawls": sites["a"],
            "not finite": jnp.where(sites["a"] > 5, jnp.nan, sites["a"]),
        }
        return None, rules[self.kind]

    def m_step(self, moments, sites, data, use_prior):
        return {"a": sites["a"] + 1.0}

    def dims(self, data):
        return {"a": (), "y": ("observation",)}

    def coords(self, data):
        return {"observation": np.arange(3)}

    def inputs(self, given, data):
        return given

    def predict(self, sites, inputs, key):
        return {}


@pytest.mark.parametrize(
    ("kind", "steps", "result"),
    [
        ("falls", 50, "decreased"),
        ("crawls", 50, "max_steps_reached"),
        ("not finite", 50, "nonfinite"),
    ],
)
def test_em_does_not_call_a_bad_run_successful(kind, steps, result):
    data = Readings(jnp.zeros(3))
    method = pk.EM(2, max_steps=steps, maximise="likelihood")
    with pytest.raises(pk.FitError) as raised:
        pk.fit(Stub(kind), data, method, key=jax.random.key(0))
    assert raised.value.fit.result == result
    fitted = pk.fit(Stub(kind), data, method, key=jax.random.key(0), throw=False)
    assert fitted.result == result
    assert not pk.diagnose(fitted).ok


@pytest.mark.parametrize("method", [pk.EM(2, max_steps=0), pk.SVI(max_steps=0)])
def test_no_step_is_no_success(pair, regimes, method):
    with pytest.raises(pk.FitError, match="took no step"):
        pk.fit(pair, regimes, method, key=jax.random.key(0))


def test_a_density_that_is_nowhere_finite_is_said():
    model, data = NormalMean(), Readings(jnp.full((3, 2), 1e300))
    with pytest.raises(pk.FitError, match="not finite"):
        pk.fit(model, data, pk.NUTS(1, 10, 10), key=jax.random.key(0))


def test_em_on_a_model_without_steps_names_the_others(known):
    model, data, *_ = known
    with pytest.raises(ValueError, match=r"`NormalMean` has no E-step.*NUTS"):
        pk.fit(model, data, pk.EM(), key=jax.random.key(0))


@pytest.mark.parametrize("method", [pk.EM(3), pk.SVI(max_steps=500), pk.NUTS(2, 30, 30)])
def test_a_second_fit_of_equal_shapes_does_not_trace_again(pair, regimes, em_fit, method):
    pk.fit(pair, regimes, method, key=jax.random.key(0), throw=False)
    before = {f: f._cached._cache_size() for f in (loop.init_lanes, loop.advance_lanes)}
    again = moe.Pairs(regimes.x, -2 * regimes.y)
    same = type(pair)(num_experts=2)
    equal = type(method)(**vars(method))
    pk.fit(same, again, equal, key=jax.random.key(5), throw=False)
    after = {f: f._cached._cache_size() for f in (loop.init_lanes, loop.advance_lanes)}
    assert before == after


def test_equal_keys_give_equal_draws(pair, regimes, em_fit, nuts_fit, key):
    again = pk.fit(pair, regimes, NUTS, key=key, start=em_fit)
    for name in again.posterior:
        np.testing.assert_array_equal(again.posterior[name], nuts_fit.posterior[name])


def test_chunks_leave_no_mark_on_the_draws(known, monkeypatch):
    model, data, *_ = known
    method = pk.NUTS(2, num_warmup=20, num_samples=30)
    whole = pk.fit(model, data, method, key=jax.random.key(0))
    monkeypatch.setattr(loop, "CHUNK_STEPS", 7)
    split = pk.fit(model, data, method, key=jax.random.key(0))
    np.testing.assert_array_equal(whole.posterior["mean"], split.posterior["mean"])


def test_fitting_is_quiet_and_shows_a_bar_only_when_asked(known, capsys):
    model, data, *_ = known
    method = pk.NUTS(2, num_warmup=20, num_samples=30)
    pk.fit(model, data, method, key=jax.random.key(0))
    assert capsys.readouterr() == ("", "")
