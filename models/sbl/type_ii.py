"""Type-II maximum likelihood: hyperparameters at the maximum of the evidence."""

import dataclasses
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
    rounding,
)
from probkit.model.density import Sites
from probkit.models.sbl.kronecker import KroneckerSBL, scattered
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import Vectors, posterior
from probkit.models.sbl.prune import Worth, as_worth, nats, pruned
from probkit.models.sbl.updates import (
    GENERAL,
    MONOTONE,
    RULES,
    Evidence,
    Rule,
    Scales,
    bound_sweep,
    either,
    moved,
    moved_noise,
    noise_variance,
)
from probkit.validate import positive, short, whole

# By the end of a search the added noise has fallen to this share of the data's power.
FADED = 1e-5


class Squares(NamedTuple):
    """Squares of the sites, which a step moves; couplings stay with the model."""

    total: Float[Array, ""]
    local: Vectors
    noise: Float[Array, ""]

    @classmethod
    def of(cls, scales: Scales, noise: Float[Array, ""]) -> "Squares":
        """In normal form: the largest entry of each mode is one."""
        scales = scales.normalised()
        return cls(scales.total, scales.local, noise)

    def scales(self, model: KroneckerSBL, data: Measurements) -> Scales:
        return Scales(self.total, self.local, *model.structure(data))


class TypeIIState(NamedTuple):
    here: Squares
    fallback: Squares  # where the bound would have gone, should the last step have failed
    searched: Int[Array, ""]  # steps of the search that were taken
    climb: Climb


class TypeII(AbstractIterativeMethod):
    r"""Maximise the evidence $p(y \mid τ, λ, σ)$ of `KroneckerSBL`, without its priors.

    The evidence has many maxima, a support each. So each restart first *searches*: noise
    of the power of the data is added to $σ^2$ and fades away, while MacKay's fixed point
    takes large steps. Then it *climbs* to the nearest maximum by `update`. The first
    restart begins flat, at the scale of the data, the others at random; the best evidence
    becomes the fit. All go side by side.

    Attributes:
        update: how a step moves the variances.
            "mm": the minimum of a bound; the evidence never falls (default).
            "mackay": the fixed point of MacKay, often in fewer steps; a step that lowers
            the evidence is taken back and done by the bound.
            "em": the paper's alternating minimisation. Monotone, and slow.
            "svd": the paper's approximation by singular vectors.
            "kl": the same by marginal sums. With these two the evidence may fall.
        num_restarts: how many starts. Time and memory grow with it.
        search: steps of the search; 0 to climb at once.
        spread: log sd of the local variances of the random starts.
        max_steps: the most steps that a restart takes, its search among them.
        atol: tolerance on the evidence, in nats, of the last gain and of all to come.
        inner_sweeps: sweeps over the modes in a step of "em".
        prune: how much evidence, in nats, an atom must be worth to stay when all has
            settled. "bic": half the log of the number of measurements, what the Bayesian
            information criterion charges for a parameter. At its maximum the evidence
            keeps about half of the atoms that are not there, each with a little of the
            noise. 0 takes out only what the evidence does not miss, None nothing. What is
            left settles once more, by the bound.
        num_draws: how many times the optimum is repeated, for `recover` and `predict` to
            draw coefficients at it.

    Source: He & Joseph, arXiv 2307.14719 ("em", "svd"); the others are ours.
    """

    update: Rule = "mm"
    num_restarts: int = eqx.field(default=8, converter=whole("TypeII(num_restarts", 1))
    search: int = eqx.field(default=100, converter=whole("TypeII(search", 0))
    spread: float = eqx.field(default=1.0, converter=positive("TypeII(spread"))
    max_steps: int = eqx.field(default=1000, converter=whole("TypeII(max_steps", 0))
    atol: float = eqx.field(default=1e-3, converter=positive("TypeII(atol"))
    inner_sweeps: int = eqx.field(default=1, converter=whole("TypeII(inner_sweeps", 1))
    prune: Worth = eqx.field(default="bic", converter=as_worth)
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
            # What was added is not part of what is learned.
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
        # While it searches there is no evidence to speak of.
        climb = either(searching, state.climb, climbed(state.climb, objective, may_fall))
        next_state = TypeIIState(there, there, state.searched + 1, climb)
        if self.update != "mackay":
            return next_state
        fell = objective < state.climb.objective - rounding(objective)
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

    def begin(self, model, data, key, start):
        self._refuse(model, data)
        key_start, key_run = jax.random.split(key)
        method = self
        if start is None:
            start = self._starts(model, data, key_start)
        else:  # a search would lose it
            method = dataclasses.replace(self, search=0)
        return Begin(method, model, start, key_run, key_end=key_start)

    def finish(self, model, data, end):
        final = np.array(_evidence(model, data, end.states.here))
        best = best_lane(final)
        chosen = end.lane(best)
        scales, noise = chosen.here.scales(model, data), chosen.here.noise
        evidence = final[best]
        if self.prune is not None:
            worth = jnp.asarray(nats(self.prune, data))
            tolerance = jnp.asarray(0.1 * self.atol)
            scales, noise, evidence = pruned(data, scales, noise, worth, tolerance)
        sites = model.sites(scales, noise, data)
        result, settled = self.outcome(chosen, chosen.climb.result)
        trace = end.trace_of_ends("objective", final, best)
        # While it searches there is no evidence to speak of.
        trace["objective"][:, : self.search] = np.nan
        after = trace["objective"][best : best + 1, self.search : end.counts[best]]
        facts = facts_of_ends(final, best) | {
            "evidence": float(evidence),
            "remaining": float(chosen.climb.remaining),
            "largest_fall": largest_fall(after, rounded=False),
            "settled": settled,
        }
        return Draws(repeated(sites, self.num_draws), {}, trace, result, facts)

    def _refuse(self, model: Any, data: Any) -> None:
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

    def _starts(self, model, data, key) -> Sites:
        log_sds = np.full(self.num_restarts, self.spread, data.y.real.dtype)
        log_sds[0] = 0.0  # the first start is flat
        return _starts(model, data, jax.random.split(key, len(log_sds)), log_sds)

    def checks(self, tree, facts):
        checks = [check_remaining(facts, facts["evidence"], self.atol)]
        if self.update in MONOTONE:
            limit = 1e-9 * abs(facts["evidence"])
            checks.append(check_fall(facts, "evidence", limit, note="nats"))
        return (*checks, *check_restarts(facts))


@eqx.filter_jit
def _starts(model: KroneckerSBL, data: Measurements, keys, log_sds) -> Sites:
    flat = model.flat_start(data)
    if len(log_sds) == 1:  # drawing normals is slow to compile
        return jax.tree.map(lambda a: a[None], flat)
    return jax.vmap(lambda key, sd: scattered(flat, key, sd))(keys, log_sds)


@eqx.filter_jit
def _evidence(model: KroneckerSBL, data: Measurements, squares: Squares):
    def of_one(squares):
        variance = squares.scales(model, data).variance()
        return posterior(data, variance, squares.noise).log_evidence()

    return jax.vmap(of_one)(squares)
