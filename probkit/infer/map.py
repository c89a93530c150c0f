"""The maximum of the posterior density of any program, by L-BFGS from many starts."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from probkit.infer.laplace import Normal, check_curvature
from probkit.infer.lbfgs import Memory, direction, empty, remembered
from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    Point,
    best_lane,
    choose,
    either,
    repeated,
)
from probkit.method.climb import (
    check_remaining,
    check_restarts,
    facts_of_ends,
    rounding,
)
from probkit.model.check import Check
from probkit.model.density import (
    Sites,
    constrain,
    log_densities,
    off_the_edge,
    random_position,
    unconstrain,
    zero_position,
)
from probkit.validate import positive, whole

# A start stops after this many evaluations in a row without a gain beyond rounding. After
# half of them the search drops its memory of the curvature.
PATIENCE = 20
# The largest estimate of the remaining gain at a maximum, in nats.
LEFT = 0.01
# A position is accepted if the loss falls by at least this share of the fall that the
# slope predicts (Armijo).
ENOUGH = 1e-4


class MAPState(NamedTuple):
    """Where a start is, and its next step. Losses are in nats."""

    position: Float[Array, " p"]  # the best so far, unconstrained
    loss: Float[Array, ""]  # minus the objective there
    slope: Float[Array, " p"]  # gradient of the loss there
    memory: Memory
    move: Float[Array, " p"]  # direction of the next step
    size: Float[Array, ""]  # its size, one or less
    quiet: Int[Array, ""]  # evaluations in a row without a gain
    num_steps: Int[Array, ""]
    result: Any


class MAP(AbstractIterativeMethod):
    r"""The maximum of the posterior density $p(θ \mid y)$, by L-BFGS.

    The density is that of the sites in constrained space. The search moves in
    unconstrained coordinates. All starts run side by side, and the one with the highest
    density becomes the fit. A start has settled when no coordinate has a slope larger
    than `atol`, or when steps gain nothing beyond rounding and the estimate of the
    remaining gain is less than 0.01 nats.

    Attributes:
        num_starts: the number of starts: uniform on (-2, 2) in unconstrained coordinates,
            or draws of an earlier fit (`start=`).
        max_steps: the largest number of evaluations of the density per start.
        atol: the largest slope at the end, in nats per unconstrained coordinate.
        num_draws: with 0 the fit is a point. Otherwise it has this many draws from the
            Laplace approximation at the maximum, normal in unconstrained coordinates.
            This needs a matrix of (number of unknowns)² numbers.

    Source: Liu & Nocedal (1989), "On the limited memory BFGS method for large scale
    optimization", with a line search that only backtracks.
    """

    num_starts: int = eqx.field(default=8, converter=whole("MAP(num_starts", 1))
    max_steps: int = eqx.field(default=1000, converter=whole("MAP(max_steps", 0))
    atol: float = eqx.field(default=1e-3, converter=positive("MAP(atol"))
    num_draws: int = eqx.field(default=0, converter=whole("MAP(num_draws", 0))

    # The three functions, for one start. A step is one evaluation of the density, also in
    # the line search. The gradient is then compiled once, and no start waits for the line
    # search of another.

    def init(self, model, data, key, start):
        if start is None:
            position = random_position(model, data, key)
        else:
            position = off_the_edge(unconstrain(model, data, start))
        flat, _ = ravel_pytree(position)
        zero, none = jnp.zeros_like(flat), jnp.zeros((), jnp.int32)
        infinite, one = jnp.full((), jnp.inf, flat.dtype), jnp.ones((), flat.dtype)
        return MAPState(
            flat, infinite, zero, empty(flat), zero, one, none, none, RESULTS.no_steps
        )

    def step(self, model, data, state):
        loss_of = partial(_loss, model, data, _unravel(model, data))
        place = state.position + state.size * state.move
        loss, slope = jax.value_and_grad(loss_of)(place)
        finite = jnp.isfinite(loss) & jnp.isfinite(slope).all()
        promised = jnp.vdot(state.slope, state.move)
        noise = rounding(jnp.where(finite, loss, 0.0))
        good = finite & (loss <= state.loss + ENOUGH * state.size * promised + noise)
        first = state.num_steps == 0
        memory = remembered(state.memory, place - state.position, slope - state.slope)
        memory = either(first, state.memory, memory)
        quiet = jnp.where(state.loss - loss > noise, 0, state.quiet + 1)
        taken = MAPState(
            place,
            loss,
            slope,
            memory,
            direction(memory, slope),
            jnp.ones_like(state.size),
            quiet,
            state.num_steps + 1,
            RESULTS.successful,
        )
        # A shorter step along the same direction, or after many of them steepest descent.
        lost = state.quiet == PATIENCE // 2
        forgot = empty(state.position)
        back = state._replace(
            memory=either(lost, forgot, state.memory),
            move=jnp.where(lost, direction(forgot, state.slope), state.move),
            size=jnp.where(lost, 1.0, state.size * _shorter(state, loss, promised)),
            quiet=state.quiet + 1,
            num_steps=state.num_steps + 1,
            result=choose(first, RESULTS.nonfinite, RESULTS.successful),
        )
        return either(good, taken, back)

    def terminate(self, state) -> Bool[Array, ""]:
        begun = state.num_steps > 0
        failed = state.result != RESULTS.successful
        flat = _largest(state.slope) <= self.atol
        return begun & (flat | failed | (state.quiet >= PATIENCE))

    def record(self, state):
        return {"objective": -state.loss}

    # The run as a whole.

    def lanes(self):
        return Lanes(self.num_starts, 1, together=True)

    @property
    def label(self):
        return f"MAP, {self.num_starts} starts"

    @property
    def step_limit(self):
        return self.max_steps

    def finish(self, model, data, end):
        objective = -np.asarray(end.states.loss)
        objective = np.where(np.isfinite(objective), objective, -np.inf)
        best = best_lane(objective)
        state = end.lane(best)
        result, settled = self.outcome(state, state.result)
        facts = facts_of_ends(objective, best) | {
            "objective": float(objective[best]),
            "remaining": float(0.5 * jnp.abs(jnp.vdot(state.slope, state.move))),
            "slope": float(_largest(state.slope)),
            "settled": settled,
        }
        stalled = settled and facts["slope"] > self.atol and facts["remaining"] > LEFT
        if stalled and bool(result == RESULTS.successful):
            result = RESULTS.stalled
        trace = end.trace_of_ends("objective", objective, best)
        sites = _constrained(model, data, state.position)
        if self.num_draws == 0 or bool(result != RESULTS.successful):
            one = repeated(sites, 1)
            return Draws(one, {}, trace, result, facts, approximation=Point(sites))
        normal, curvature, draws = _laplace(self, model, data, sites, end.key)
        facts["least_curvature"] = float(curvature)
        draws = jax.tree.map(lambda a: np.asarray(a)[None], draws)
        return Draws(draws, {}, trace, result, facts, approximation=normal)

    def checks(self, tree, facts):
        checks = [
            check_remaining(facts, facts["objective"], LEFT),
            Check(
                "slope at the optimum",
                facts["slope"],
                "at most",
                100 * self.atol,
                "not an optimum yet: raise `max_steps`, or use float64",
                "nats per unconstrained coordinate",
            ),
            *check_restarts(facts),
        ]
        if "least_curvature" in facts:
            checks.append(check_curvature(facts["least_curvature"]))
        return tuple(checks)


def _unravel(model, data):
    return ravel_pytree(zero_position(model, data))[1]


def _objective(model, data, position: Sites) -> Float[Array, ""]:
    """Log density of sites and data, in nats, at unconstrained coordinates."""
    prior, likelihood = log_densities(model, data, constrain(model, data, position))
    return prior + likelihood


def _loss(model, data, unravel, flat):
    return -_objective(model, data, unravel(flat))


def _shorter(state: MAPState, loss, promised) -> Float[Array, ""]:
    """The factor of a shorter step: to the minimum of a parabola through both losses."""
    rise = loss - state.loss - state.size * promised
    share = -0.5 * state.size * promised / rise
    return jnp.clip(jnp.where(jnp.isfinite(share), share, 0.1), 0.1, 0.5)


def _largest(slope: Float[Array, " p"]) -> Float[Array, ""]:
    return jnp.max(jnp.abs(slope), initial=0.0)


@eqx.filter_jit
def _constrained(model, data, flat) -> Sites:
    return constrain(model, data, _unravel(model, data)(flat))


@eqx.filter_jit
def _laplace(method, model, data, sites, key):
    objective = partial(_objective, model, data)
    normal, curvature = Normal.at(objective, model, data, sites)
    return normal, curvature, normal.sample(model, data, key, method.num_draws)
