"""Expectation maximisation from many starts, with a Laplace approximation."""

import math
from functools import partial
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool

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


class EMState(NamedTuple):
    """The sites of a restart, and its progress."""

    sites: Sites
    climb: Climb


class EM(AbstractIterativeMethod):
    r"""Maximise the posterior density, or the likelihood, by E- and M-steps.

    All restarts run side by side. The one with the highest objective becomes the fit, and
    `pk.diagnose` reports how many others reached it. A restart has settled when its last
    gain and Aitken's estimate of all gains to come are below `atol`. The last gain alone
    is not enough, because EM takes small steps near a saddle and in overlapping mixtures.

    The model derives from `AbstractEMModel`.

    Attributes:
        num_restarts: the number of starts: random, or draws of an earlier fit (`start=`).
        max_steps: the largest number of steps per restart.
        atol: tolerance on the objective, in nats.
        maximise: "posterior" (with the priors) or "likelihood" (without them).
        num_draws: with 0 the fit is a point. Otherwise it has this many draws from the
            Laplace approximation at the optimum, normal in unconstrained coordinates.

    Source: Dempster, Laird & Rubin (1977), "Maximum likelihood from incomplete data via
    the EM algorithm".
    """

    num_restarts: int = eqx.field(default=16, converter=whole("EM(num_restarts", 1))
    max_steps: int = eqx.field(default=5000, converter=whole("EM(max_steps", 0))
    atol: float = eqx.field(default=1e-6, converter=positive("EM(atol"))
    maximise: Maximise = "posterior"
    num_draws: int = eqx.field(default=0, converter=whole("EM(num_draws", 0))

    def __check_init__(self):
        if self.maximise not in ("posterior", "likelihood"):
            raise ValueError(
                f'`EM(maximise={self.maximise!r})` must be "posterior" or "likelihood".'
            )

    # The three functions, for one restart.

    def init(self, model, data, key, start):
        sites = model.start(data, key) if start is None else start
        return EMState(sites, at_foot(jnp.result_type(*jax.tree.leaves(sites))))

    def step(self, model, data, state):
        moments, objective = model.e_step(state.sites, data)
        if self.maximise == "posterior":
            objective = objective + log_densities(model, data, state.sites)[0]
        use_prior = self.maximise == "posterior"
        sites = model.m_step(moments, state.sites, data, use_prior)
        return EMState(sites, climbed(state.climb, objective))

    def terminate(self, state) -> Bool[Array, ""]:
        return is_done(state.climb, self.atol)

    def record(self, state):
        return {"objective": state.climb.objective}

    # The run as a whole.

    def lanes(self):
        return Lanes(self.num_restarts, 1, together=True)

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
            check_fall(facts),
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
