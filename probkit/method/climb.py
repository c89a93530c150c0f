"""When an ascent has settled: one rule for every method that climbs an objective."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probkit.method import RESULTS, choose


class Climb(NamedTuple):
    """How far an ascent has come, at the place before its last step."""

    objective: Float[Array, ""]
    gain: Float[Array, ""]
    remaining: Float[Array, ""]  # estimate of what is still to be gained
    num_steps: Int[Array, ""]
    result: Any


def at_foot(dtype) -> Climb:
    """Before the first step."""
    lowest = -jnp.inf * jnp.ones((), dtype)
    return Climb(lowest, -lowest, -lowest, jnp.zeros((), jnp.int32), RESULTS.no_steps)


def rounding(objective: Float[Array, ""]) -> Float[Array, ""]:
    """What rounding alone moves: a sum of size L by about eps L."""
    return 16 * jnp.finfo(objective.dtype).eps * jnp.abs(objective)


def climbed(climb: Climb, objective: Float[Array, ""], may_fall: bool = False) -> Climb:
    r"""One step further, where the objective is `objective`.

    What is still to be gained is Aitken's estimate from the last two gains,
    $g_t a / (1 - a)$ with $a = g_t / g_{t-1}$.
    """
    gain = objective - climb.objective
    ratio = gain / climb.gain
    to_come = jnp.where(ratio < 1, gain * ratio / (1 - ratio), jnp.inf)
    slack = rounding(objective)
    remaining = jnp.where(jnp.abs(gain) <= slack, slack, to_come)
    fell = jnp.zeros((), bool) if may_fall else gain < -slack
    result = choose(fell, RESULTS.decreased, RESULTS.successful)
    result = choose(jnp.isfinite(objective), result, RESULTS.nonfinite)
    return Climb(objective, gain, remaining, climb.num_steps + 1, result)


def is_done(climb: Climb, atol: float) -> Bool[Array, ""]:
    """Whether the last gain and all that are still to come are small, or it failed."""
    tolerance = jnp.maximum(atol, rounding(climb.objective))
    settled = (jnp.abs(climb.gain) <= tolerance) & (climb.remaining <= tolerance)
    # The first gain is measured from -inf, the second ratio from that.
    settled = settled & (climb.num_steps > 3)
    failed = (climb.result != RESULTS.successful) & (climb.num_steps > 0)
    return settled | failed
