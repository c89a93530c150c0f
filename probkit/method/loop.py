"""The one compiled loop.

A chunk of steps of every lane is one compiled program. Between chunks the host draws
the progress bar, keeps a checkpoint and can be interrupted; the chunks' lengths follow
the clock and leave no mark on the numbers.
"""

import sys
import time
from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.method.checkpoint import Checkpoint
from probkit.method.lanes import Lanes
from probkit.method.protocol import Running
from probkit.model import Data
from probkit.model.density import Program, Sites

CHUNK_SECONDS = 0.5
CHUNK_NUMBERS = 2**22  # at most so many recorded numbers a lane and chunk
CHUNK_STEPS = 500

State = Any


@runtime_checkable
class Steps(Protocol):
    """What the loop carries; `AbstractIterativeMethod` says what each does."""

    def init(self, model, data, key, start) -> State: ...
    def step(self, model, data, state) -> State: ...
    def terminate(self, state) -> Any: ...
    def record(self, state) -> Any: ...


@eqx.filter_jit
def init_lanes(method, model, data, own, lanes: Lanes):
    def lane(data, own):
        key, start = own
        state = method.init(model, data, key, start)
        # A checkpoint keeps no weak types: without them the loop compiles once.
        return jax.tree.map(lambda a: a.astype(a.dtype), state)

    return lanes.spread(lane, shared=data)(own)


@eqx.filter_jit
def advance_lanes(method, model, data, states, num_steps, capacity: int, lanes: Lanes):
    """At most `num_steps <= capacity` steps of each lane that is not done."""

    def lane(shared, state):
        data, num_steps = shared
        one = jax.eval_shape(method.record, state)
        blank = jax.tree.map(lambda a: jnp.zeros((capacity, *a.shape), a.dtype), one)

        def going(carry):
            i, state, _ = carry
            return (i < num_steps) & ~method.terminate(state)

        def step(carry):
            i, state, records = carry
            state = method.step(model, data, state)
            put = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
            records = jax.tree.map(
                lambda whole, new: put(whole, new.astype(whole.dtype)),
                records,
                method.record(state),
            )
            return i + 1, state, records

        i, state, records = jax.lax.while_loop(
            going, step, (jnp.zeros((), jnp.int32), state, blank)
        )
        return state, records, i, method.terminate(state)

    return lanes.spread(lane, shared=(data, num_steps))(states)


def _capacity(method, states) -> int:
    one = jax.eval_shape(jax.vmap(method.record), states)
    numbers = sum(int(np.prod(a.shape[1:])) for a in jax.tree.leaves(one))
    return max(1, min(CHUNK_STEPS, CHUNK_NUMBERS // max(1, numbers)))


def iterate(
    method: Steps,
    model: Program,
    data: Data,
    key: PRNGKeyArray,
    start: Sites | None,
    *,
    lanes: Lanes,
    max_steps: int,
    discard: int = 0,
    running: Running,
    label: str,
) -> tuple[Any, Any, np.ndarray]:
    """Step every lane until it terminates, or has taken `max_steps` steps.

    Args:
        start: `{site: array[lane, ...]}`, or None.
        discard: how many steps, from the first, are not kept.

    Returns:
        The final states, with a leading lane axis; the records, `[lane, step, ...]`,
        NaN (or zero, where not floating) past the end of a lane; and the number of
        steps that each lane recorded.
    """
    keys = jax.random.split(key, lanes.count)
    own = lanes.place((keys, start))
    like = eqx.filter_eval_shape(init_lanes, method, model, data, own, lanes)
    capacity = _capacity(method, like)
    keep = Checkpoint.open(
        running.checkpoint,
        like,
        method=method,
        model=model,
        data=data,
        key=key,
        start=start,
        lanes=lanes,
    )
    if keep.taken == 0:
        states = init_lanes(method, model, data, own, lanes)
    else:
        states = lanes.place(keep.states)
    taken, done = keep.taken, keep.done

    advance = partial(advance_lanes, method, model, data)
    # No steps: compiles, so that the clock below sees only the work.
    jax.block_until_ready(advance(states, jnp.int32(0), capacity, lanes))
    length = 1 if running.progress or running.checkpoint else capacity
    shown = bar(running.progress, max_steps, taken, label)
    with shown, keep.interruptible():
        while taken < max_steps and not done:
            num = min(length, capacity, max_steps - taken)
            if taken < discard:  # a chunk is kept or it is not
                num = min(num, discard - taken)
            began = time.perf_counter()
            states, records, counts, ended = advance(
                states, jnp.int32(num), capacity, lanes
            )
            records, counts, ended = jax.device_get((records, counts, ended))
            seconds = time.perf_counter() - began
            num = int(counts.max())
            records = jax.tree.map(lambda a, num=num: a[:, :num], records)
            kept = None if taken < discard else (records, counts)
            taken, done = taken + num, bool(ended.all())
            keep.add(kept, states, taken, done)
            shown.set_description(f"{label}, warm-up" if taken < discard else label)
            shown.update(num)
            # Towards chunks of CHUNK_SECONDS, at most tenfold longer at once.
            length = int(np.clip(num * CHUNK_SECONDS / max(seconds, 1e-9), 1, 10 * length))
    return jax.device_get(states), *keep.collect()


def bar(progress: bool, total: int, initial: int, label: str):
    from tqdm.std import tqdm

    # A bar only for what takes over two seconds.
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
    """Whether somebody watches: a terminal, or a notebook."""
    shell = sys.modules.get("IPython")
    if shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None:
        return True
    return sys.stderr.isatty()
