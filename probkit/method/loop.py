"""The one compiled loop.

A chunk of steps of all lanes is one compiled program. Between chunks Python updates the
progress bar, writes a checkpoint, and can be interrupted. Chunk length adapts to run
time. It does not change the results.

On a CPU, convolutions take several times as long in the body of a compiled loop as outside
of one. Steps with convolutions are therefore programs of their own (`steps_alone`), and the
loop is that over chunks.
"""

import sys
import time
from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jaxtyping import PRNGKeyArray

from probkit.method.approximation import Start
from probkit.method.checkpoint import Checkpoint
from probkit.method.keys import split_keys
from probkit.method.lanes import Lanes
from probkit.method.programs import jit_for_one_run
from probkit.method.protocol import Running
from probkit.model import Data
from probkit.model.density import Program
from probkit.model.source import at_step, example_of, numbers_per_step, steps_from

CHUNK_SECONDS = 0.5
CHUNK_NUMBERS = 2**22  # most numbers in the trace of a lane, or read, per chunk
CHUNK_STEPS = 500

State = Any


@runtime_checkable
class Steps(Protocol):
    """What the loop needs of a method; see `AbstractIterativeMethod`."""

    def runs_once(self, model, data) -> bool: ...
    def steps_alone(self, model, data) -> bool: ...
    def init(self, model, data, key, start) -> State: ...
    def step(self, model, data, state) -> State: ...
    def terminate(self, state) -> Any: ...
    def record(self, state) -> Any: ...


def _init_lanes(method, model, data, own, lanes: Lanes):
    """The states before the first step; `own` has the key and the start of each lane."""

    def lane(data, own):
        key, start = own
        state = method.init(model, lanes.split_rows(data), key, start)
        # Without weak types, because a checkpoint does not keep them, and the loop would
        # compile a second time for states from a checkpoint.
        return jax.tree.map(lambda a: a.astype(a.dtype), state)

    return lanes.spread(lane, shared=data)(own)


init_lanes = eqx.filter_jit(_init_lanes)
_init_once = jit_for_one_run(_init_lanes)


def _advance_lanes(method, model, data, states, num_steps, capacity: int, lanes: Lanes):
    """At most `num_steps <= capacity` steps of each lane that is not done.

    Args:
        method: the method.
        model: the model, or another program.
        data: its data, or a source whose steps are counted from this chunk.
        states: the states, with a leading lane axis.
        num_steps: the largest number of steps in this chunk.
        capacity: the length of the trace, which fixes the compiled program. With one there
            is no loop in it.
        lanes: the number of lanes, and their devices.

    Returns:
        The states; the trace `[lane, capacity, ...]`; the number of steps of each lane;
        and whether each lane is done.
    """

    def lane(shared, state):
        data, num_steps = shared
        one = jax.eval_shape(method.record, state)
        blank = jax.tree.map(lambda a: jnp.zeros((capacity, *a.shape), a.dtype), one)

        def going(carry):
            i, state, _ = carry
            return (i < num_steps) & ~method.terminate(state)

        def step(carry):
            i, state, trace = carry
            state = method.step(model, lanes.split_rows(at_step(data, i)), state)
            put = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
            trace = jax.tree.map(
                lambda whole, new: put(whole, new.astype(whole.dtype)),
                trace,
                method.record(state),
            )
            return i + 1, state, trace

        carry = jnp.zeros((), jnp.int32), state, blank
        if capacity == 1:
            keep = going(carry)
            carry = jax.tree.map(lambda a, b: jnp.where(keep, a, b), step(carry), carry)
        else:
            carry = jax.lax.while_loop(going, step, carry)
        i, state, trace = carry
        return state, trace, i, method.terminate(state)

    return lanes.spread(lane, shared=(data, num_steps))(states)


advance_lanes = eqx.filter_jit(_advance_lanes)
_advance_once = jit_for_one_run(_advance_lanes)


def _capacity(method, states, read: int) -> int:
    one = jax.eval_shape(jax.vmap(method.record), states)
    numbers = sum(int(np.prod(a.shape[1:])) for a in jax.tree.leaves(one))
    return max(1, min(CHUNK_STEPS, CHUNK_NUMBERS // max(1, numbers, read)))


def iterate(
    method: Steps,
    model: Program,
    data: Data,
    key: PRNGKeyArray,
    start: Start,
    *,
    lanes: Lanes,
    max_steps: int,
    discard: int = 0,
    running: Running,
    label: str,
) -> tuple[Any, Any, np.ndarray]:
    """Step every lane until it terminates, or has taken `max_steps` steps.

    Args:
        method: the method.
        model: the model, or another program.
        data: its data, or a source.
        key: a JAX random key.
        start: where each lane starts, with a leading lane axis; see `Start`.
        lanes: the number of lanes, and their devices.
        max_steps: the largest number of steps of a lane.
        discard: the number of first steps that are not kept in the trace.
        running: progress bar and checkpoint.
        label: the text before the progress bar.

    Returns:
        The final states, with a leading lane axis; the trace, `[lane, step, ...]`, NaN
        (or zero, if not floating) after the end of a lane; and the number of steps in the
        trace of each lane.

    Raises:
        ValueError: if the folder of the checkpoint holds another run.
    """
    like = example_of(data)
    once = method.runs_once(model, like)
    init, advance = (_init_once, _advance_once) if once else (init_lanes, advance_lanes)
    keys = split_keys(key, lanes.count)
    own = lanes.place((keys, start))
    shapes = eqx.filter_eval_shape(init_lanes, method, model, like, own, lanes)
    capacity = 1
    if not method.steps_alone(model, like):
        capacity = _capacity(method, shapes, numbers_per_step(data, like))
    keep = Checkpoint.open(
        running.checkpoint,
        shapes,
        method=method,
        model=model,
        data=data,
        key=key,
        start=start,
        lanes=lanes,
    )
    if keep.taken == 0:
        states = init(method, model, like, own, lanes)
    else:
        states = lanes.place(keep.states)
    taken, done = keep.taken, keep.done

    def after(states, num):
        given = steps_from(data, like, taken, num, capacity)
        return advance(method, model, given, states, jnp.int32(num), capacity, lanes)

    # No steps, only compilation, so that the times below are run times.
    jax.block_until_ready(after(states, 0))
    length = 1 if running.progress or running.checkpoint else capacity
    shown = bar(running.progress, max_steps, taken, label)
    with shown, keep.interruptible():
        while taken < max_steps and not done:
            num = min(length, capacity, max_steps - taken)
            if taken < discard:  # a chunk is kept as a whole or not at all
                num = min(num, discard - taken)
            began = time.perf_counter()
            states, trace, counts, ended = after(states, num)
            trace, counts, ended = jax.device_get((trace, counts, ended))
            seconds = time.perf_counter() - began
            num = int(counts.max())
            trace = jax.tree.map(lambda a, num=num: a[:, :num], trace)
            kept = None if taken < discard else (trace, counts)
            taken, done = taken + num, bool(ended.all())
            keep.add(kept, states, taken, done)
            shown.set_description(f"{label}, warm-up" if taken < discard else label)
            shown.update(num)
            # Towards chunks of CHUNK_SECONDS, at most ten times longer than the last.
            length = int(np.clip(num * CHUNK_SECONDS / max(seconds, 1e-9), 1, 10 * length))
    return jax.device_get(states), *keep.collect()


def convolves(jaxpr: Any) -> bool:
    """Whether a traced program has a convolution."""
    return any(
        equation.primitive.name == "conv_general_dilated"
        or any(map(convolves, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def bar(progress: bool, total: int, initial: int, label: str):
    """A progress bar on the standard error.

    Args:
        progress: whether to show it.
        total: the number of steps of the whole run.
        initial: the number of steps already taken.
        label: the text before the bar.

    Returns:
        The bar of `tqdm`, a context.
    """
    from tqdm.std import tqdm

    # Only for runs of more than two seconds.
    return tqdm(
        total=total,
        initial=initial,
        desc=label,
        disable=not progress,
        delay=2.0,
        leave=False,
        file=sys.stderr,
    )


def wants_progress() -> bool:
    """Whether the output goes to a terminal or a notebook."""
    shell = sys.modules.get("IPython")
    if shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None:
        return True
    return sys.stderr.isatty()
