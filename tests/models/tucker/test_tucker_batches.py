"""Message passing on batches: the same steps as sweeps, and the same end."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from probkit.model.source import AbstractSource, Rows
from probkit.models import tucker
from probkit.models.tucker.stochastic import Counted

KEY = jax.random.key(0)
MODEL = tucker.CP(1, effects=False)


def entries(n=400, seed=0):
    rng = np.random.default_rng(seed)
    s, t = rng.integers(0, 6, n), rng.integers(0, 5, n)
    f = 2 + np.sin(s) * np.cos(t)
    return tucker.Entries(
        {"s": np.char.add("s", s.astype(str)), "t": np.char.add("t", t.astype(str))},
        f + 0.3 * rng.normal(size=n),
    )


def test_all_entries_and_steps_of_length_one_are_sweeps():
    data, model = entries(60), tucker.Tucker((2, 1), effects=False)
    whole = tucker.MessagePassing(warm=1)
    parts = tucker.StochasticMessagePassing(decay=0.0, warm=1)
    program = Counted(model, 1.0)
    sweep = jax.jit(lambda state: whole.step(model, data, state))
    step = jax.jit(lambda state: parts.step(program, data, state))
    ours = jax.jit(lambda key: parts.init(program, data, key, None))(KEY)
    theirs = jax.jit(lambda key: whole.init(model, data, key, None))(KEY)
    for _ in range(3):
        ours, theirs = step(ours), sweep(theirs)
    # The noise is looked at first in a step, and last in a sweep.
    for name in ("factors", "core", "level", "sites"):
        for a, b in zip(
            jax.tree.leaves(getattr(ours.posterior, name)),
            jax.tree.leaves(getattr(theirs.posterior, name)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(-step(ours).loss, theirs.climb.objective, rtol=1e-10)
    # A shorter step is another one.
    shorter = replace(parts, decay=0.7)
    short = jax.jit(lambda state: shorter.step(program, data, state))(ours)
    apart = short.posterior.factors[0].mean - step(ours).posterior.factors[0].mean
    assert jnp.abs(apart).max() > 1e-4


@pytest.fixture(scope="module")
def fits():
    data = entries()
    whole = tucker.MessagePassing(num_starts=1, draws="approximation", num_draws=10)
    parts = tucker.StochasticMessagePassing(
        batch_size=50, num_starts=1, max_steps=600, num_draws=10
    )
    return (
        data,
        pk.fit(MODEL, data, whole, key=KEY),
        parts,
        pk.fit(MODEL, data, parts, key=KEY),
    )


def test_batches_end_where_sweeps_end(fits):
    _, whole, _, parts = fits
    # An eighth of the entries per step: within a nat of -150, and never above.
    assert whole.facts["elbo"] - 1.5 < parts.facts["elbo"] < whole.facts["elbo"] + 0.1
    asked = tucker.grid(whole.data)
    ours, theirs = (pk.moments(fit, asked) for fit in (parts, whole))
    assert float(np.abs((ours["mean"] - theirs["mean"]) / theirs["sd"]).max()) < 0.5
    np.testing.assert_allclose(ours["sd"], theirs["sd"], rtol=0.2)
    assert pk.diagnose(parts)["windows without a gain"].ok


class Ordered(AbstractSource):
    """A part of the rows, one after another."""

    data: tucker.Entries

    def at(self, step):
        return self.data.take((50 * step + jnp.arange(50)) % len(self.data))

    def num_rows(self):
        return len(self.data)


def test_a_source_gives_the_batches(fits):
    data, whole, parts, _ = fits
    fitted = pk.fit(MODEL, Ordered(data), replace(parts, batch_size=None), key=KEY)
    assert len(fitted.data) == 50
    assert abs(fitted.facts["elbo"] - whole.facts["elbo"]) < 20  # of noisy bounds
    asked = tucker.grid(data)
    ours, theirs = (pk.moments(fit, asked) for fit in (fitted, whole))
    assert float(np.abs((ours["mean"] - theirs["mean"]) / theirs["sd"]).max()) < 0.5


def test_too_few_steps_are_reported_and_wrong_settings_refused(fits):
    data, _, parts, _ = fits
    few = pk.fit(MODEL, data, replace(parts, max_steps=5), key=KEY, throw=False)
    assert not pk.diagnose(few)["windows without a gain"].ok
    with pytest.raises(ValueError, match=r"decay=1.5\)`: it takes 0 to 1"):
        tucker.StochasticMessagePassing(decay=1.5)
    with pytest.raises(ValueError, match=r"'gibbs', 'approximation'"):
        tucker.StochasticMessagePassing(draws="many")
    with pytest.raises(ValueError, match="has other data for each step"):
        pk.fit(MODEL, Rows(data, KEY, 20), tucker.MessagePassing(), key=KEY)
