"""When a noisy objective has settled: one rule, for every method that descends a loss.

The mean loss of a window of steps is compared with that of the window before. Each
window is half as long again as the last, so that a slow descent, too slow to show in a
short window, shows in a later one. Parameters are averaged over each window (Polyak and
Ruppert), because the last step alone is noisy.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probkit.model.check import Check


class Windows(NamedTuple):
    """How far a descent has come."""

    length: Int[Array, ""]  # of the present window
    steps: Int[Array, ""]  # taken in it
    running: Any  # parameters averaged over it so far
    params: Any  # parameters averaged over the last whole window
    total: Float[Array, ""]  # of the losses in the present window
    squares: Float[Array, ""]
    mean: Float[Array, ""]  # loss of the last whole window
    gain: Float[Array, ""]  # between the last two whole windows, in nats
    quiet: Int[Array, ""]  # whole windows in a row without a gain


def opened(params: Any, length: int) -> Windows:
    """Before the first step.

    Args:
        params: parameters at the start.
        length: steps in the first window.
    """
    dtype = jnp.result_type(float)
    inf, zero = jnp.full((), jnp.inf, dtype), jnp.zeros((), dtype)
    none = jnp.zeros((), jnp.int32)
    return Windows(
        jnp.full((), length, jnp.int32),
        steps=none,
        running=params,
        params=params,
        total=zero,
        squares=zero,
        mean=inf,
        gain=inf,
        quiet=none,
    )


def stepped(windows: Windows, loss: Float[Array, ""], params: Any, atol: float) -> Windows:
    """One step further, which had this loss and led to these parameters."""
    steps = windows.steps + 1
    running = jax.tree.map(
        lambda mean, new: mean + (new - mean) / steps, windows.running, params
    )
    total, squares = windows.total + loss, windows.squares + loss**2
    mean = total / steps
    variance = jnp.maximum(squares / steps - mean**2, 0.0)
    # Of the difference of this mean and the last, over windows of 1 and 2/3.
    error = jnp.sqrt(2.5 * variance / steps)
    full = steps >= windows.length
    gain = jnp.where(full, windows.mean - mean, windows.gain)
    quiet = jnp.where(gain < error + atol, windows.quiet + 1, 0)
    return Windows(
        length=jnp.where(full, steps + steps // 2, windows.length),
        steps=jnp.where(full, 0, steps),
        running=running,
        params=jax.tree.map(partial(jnp.where, full), running, windows.params),
        total=jnp.where(full, 0.0, total),
        squares=jnp.where(full, 0.0, squares),
        mean=jnp.where(full, mean, windows.mean),
        gain=gain,
        quiet=jnp.where(full, quiet, windows.quiet),
    )


def is_quiet(windows: Windows, patience: int) -> Bool[Array, ""]:
    """Whether `patience` whole windows in a row had no gain beyond their noise."""
    return windows.quiet >= patience


def check_quiet(facts: Mapping[str, float], patience: int, note: str) -> Check:
    """That the loss has settled."""
    return Check(
        "windows without a gain",
        facts["quiet"],
        "at least",
        patience,
        "the objective still moves: raise `max_steps`, or lower `learning_rate`",
        note,
    )
