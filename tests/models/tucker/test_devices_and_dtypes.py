"""Message passing and Gibbs sampling in float32, and as programs for a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probkit.models import tucker
from probkit.models.tucker.gibbs import swept

KEY = jax.random.key(0)
MODEL = tucker.CP(1)
METHOD = tucker.MessagePassing(learn=False)
rng = np.random.default_rng(0)
COORDS = {"time": rng.integers(0, 6, 40) / 2, "station": rng.choice(list("abc"), 40)}
Y = 5 + np.sin(COORDS["time"]) * (1 + (COORDS["station"] == "a")) + rng.normal(0, 0.1, 40)


def fitted(dtype):
    """Data, and a posterior after ten sweeps of message passing."""
    data = tucker.Entries(COORDS, Y.astype(dtype))
    state = jax.jit(lambda key: METHOD.init(MODEL, data, key, None))(KEY)
    # The same start in both, because random numbers differ by dtype.
    factors = [f.mean for f in state.posterior.factors]
    known = [
        jnp.asarray(np.cos(np.arange(u.size)).reshape(u.shape), dtype) for u in factors
    ]
    state = jax.tree.map(
        lambda a: next((v for u, v in zip(factors, known, strict=True) if a is u), a), state
    )
    step = jax.jit(lambda state: METHOD.step(MODEL, data, state))
    for _ in range(10):
        state = step(state)
    return data, state.posterior


@pytest.fixture(scope="module")
def both():
    return {dtype: fitted(dtype) for dtype in ("float32", "float64")}


def test_sweeps_in_float32_are_those_in_float64(both):
    means = {}
    for dtype, (data, post) in both.items():
        assert all(f.mean.dtype == dtype for f in post.factors)
        asked = tucker.queries(data, data)
        mean, variance = jax.jit(lambda p, d=data, q=asked: p.moments(MODEL, d, q))(post)
        assert mean.dtype == dtype
        means[dtype] = np.asarray(mean), np.sqrt(np.asarray(variance))
    (mean, sd), (exact, exact_sd) = means["float32"], means["float64"]
    # A thousandth of the sd of the values; rounding of 40 entries is a hundred times less.
    assert np.abs(mean - exact).max() < 1e-3 * Y.std()
    np.testing.assert_allclose(sd, exact_sd, rtol=0.02)


def one_sweep(data, post, key):
    # Scale and sd of the effect, and on a line two lengthscales.
    roots = tuple(0.1 * jnp.eye(m, dtype=data.dtype) for m in (4, 2))
    return swept(MODEL, data, post, roots, key, jnp.asarray(0.1, data.dtype))


def test_a_sweep_of_gibbs_sampling_keeps_float32(both):
    data, post = both["float32"]
    there, roots, seen = jax.jit(lambda p, k: one_sweep(data, p, k))(post, KEY)
    every = jax.tree.leaves((there, roots, seen))
    assert {str(a.dtype) for a in every} == {"float32"}
    assert all(np.isfinite(a).all() for a in every)


def test_a_sweep_of_gibbs_sampling_lowers_for_a_gpu(both):
    data, post = both["float64"]
    flat, tree = jax.tree.flatten(post)

    def program(flat, seed):
        post = jax.tree.unflatten(tree, flat)
        return jax.tree.leaves(one_sweep(data, post, jax.random.key(seed)))

    exported = jax.export.export(jax.jit(program), platforms=["cuda"])(flat, 0)
    assert exported.platforms == ("cuda",)
