"""Expectation maximisation from many starts, with a Laplace approximation."""

import math
from functools import partial
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from probkit.infer.laplace import Normal, check_curvature
from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    Point,
    best_lane,
    repeated,
)
from probkit.method.batches import on_cpu
from probkit.method.climb import (
    Climb,
    at_foot,
    check_fall,
    check_remaining,
    check_restarts,
    climbed,
    facts_of_ends,
    is_done,
    largest_fall,
)
from probkit.method.leaps import QUIET, Leap, dropped, leapt, no_leap
from probkit.model import AbstractEMModel
from probkit.model.check import Check
from probkit.model.density import (
    Sites,
    constrain,
    log_densities,
    log_likelihood,
    unconstrain,
)
from probkit.validate import positive, whole

Maximise = Literal["posterior", "likelihood"]


# A search for starts looks at so many observations, drawn at random, if there are more.
SEARCHED = 4000
# Each climb of a search ends when a step gains less than this, in nats: enough to tell
# which optimum it is at.
ROUGH = 1e-2
# Climbs that go on for longer than so many steps are seldom to the best optimum.
LONG = 200
# A fall by less than this share of `atol` is rounding: an input far from zero costs digits.
SLACK = 0.1


class EMState(NamedTuple):
    """The sites of a restart, and its progress.

    Attributes:
        sites: where its last step ended.
        leap: where the next one begins.
        climb: the objective where the last one began.
    """

    sites: Sites
    leap: Leap
    climb: Climb


class EM(AbstractIterativeMethod):
    r"""Maximise the posterior density, or the likelihood, by E- and M-steps.

    Each restart searches first: it climbs from a random start, and then `num_moves` times
    from where it is best, changed at random by the model (`moved`), such as with one expert
    less where there are two and one more where there was one. A move that leads higher is
    kept. Searches look at 4,000 observations at most. From where they end, all restarts
    climb on, on all data. Steps of EM in one direction are followed by leaps along it
    (`leaps`); the objective never falls.

    The restart with the highest objective becomes the fit, and `pk.diagnose` reports how
    many others reached it. A restart has settled when its last gains and Aitken's estimate
    of all gains to come are below `atol`. The last gain alone is not enough, because EM
    takes small steps near a saddle and in overlapping mixtures.

    The model derives from `AbstractEMModel`.

    Attributes:
        num_restarts: the number of starts: random, or draws of an earlier fit (`start=`).
        max_steps: the largest number of steps per restart, after its search.
        atol: tolerance on the objective, in nats.
        maximise: "posterior" (with the priors) or "likelihood" (without them).
        num_draws: with 0 the fit is a point. Otherwise it has this many draws from the
            Laplace approximation at the optimum, normal in unconstrained coordinates.
        num_moves: the number of moves of a search. A run with `start=`, and a model that
            knows no moves, have none.

    Source: Dempster, Laird & Rubin (1977), "Maximum likelihood from incomplete data via
    the EM algorithm".
    """

    num_restarts: int = eqx.field(default=16, converter=whole("EM(num_restarts", 1))
    max_steps: int = eqx.field(default=5000, converter=whole("EM(max_steps", 0))
    atol: float = eqx.field(default=1e-6, converter=positive("EM(atol"))
    maximise: Maximise = "posterior"
    num_draws: int = eqx.field(default=0, converter=whole("EM(num_draws", 0))
    num_moves: int = eqx.field(default=12, converter=whole("EM(num_moves", 0))

    def __check_init__(self):
        if self.maximise not in ("posterior", "likelihood"):
            raise ValueError(
                f'`EM(maximise={self.maximise!r})` must be "posterior" or "likelihood".'
            )

    # The three functions, for one restart.

    def init(self, model, data, key, start):
        sites = self._searched(model, data, key) if start is None else start
        return self._at(model, data, sites)

    def _at(self, model, data, sites: Sites) -> EMState:
        x = _coordinates(model, data, sites)
        return EMState(sites, no_leap(x), at_foot(x.dtype))

    def step(self, model, data, state):
        x, use_prior = state.leap.at, self.maximise == "posterior"
        at = _sites_at(model, data, x, state.sites)
        moments, objective = model.e_step(at, data)
        if use_prior:
            objective = objective + log_densities(model, data, at)[0]
        sites = model.m_step(moments, at, data, use_prior)
        climb = climbed(state.climb, objective, slack=jnp.asarray(SLACK * self.atol))
        small = is_done(climb, self.atol)
        leap = leapt(state.leap, _coordinates(model, data, sites), climb.gain, small)
        after = EMState(sites, leap, climb)
        fell = state.leap.ahead & ~(objective >= state.climb.objective)
        steps = climb.num_steps
        back = EMState(
            state.sites, dropped(state.leap), state.climb._replace(num_steps=steps)
        )
        return jax.tree.map(lambda a, b: jnp.where(fell, a, b), back, after)

    def terminate(self, state) -> Bool[Array, ""]:
        failed = (state.climb.result != RESULTS.successful) & (state.climb.num_steps > 0)
        return (state.leap.quiet >= QUIET) | failed

    def record(self, state):
        return {"objective": state.climb.objective}

    def _searched(self, model, data, key) -> Sites:
        """Where one search ends."""
        key_start, key_rows, key_moves = jax.random.split(key, 3)
        shapes = jax.eval_shape(model.start, data, key_start)
        moves = jax.eval_shape(model.moved, shapes, data, key_moves) is not None
        if not moves or self.num_moves == 0:
            return model.start(data, key_start)
        if len(data) > SEARCHED:
            data = data.take(jax.random.randint(key_rows, (SEARCHED,), 0, len(data)))

        def going(state):
            rough = (state.climb.gain <= ROUGH) & (state.climb.num_steps > 3)
            long = state.climb.num_steps >= LONG
            return ~(rough | long | self.terminate(state))

        def rank(state):
            degenerate = model.degenerate(state.sites, data)
            return jnp.where(degenerate, -jnp.inf, state.climb.objective)

        def move(best: EMState, turn) -> tuple[EMState, None]:
            key, first = turn
            # The first climb is that from the start, so that one loop is compiled for all.
            moved = model.moved(best.sites, data, key)
            sites = jax.tree.map(partial(jnp.where, first), best.sites, moved)
            step = partial(self.step, model, data)
            state = jax.lax.while_loop(going, step, self._at(model, data, sites))
            better = first | (rank(state) > rank(best))
            return jax.tree.map(partial(jnp.where, better), state, best), None

        turns = jax.random.split(key_moves, self.num_moves + 1)
        first = jnp.arange(len(turns)) == 0
        begin = self._at(model, data, model.start(data, key_start))
        return jax.lax.scan(move, begin, (turns, first))[0].sites

    # The run as a whole.

    def lanes(self):
        # On a CPU one after the other, so that those that are done cost nothing.
        return Lanes(self.num_restarts, 1, together=not on_cpu())

    @property
    def label(self):
        return f"EM, {self.num_restarts} restarts"

    @property
    def step_limit(self):
        return self.max_steps

    def refuse(self, model, data):
        if not isinstance(model, AbstractEMModel):
            raise ValueError(
                f"`{type(model).__name__}` has no E-step and M-step; "
                "fit it with `pk.MAP()`, `pk.NUTS()` or `pk.SVI()`."
            )

    def finish(self, model, data, end):
        ended = jax.device_get(_ended(self, model, data, end.states))
        objective = ended["objective"]
        objective = np.where(np.isnan(objective), -np.inf, objective)
        best = best_lane(objective, ended["degenerate"])
        state = end.lane(best)
        result, settled = self.outcome(state, state.climb.result)
        facts = facts_of_ends(objective, best) | {
            "objective": float(objective[best]),
            "largest_fall": largest_fall(end.trace["objective"]),
            "remaining": float(state.climb.remaining),
            "degenerate": bool(ended["degenerate"][best]),
            "gradient": float(ended["gradient"][best]),
            "settled": settled,
        }
        trace = end.trace_of_ends("objective", objective, best)
        if self.num_draws == 0 or bool(result != RESULTS.successful):
            one, point = repeated(state.sites, 1), Point(state.sites)
            return Draws(one, {}, trace, result, facts, approximation=point)
        normal, curvature, draws = _laplace(self, model, data, state.sites, end.key)
        facts["least_curvature"] = float(curvature)
        draws = jax.tree.map(lambda a: np.asarray(a)[None], draws)
        return Draws(draws, {}, trace, result, facts, approximation=normal)

    def checks(self, tree, facts):
        checks = [
            check_fall(facts, limit=SLACK * self.atol),
            check_remaining(facts, facts["objective"], self.atol),
            Check(
                "gradient at the optimum",
                facts["gradient"],
                "at most",
                0.05,
                "not an optimum yet: lower `atol`, or use float64",
                "over the root of the number of observations: about the distance to the "
                "optimum, in posterior sds",
            ),
            Check(
                "degenerate optimum",
                float(facts["degenerate"]),
                "at most",
                0,
                'the likelihood has no maximum here: use `maximise="posterior"`, or a '
                "smaller model",
            ),
            *check_restarts(facts),
        ]
        if "least_curvature" in facts:
            checks.append(check_curvature(facts["least_curvature"]))
        return tuple(checks)


def _objective(method, model, data, position):
    """The objective of EM, as a function of unconstrained coordinates.

    Without the Jacobian of the change of variables, so that its maximum is that of EM.
    """
    sites = constrain(model, data, position)
    prior, likelihood = log_densities(model, data, sites)
    return likelihood + prior if method.maximise == "posterior" else likelihood


def _num_observed(model, data, sites) -> int:
    shapes = jax.eval_shape(lambda: log_likelihood(model, data, sites))
    return max(1, sum(math.prod(a.shape) for a in jax.tree.leaves(shapes)))


def _coordinates(model, data, sites) -> Float[Array, " c"]:
    return ravel_pytree(unconstrain(model, data, sites))[0]


def _sites_at(model, data, x: Float[Array, " c"], like: Sites) -> Sites:
    """The sites at unconstrained coordinates; `like` has their shapes."""
    position = unconstrain(model, data, like)
    found = constrain(model, data, ravel_pytree(position)[1](x))
    return {name: found[name] for name in like}


@eqx.filter_jit
def _ended(method, model, data, states):
    """The objective, its gradient and degeneracy at the last sites of each restart."""

    def one(sites):
        position = unconstrain(model, data, sites)
        objective = partial(_objective, method, model, data)
        value, gradient = jax.value_and_grad(objective)(position)
        flat, _ = ravel_pytree(gradient)
        size = jnp.max(jnp.abs(flat), initial=0.0)
        return {
            "objective": value,
            "gradient": size / math.sqrt(_num_observed(model, data, sites)),
            "degenerate": jnp.asarray(model.degenerate(sites, data)),
        }

    return jax.vmap(one)(states.sites)


@eqx.filter_jit
def _laplace(method, model, data, sites, key):
    objective = partial(_objective, method, model, data)
    normal, curvature = Normal.at(objective, model, data, sites)
    return normal, curvature, normal.sample(model, data, key, method.num_draws)
