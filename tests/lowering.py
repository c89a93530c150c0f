"""How many programs are compiled, and whether they are also programs for a GPU."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp

from probkit.method.lanes import Lanes
from probkit.method.loop import advance_lanes, init_lanes

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


@contextlib.contextmanager
def programs():
    """A list that grows by one for each program that is made."""
    made = []

    def listen(event, duration, **_):
        if event == LOWERED:
            made.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield made
    jax.monitoring.unregister_event_duration_listener(listen)


def lowers_for_cuda(method, model, data):
    """Lower the start and five steps of two lanes for CUDA; no GPU is needed.

    It fails if a program holds an operation that JAX cannot lower for CUDA.

    Args:
        method: an iterative method.
        model: a model that it fits.
        data: its data.
    """
    lanes = Lanes(2, 1, together=True)
    keys = jax.random.split(jax.random.key(0), 2)
    init = lambda data, keys: init_lanes(method, model, data, (keys, None), lanes)  # noqa: E731
    states = jax.eval_shape(init, data, keys)

    def advance(data, states):
        return advance_lanes(method, model, data, states, jnp.int32(5), 5, lanes)

    for program, args in ((init, (data, keys)), (advance, (data, states))):
        arrays, rest = eqx.partition(args, lambda a: hasattr(a, "dtype"))

        def flat(arrays, program=program, rest=rest):
            out = program(*eqx.combine(arrays, rest))
            return jax.tree.map(_raw, jax.tree.leaves(out))

        exported = jax.export.export(jax.jit(flat), platforms=["cuda"])(arrays)
        assert exported.platforms == ("cuda",)


def _raw(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
