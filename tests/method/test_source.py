"""Data by step: drawn, computed or read; the same in a run that is resumed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import resume_script
from jaxtyping import Array, PRNGKeyArray
from resume_script import outcome

import probkit as pk
from doors import refused
from own import NormalMean, Values
from probkit.method import checkpoint, loop
from probkit.method.checkpoint import Checkpoint
from probkit.model import AbstractHostSource, AbstractModel, AbstractSource, Rows

KEY = jax.random.key(0)
TRUTH = jnp.array([1.0, -2.0])


class Simulated(AbstractSource):
    """New observations in each step, which stand for 400."""

    key: PRNGKeyArray
    size: int = 40
    count: int | None = 400

    def at(self, step):
        noise = jax.random.normal(jax.random.fold_in(self.key, step), (self.size, 2))
        return Values(TRUTH + noise)

    def num_rows(self):
        return self.count


class Listed(AbstractSource):
    """The steps of an array, over and over."""

    y: Array

    def at(self, step):
        return Values(self.y[step % len(self.y)])

    def num_rows(self):
        return 400


class Read(AbstractHostSource):
    """The same, read by Python. It notes what it is asked for."""

    y: np.ndarray
    asked: list = eqx.field(static=True, default_factory=list)

    def example(self):
        return Values(self.y[0])

    def chunk(self, first, count):
        self.asked.append((first, count))
        return {"y": self.y[np.arange(first, first + count) % len(self.y)]}

    def num_rows(self):
        return 400


BATCHES = np.random.default_rng(3).normal(TRUTH, 1.0, (10, 40, 2))


def values():
    return Values(BATCHES.reshape(400, 2))


# What a source gives.


def test_rows_follow_from_the_step_alone():
    source = Rows(values(), KEY, 7)
    one, again, other = (
        source.at(3).y,
        jax.jit(lambda step: source.at(step).y)(3),
        source.at(4).y,
    )
    np.testing.assert_array_equal(one, again)
    assert one.shape == (7, 2)
    assert not np.array_equal(one, other)
    every = {tuple(row) for row in np.asarray(source.data.y).tolist()}
    assert all(tuple(row) in every for row in np.asarray(one).tolist())
    assert source.num_rows() == 400


def test_what_is_read_is_the_same_one_by_one_and_in_chunks():
    source = Read(BATCHES)
    for step in (0, 4, 13):
        np.testing.assert_array_equal(source.at(step).y, BATCHES[step % 10])


# Fits.

# With a step size that falls, because the slope of a step is noisy; to the last step,
# because noise may look settled.
FALLING = optax.adam(optax.cosine_decay_schedule(0.03, 4000))
METHOD = pk.SVI(optimizer=FALLING, num_draws=4000, max_steps=4000, patience=99)


def test_a_stream_finds_the_posterior_of_as_many_rows_as_it_stands_for():
    fitted = pk.fit(NormalMean(), Simulated(KEY), METHOD, key=KEY, throw=False)
    precision = 400 + 1 / 9
    # In expectation the likelihood of a step is that of 400 rows with this mean.
    mean, sd = 400 * TRUTH / precision, precision**-0.5
    draws = fitted.posterior["mean"]
    np.testing.assert_allclose(draws.mean(("chain", "draw")), mean, atol=0.25 * sd)
    np.testing.assert_allclose(draws.std(("chain", "draw")), sd, rtol=0.15)
    np.testing.assert_array_equal(fitted.data.y, Simulated(KEY).at(0).y)
    report = pk.diagnose(fitted)
    assert "PSIS k-hat" not in str(report)
    assert "ELBO" in str(report)
    assert pk.predict(fitted, 3, key=KEY, num_draws=10).sizes["draw"] == 10


def short(**more):
    return pk.SVI(num_starts=2, max_steps=60, window=10, num_draws=50, **more)


def run(source, folder=None, **more):
    method = short(**more)
    return pk.fit(NormalMean(), source, method, key=KEY, checkpoint=folder, throw=False)


def test_a_stream_without_a_number_counts_as_it_is():
    as_it_is = run(Simulated(KEY, count=None))
    as_many = run(Simulated(KEY, count=40))
    found, wanted = (outcome(fitted)["trace/loss"] for fitted in (as_it_is, as_many))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_all_starts_see_the_same_rows():
    # Both from one guide, and with so many draws that the rest of the noise is small.
    first = run(values())
    method = short(batch_size=40, num_particles=500)
    fitted = pk.fit(NormalMean(), values(), method, key=KEY, start=first, throw=False)
    loss = outcome(fitted)["trace/loss"]
    assert np.abs(loss[0] - loss[1]).mean() < 0.2 * loss.std(1).mean()


def test_what_is_read_fits_as_what_is_computed():
    computed, read = (
        outcome(run(s)) for s in (Listed(jnp.asarray(BATCHES)), Read(BATCHES))
    )
    for name in ("trace/loss", "posterior/mean"):
        np.testing.assert_allclose(read[name], computed[name], rtol=1e-9)


def test_each_step_is_read_once_and_few_at_a_time(monkeypatch):
    # A step has 80 numbers, so that seven of them are read at most.
    monkeypatch.setattr(loop, "CHUNK_NUMBERS", 7 * 80)
    source = Read(BATCHES)
    run(source)
    steps = [first + k for first, count in source.asked for k in range(count)]
    assert steps == list(range(60))
    assert max(count for _, count in source.asked) == 7


# Resumed.

SOURCES = {
    "batches": (values, {"batch_size": 40}),
    "a stream": (lambda: Simulated(KEY), {}),
    "what is read": (lambda: Read(BATCHES), {}),
}


@pytest.mark.parametrize("make, more", SOURCES.values(), ids=SOURCES.keys())
def test_an_interrupted_run_ends_with_the_same_numbers(make, more, tmp_path, monkeypatch):
    for module, name in ((loop, "CHUNK_STEPS"), (loop, "CHUNK_SECONDS")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(checkpoint, "SECONDS", checkpoint.SECONDS)
    resume_script.short_chunks()
    whole = outcome(run(make(), **more))
    add = Checkpoint.add

    def add_or_stop(self, kept, states, taken, done):
        add(self, kept, states, taken, done)
        if 20 < taken < 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            run(make(), tmp_path / "run", **more)
    again = outcome(run(make(), tmp_path / "run", **more))
    assert whole.keys() == again.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
    assert whole["trace/loss"].shape == (2, 60)


def test_a_run_of_another_source_is_not_resumed(tmp_path, monkeypatch):
    run(Simulated(KEY), tmp_path / "run")
    words = "another run: its data differs"
    refused(lambda: run(Simulated(jax.random.key(1)), tmp_path / "run"), words)
    refused(lambda: run(Simulated(KEY, count=300), tmp_path / "run"), "differ")
    # Equal fields, other code.
    monkeypatch.setattr(
        Simulated, "at", lambda self, step: Values(jnp.ones((self.size, 2)) * step)
    )
    refused(lambda: run(Simulated(KEY), tmp_path / "run"), "run of another program")


def test_a_source_that_is_defined_again_is_compiled_again(monkeypatch):
    source = Listed(jnp.asarray(BATCHES))
    before = outcome(run(source))["trace/loss"]
    monkeypatch.setattr(Listed, "at", lambda self, step: Values(3 * self.y[step % 10]))
    after = outcome(run(source))["trace/loss"]
    assert not np.allclose(before, after)


# Refused.


class Changing(Simulated):
    def example(self):
        return Values(jnp.zeros((3, 2)))


class Short(Read):
    def chunk(self, first, count):
        return {"y": self.y[:count, 1:]}


class Wrong(Read):
    def chunk(self, first, count):
        return {"x": self.y[:count]}


class Local(AbstractModel):
    def __call__(self, data):
        with numpyro.plate("observation", len(data)):
            mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=data.y)


REFUSED = {
    "a method that uses all data": (
        NormalMean(),
        Simulated(KEY),
        pk.NUTS(),
        r"`fit\(..., Simulated\)` has other data for each step, and `NUTS` uses all data",
    ),
    "batches of batches": (
        NormalMean(),
        Simulated(KEY),
        pk.SVI(batch_size=10),
        r"`Simulated` has the data of each step already; leave `batch_size` out",
    ),
    "fewer rows than in a step": (
        NormalMean(),
        Simulated(KEY, count=39),
        pk.SVI(),
        r"`Simulated.num_rows\(\)` is 39, but a step has 40 observations",
    ),
    "steps of other shapes": (
        NormalMean(),
        Changing(KEY),
        pk.SVI(),
        r"`Changing.at\(step\)` has other shapes than its `example\(\)`",
    ),
    "latents of observations": (
        Local(),
        Simulated(KEY, count=None),
        pk.SVI(),
        "`mean` has one value per observation",
    ),
    "chunks of other shapes": (
        NormalMean(),
        Short(BATCHES),
        pk.SVI(),
        r"`Short.chunk\(0, \d+\)` gave `y` of shape .* it has \(\d+, 40, 2\)",
    ),
    "chunks of other arrays": (
        NormalMean(),
        Wrong(BATCHES),
        pk.SVI(),
        r"`Wrong.chunk\(0, \d+\)` gave x; it gives y, as the example has",
    ),
}


@pytest.mark.parametrize(
    "model, source, method, words", REFUSED.values(), ids=REFUSED.keys()
)
def test_what_does_not_go_together_is_refused(model, source, method, words):
    refused(lambda: pk.fit(model, source, method, key=KEY), words)
