"""When a noisy loss has settled: one rule for every method that lowers it by noisy steps.

The mean loss of a window of steps is compared with that of the window before. Each
window is half as long again as the last, because slow progress is visible only in a long
window. Parameters are averaged over each window (Polyak and Ruppert), because those of a
single step are noisy. Losses and gains are in nats.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probkit.model.check import Check


class Windows(NamedTuple):
    """The progress of a lane."""

    length: Int[Array, ""]  # steps in the present window
    steps: Int[Array, ""]  # steps taken in it so far
    running: Any  # parameters averaged over it so far
    params: Any  # parameters averaged over the last whole window
    total: Float[Array, ""]  # sum of the losses in the present window
    squares: Float[Array, ""]  # sum of their squares
    mean: Float[Array, ""]  # mean loss of the last whole window
    gain: Float[Array, ""]  # from the whole window before it to the last one
    quiet: Int[Array, ""]  # whole windows in a row without a gain


def opened(params: Any, length: int) -> Windows:
    """The progress before the first step.

    Args:
        params: parameters at the start.
        length: the number of steps in the first window.
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
    """The progress after one step more.

    Args:
        windows: the progress before.
        loss: the loss of the step, in nats.
        params: the parameters after the step.
        atol: a gain that can be ignored, in nats.

    Returns:
        The new progress.
    """
    steps = windows.steps + 1
    running = jax.tree.map(
        lambda mean, new: mean + (new - mean) / steps, windows.running, params
    )
    total, squares = windows.total + loss, windows.squares + loss**2
    mean = total / steps
    variance = jnp.maximum(squares / steps - mean**2, 0.0)
    # Standard error of the difference to the last mean, whose window is 2/3 as long.
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


def check_quiet(facts: Mapping[str, float | int], patience: int, note: str) -> Check:
    """Check that the loss has settled.

    Args:
        facts: with `quiet`, the number of whole windows in a row without a gain.
        patience: how many there should be.
        note: more about the fit.
    """
    return Check(
        "windows without a gain",
        facts["quiet"],
        "at least",
        patience,
        "the loss still falls: raise `max_steps`, or lower `learning_rate`",
        note,
    )
