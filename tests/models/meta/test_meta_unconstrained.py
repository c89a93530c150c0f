"""Coordinates without constraints, and leaps of episodic steps along them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probkit.method.minibatch import Counted
from probkit.models import meta
from probkit.models.meta.beliefs import DiagonalPrior, FullPrior, Within
from probkit.models.meta.matrix_beliefs import MatrixPrior, SidePrior
from probkit.models.meta.niwmeta import sineline
from probkit.models.meta.noise import Noise
from probkit.models.meta.posterior import Posterior
from probkit.models.meta.spreads import MatrixNormal
from probkit.models.meta.unconstrained import coordinates, posterior_at

ONE = jnp.ones(())
COVARIANCE = jnp.asarray([[2.0, 0.9], [0.9, 0.5]])


def belief(kind):
    loc, sd = jnp.asarray([1.0, -3.0]), jnp.ones(2)
    if kind == "full":
        return FullPrior(loc, ONE, sd=sd).belief(COVARIANCE, 5.0)
    if kind == "diagonal":
        return DiagonalPrior(loc, ONE, sd=sd).belief(jnp.asarray([0.1, 4.0]), 5.0)
    side = SidePrior(sd=sd)
    spread = MatrixNormal(COVARIANCE, jnp.eye(2))
    return MatrixPrior(jnp.arange(4.0), ONE, side, side).belief(spread, 5.0)


def posterior(kind, noise):
    block = jax.tree.map(lambda a: jnp.stack([a, 1.1 * a]), belief(kind))
    return Posterior((block,), jnp.asarray([3.0, 4.0]), noise)


@pytest.mark.parametrize("kind", ["full", "diagonal", "matrix"])
def test_coordinates_and_back_is_the_same_posterior(kind):
    noise = Within.at(COVARIANCE, 9.0) if kind == "full" else Noise.at(ONE / 3, 9.0)
    post = posterior(kind, noise)
    x = coordinates(post)
    assert x.ndim == 1
    again = posterior_at(x, post)
    for a, b in zip(jax.tree.leaves(post), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    # Anywhere else is a posterior too.
    spread = jax.vmap(lambda b: b.spread())(posterior_at(x - 2.0, post).blocks[0])
    assert np.linalg.eigvalsh(spread).min() > 0


def test_leaps_take_fewer_steps_to_the_same_optimum_and_the_bound_never_falls():
    # Lines are two of four dimensions of coefficients: sds along the others go to zero.
    data, method = sineline.training(5, 100), meta.Episodic(atol=1e-3)
    model = meta.Linear(num_components=2, features=sineline.features)
    program = Counted(model, 1.0)
    begun = eqx.filter_jit(method.init)(program, data, jax.random.key(0), None)
    step, ends = eqx.filter_jit(method.step), eqx.filter_jit(method.terminate)

    def bounds(state):
        found = []
        while not ends(state):
            state = step(program, data, state)
            found.append(float(state.climb.objective))
        return np.array(found)

    plain, ours = bounds(begun._replace(leap=None)), bounds(begun)
    assert len(ours) < len(plain) / 3
    assert ours[-1] == pytest.approx(plain[-1], abs=2e-3)
    assert ours[-1] > plain[-1]
    gains = np.diff(ours)
    assert gains.min() == 0  # a leap was dropped
