r"""Message passing on batches of the entries, for many of them.

The terms of all entries are a sum. A batch, counted for all, gives a noisy one, and each
step moves the terms a little towards it:

$$Λ ← (1 - ρ_t) Λ + ρ_t \hat Λ, \qquad ρ_t = (1 + t / d)^{-κ},$$

which is a step along the natural gradient of the bound. With all entries and $ρ = 1$ it is
a sweep.

Source: Hoffman, Blei, Wang & Paisley (2013), "Stochastic variational inference"; Khan & Lin
(2017), "Conjugate-computation variational inference", for other than normal values.
"""

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.gp.state_space import Sites as Terms
from probkit.method import (
    RESULTS,
    Draws,
    best_lane,
    choose,
)
from probkit.method.minibatch import Counted, counted
from probkit.method.windows import Windows, is_quiet, opened, stepped
from probkit.model.check import Check
from probkit.model.source import AbstractSource, example_of
from probkit.models.tucker.ascent import Ascent
from probkit.models.tucker.entries import Entries
from probkit.models.tucker.messages import (
    APPROXIMATION,
    HOW_DRAWN,
    AbstractMessagePassing,
    at_entries,
    begun_at,
    check_draws,
    drawn,
    elbo,
    learned,
    with_factor,
)
from probkit.models.tucker.model import AbstractTucker, Tucker
from probkit.models.tucker.observations import Noise
from probkit.models.tucker.posterior import (
    Gaussian,
    Linear,
    Posterior,
    core_messages,
    core_prior,
    level_messages,
    level_prior,
    local_at,
    messages,
    noise_prior,
    standardised,
    surface_at,
)
from probkit.validate import positive, short, whole


class BatchState(NamedTuple):
    posterior: Posterior
    terms: tuple[Terms, ...]
    core: Linear
    level: Linear
    ascents: tuple[Ascent, ...]
    windows: Windows  # of the loss, minus the estimated bound
    loss: Float[Array, ""]
    num_steps: Int[Array, ""]
    result: Any


def _batch_size(value: Any) -> int | None:
    what = "StochasticMessagePassing(batch_size"
    return None if value is None else whole(what, 1)(value)


class StochasticMessagePassing(AbstractMessagePassing):
    """Fit `CP` or `Tucker` to many entries, some of them in each step.

    It is for a million entries or more, and for those that do not fit in memory: a source
    of data by step (`probkit.model.source`) gives its own batches, with the points and
    units of all entries. Fewer are fitted sooner by the sweeps of `MessagePassing`, of
    which few are needed (`benchmarks/tucker_batches.py`).

    Attributes:
        batch_size: the number of entries per step; None for all. Each is visited once per
            round.
        num_starts: the number of random starts.
        max_steps: the largest number of steps per start.
        decay: $κ$, how fast steps become shorter, from 0 (all have length one) to 1. There
            is convergence above 1/2.
        delay: $d$, the number of steps after which they are.
        window: the number of steps in the first window, whose mean bound is compared with
            that of the next one.
        atol: a gain between windows that can be ignored, in nats.
        patience: the number of windows in a row without a gain that end a start.
        learn: as for `MessagePassing`.
        warm: the number of steps before kernels and scales are learned.
        draws: "approximation" (default), or "gibbs" as for `MessagePassing`, whose sweeps
            visit all entries. A source has the former only.
        num_draws: as for `MessagePassing`.
        num_warmup: as for `MessagePassing`.
    """

    by_step: ClassVar[bool] = True

    batch_size: int | None = eqx.field(default=1000, converter=_batch_size)
    num_starts: int = eqx.field(
        default=2, converter=whole("StochasticMessagePassing(num_starts", 1)
    )
    max_steps: int = eqx.field(
        default=2000, converter=whole("StochasticMessagePassing(max_steps", 0)
    )
    decay: float = eqx.field(
        default=0.7, converter=positive("StochasticMessagePassing(decay", zero=True)
    )
    delay: float = eqx.field(
        default=1.0, converter=positive("StochasticMessagePassing(delay")
    )
    window: int = eqx.field(
        default=20, converter=whole("StochasticMessagePassing(window", 1)
    )
    atol: float = eqx.field(
        default=1.0, converter=positive("StochasticMessagePassing(atol", zero=True)
    )
    patience: int = eqx.field(
        default=2, converter=whole("StochasticMessagePassing(patience", 1)
    )
    learn: bool = True
    warm: int = eqx.field(default=5, converter=whole("StochasticMessagePassing(warm", 0))
    draws: str = APPROXIMATION
    num_draws: int = eqx.field(
        default=200, converter=whole("StochasticMessagePassing(num_draws", 1)
    )
    num_warmup: int = eqx.field(
        default=100, converter=whole("StochasticMessagePassing(num_warmup", 0)
    )

    def __check_init__(self):
        name = type(self).__name__
        if self.draws not in HOW_DRAWN:
            raise ValueError(
                f"`{name}(draws={short(self.draws)})`: it takes one of "
                f"{', '.join(map(repr, HOW_DRAWN))}."
            )
        if self.decay > 1:
            raise ValueError(f"`{name}(decay={self.decay:g})`: it takes 0 to 1.")

    # The three functions, for one start.

    def init(self, model, data, key, start):
        program, model = model, model.model
        post, ascents = begun_at(model, data, key, start)
        if not isinstance(start, Posterior):  # which counts the entries of the batch
            shape, rate = post.noise.shape, post.noise.rate
            post = replace(post, noise=Noise(program.factor * shape, program.factor * rate))
        m, zero = len(post.core.mean), jnp.zeros((), data.dtype)
        terms = tuple(
            Terms(jnp.zeros_like(f.precision), jnp.zeros_like(f.shift))
            for f in post.factors
        )
        nothing = Linear(jnp.zeros((m, m), data.dtype), jnp.zeros(m, data.dtype))
        level = Linear(jnp.zeros((1, 1), data.dtype), jnp.zeros(1, data.dtype))
        windows = opened((), self.window)
        none, result = jnp.zeros((), jnp.int32), RESULTS.no_steps
        return BatchState(
            post, terms, nothing, level, ascents, windows, zero + jnp.inf, none, result
        )

    def step(self, model, data, state):
        factor, model = model.factor, model.model
        post, ascents, every = state.posterior, list(state.ascents), list(state.terms)
        rate = (1 + state.num_steps.astype(data.dtype) / self.delay) ** -self.decay
        # The batch is new, so that its residuals are those of entries that were held out.
        mean, second = surface_at(model, data, post, data.places)
        y, counts = standardised(model, data), jnp.full(len(data), factor, data.dtype)
        found = model.observation.noise(
            y, mean, second, counts, post.noise, noise_prior(post)
        )
        # The surface of a random start says nothing about the noise.
        noise = blended(post.noise, found, jnp.where(state.num_steps == 0, 0.0, rate))
        local = local_at(model, data, mean, second, noise)
        weight, shift = factor * local.weight, factor * local.shift
        post = replace(post, noise=noise, weight=weight, shift=shift)
        loss = -self._bound(model, data, post, factor, local.bound.sum())
        moves = self.learn & (state.num_steps >= self.warm)
        for k in range(len(data.axes)):
            every[k] = blended(every[k], messages(model, data, post, k), rate)
            if self.learn:
                post, ascents[k] = learned(
                    model, data, post, every[k], ascents[k], k, moves
                )
            post = with_factor(model, data, post, every[k], k)
        core = state.core
        if isinstance(model, Tucker):
            core = blended(core, core_messages(model, data, post), rate)
            prior = core_prior(model, data, post)
            post = replace(post, core=Gaussian.given(prior, core))
        mean, _ = surface_at(model, data, post, data.places)
        level = blended(state.level, level_messages(post, mean), rate)
        post = replace(post, level=Gaussian.given(level_prior(model, post), level))
        # The first bound is that of the start, and may be no number.
        first = state.num_steps == 0
        ok = first | jnp.isfinite(loss)
        return BatchState(
            post,
            tuple(every),
            core,
            level,
            tuple(ascents),
            _either_windows(
                first, state.windows, stepped(state.windows, loss, (), self.atol)
            ),
            loss,
            state.num_steps + 1,
            choose(ok, RESULTS.successful, RESULTS.nonfinite),
        )

    def _bound(self, model, data, post, factor, expected):
        """The bound, estimated by a batch that counts for all."""
        bound = elbo(model, data, post, factor * expected)
        if model.observation.in_units:
            rest = (factor - 1) * len(data)
            bound = bound - rest * jnp.log(model.units(data).scale)
        return bound

    def terminate(self, state):
        failed = (state.result != RESULTS.successful) & (state.num_steps > 0)
        quiet = is_quiet(state.windows, self.patience)
        return (quiet & (state.num_steps > self.warm)) | failed

    def record(self, state):
        return {"objective": -state.loss}

    # The run as a whole.

    @property
    def label(self):
        return f"Message passing on batches, {self.num_starts} starts"

    def begin(self, model, data, key, start):
        begun = super().begin(model, data, key, start)
        if isinstance(data, AbstractSource):
            example = example_of(data)
            count = data.num_rows() or len(example)
            return begun._replace(program=Counted(model, count / len(example)))
        return counted(begun, model, data, self.batch_size)

    def finish(self, model, data, end):
        # Of the last windows, because the bound of one batch is noisy.
        windows = np.asarray(end.states.windows.mean)
        final = np.where(np.isfinite(windows), -windows, -np.asarray(end.states.loss))
        best = best_lane(final)
        state = end.lane(best)
        result, settled = self.outcome(state, state.result)
        post, facts = state.posterior, {"elbo": float(final[best])}
        if isinstance(data, AbstractSource):
            method, data = replace(self, draws=APPROXIMATION), example_of(data)
        else:
            method = self
            post, bound = at_all(model, data, post)
            facts["elbo"] = float(bound)
        sites, found = drawn(method, model, data, post, state.ascents, end.key)
        trace = end.trace_of_ends("objective", final, best)
        facts |= {"quiet": int(state.windows.quiet), "settled": settled} | found
        return Draws(sites, {}, trace, result, facts, approximation=post)

    def checks(self, tree, facts):
        return (
            Check(
                "windows without a gain",
                facts["quiet"],
                "at least",
                self.patience,
                "the bound still rises: raise `max_steps`",
                f"ELBO {facts['elbo']:.1f} nats",
            ),
            *check_draws(facts),
        )


def blended(old: Any, new: Any, rate: Float[Array, ""]) -> Any:
    """Natural parameters some of the way from old to new ones."""
    return jax.tree.map(lambda a, b: a + rate * (b - a), old, new)


def _either_windows(first: Array, before: Windows, after: Windows) -> Windows:
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), before, after)


@eqx.filter_jit
def at_all(model: AbstractTucker, data: Entries, post: Posterior):
    """The posterior with the weights of all entries, and its bound."""
    post = at_entries(model, data, post)
    mean, second = surface_at(model, data, post, data.places)
    local = local_at(model, data, mean, second, post.noise)
    return post, elbo(model, data, post, local.bound.sum())
