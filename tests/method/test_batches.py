"""Maps over lanes and draws: the same numbers as `vmap`, and no threads that block."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probkit.method import batches
from probkit.method.batches import map_in_batches, side_by_side

ROOT = Path(__file__).parents[2]
MATRICES = jax.random.normal(jax.random.key(0), (70, 20, 20)) + 5 * jnp.eye(20)


def of_one(matrix):
    return {"root": jnp.linalg.qr(matrix)[1], "sum": matrix.sum()}


def shared_out(program, *args) -> list[str]:
    return list(batches.shared_out(jax.make_jaxpr(program)(*args).jaxpr))


@pytest.mark.parametrize("mapped", [map_in_batches, side_by_side])
def test_it_is_vmap(mapped):
    found = jax.jit(lambda tree: mapped(of_one, tree))(MATRICES)
    expected = jax.vmap(of_one)(MATRICES)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-12, atol=1e-12)


def test_it_is_vmap_on_a_gpu_too(monkeypatch):
    # There a batch is one call, and the last batch is filled up.
    monkeypatch.setattr("probkit.method.batches.on_cpu", lambda: False)
    for mapped in (map_in_batches, side_by_side):
        assert shared_out(lambda tree, f=mapped: f(of_one, tree), MATRICES)
        found = mapped(of_one, MATRICES)
        assert found["root"].shape == MATRICES.shape
        np.testing.assert_allclose(found["sum"], MATRICES.sum((1, 2)), rtol=1e-12)


def test_large_matrices_are_taken_one_after_another():
    assert shared_out(jax.vmap(of_one), MATRICES)
    assert not shared_out(lambda tree: side_by_side(of_one, tree), MATRICES)
    assert not shared_out(lambda tree: map_in_batches(of_one, tree), MATRICES)


def test_small_matrices_stay_side_by_side():
    program = jax.make_jaxpr(lambda tree: side_by_side(of_one, tree))(MATRICES[:, :4, :4])
    assert "scan" not in str(program)


def test_arrays_of_the_caller_may_be_used():
    @jax.jit
    def scaled(factor, tree):
        return side_by_side(lambda matrix: factor * of_one(matrix)["root"], tree)

    found = scaled(2.0, MATRICES)
    np.testing.assert_allclose(found, 2 * jax.vmap(of_one)(MATRICES)["root"], rtol=1e-12)


SCRIPT = """
import os, sys
if hasattr(os, "sched_setaffinity"):  # two threads, which is where it is easiest to block
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, numpy as np, probkit as pk
from probkit.models import pde
pk.enable_x64()
t, key = np.linspace(0.1, 3, 20), jax.random.key(0)
cooling = pde.Problem(
    {"t": (0, 3)}, lambda u, t, c: u.dt + c.rate * u, pde.Initial(1.0), shape=20,
    observations=pde.Observations(t, np.exp(-0.8 * t) + 0.02 * np.cos(40 * t)),
    unknown={"rate": (0, 3)},
)
model = pde.SpectralGP(equation_sd=1e-3)
fit = pk.fit(model, cooling, pde.Closed(num_draws=200), key=key, progress=False)
for made in (pk.predict(fit, np.linspace(0, 3, 61), key=key), pk.recover(fit, key=key)):
    assert all(np.isfinite(array).all() for array in made.values())
print("finished")
"""


def test_predictions_of_many_draws_end():
    # A process of its own, with the flags that a user has.
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout.strip() == "finished", done.stderr
