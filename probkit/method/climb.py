"""When an ascent has settled: one rule for every method that climbs an objective."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probkit.method.protocol import RESULTS, choose, message
from probkit.model.check import Check

# Optima that differ by less, in nats, are one.
SAME_OPTIMUM = 0.01


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


# What a run of several lanes tells of itself, and the checks of it.


def largest_fall(objective: np.ndarray, rounded: bool = True) -> float:
    """The largest fall between steps in any lane, in nats.

    Args:
        objective: `(lane, step)`, NaN past a lane's end.
        rounded: whether what rounding explains is no fall.
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
    """That an ascent which theory says is monotone was monotone."""
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
    """That what is still to be gained is below the tolerance."""
    return Check(
        "still to be gained",
        facts["remaining"],
        "at most",
        max(atol, 1e-12 * abs(objective)),
        "raise `max_steps`",
        "nats, estimated",
    )


def check_restarts(facts: Mapping[str, float | int]) -> tuple[Check, ...]:
    """That a second restart found the best optimum; nothing to check with one restart."""
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
            "raise `num_restarts`: a better optimum may be out there",
            f"of {restarts}" + (f"; {distinct} distinct optima" if distinct else ""),
        ),
    )
