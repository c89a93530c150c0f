"""The bound along steps on all data, as one compiled program."""

import jax

from probkit.method.minibatch import Counted
from probkit.models import meta


def bounds_of(model, data, num_starts=1, num_steps=40):
    """The bound before each step, `(num_starts, num_steps)`."""
    method, program = meta.Episodic(), Counted(model, 1.0)

    @jax.jit
    def run(data, keys):
        def step(state, _):
            state = method.step(program, data, state)
            return state, method.record(state)["objective"]

        def one(key):
            state = method.init(program, data, key, None)
            return jax.lax.scan(step, state, length=num_steps)[1]

        return jax.vmap(one)(keys)

    return jax.device_get(run(data, jax.random.split(jax.random.key(0), num_starts)))
