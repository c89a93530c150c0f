"""Starts of message passing: least squares against the singular value decomposition, and
whether a fit that begins at one gets there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from doors import refused
from probkit.models import tucker
from probkit.models.tucker import starts
from probkit.models.tucker.parameters import centres
from probkit.models.tucker.posterior import surface_at

KEY = jax.random.key(0)
# Correlation with the true surface.
NEAR = 0.9
BOX = [(0.0, 1.0), (-2.0, 0.0)]


def full_table(rows, columns):
    """Entries at all places of a table, row by row, without values worth a look."""
    i, j = (index.ravel() for index in np.indices((rows, columns)))
    return tucker.Entries({"s": i / rows, "t": j / columns}, np.arange(i.size) % 7.0)


def test_products_of_a_full_table_are_its_singular_vectors():
    table = np.random.default_rng(0).normal(size=(12, 9))
    data = full_table(12, 9)
    weight = jnp.full(table.size, 1e8)  # so that the ridge is nothing
    parts = jax.jit(lambda y: starts.fitted(data, y, weight, 1, effects=False, key=KEY))(
        jnp.array(table.ravel())
    )
    U, d, V = np.linalg.svd(table)
    # Eight rounds leave what is left of the second pair.
    for found, exact in zip(parts.functions, (U[:, 0], V[0]), strict=True):
        assert abs(found[:, 0] @ exact) / np.linalg.norm(found) > 0.99
    np.testing.assert_allclose(abs(parts.scale[0]), d[0] / np.sqrt(12 * 9), rtol=0.02)


def test_main_effects_of_a_full_table_are_those_of_rows_and_columns():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=12), rng.normal(size=9)
    table = (a - a.mean())[:, None] + (b - b.mean())
    weight = jnp.full(table.size, 1e8)
    data = full_table(12, 9)
    parts = jax.jit(lambda y: starts.fitted(data, y, weight, 1, effects=True, key=KEY))(
        jnp.array(table.ravel())
    )
    np.testing.assert_allclose(parts.effects[0], a - a.mean(), atol=1e-6)
    np.testing.assert_allclose(parts.effects[1], b - b.mean(), atol=1e-6)
    assert abs(parts.scale[0]) < 1e-5


def test_points_with_few_entries_borrow_those_of_their_neighbours():
    rng = np.random.default_rng(2)
    x, y = np.sort(rng.uniform(size=40)), rng.normal(size=40)
    data = tucker.Entries({"x": x, "t": np.arange(40) % 2}, y)
    others, weight = jnp.ones((40, 1)), jnp.full(40, 3.0)
    found = starts._solved(data, 0, others, jnp.array(y), weight)[:, 0]
    aside = round((starts.ENOUGH - 1) / 2)
    near = [y[max(i - aside, 0) : i + aside + 1] for i in range(40)]
    exact = [3 * one.sum() / (3 * len(one) + 1) for one in near]
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    labelled = tucker.Entries({"x": x, "t": np.arange(40) % 2}, y, labels=["x"])
    alone = starts._solved(labelled, 0, others, jnp.array(y), weight)[:, 0]
    np.testing.assert_allclose(alone, 3 * y / 4, rtol=1e-10)


def wave(points):
    s, t = points[..., 0], points[..., 1]
    return 3 + 2 * jnp.sin(5 * s) * (1 + t) + 2 * jnp.cos(9 * s) * jnp.cos(4 * t)


@pytest.fixture(scope="module")
def scattered():
    rng = np.random.default_rng(3)
    s, t = rng.integers(0, 15, 200) / 14, rng.integers(0, 12, 200) / 6 - 2
    y = np.asarray(wave(jnp.array(np.stack([s, t], -1))))
    return tucker.Entries({"s": s, "t": t}, y + 0.1 * rng.normal(size=200)), y


def correlation(model, data, post, f):
    at_entries = jax.jit(lambda post: surface_at(model, data, post, data.places)[0])
    return np.corrcoef(at_entries(post), f)[0, 1]


def near(model, data):
    """The start by least squares, and a random one."""
    start = jax.jit(lambda kind: starts.chosen(model, data, kind, KEY))
    return [start({starts.KIND: jnp.array(one)}) for one in (True, False)]


FULL = tucker.Tucker((2, 2))
FEW = tucker.MessagePassing(num_starts=1, max_steps=30, draws="approximation", num_draws=1)


def test_the_first_start_and_every_other_one_after_it_are_by_least_squares():
    assert starts.kinds(3)[starts.KIND].tolist() == [True, False, True]


def test_a_start_by_least_squares_is_near_the_surface_already(scattered):
    data, f = scattered
    for model in (FULL, tucker.CP(4, effects=False)):
        by_least, at_random = near(model, data)
        assert correlation(model, data, by_least, f) > NEAR
        assert correlation(model, data, at_random, f) < NEAR


def test_a_collapse_is_told_and_a_fit_from_least_squares_has_none(scattered):
    data, _ = scattered
    sites = dict(pk.fit(FULL, data, FEW, key=KEY, throw=False).sites())
    along = "components in use along s"

    def verdicts(**changed):
        return {c.name: c.ok for c in FULL.checks(sites | changed, data)}

    assert all(verdicts().values())
    idle = verdicts(core=sites["core"].at[1].set(0.0))
    assert not idle[along]
    none = {f"sd_effect_{mode}": 0 * sites["noise_sd"] for mode in "st"}
    gone = verdicts(core=0 * sites["core"], level=data.y_mean, **none)
    assert not gone["share of the entries explained"]
    assert not gone[along]


def test_a_chebyshev_interpolant_is_a_start(scattered):
    data, f = scattered
    value = tucker.chebyshev(wave, BOX, 16)
    post = tucker.start_at(value, FULL, data, key=KEY)
    assert correlation(FULL, data, post, f) > NEAR
    random = jax.jit(lambda key: starts.started(FULL, data, centres(FULL, data), key))
    begun = [post, random(KEY)]
    first, cold = (
        pk.fit(FULL, data, FEW, key=KEY, start=start, throw=False).tree["trace"]
        for start in begun
    )
    assert first["objective"].values[0, 0] > cold["objective"].values[0, 0] + 10


def test_starts_that_do_not_fit_are_refused(scattered):
    data, f = scattered
    labelled = tucker.Entries(
        {"s": np.asarray(data.places[:, 0]), "t": np.asarray(data.places[:, 1])},
        f,
        labels="t",
    )
    value = tucker.chebyshev(wave, BOX, 16)
    refused(
        lambda: tucker.start_at(value, tucker.CP(1), labelled, key=KEY),
        r"`start_at`: the mode `t` has labels",
    )
    refused(
        lambda: tucker.start_at(lambda p: p, tucker.CP(1), data, key=KEY),
        r"`start_at\(function=.*\)` returned the shape \(200, 2\)",
    )
    post = tucker.start_at(value, tucker.CP(1), data, key=KEY)
    for method in (tucker.MessagePassing(), pk.SVI()):
        refused(
            lambda method=method: pk.fit(tucker.CP(2), data, method, key=KEY, start=post),
            r"`fit\(start=...\)` got a `Posterior`, at which",
        )
