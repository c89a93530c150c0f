"""What runs is what is written, and what is compiled does not pile up."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probkit as pk
from own import Values
from probkit.method import loop, programs
from probkit.method.programs import fingerprint, jit_for_one_run
from probkit.model import AbstractModel

KEY = jax.random.key(0)
DATA = Values([5.0, 6.0, 7.0])


def wide():
    return dist.Normal(0.0, 100.0)


def narrow():
    return dist.Normal(0.0, 0.01)


prior = wide


class Level(AbstractModel):
    """The prior is in a function of the notebook."""

    def __call__(self, data):
        level = numpyro.sample("level", prior())
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", dist.Normal(level, 1.0), obs=data.y)


METHODS = {
    "NUTS": pk.NUTS(2, num_warmup=200, num_samples=200),
    "SVI": pk.SVI(num_draws=200),
    "MAP": pk.MAP(num_starts=2),
}


def level(method):
    return float(pk.fit(Level(), DATA, method, key=KEY).posterior["level"].mean())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_helper_that_is_redefined_is_run(method, monkeypatch):
    assert level(method) == pytest.approx(6.0, abs=0.2)
    monkeypatch.setattr(f"{__name__}.prior", narrow)
    # The posterior mean is 18 / (3 + 1e4).
    assert level(method) == pytest.approx(0.0018, abs=0.002)


def test_predictions_of_the_prior_follow_too(monkeypatch):
    before = pk.prior(Level(), DATA, key=KEY)["prior"]["level"].std()
    monkeypatch.setattr(f"{__name__}.prior", narrow)
    after = pk.prior(Level(), DATA, key=KEY)["prior"]["level"].std()
    assert float(before) == pytest.approx(100, rel=0.15)
    assert float(after) == pytest.approx(0.01, rel=0.15)


def test_a_checkpoint_of_another_program_is_refused(tmp_path, monkeypatch):
    method = METHODS["MAP"]
    pk.fit(Level(), DATA, method, key=KEY, checkpoint=tmp_path)
    pk.fit(Level(), DATA, method, key=KEY, checkpoint=tmp_path)
    monkeypatch.setattr(f"{__name__}.prior", narrow)
    with pytest.raises(ValueError, match="holds a run of another program: the code of the"):
        pk.fit(Level(), DATA, method, key=KEY, checkpoint=tmp_path)


def test_unchanged_code_compiles_nothing_the_second_time():
    method = METHODS["SVI"]
    level(method)
    sizes = [f._cached._cache_size() for f in (loop.init_lanes, loop.advance_lanes)]
    level(method)
    assert sizes == [f._cached._cache_size() for f in (loop.init_lanes, loop.advance_lanes)]


def test_another_limit_of_steps_compiles_nothing(monkeypatch):
    level(pk.MAP(num_starts=2))
    sizes = [f._cached._cache_size() for f in (loop.init_lanes, loop.advance_lanes)]
    level(pk.MAP(num_starts=2, max_steps=300, num_draws=5))
    assert sizes == [f._cached._cache_size() for f in (loop.init_lanes, loop.advance_lanes)]


def test_a_run_goes_on_under_a_higher_limit_of_steps(tmp_path):
    short, long = pk.MAP(num_starts=2, max_steps=3), pk.MAP(num_starts=2)
    pk.fit(Level(), DATA, short, key=KEY, checkpoint=tmp_path, throw=False)
    again = pk.fit(Level(), DATA, long, key=KEY, checkpoint=tmp_path)
    whole = pk.fit(Level(), DATA, long, key=KEY)
    assert again.posterior.equals(whole.posterior)


# Programs that run once.


@jit_for_one_run
def cube(x):
    return x**3


def test_a_program_that_runs_once_becomes_part_of_another():
    x = jnp.arange(3.0)
    slope = jax.grad(lambda x: cube(x).sum())
    assert jnp.array_equal(cube(x), x**3)
    assert jnp.array_equal(jax.jit(lambda scale: scale * cube(x))(2.0), 2 * x**3)
    assert jnp.array_equal(jax.jit(jax.vmap(cube))(x), x**3)
    assert jnp.array_equal(jax.jit(slope)(x), 3 * x**2)
    assert jnp.array_equal(slope(x), 3 * x**2)
    assert jax.eval_shape(cube, x).shape == (3,)


def test_options_that_xla_does_not_have_are_left_out():
    options = {"xla_backend_optimization_level": 0, "xla_has_no_such_option": 1}
    assert programs._known(options) == {"xla_backend_optimization_level": 0}


# Fingerprints.


def test_a_fingerprint_sees_constants_to_their_last_digit():
    row = np.arange(300.0)
    other = row.copy()
    other[150] = np.nextafter(150.0, 151.0)
    shape = jax.ShapeDtypeStruct((300,), float)

    def inside(table):
        step = lambda c, _: (c + (table * c).sum(), None)  # noqa: E731
        return lambda x: jax.lax.scan(step, x.sum(), None, length=3)[0]

    for make in (lambda t: lambda x: x @ t, lambda t: lambda x: x @ jnp.asarray(t), inside):
        assert fingerprint(make(row), shape) == fingerprint(make(row.copy()), shape)
        assert fingerprint(make(row), shape) != fingerprint(make(other), shape)
    one, next_one = 0.1, float(np.nextafter(0.1, 1.0))
    assert fingerprint(lambda x: x * one, shape) != fingerprint(
        lambda x: x * next_one, shape
    )


def test_a_fingerprint_does_not_depend_on_addresses():
    # A custom derivative is a function object, whose address the text of a program has.
    def program():
        @jax.custom_jvp
        def f(x):
            return 2 * x

        f.defjvp(lambda x, dx: (2 * x[0], 2 * dx[0]))
        return f

    shape = jax.ShapeDtypeStruct((), float)
    assert fingerprint(program(), shape) == fingerprint(program(), shape)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="memory maps of Linux")
def test_forty_sizes_in_one_process_do_not_pile_up(monkeypatch):
    def maps():
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)

    # A limit that some five sizes reach. Each size has a program of its own, and all
    # public functions ask for room by the same door.
    begin, room = maps(), 500
    monkeypatch.setattr(programs, "FULL", (begin + room) / 65_530)
    monkeypatch.setattr(programs, "_LIMIT", Path("/nowhere"))
    grown, forgotten, forget = [], [], programs.forget
    monkeypatch.setattr(programs, "forget", lambda: (forgotten.append(1), forget()))
    for n in range(3, 43):
        pk.prior(Level(), Values(jnp.arange(float(n))), key=KEY, num_draws=2)
        grown.append(maps() - begin)
    assert len(forgotten) >= 2
    assert max(grown) < 2 * room
