"""Type-II maximum likelihood: variances at the maximum of the evidence."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.method import (
    AbstractIterativeMethod,
    Begin,
    Draws,
    Lanes,
    best_lane,
    either,
)
from probkit.method.batches import map_in_batches
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
from probkit.method.keys import two_keys
from probkit.method.programs import jit_for_one_run
from probkit.model.density import Sites
from probkit.models.sbl.coordinates import Vectors
from probkit.models.sbl.exchange import exchanged
from probkit.models.sbl.gibbs import check_draws, drawn, refuse_draws
from probkit.models.sbl.kronecker import KroneckerSBL, scattered
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.prune import Pruned, Worth, as_worth, check_surplus, pruned, surplus
from probkit.models.sbl.updates import (
    GENERAL,
    MONOTONE,
    RULES,
    Evidence,
    Rule,
    Scales,
    bound_sweep,
    is_small,
    moved,
    moved_noise,
    noise_variance,
)
from probkit.validate import positive, short, whole

# At the end of the search the added noise variance is this share of the power of `y`.
FADED = 1e-5


class Squares(NamedTuple):
    """Squares of the sites: the variances that a step moves.

    The couplings are constants of the model. They are not kept here, because the state is
    copied for each restart and written to checkpoints.
    """

    total: Float[Array, ""]  # τ²
    local: Vectors  # λ² of each mode
    noise: Float[Array, ""]  # σ²

    @classmethod
    def of(cls, scales: Scales, noise: Float[Array, ""]) -> "Squares":
        """Normalised: the largest entry of each mode is one."""
        scales = scales.normalised()
        return cls(scales.total, scales.local, noise)

    def scales(self, model: KroneckerSBL, data: Measurements) -> Scales:
        return Scales(self.total, self.local, *model.structure(data))


class TypeIIState(NamedTuple):
    here: Squares
    fallback: Squares  # result of the bound, for when the evidence falls
    searched: Int[Array, ""]  # number of steps, to know when the search ends
    climb: Climb


class TypeII(AbstractIterativeMethod):
    r"""Maximise the evidence $p(y \mid τ, λ, σ)$ of `KroneckerSBL`, without its priors.

    The evidence has many local maxima, which differ in their support. Therefore each
    restart begins with a *search*. A noise variance as large as the power of `y` is added
    to $σ^2$ and falls to nearly zero, while MacKay's fixed point takes large steps. Then
    `update` converges to a local maximum. The first restart starts from equal local
    scales, the others from random ones. All restarts run side by side. Atoms that are not
    worth their price (`prune`) are then taken out of each, and the restart with the largest
    evidence less the price of its atoms becomes the fit. By the evidence alone it would be
    the one that took most noise for signal. With several modes, atoms are then exchanged
    for others while that gains evidence.

    Args:
        update: how a step moves the variances.
            "mm" (default): to the minimum of a bound, so that the evidence never falls.
            "mackay": MacKay's fixed point, often in fewer steps. If a step lowers the
            evidence, a step of the bound replaces it.
            "em": the paper's alternating minimisation. The evidence never falls, but
            convergence is slow.
            "svd": the paper's approximation by singular vectors. The evidence may fall.
            "kl": an approximation by marginal sums. The evidence may fall.
        num_restarts: number of starts. Time and memory grow with it.
        search: number of steps of the search. With 0 there is none.
        spread: log sd of the local scales of the random starts.
        max_steps: the largest number of steps per restart, including the search.
        atol: tolerance on the evidence, in nats. A restart ends when its last gain and the
            estimate of all later gains are below it.
        inner_sweeps: sweeps over the modes per step of "em".
        prune: the evidence, in nats, that an atom must add to stay in the model, with the
            best noise without it. "ebic" (default) is half the log of the number of
            measurements plus the log of the number of atoms of the mode, as in the extended
            Bayesian information criterion. It is needed because at the maximum of the
            evidence about half of the truly zero coefficients keep a small nonzero
            variance, and because among many atoms some fit noise by chance. "bic" leaves
            the second part out. 0 removes only atoms that add no evidence. None removes
            none.
        num_draws: number of draws of the variances in the fit, the first of them the
            optimum. The others are from their posterior around it, with the priors of
            `KroneckerSBL` and with atoms in or out (`models/sbl/gibbs.py`). With 1 there is
            the optimum alone, and intervals are too narrow. Not with coupled modes.

    Raises:
        ValueError: for a setting out of its range. A model with frozen or coupled modes is
            refused for "svd" and "kl" when it is fitted.

    Source: He & Joseph, arXiv 2307.14719 ("em", "svd"); the others are ours.
    """

    update: Rule = "mm"
    num_restarts: int = eqx.field(default=8, converter=whole("TypeII(num_restarts", 1))
    search: int = eqx.field(default=100, converter=whole("TypeII(search", 0))
    spread: float = eqx.field(default=1.0, converter=positive("TypeII(spread"))
    max_steps: int = eqx.field(default=1000, converter=whole("TypeII(max_steps", 0))
    atol: float = eqx.field(default=1e-3, converter=positive("TypeII(atol"))
    inner_sweeps: int = eqx.field(default=1, converter=whole("TypeII(inner_sweeps", 1))
    prune: Worth = eqx.field(default="ebic", converter=as_worth)
    num_draws: int = eqx.field(default=1, converter=whole("TypeII(num_draws", 1))

    def __check_init__(self):
        if self.update not in RULES:
            raise ValueError(
                f"`TypeII(update={short(self.update)})`: it takes one of "
                f"{', '.join(map(repr, RULES))}."
            )

    # The three functions, for one restart.

    def init(self, model, data, key, start):
        if start is None:
            start = model.start(data, key)
        here = Squares.of(model.scales(start, data), model.noise(start, data))
        zero = jnp.zeros((), jnp.int32)
        return TypeIIState(here, here, zero, at_foot(data.y.real.dtype))

    def step(self, model, data, state):
        searching = state.searched < self.search
        faded = FADED ** (state.searched / max(self.search, 1))
        extra = jnp.where(searching, faded * data.power, 0.0)
        scales = state.here.scales(model, data)
        post = posterior(data, scales.variance(), state.here.noise + extra)
        evidence = Evidence.of(post)

        def to(new: Scales, noise) -> Squares:
            # The added noise is not part of the learned noise.
            return Squares.of(new, noise_variance(noise - extra, data))

        def by_bound(bold) -> Squares:
            exponent = jnp.where(bold, 1.0, 0.5)
            new = bound_sweep(scales, evidence, exponent=exponent)
            mm, mackay = moved_noise("mm", post), moved_noise("mackay", post)
            return to(new, jnp.where(bold, mackay, mm))

        if self.update in ("mm", "mackay"):
            there = by_bound(searching | (self.update == "mackay"))
        else:
            new = moved(self.update, scales, evidence, self.inner_sweeps)
            there = either(
                searching, by_bound(True), to(new, moved_noise(self.update, post))
            )
        objective = post.log_evidence()
        may_fall = self.update not in MONOTONE
        # During the search the added noise changes, so steps are not compared.
        slack = post.rounding()
        further = climbed(state.climb, objective, may_fall, slack)
        climb = either(searching, state.climb, further)
        next_state = TypeIIState(there, there, state.searched + 1, climb)
        if self.update != "mackay":
            return next_state
        fell = objective < state.climb.objective - slack
        back = state.climb._replace(num_steps=climb.num_steps)
        return either(
            fell & ~searching,
            TypeIIState(state.fallback, state.fallback, state.searched, back),
            next_state._replace(fallback=by_bound(False)),
        )

    def terminate(self, state):
        return is_done(state.climb, self.atol)

    def record(self, state):
        return {"objective": state.climb.objective}

    # The run as a whole.

    def lanes(self):
        return Lanes(self.num_restarts, 1, together=True)

    @property
    def label(self):
        return f"Type II ({self.update})"

    @property
    def step_limit(self):
        return self.max_steps

    def runs_once(self, model, data):
        return is_small(data, self.num_restarts)

    def begin(self, model, data, key, start):
        key_start, key_run = two_keys(key)
        method = self
        if start is None:
            start = self._starts(model, data, key_start)
        else:  # a search would leave the given start
            method = dataclasses.replace(self, search=0)
        return Begin(method, model, start, key_run, key_end=key_start)

    def finish(self, model, data, end):
        found = jax.device_get(_pruned(self, model, data, end.states.here))
        worth = found.worth
        best = best_lane(worth)
        searched, one = _lane(end.states, best), _lane(found, best)
        one = exchanged(data, one, self.prune, 0.1 * self.atol)
        moved_on = one.climb.num_steps > 0
        climb = one.climb if moved_on else searched.climb
        sites = _sites(model, one.scales, one.noise, data)
        around = (one.scales, one.noise, end.key)
        draws, facts_of_draws = drawn(self, model, data, sites, *around)
        result, settled = self.outcome(searched._replace(climb=climb), climb.result)
        trace = end.trace_of_ends("objective", worth, best)
        # During the search the objective is not the evidence.
        trace["objective"][:, : self.search] = np.nan
        after = trace["objective"][best : best + 1, self.search : end.counts[best]]
        facts = facts_of_ends(worth, best) | {
            "evidence": float(one.climb.objective),
            "surplus": surplus(data, one.scales, float(one.climb.objective), self.prune),
            "remaining": float(climb.remaining),
            "slack": float(max(climb.slack, searched.climb.slack)),
            "largest_fall": largest_fall(after, rounded=False),
            "settled": settled,
        }
        return Draws(draws, {}, trace, result, facts | facts_of_draws)

    def refuse(self, model: Any, data: Any) -> None:
        if not isinstance(model, KroneckerSBL) or not isinstance(data, Measurements):
            raise ValueError(
                f"`sbl.TypeII` fits `sbl.KroneckerSBL` to `sbl.Measurements`, not "
                f"`{type(model).__name__}` to `{type(data).__name__}`."
            )
        if self.update not in GENERAL and (model.frozen or model.coupling):
            raise ValueError(
                f'`TypeII(update="{self.update}")` has no rule for frozen or coupled '
                'modes; use `update="mm"`.'
            )
        refuse_draws(self, model, data)

    def _starts(self, model, data, key) -> Sites:
        log_sds = np.full(self.num_restarts, self.spread, data.y.real.dtype)
        log_sds[0] = 0.0  # the first start is flat
        return _starts(model, data, key, log_sds)

    def checks(self, tree, facts):
        checks = [check_remaining(facts, facts["evidence"], self.atol)]
        if self.update in MONOTONE:
            limit = max(1e-9 * abs(facts["evidence"]), facts.get("slack", 0.0))
            checks.append(check_fall(facts, "evidence", limit, note="nats"))
        return (
            *checks,
            *check_surplus(facts),
            *check_restarts(facts),
            *check_draws(facts),
        )


def _lane(tree, best: int):
    return jax.tree.map(lambda a: np.asarray(a[best]), tree)


@jit_for_one_run
def _sites(model: KroneckerSBL, scales: Scales, noise, data: Measurements) -> Sites:
    return model.sites(scales, noise, data)


@jit_for_one_run
def _starts(model: KroneckerSBL, data: Measurements, key, log_sds) -> Sites:
    flat = model.flat_start(data)
    if len(log_sds) == 1:  # drawing normals is slow to compile
        return jax.tree.map(lambda a: a[None], flat)
    keys = jax.random.split(key, len(log_sds))
    return jax.vmap(lambda key, sd: scattered(flat, key, sd))(keys, log_sds)


@partial(
    jit_for_one_run,
    is_short=lambda method, model, data, squares: method.runs_once(model, data),
)
def _pruned(
    method: TypeII, model: KroneckerSBL, data: Measurements, squares: Squares
) -> Pruned:
    """Each restart's end, without the atoms that are not worth their price."""

    def one(squares):
        scales = squares.scales(model, data)
        return pruned(data, scales, squares.noise, method.prune, 0.1 * method.atol)

    return map_in_batches(one, squares)
