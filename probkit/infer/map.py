"""A maximum of the posterior density of any program, by L-BFGS from many starts."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from probkit.infer.laplace import check_curvature, laplace
from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    best_lane,
    choose,
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
)
from probkit.validate import positive, whole

# Steps in a row that gain no more than rounding, after which nothing more will be gained.
PATIENCE = 5


class MAPState(NamedTuple):
    position: Float[Array, " p"]  # unconstrained
    search: Any  # the state of L-BFGS
    objective: Float[Array, ""]  # at the position
    slope: Float[Array, ""]  # the largest of a coordinate there
    remaining: Float[Array, ""]  # what is still to be gained, estimated
    quiet: Int[Array, ""]  # steps in a row without a gain
    num_steps: Int[Array, ""]
    result: Any


class MAP(AbstractIterativeMethod):
    r"""The maximum of the posterior density $p(θ \mid y)$, by L-BFGS.

    The density is that of the sites as the program has them; the search moves in
    unconstrained coordinates. All starts run side by side; the best becomes the fit. A
    start has settled when no coordinate has a slope of more than `atol`, or when what is
    still to be gained is lost in rounding.

    Attributes:
        num_starts: how many starts. Each begins uniform on (-2, 2) in unconstrained
            coordinates, or at a draw of an earlier fit (`start=`).
        max_steps: the most steps of a start.
        atol: the largest slope at the end, in nats per unconstrained coordinate.
        num_draws: with 0 the fit is a point; otherwise so many draws from the Laplace
            approximation at the maximum, normal in unconstrained coordinates. It takes a
            matrix of (number of unknowns)² numbers.

    Source: Liu & Nocedal (1989), "On the limited memory BFGS method for large scale
    optimization"; the search is that of optax.
    """

    num_starts: int = eqx.field(default=8, converter=whole("MAP(num_starts", 1))
    max_steps: int = eqx.field(default=1000, converter=whole("MAP(max_steps", 0))
    atol: float = eqx.field(default=1e-3, converter=positive("MAP(atol"))
    num_draws: int = eqx.field(default=0, converter=whole("MAP(num_draws", 0))

    # The three functions, for one start.

    def init(self, model, data, key, start):
        if start is None:
            position = random_position(model, data, key)
        else:
            position = off_the_edge(unconstrain(model, data, start))
        flat, unravel = ravel_pytree(position)
        loss = partial(_loss, model, data, unravel)
        value, slope = jax.value_and_grad(loss)(flat)
        search = _primed(optax.lbfgs().init(flat), value, slope)
        infinite = jnp.full((), jnp.inf, value.dtype)
        none = jnp.zeros((), jnp.int32)
        largest = jnp.max(jnp.abs(slope), initial=0.0)
        return MAPState(
            flat, search, -value, largest, infinite, none, none, RESULTS.no_steps
        )

    def step(self, model, data, state):
        loss = partial(_loss, model, data, _unravel(model, data))
        value, slope = optax.value_and_grad_from_state(loss)(
            state.position, state=state.search
        )
        move, search = optax.lbfgs().update(
            slope, state.search, state.position, value=value, grad=slope, value_fn=loss
        )
        get = optax.tree_utils.tree_get
        objective, size = -get(search, "value"), get(search, "learning_rate")
        gain = objective - state.objective
        # Along the direction of the search, of which the step took a share.
        whole = jnp.where(size > 0, -jnp.vdot(slope, move) / size, jnp.inf)
        still = gain <= rounding(objective)
        finite = jnp.isfinite(objective)
        return MAPState(
            optax.apply_updates(state.position, move),
            search,
            objective,
            slope=jnp.max(jnp.abs(get(search, "grad")), initial=0.0),
            remaining=0.5 * jnp.abs(whole),
            quiet=jnp.where(still, state.quiet + 1, 0),
            num_steps=state.num_steps + 1,
            result=choose(finite, RESULTS.successful, RESULTS.nonfinite),
        )

    def terminate(self, state) -> Bool[Array, ""]:
        failed = (state.result != RESULTS.successful) & (state.num_steps > 0)
        return (state.slope <= self.atol) | (state.quiet >= PATIENCE) | failed

    def record(self, state):
        return {"objective": state.objective}

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
        objective = np.asarray(end.states.objective)
        objective = np.where(np.isfinite(objective), objective, -np.inf)
        best = best_lane(objective)
        state = end.lane(best)
        result, settled = self.outcome(state, state.result)
        lost = state.remaining <= PATIENCE * rounding(state.objective)
        stalled = settled & bool((state.slope > self.atol) & ~lost)
        result = choose(stalled & (result == RESULTS.successful), RESULTS.stalled, result)
        facts = facts_of_ends(objective, best) | {
            "objective": float(objective[best]),
            "remaining": float(state.remaining),
            "slope": float(state.slope),
            "settled": settled,
        }
        trace = end.trace_of_ends("objective", objective, best)
        sites = _constrained(model, data, state.position)
        if self.num_draws == 0 or bool(result != RESULTS.successful):
            return Draws(repeated(sites, 1), {}, trace, result, facts)
        draws, curvature = _laplace(self, model, data, sites, end.key)
        facts["least_curvature"] = float(curvature)
        draws = jax.tree.map(lambda a: np.asarray(a)[None], draws)
        return Draws(draws, {}, trace, result, facts)

    def checks(self, tree, facts):
        checks = [
            check_remaining(facts, facts["objective"], 0.01),
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
    # Any key serves: only shapes are looked at.
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: random_position(model, data, key))
    return ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes))[1]


def _objective(model, data, position: Sites) -> Float[Array, ""]:
    """Log density of the sites and the data, at unconstrained coordinates."""
    prior, likelihood = log_densities(model, data, constrain(model, data, position))
    return prior + likelihood


def _loss(model, data, unravel, flat):
    return -_objective(model, data, unravel(flat))


def _primed(search, value, slope):
    """The first state of L-BFGS, with the value and slope of its start."""
    return optax.tree_utils.tree_set(search, value=value, grad=slope)


@eqx.filter_jit
def _constrained(model, data, flat) -> Sites:
    return constrain(model, data, _unravel(model, data)(flat))


@eqx.filter_jit
def _laplace(method, model, data, sites, key):
    objective = partial(_objective, model, data)
    return laplace(objective, model, data, sites, method.num_draws, key)
