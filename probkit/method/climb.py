"""When an objective has settled: one rule for every method that raises it exactly.

Objectives and gains are in nats.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probkit.method.protocol import RESULTS, choose, message
from probkit.model.check import Check

# Optima that differ by less than this, in nats, count as one.
SAME_OPTIMUM = 0.01


class Climb(NamedTuple):
    """The progress of a lane, at the sites before its last step.

    Attributes:
        objective: its value, in nats.
        gain: by how much the last step raised it.
        remaining: an estimate of all gains to come.
        num_steps: the number of steps taken.
        result: an item of `RESULTS`.
        slack: the largest fall so far that rounding would have explained.
    """

    objective: Float[Array, ""]
    gain: Float[Array, ""]
    remaining: Float[Array, ""]
    num_steps: Int[Array, ""]
    result: Any
    slack: Float[Array, ""]


def at_foot(dtype) -> Climb:
    """The progress before the first step. `dtype` is that of the objective."""
    lowest = -jnp.inf * jnp.ones((), dtype)
    none = jnp.zeros((), jnp.int32)
    return Climb(lowest, -lowest, -lowest, none, RESULTS.no_steps, jnp.zeros((), dtype))


def rounding(objective: Float[Array, ""]) -> Float[Array, ""]:
    """The change that rounding alone explains: about eps L for a sum of size L."""
    return 16 * jnp.finfo(objective.dtype).eps * jnp.abs(objective)


def climbed(
    climb: Climb,
    objective: Float[Array, ""],
    may_fall: bool = False,
    slack: Float[Array, ""] | None = None,
) -> Climb:
    r"""The progress after one step more.

    All gains to come are estimated from the last two (Aitken): $g_t a / (1 - a)$ with
    $a = g_t / g_{t-1}$.

    Args:
        climb: the progress before.
        objective: the new value, in nats.
        may_fall: whether the objective may fall. If not, a fall that rounding does not
            explain gives `RESULTS.decreased`.
        slack: the largest fall that rounding may explain, in nats; by default that of a
            sum. Once the objective falls by less, rounding is all that is left.

    Returns:
        The new progress.
    """
    gain = objective - climb.objective
    ratio = gain / climb.gain
    to_come = jnp.where(ratio < 1, gain * ratio / (1 - ratio), jnp.inf)
    unit = rounding(objective)
    slack = unit if slack is None else jnp.maximum(slack, unit)
    remaining = jnp.where(jnp.abs(gain) <= unit, unit, to_come)
    if may_fall:
        fell = jnp.zeros((), bool)
    else:
        fell = gain < -slack
        lost = (gain < -unit) & ~fell
        gain, remaining = jnp.where(lost, 0.0, gain), jnp.where(lost, unit, remaining)
    result = choose(fell, RESULTS.decreased, RESULTS.successful)
    result = choose(jnp.isfinite(objective), result, RESULTS.nonfinite)
    slack = jnp.maximum(climb.slack, slack)
    return Climb(objective, gain, remaining, climb.num_steps + 1, result, slack)


def is_done(climb: Climb, atol: float) -> Bool[Array, ""]:
    """Whether the last gain and the estimated gains to come are small, or a step failed.

    Args:
        climb: the progress.
        atol: what is small, in nats.
    """
    tolerance = jnp.maximum(atol, rounding(climb.objective))
    settled = (jnp.abs(climb.gain) <= tolerance) & (climb.remaining <= tolerance)
    # The first gain is measured from -inf, and the second ratio uses it.
    settled = settled & (climb.num_steps > 3)
    failed = (climb.result != RESULTS.successful) & (climb.num_steps > 0)
    return settled | failed


# Facts of a run with several lanes, and checks of them.


def largest_fall(objective: np.ndarray, rounded: bool = True) -> float:
    """The largest fall between steps in any lane, in nats.

    Args:
        objective: `(lane, step)`, NaN after the end of a lane.
        rounded: whether to subtract what rounding explains.

    Returns:
        The largest fall, 0 or more.
    """
    if objective.shape[1] < 2:
        return 0.0
    falls = -np.diff(objective, axis=1)
    if rounded:
        falls = falls - 16 * np.finfo(objective.dtype).eps * np.abs(objective[:, 1:])
    return float(np.nanmax(np.maximum(falls, 0.0), initial=0.0))


def facts_of_ends(final: np.ndarray, best: int) -> dict[str, int]:
    """How many lanes ended at the best optimum, and how many optima they found.

    Args:
        final: the objective at each lane's end, `(lane,)`; not finite where it failed.
        best: the lane that became the fit.

    Returns:
        `reached_best`, `num_restarts` and `distinct`, all numbers of lanes or optima.
    """
    finite = np.sort(final[np.isfinite(final)])
    distinct = int((np.diff(finite) > SAME_OPTIMUM).sum() + 1) if finite.size else 0
    return {
        "reached_best": int((final >= final[best] - SAME_OPTIMUM).sum()),
        "num_restarts": len(final),
        "distinct": distinct,
    }


def check_fall(
    facts: Mapping[str, float | int],
    what: str = "objective",
    limit: float = 0.0,
    remedy: str = message(RESULTS.decreased),
    note: str = "nats, beyond rounding",
) -> Check:
    """Check that an objective which can only rise did not fall.

    Args:
        facts: with `largest_fall`, in nats.
        what: the name of the objective.
        limit: the largest fall that is accepted.
        remedy: what to do about a larger one.
        note: more about the value.
    """
    return Check(
        f"largest fall of the {what}",
        facts["largest_fall"],
        "at most",
        limit,
        remedy,
        note,
    )


def check_remaining(
    facts: Mapping[str, float | int], objective: float, atol: float
) -> Check:
    """Check that the estimated gains to come are below the tolerance.

    Args:
        facts: with `remaining`, in nats.
        objective: its last value, in nats. Its rounding is accepted.
        atol: the tolerance, in nats.
    """
    return Check(
        "still to be gained",
        facts["remaining"],
        "at most",
        max(atol, 1e-12 * abs(objective)),
        "raise `max_steps`",
        "nats, estimated",
    )


def check_restarts(facts: Mapping[str, float | int]) -> tuple[Check, ...]:
    """Check that two restarts or more found the best optimum.

    Args:
        facts: what `facts_of_ends` returned.

    Returns:
        One check, or none if there was one restart only.
    """
    restarts = int(facts["num_restarts"])
    if restarts < 2:
        return ()
    distinct = int(facts["distinct"]) if "distinct" in facts else 0
    return (
        Check(
            "restarts that found the best",
            facts["reached_best"],
            "at least",
            2,
            "raise `num_restarts`: there may be a better optimum",
            f"of {restarts}" + (f"; {distinct} distinct optima" if distinct else ""),
        ),
    )
