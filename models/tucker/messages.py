r"""Message passing: coordinate ascent on the evidence lower bound.

The posterior is approximated by a product of one Gaussian per mode, over all of its points,
and of those of the core, the level and the noise. A sweep sets each of them to its best
given the others. Parameters of the kernels and scales are moved together with the functions
of their mode, which are integrated out: as long as the terms of the other modes are fixed,
the bound is the evidence of these terms and a constant. No part of a sweep lowers it.

Source: Fang et al. (2024), arXiv 2311.04829, whose undamped "conditional expectation
propagation" this is for normal observations; the bound and all learning by it are ours.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from probkit.gp.state_space import Sites as Terms
from probkit.gp.state_space import Smoothed
from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    best_lane,
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
from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.tucker.ascent import Ascent, ascended
from probkit.models.tucker.earlier import expected_before, moved, prior_of
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.gibbs import chain
from probkit.models.tucker.model import AbstractTucker, Tucker
from probkit.models.tucker.parameters import all_names, centres, coordinates
from probkit.models.tucker.posterior import (
    Factor,
    Posterior,
    core_given,
    core_prior,
    level_given,
    level_prior,
    loaded,
    loads,
    local_at,
    messages,
    noise_prior,
    shifted,
    standardised,
    surface_at,
)
from probkit.models.tucker.starts import KIND, at_entries, chosen, kinds, started
from probkit.validate import positive, short, whole

# Sweeps of a start, more or less, to decide how its program is compiled.
USUAL_STEPS = 50
GIBBS, APPROXIMATION = "gibbs", "approximation"
HOW_DRAWN = (GIBBS, APPROXIMATION)
# With fewer effective draws the ends of intervals are too uncertain.
LEAST_EFFECTIVE = 20
# Of the two halves of so few effective draws.
LARGEST_RHAT = 1.1


class MessageState(NamedTuple):
    posterior: Posterior
    ascents: tuple[Ascent, ...]
    climb: Climb


class AbstractMessagePassing(AbstractIterativeMethod):
    """What sweeps and steps on batches share: starts as lanes, and where they may begin.

    Attributes:
        num_starts: the number of starts.
        max_steps: the largest number of steps per start.
    """

    num_starts: eqx.AbstractVar[int]
    max_steps: eqx.AbstractVar[int]

    def lanes(self):
        return Lanes(self.num_starts, 1, together=False)

    @property
    def step_limit(self):
        return self.max_steps

    def refuse(self, model: Any, data: Any) -> None:
        if not isinstance(model, AbstractTucker):
            raise ValueError(
                f"`tucker.{type(self).__name__}` fits `tucker.CP` and `tucker.Tucker`, "
                f"not `{type(model).__name__}`."
            )
        model.refuse(data)

    def starts_at(self, approximation, model, data):
        return isinstance(approximation, Posterior) and approximation.fits(model, data)

    def moved(self, approximation, model, earlier, data):
        return moved(model, earlier, data, approximation)


class MessagePassing(AbstractMessagePassing):
    """Fit `CP` or `Tucker` by coordinate ascent on the evidence lower bound (ELBO).

    Attributes:
        num_starts: the number of starts: by least squares the first and every other one
            after it, and the rest at random. The one with the highest ELBO becomes the fit.
        max_steps: the largest number of sweeps per start.
        atol: tolerance on the ELBO, in nats. A start ends when its last gain and the
            estimate of all later gains are below it.
        learn: whether kernels and scales are learned. If not, they stay as in `start`, or
            at the centre of their priors.
        warm: the number of sweeps before they are.
        draws: "gibbs" (default) for draws of the exact posterior, parameters included, by
            Gibbs sampling from where the best start ended; or "approximation" for draws of
            the approximate posterior, whose intervals are too narrow, because it takes the
            other modes for known. `Bernoulli` and `Poisson` have the latter only.
        num_draws: the number of draws in the fit.
        num_warmup: the number of sweeps of Gibbs sampling before these.
    """

    num_starts: int = eqx.field(default=4, converter=whole("MessagePassing(num_starts", 1))
    max_steps: int = eqx.field(default=500, converter=whole("MessagePassing(max_steps", 0))
    atol: float = eqx.field(default=0.1, converter=positive("MessagePassing(atol"))
    learn: bool = True
    warm: int = eqx.field(default=5, converter=whole("MessagePassing(warm", 0))
    draws: str = GIBBS
    num_draws: int = eqx.field(default=200, converter=whole("MessagePassing(num_draws", 1))
    num_warmup: int = eqx.field(
        default=100, converter=whole("MessagePassing(num_warmup", 0)
    )

    def __check_init__(self):
        if self.draws not in HOW_DRAWN:
            raise ValueError(
                f"`MessagePassing(draws={short(self.draws)})`: it takes one of "
                f"{', '.join(map(repr, HOW_DRAWN))}."
            )

    def prior_of(self, approximation, model, earlier, data):
        if not isinstance(approximation, Posterior):
            return super().prior_of(approximation, model, earlier, data)
        if not isinstance(data, Entries):
            model.refuse(data)
        return prior_of(model, earlier, data, approximation)

    def begin(self, model, data, key, start):
        start = kinds(self.num_starts) if start is None else start
        begun = super().begin(model, data, key, start)
        if not isinstance(start, Posterior):
            return begun
        # All starts would be the same.
        method, one = replace(self, num_starts=1), jax.tree.map(lambda a: a[:1], start)
        if start.before is not None:
            # What was known before holds for the scales of then: those of `CP` belong to
            # all modes, and the terms of two modes would move them apart.
            method = replace(method, learn=False, warm=0)
        return begun._replace(method=method, start=one)

    # The three functions, for one start.

    def init(self, model, data, key, start):
        return MessageState(*begun_at(model, data, key, start), at_foot(data.dtype))

    def step(self, model, data, state):
        post, ascents = state.posterior, list(state.ascents)
        moves = self.learn & (state.climb.num_steps >= self.warm)
        for k in range(len(data.axes)):
            terms = messages(model, data, post, k)
            if self.learn:
                post, ascents[k] = learned(model, data, post, terms, ascents[k], k, moves)
            else:
                post = with_factor(model, data, post, terms, k)
        if isinstance(model, Tucker):
            post = replace(post, core=core_given(model, data, post))
        mean, second = surface_at(model, data, post, data.places)
        level = level_given(model, post, mean)
        mean, second = shifted(post, level, mean, second)
        y, counts = standardised(model, data), jnp.ones(len(data), data.dtype)
        noise = model.observation.noise(
            y, mean, second, counts, post.noise, noise_prior(post)
        )
        local = local_at(model, data, mean, second, noise)
        post = replace(
            post, level=level, noise=noise, weight=local.weight, shift=local.shift
        )
        bound = elbo(model, data, post, local.bound.sum())
        climb = climbed(state.climb, bound, may_fall=not model.observation.exact)
        return MessageState(post, tuple(ascents), climb)

    def terminate(self, state):
        early = state.climb.num_steps < self.warm + 3
        failed = (state.climb.result != RESULTS.successful) & (state.climb.num_steps > 0)
        return is_done(state.climb, self.atol) & (~early | failed)

    def record(self, state):
        return {"objective": state.climb.objective}

    # The run as a whole.

    def runs_once(self, model, data):
        return data.is_short(self.num_starts * USUAL_STEPS)

    @property
    def label(self):
        return f"Message passing, {self.num_starts} starts"

    def finish(self, model, data, end):
        final = np.asarray(end.states.climb.objective)
        best = best_lane(final)
        state = end.lane(best)
        result, settled = self.outcome(state, state.climb.result)
        sites, facts_of_draws = drawn(
            self, model, data, state.posterior, state.ascents, end.key
        )
        # Its terms hold already what was known before.
        post = replace(state.posterior, before=None)
        trace = end.trace_of_ends("objective", final, best)
        facts = facts_of_ends(final, best) | {
            "elbo": float(state.climb.objective),
            "remaining": float(state.climb.remaining),
            "slack": float(state.climb.slack),
            "largest_fall": largest_fall(trace["objective"], rounded=False),
            "settled": settled,
        }
        facts = facts | facts_of_draws
        return Draws(sites, {}, trace, result, facts, approximation=post)

    def checks(self, tree, facts):
        limit = max(1e-9 * abs(facts["elbo"]), facts["slack"])
        return (
            check_remaining(facts, facts["elbo"], self.atol),
            check_fall(facts, "ELBO", limit, note="nats"),
            *check_restarts(facts),
            *check_draws(facts),
        )


def begun_at(
    model: AbstractTucker, data: Entries, key: Any, start: Any
) -> tuple[Posterior, tuple[Ascent, ...]]:
    """The posterior before the first sweep, and what its search remembers."""
    if isinstance(start, Posterior):
        post = at_entries(model, data, start)
    elif start is not None and KIND in start:
        post = chosen(model, data, start, key)
    else:
        names = all_names(model, data)
        given = None if start is None else {name: start[name] for name in names}
        sites = centres(model, data) if given is None else given
        post = started(model, data, sites, key)
    zs = (coordinates(model, data, post.sites, k)[0] for k in range(len(data.axes)))
    return post, tuple(map(Ascent.start, zs))


def drawn(
    method: Any,
    model: AbstractTucker,
    data: Entries,
    post: Posterior,
    ascents: tuple[Ascent, ...],
    key: Any,
) -> tuple[Sites, dict[str, float | int]]:
    """Draws, `{site: array[1, draw, ...]}`, and the facts of them.

    Args:
        method: its `draws`, `num_draws`, `num_warmup` and `learn` say how.
        model: the model.
        data: the data.
        post: where a run ended.
        ascents: what it remembers of its search.
        key: a JAX random key.
    """
    if method.draws == APPROXIMATION or not model.observation.has_draws:
        draws = _sampled(model, data, post, key, method.num_draws)
        return jax.device_get(jax.tree.map(lambda a: a[None], draws)), {}
    inverses = tuple(ascent.inverse for ascent in ascents) if method.learn else None
    counts = (method.num_warmup, method.num_draws)
    draws, accepted, surface = jax.device_get(
        chain(model, data, post, inverses, key, counts)
    )
    draws = jax.tree.map(lambda a: a[None], draws)
    facts = {} if inverses is None else {"accepted": float(accepted)}
    return draws, facts | facts_of_draws(
        {name: draws[name] for name in ("noise_sd", "level")}, surface[None]
    )


def facts_of_draws(
    numbers: Mapping[str, Float[np.ndarray, "1 d"]], surface: Float[np.ndarray, "1 d w"]
) -> dict[str, float | int]:
    """How far draws are independent: of some numbers, and of the surface at a few entries.

    The surface is the same for all orders and signs of the components.
    """
    count = surface.shape[1]
    if count < 4 or not all(np.ptp(values) > 0 for values in numbers.values()):
        return {}
    worst = min(effective_sample_size(values) for values in numbers.values())
    # The estimate may be larger than their number, most of all if they are few.
    return {
        "effective_draws": float(min(worst, count)),
        "effective_surface": float(min(effective_sample_size(surface).min(), count)),
        "rhat_surface": float(split_gelman_rubin(surface).max()),
    }


def check_draws(facts: Mapping[str, float | int]) -> tuple[Check, ...]:
    found = [
        Check(f"effective draws of {what}", facts[name], "at least", limit, remedy)
        for what, name, limit, remedy in (
            ("noise and level", "effective_draws", LEAST_EFFECTIVE, "raise `num_draws`"),
            ("the surface", "effective_surface", LEAST_EFFECTIVE, "raise `num_draws`"),
        )
        if name in facts
    ]
    if "rhat_surface" in facts:
        found.append(
            Check(
                "R-hat of the surface",
                facts["rhat_surface"],
                "at most",
                LARGEST_RHAT,
                "raise `num_warmup` and `num_draws`",
                "of the two halves of the draws, the largest of a few entries",
            )
        )
    return tuple(found)


def with_factor(
    model: AbstractTucker, data: Entries, post: Posterior, terms: Terms, k: int
) -> Posterior:
    """The functions of a mode given their terms."""
    own = loaded(terms, loads(model, post.sites, data, k, own=True))
    return with_smoothed(post, own, model.prior(post.sites, data, k).smooth(own), k)


def with_smoothed(post: Posterior, terms: Terms, found: Smoothed, k: int) -> Posterior:
    """The functions of a mode that were found from their terms."""
    second = found.covariance + found.mean[:, :, None] * found.mean[:, None]
    expected = jnp.sum(terms.shift * found.mean) - jnp.sum(terms.precision * second) / 2
    divergence = expected - found.log_evidence
    factor = Factor(found.mean, found.covariance, terms.precision, terms.shift, divergence)
    factors = (*post.factors[:k], factor, *post.factors[k + 1 :])
    return replace(post, factors=factors)


def learned(
    model: AbstractTucker,
    data: Entries,
    post: Posterior,
    terms: Terms,
    ascent: Ascent,
    k: int,
    moves: Array,
) -> tuple[Posterior, Ascent]:
    """The parameters of a mode after one step up the evidence of its terms, and its
    functions given these.
    """
    z, back, log_prior = coordinates(model, data, post.sites, k)

    def objective(z):
        found = back(z)
        sites = post.sites | found
        own = loaded(terms, loads(model, sites, data, k, own=True))
        smoothed = model.prior(sites, data, k).smooth_with_evidence(own)
        return smoothed.log_evidence + log_prior(found), (own, smoothed)

    z, (own, smoothed), ascent = ascended(objective, z, ascent, moves)
    post = replace(post, sites=post.sites | back(z))
    return with_smoothed(post, own, smoothed, k), ascent


def elbo(
    model: AbstractTucker, data: Entries, post: Posterior, expected: Float[Array, ""]
) -> Float[Array, ""]:
    """The evidence lower bound, with the log prior of the parameters, in nats.

    Args:
        model: the model.
        data: the data.
        post: the posterior.
        expected: the expected log likelihood, standardised.
    """
    priors = model.priors(data)
    bound = expected - sum(f.divergence for f in post.factors)
    bound = bound - post.level.divergence(level_prior(model, post))
    bound = bound + sum(priors[name].log_prob(v) for name, v in post.sites.items())
    if post.before is not None:
        bound = bound + expected_before(model, data, post) - post.before.evidence
    if model.observation.in_units:
        bound = bound - post.noise.divergence(noise_prior(post))
        bound = bound - len(data) * jnp.log(model.units(data).scale)
    if isinstance(model, Tucker):
        bound = bound - post.core.divergence(core_prior(model, data, post))
    return bound


def _is_short(model, data, post, key, num) -> bool:
    return data.is_short(num)


@partial(jit_for_one_run, is_short=_is_short)
def _sampled(model, data, post: Posterior, key, num: int) -> Sites:
    return post.sample(model, data, key, num)
