r"""One-time episodic optimisation: each episode is used for one step, and dropped.

A step takes some episodes. Given what is believed of the hierarchy, the posterior of each
is in closed form, or nearly; what they say on average, counted for all episodes, gives a
posterior of the hierarchy; and the belief moves towards it:

$$η ← (1 - ρ_t) η + ρ_t \hat η, \qquad ρ_t = (1 + t/d)^{-κ},$$

in natural parameters, a step along the natural gradient of the bound. With all episodes in
each step and $ρ = 1$ it is coordinate ascent, and the bound never falls. Late steps then
begin where the last ones lead to (`leaps`).

Source: Kim & Hospedales (2024), "A hierarchical Bayesian model for few-shot meta learning",
for the one-time use of episodes; Hoffman, Blei, Wang & Paisley (2013), "Stochastic
variational inference", for the step.
"""

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    best_lane,
    choose,
)
from probkit.method.batches import on_cpu, shared_out
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
from probkit.method.loop import convolves
from probkit.method.minibatch import Counted, counted
from probkit.method.mixing import check_effective
from probkit.method.programs import jit_for_one_run, one_of
from probkit.method.windows import Windows, check_quiet, is_quiet, opened, stepped
from probkit.model.source import AbstractSource, example_of
from probkit.models.meta import gradient
from probkit.models.meta.checks import check_episodes, checks
from probkit.models.meta.coordinates import by_row
from probkit.models.meta.gibbs import chain, is_short
from probkit.models.meta.linear import Linear
from probkit.models.meta.posterior import AbstractHierarchy, Posterior
from probkit.models.meta.unconstrained import coordinates, posterior_at
from probkit.validate import optional, positive, short, whole

CONJUGATE, GRADIENT = "conjugate", "gradient"
# Steps of a start in most fits.
USUAL_STEPS = 200
GIBBS, APPROXIMATION = "gibbs", "approximation"


class EpisodicState(NamedTuple):
    posterior: Posterior
    learned: Any  # the arrays of the model that are learned, or None
    optimiser: Any
    climb: Climb  # of the bound, if each step has all episodes
    windows: Windows  # of the loss: minus the estimated bound, or that of learned arrays
    key: PRNGKeyArray
    memory: Any  # of the search of a gradient step
    leap: Leap | None  # where the next step begins, if not at the posterior
    num_steps: Int[Array, ""]
    result: Any


class Episodic(AbstractIterativeMethod):
    """Fit a hierarchy by steps on episodes that are not kept.

    It takes data, or a source that has other episodes for each step
    (`probkit.model.source`), such as `meta.SineLine`. Memory does not grow with the number
    of episodes.

    Arrays that a model learns, such as those of a network of features, follow the gradient
    of the loss of the model by Adam, one step with each step of the belief. The run has
    settled when that loss has. The fit has the model with the learned arrays.

    Attributes:
        batch_size: the number of episodes per step; None (default) for all of them. A
            source has its own.
        num_episodes: for how many episodes a source stands, if it does not say so.
        num_starts: the number of random starts of a mixture. The one with the highest bound
            becomes the fit. Without a mixture there is one.
        max_steps: the largest number of steps per start.
        atol: tolerance on the bound, in nats: a start ends when its last gain and the
            estimate of all later gains are below it, four times in a row where steps begin
            at leaps; in batches, when the mean bound of a window of steps gains less.
        step_by: "conjugate" (default), or "gradient" for the stochastic gradient of the
            paper, which moves the mean and one variance per parameter by Adam.
        decay: in batches, $κ$: how fast steps become shorter. There is convergence above
            1/2.
        delay: in batches, $d$: the number of steps after which they are.
        window: in batches, the number of steps of the first window.
        patience: in batches, the number of windows in a row without a gain that end a
            start.
        learning_rate: the step size of Adam, for learned arrays and for gradient steps.
        draws: of `meta.Linear` with data, "gibbs" (default) for draws of the exact
            posterior by Gibbs sampling from where the best start ended; or "approximation"
            for draws of the approximate posterior, whose intervals are too narrow, because
            it takes parameters of the hierarchy and of episodes for independent. Other
            models, and a source, have the latter only.
        num_draws: the number of draws in the fit.
        num_warmup: the number of draws of Gibbs sampling before these, which are dropped.
        devices: the number of local devices that share the episodes of each step; by
            default one, because steps of few episodes take less time than devices to agree
            on the averages. The fit is the same but for rounding. Draws are made by one.
    """

    by_step: ClassVar[bool] = True
    unread: ClassVar[tuple[str, ...]] = (
        "max_steps",
        "num_starts",
        "draws",
        "num_draws",
        "num_warmup",
    )

    batch_size: int | None = eqx.field(
        default=None, converter=optional(whole("Episodic(batch_size", 1))
    )
    num_episodes: int | None = eqx.field(
        default=None, converter=optional(whole("Episodic(num_episodes", 1))
    )
    num_starts: int = eqx.field(default=4, converter=whole("Episodic(num_starts", 1))
    max_steps: int = eqx.field(default=2000, converter=whole("Episodic(max_steps", 0))
    atol: float = eqx.field(default=0.1, converter=positive("Episodic(atol"))
    step_by: str = CONJUGATE
    decay: float = eqx.field(default=0.7, converter=positive("Episodic(decay", zero=True))
    delay: float = eqx.field(default=1.0, converter=positive("Episodic(delay"))
    window: int = eqx.field(default=20, converter=whole("Episodic(window", 1))
    patience: int = eqx.field(default=2, converter=whole("Episodic(patience", 1))
    learning_rate: float = eqx.field(
        default=1e-3, converter=positive("Episodic(learning_rate")
    )
    draws: str = GIBBS
    num_draws: int = eqx.field(default=1000, converter=whole("Episodic(num_draws", 1))
    num_warmup: int = eqx.field(default=100, converter=whole("Episodic(num_warmup", 0))
    devices: int = eqx.field(default=1, converter=whole("Episodic(devices", 1))

    def __check_init__(self):
        if self.draws not in (GIBBS, APPROXIMATION):
            raise ValueError(
                f"`Episodic(draws={short(self.draws)})`: it takes {GIBBS!r} or "
                f"{APPROXIMATION!r}."
            )
        if self.step_by not in (CONJUGATE, GRADIENT):
            raise ValueError(
                f"`Episodic(step_by={short(self.step_by)})`: it takes {CONJUGATE!r} or "
                f"{GRADIENT!r}."
            )
        if self.decay > 1:
            raise ValueError(f"`Episodic(decay={self.decay:g})`: it takes 0 to 1.")

    def refuse(self, model: Any, data: Any) -> None:
        if not isinstance(model, AbstractHierarchy):
            raise ValueError(
                f"`meta.Episodic` fits the models of `meta`, not `{type(model).__name__}`."
            )
        here = jax.local_device_count()
        if self.devices > here:
            raise ValueError(
                f"`Episodic(devices={self.devices})`: there are {here} here; give at most "
                "that many. A CPU counts as several if "
                f"`numpyro.set_host_device_count({self.devices})` is called first."
            )
        model.refuse(data)

    def starts_at(self, approximation, model, data):
        if not isinstance(approximation, Posterior):
            return False
        like = jax.eval_shape(lambda: model.first(data, jax.random.key(0), None))
        shapes = [
            jax.tree.map(lambda a: (a.shape, str(a.dtype)), one)
            for one in (approximation, like)
        ]
        return bool(eqx.tree_equal(*shapes))

    # The three functions, for one start.

    def init(self, model, data, key, start):
        hierarchy = model.model
        known = isinstance(start, Posterior)
        post = start if known else hierarchy.first(data, key, start)
        by_gradient = self.step_by == GRADIENT
        memory = gradient.begun(post, self.learning_rate) if by_gradient else None
        learned = _learned(hierarchy)
        leaps = hierarchy.exact and self._climbs(model, learned)
        return EpisodicState(
            post,
            learned,
            None if learned is None else optax.adam(self.learning_rate).init(learned),
            at_foot(data.dtype),
            opened((), self.window),
            key,
            memory,
            no_leap(coordinates(post)) if leaps else None,
            jnp.zeros((), jnp.int32),
            RESULTS.no_steps,
        )

    def _climbs(self, model, learned) -> bool:
        """Whether each step is a whole one on all data, along the bound itself."""
        return model.factor == 1.0 and self.step_by == CONJUGATE and learned is None

    def step(self, model, data, state):
        hierarchy = _with(model.model, state.learned)
        num = model.factor * len(data)
        leap, first = state.leap, state.num_steps == 0
        post = state.posterior
        if leap is not None:
            post = posterior_at(leap.at, post)
        priors, noise = hierarchy.block_priors(data), hierarchy.noise_scale(data)
        key = jax.random.fold_in(state.key, state.num_steps)

        def looked(learned):
            own = _with(model.model, learned)
            found = own.gather(data, post, key)
            return own.loss(data, post, found), found

        learned, optimiser = state.learned, state.optimiser
        if learned is None:
            found = hierarchy.gather(data, post, key)
        else:
            # What is believed counts as given: it follows the features by steps of its own.
            (loss, found), slope = jax.value_and_grad(looked, has_aux=True)(learned)
            change, optimiser = optax.adam(self.learning_rate).update(slope, optimiser)
            learned = optax.apply_updates(learned, change)
        bound = num * found.bound.mean() - post.divergence(priors, noise)
        objective = bound if learned is None else -loss
        climb, windows = state.climb, state.windows
        rate = jnp.ones((), data.dtype)
        if model.factor != 1.0:
            rate = (1 + state.num_steps.astype(data.dtype) / self.delay) ** -self.decay
        if self._climbs(model, learned):
            climb = climbed(climb, bound, may_fall=not hierarchy.exact)
            result = climb.result
        else:
            # The first bound is that of the start.
            new = stepped(windows, -objective, (), self.atol)
            windows = jax.tree.map(lambda a, b: jnp.where(first, a, b), windows, new)
            finite = jnp.isfinite(bound) & jnp.isfinite(objective)
            result = choose(finite, RESULTS.successful, RESULTS.nonfinite)
        num, memory = jnp.asarray(num, data.dtype), state.memory
        moved = post.moved(priors, noise, found, num, rate)
        if self.step_by == GRADIENT:
            moved, memory = gradient.stepped(
                post, moved, priors, found, num, self.learning_rate, memory
            )
        after = EpisodicState(
            moved,
            learned,
            optimiser,
            climb._replace(objective=objective),
            windows,
            state.key,
            memory,
            leap,
            state.num_steps + 1,
            result,
        )
        if leap is None:
            return after
        small = is_done(climb, self.atol)
        after = after._replace(leap=leapt(leap, coordinates(moved), climb.gain, small))
        fell = leap.ahead & ~(bound >= state.climb.objective)
        back = state._replace(leap=dropped(leap), num_steps=after.num_steps)
        return jax.tree.map(lambda a, b: jnp.where(fell, a, b), back, after)

    def steps_alone(self, model, data):
        hierarchy = model.model
        if not on_cpu() or _learned(hierarchy) is None:
            return False

        def found(data, key):
            return hierarchy.gather(data, hierarchy.first(data, key, None), key)

        return convolves(jax.make_jaxpr(found)(data, jax.random.key(0)).jaxpr)

    def terminate(self, state):
        failed = (state.result != RESULTS.successful) & (state.num_steps > 0)
        done = is_done(state.climb, self.atol)
        if state.leap is not None:
            done = state.leap.quiet >= QUIET
        return done | is_quiet(state.windows, self.patience) | failed

    def record(self, state):
        return {"objective": state.climb.objective}

    # The run as a whole.

    def lanes(self):
        return Lanes(self.num_starts, 1, together=False, row_devices=self.devices)

    @property
    def step_limit(self):
        return self.max_steps

    @property
    def label(self):
        return f"Episodes, {self.num_starts} starts"

    def runs_once(self, model, data):
        # Of few devices and without networks; steps would take longer than the compiler.
        linear = isinstance(model.model, Linear) and not by_row(model.model.features)
        return linear and self.devices == 1 and is_short(model.model, data, USUAL_STEPS)

    def begin(self, model, data, key, start):
        method = self
        if isinstance(start, dict) and not isinstance(model, Linear):
            raise ValueError(
                f"`meta.Episodic` of `{type(model).__name__}` starts from fits by "
                "`meta.Episodic` with equal settings, and not from draws."
            )
        if model.kinds == 1 or isinstance(start, Posterior):
            method = replace(self, num_starts=1)
            start = jax.tree.map(lambda a: a[:1], start)
        begun = super().begin(model, data, key, start)._replace(method=method)
        if self.devices > 1 and on_cpu():
            self._refuse_threads_that_block(model, example_of(data), key, one_of(start))
        if isinstance(data, AbstractSource):
            count = self.num_episodes or data.num_rows()
            if count is None:
                raise ValueError(
                    f"`Episodic`: `{type(data).__name__}` does not say for how many "
                    "episodes it stands; give `num_episodes`."
                )
            size = len(example_of(data))
            # A source is never whole, also if it stands for one batch.
            factor = max(count / size, 1 + 1e-9)
            return begun._replace(program=Counted(model, factor))
        return counted(begun, model, data, self.batch_size)

    def _refuse_threads_that_block(self, model, data, key, start):
        """Devices of a CPU share its threads (`probkit.method.batches`)."""
        step = eqx.filter_make_jaxpr(self.first_step)
        traced, *_ = step(Counted(model, 1.0), data, key, start)
        blocks = next(shared_out(traced.jaxpr), None)
        if blocks is not None:
            raise ValueError(
                f"`Episodic(devices={self.devices})`: on a CPU, steps of this model "
                f"share out batches of matrices over threads (`{blocks}`), and devices "
                "could wait for each other for ever; leave `devices` at 1."
            )

    def finish(self, model, data, end):
        states = end.states
        windows = np.asarray(states.windows.mean)
        whole = np.isinf(windows)
        final = np.where(whole, np.asarray(states.climb.objective), -windows)
        best = best_lane(final)
        state = end.lane(best)
        result, settled = self.outcome(state, state.result)
        learns = state.learned is not None
        model = _with(model, state.learned)
        trace = end.trace_of_ends("objective", final, best)
        facts = facts_of_ends(final, best) | {
            # Of learned arrays the loss per episode, because their bound has no scale.
            "loss" if learns else "elbo": float(-final[best] if learns else final[best]),
            "settled": settled,
            "quiet": int(state.windows.quiet),
            "whole": bool(np.isfinite(float(state.climb.gain))),
            "remaining": float(state.climb.remaining),
            "slack": float(state.climb.slack),
            "largest_fall": largest_fall(trace["objective"], rounded=False),
        }
        batch = example_of(data)
        seen = len(batch)
        if isinstance(data, AbstractSource):
            # `begin` has seen to it that one of the two is known.
            count = self.num_episodes or data.num_rows() or seen
            seen = min(count, seen * int(state.num_steps))
        facts["episodes"] = seen
        if (least := model.least_episodes(batch)) is not None:
            facts["least_episodes"] = least
        exact = self.draws == GIBBS and isinstance(model, Linear)
        exact = exact and not isinstance(data, AbstractSource)
        post, data, key = state.posterior, batch, end.key
        facts["exact"] = exact
        if exact:
            sites = _chain(model, data, post, key, (self.num_warmup, self.num_draws))
        else:
            sites = _sampled(model, data, post, key, self.num_draws)
        sites = jax.device_get(jax.tree.map(lambda a: a[None], sites))
        return Draws(
            sites,
            {},
            trace,
            result,
            facts,
            model=model if learns else None,
            approximation=state.posterior,
        )

    def checks(self, tree, facts):
        mixed = check_effective(tree, "raise `num_draws`") if facts["exact"] else ()
        mixed += check_episodes(facts)
        if "loss" in facts:
            note = f"{facts['loss']:.3f} nats per episode"
            return (check_quiet(facts, self.patience, note), *mixed)
        note = f"ELBO {facts['elbo']:.1f} nats"
        if not facts["whole"]:
            return (check_quiet(facts, self.patience, note), *mixed)
        limit = max(1e-9 * abs(facts["elbo"]), facts["slack"])
        return (
            check_remaining(facts, facts["elbo"], self.atol),
            check_fall(facts, "ELBO", limit, note="nats"),
            *check_restarts(facts),
            *mixed,
        )

    def checks_of_model(self, model, given, data, facts):
        if not isinstance(model, Linear):
            return model.checks(given, data)
        # The data of a fit from a source are those of one step.
        return checks(model, given, data, facts.get("episodes"))


def _learned(model: AbstractHierarchy) -> Any:
    """The arrays that are learned, in a tree like the model, or None."""
    chosen = model.learned()
    return None if chosen is None else eqx.filter(model, chosen)


def _with(model: AbstractHierarchy, learned: Any) -> AbstractHierarchy:
    """The model with other arrays where some are learned."""
    return model if learned is None else eqx.combine(learned, model)


@partial(jit_for_one_run, is_short=lambda *args: is_short(args[0], args[1], sum(args[-1])))
def _chain(model, data, post: Posterior, key, counts: tuple[int, int]):
    return chain(model, data, model.expected(post, data), key, counts)


@jit_for_one_run
def _sampled(model, data, post: Posterior, key, num: int):
    return post.sample(model, data, key, num)
