"""One line a family: everything in `test_families.py` then holds for it."""

import jax
import numpy as np

from probkit.models import moe


def _moe(num_experts: int, num_inputs: int):
    rng = np.random.default_rng(num_inputs)
    x = rng.normal(3.0, 2.0, (60, num_inputs))
    y = np.where(x[:, 0] > 3, 10 - x[:, 0], 4 * x[:, 0]) + rng.normal(0, 0.5, 60)
    return moe.SoftmaxMoE(num_experts=num_experts), moe.Pairs(x, y)


FAMILIES = {
    "moe one input": lambda: _moe(2, 1),
    "moe three inputs": lambda: _moe(3, 3),
    "moe one expert": lambda: _moe(1, 2),
}


def a_draw(model, data, seed: int = 0):
    """A draw from the prior: somewhere, and not at an optimum."""
    from probkit.density import prior_draw

    return jax.jit(lambda key: prior_draw(model, data, key))(jax.random.key(seed))
