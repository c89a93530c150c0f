"""Stochastic variational inference with NumPyro's guides, in our compiled loop."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jaxtyping import Array, Bool, Float, Int
from numpyro.infer import autoguide
from numpyro.infer.util import compute_log_probs

from probkit.infer.guide import FLOWS, GUIDES, RICH, Guide, new_guide
from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    best_lane,
    choose,
)
from probkit.method.batches import map_in_batches, side_by_side
from probkit.method.keys import two_keys
from probkit.method.minibatch import minibatch, refuse_local
from probkit.method.programs import renew
from probkit.method.windows import (
    Windows,
    check_quiet,
    is_quiet,
    opened,
    stepped,
)
from probkit.model.check import Check
from probkit.model.density import Program, constrain, off_the_edge, unconstrain
from probkit.model.source import AbstractSource, Rows, example_of
from probkit.validate import positive, short, whole


def _batch_size(value: Any) -> int | None:
    return None if value is None else whole("SVI(batch_size", 1)(value)


class ELBO(numpyro.infer.elbo.ELBO):
    """NumPyro's `Trace_ELBO`, with the sites summed in the order of the program.

    NumPyro sums them in the order of a set of names, which differs between processes.
    Each process would then compile another program, and the last digits would differ.
    """

    def loss_with_mutable_state(self, rng_key, param_map, model, guide, *args, **kwargs):
        def one(key):
            key_model, key_guide = jax.random.split(key)
            guide = numpyro.handlers.seed(guide_, key_guide)
            log_q, trace = compute_log_probs(guide, args, kwargs, param_map)
            model = numpyro.handlers.seed(model_, key_model)
            model = numpyro.handlers.replay(model, trace)
            log_p, _ = compute_log_probs(model, args, kwargs, param_map)
            return sum(log_p.values()) - sum(log_q.values())

        model_, guide_ = model, guide
        elbo = side_by_side(one, jax.random.split(rng_key, self.num_particles)).mean()
        return {"loss": -elbo, "mutable_state": None}


class SVIState(NamedTuple):
    """The optimiser of a start, and its progress. The loss is in nats."""

    optimiser: Any  # NumPyro's SVIState
    loss: Float[Array, ""]
    windows: Windows  # of the guide's parameters, unconstrained
    num_steps: Int[Array, ""]
    result: Any


class SVI(AbstractIterativeMethod):
    """Fit a guide by maximising the evidence lower bound (ELBO).

    The mean loss of a window of steps is compared with that of the window before. A start
    has settled when the gain was within the noise and `atol`, `patience` times in a row.
    Each window is half as long again as the last, because slow progress is visible only in
    a long window. The fitted guide has the mean of the parameters over the last whole
    window (Polyak and Ruppert), because those of a single step are noisy.

    With `batch_size` each step uses rows drawn at random, with replacement, and counts
    them for all rows. The cost of a step does not depend on the number of all rows. A
    source of data by step gives its own rows. Its ELBO is the mean of the last losses,
    and there are no importance weights.

    Attributes:
        guide: a name ("normal", "multivariate_normal", "low_rank", or the flows "iaf" and
            "bnaf"), or `guide(model)`: one of NumPyro's guide classes, or a
            `functools.partial` of one, or a NumPyro guide object.
        num_starts: the number of starts. The one with the lowest loss becomes the fit.
        max_steps: the largest number of steps per start.
        learning_rate: step size of Adam, in unconstrained coordinates.
        optimizer: any optax optimiser instead of Adam, with its own step size.
        num_particles: the number of draws of the guide per estimate of the ELBO.
        batch_size: the number of observations per step, or None for all. Latent sites
            must not have one value per observation.
        window: the number of steps in the first window.
        atol: a gain that can be ignored, in nats.
        patience: the number of windows in a row without a gain after which a start has
            settled.
        num_draws: the number of draws of the fitted guide.
    """

    by_step: ClassVar[bool] = True

    guide: str | Callable = "normal"
    num_starts: int = eqx.field(default=1, converter=whole("SVI(num_starts", 1))
    max_steps: int = eqx.field(default=20_000, converter=whole("SVI(max_steps", 0))
    learning_rate: float = eqx.field(default=0.01, converter=positive("SVI(learning_rate"))
    optimizer: optax.GradientTransformation | None = None
    num_particles: int = eqx.field(default=8, converter=whole("SVI(num_particles", 1))
    batch_size: int | None = eqx.field(default=None, converter=_batch_size)
    window: int = eqx.field(default=200, converter=whole("SVI(window", 1))
    atol: float = eqx.field(default=0.01, converter=positive("SVI(atol", zero=True))
    patience: int = eqx.field(default=2, converter=whole("SVI(patience", 1))
    num_draws: int = eqx.field(default=1000, converter=whole("SVI(num_draws", 1))

    def __check_init__(self):
        if not (callable(self.guide) or self.guide in GUIDES):
            raise ValueError(
                f"`SVI(guide={short(self.guide)})` is not one of {', '.join(GUIDES)}; "
                "or give a NumPyro guide class."
            )
        if isinstance(self.guide, autoguide.AutoDelta) or (
            self.guide is autoguide.AutoDelta
        ):
            raise ValueError(
                "`SVI(guide=AutoDelta)` finds a point, without uncertainty; use "
                "`pk.MAP()`, or a guide with a width."
            )
        if not isinstance(self.optimizer, optax.GradientTransformation | None):
            raise ValueError(
                f"`SVI(optimizer={short(self.optimizer)})` takes an optax optimiser, such "
                "as `optax.adam(0.01)`."
            )

    # The three functions, for one start.

    def init(self, model, data, key, start):
        fitted = isinstance(start, Guide)
        if start is not None and not fitted:
            position = off_the_edge(unconstrain(model, data, start))
            start = constrain(model, data, position)
        svi = self._svi(model, None if fitted else start)
        optimiser = svi.init(key, data)
        params = svi.optim.get_params(optimiser.optim_state)
        if fitted:
            params = start.params_like(params)
            optimiser = optimiser._replace(optim_state=svi.optim.init(params))
        return SVIState(
            optimiser,
            loss=jnp.full((), jnp.inf, jnp.result_type(float)),
            windows=opened(params, self.window),
            num_steps=jnp.zeros((), jnp.int32),
            result=RESULTS.no_steps,
        )

    def step(self, model, data, state):
        svi = self._svi(model, None)
        # The guide gets the program's shapes in `init`. The values have no use.
        svi.init(jax.random.key(0), data)
        optimiser, loss = svi.stable_update(state.optimiser, data)
        # `stable_update` undoes a step with a non-finite loss. Its loss is the last one.
        loss = jnp.where(jnp.isfinite(loss), loss.astype(state.loss.dtype), state.loss)
        params = svi.optim.get_params(optimiser.optim_state)
        finite = jnp.isfinite(state.windows.total + loss)
        return SVIState(
            optimiser,
            loss=loss,
            windows=stepped(state.windows, loss, params, self.atol),
            num_steps=state.num_steps + 1,
            result=choose(finite, RESULTS.successful, RESULTS.nonfinite),
        )

    def terminate(self, state) -> Bool[Array, ""]:
        failed = (state.result != RESULTS.successful) & (state.num_steps > 0)
        return is_quiet(state.windows, self.patience) | failed

    def record(self, state):
        return {"loss": state.loss}

    # The run as a whole.

    def lanes(self):
        return Lanes(self.num_starts, 1, together=True)

    @property
    def label(self):
        return f"SVI, {self.num_starts} starts"

    @property
    def step_limit(self):
        return self.max_steps

    def starts_at(self, approximation, model, data):
        return isinstance(approximation, Guide) and approximation.kind == self.guide

    def begin(self, model, data, key, start):
        if self.guide in FLOWS and not isinstance(start, Guide | None):
            raise ValueError(
                f"`fit(start=...)`: the flow {self.guide!r} begins at a standard normal "
                f"and cannot start from draws; give a fit by `SVI(guide={self.guide!r})`, "
                "or leave `start` out."
            )
        begun = super().begin(model, data, key, start)
        if callable(self.guide) and not isinstance(self.guide, type):
            example, step = example_of(data), partial(self.first_step, model)
            renew("guide", self.guide, step, example, key, None)
        if isinstance(data, AbstractSource):
            return begun._replace(program=self._of_source(model, data))
        if self.batch_size is None:
            return begun
        count, what = len(data), f"SVI(batch_size={self.batch_size})"
        if self.batch_size > count:
            raise ValueError(
                f"`{what}` exceeds the {count} observations; leave `batch_size=None` to "
                "use them all."
            )
        key_run, key_rows = two_keys(begun.key_run)
        return begun._replace(
            program=minibatch(model, data, count / self.batch_size, what),
            source=Rows(data, key_rows, self.batch_size),
            key_run=key_run,
        )

    def finish(self, model, data, end):
        losses = _final_losses(end.trace["loss"], end.counts, self.window)
        best = best_lane(-losses)
        state = end.lane(best)
        result, settled = self.outcome(state, state.result)
        guide = Guide.of(self.guide, state.windows.params)
        facts: dict[str, float | int] = {
            "quiet": int(state.windows.quiet),
            "num_starts": self.num_starts,
            "settled": settled,
        }
        if isinstance(data, AbstractSource):
            # There are no weights without all the data.
            draws = _drawn(guide, model, example_of(data), self.num_draws, end.key)
            bounds, stats = -_last(end.trace["loss"], end.counts, self.window, best), {}
        else:
            draws, weights = _posterior(guide, model, data, self.num_draws, end.key)
            bounds = np.asarray(weights)
            facts["khat"], stats = _khat(bounds), {"log_weight": bounds[None]}
        facts["elbo"] = float(bounds.mean())
        facts["elbo_error"] = float(bounds.std() / np.sqrt(bounds.size))
        draws = jax.tree.map(lambda a: np.asarray(a)[None], draws)
        trace = end.trace_of_ends("loss", losses, best)
        return Draws(draws, stats, trace, result, facts, approximation=guide)

    def checks(self, tree, facts):
        elbo = f"ELBO {facts['elbo']:.2f} (standard error {facts['elbo_error']:.2f})"
        settled = check_quiet(facts, self.patience, elbo)
        if "khat" not in facts:
            return (settled,)
        return (
            settled,
            Check(
                "PSIS k-hat",
                facts["khat"],
                "at most",
                0.7,
                "the guide misses the posterior: try a richer one, or `pk.NUTS()`; the "
                "richest guides are "
                + ", ".join(f'"{name}"' for name in RICH if name != self.guide),
                "of the importance weights of the guide",
            ),
        )

    def _of_source(self, model, source: AbstractSource) -> Program:
        """The program in which the data of a step count for all."""
        kind, example = type(source).__name__, source.example()
        if self.batch_size is not None:
            raise ValueError(
                f"`SVI(batch_size={self.batch_size})`: `{kind}` has the data of each step "
                "already; leave `batch_size` out."
            )
        what, count = f"fit(..., {kind})", source.num_rows()
        if count is None:
            refuse_local(model, example, what)
            return model
        if count < len(example):
            raise ValueError(
                f"`{kind}.num_rows()` is {count}, but a step has {len(example)} "
                "observations; it is the number of all observations."
            )
        return minibatch(model, example, count / len(example), what)

    def _svi(self, model, start=None):
        optimizer = self.optimizer or optax.adam(self.learning_rate)
        elbo = ELBO(num_particles=self.num_particles)
        guide = new_guide(self.guide, model, start)
        return numpyro.infer.SVI(model, guide, optimizer, elbo)


def _final_losses(loss: np.ndarray, counts: np.ndarray, window: int) -> np.ndarray:
    """The mean loss of each start over its last `window` steps, in nats."""
    return np.array(
        [_last(loss, counts, window, lane).mean() for lane in range(len(counts))]
    )


def _last(loss: np.ndarray, counts: np.ndarray, window: int, lane: int) -> np.ndarray:
    """The losses of one start over its last `window` steps."""
    return loss[lane, max(0, counts[lane] - window) : counts[lane]]


@eqx.filter_jit
def _drawn(fitted: Guide, model, data, num_draws, key):
    return fitted.sample(model, data, key, num_draws)


@eqx.filter_jit
def _posterior(fitted: Guide, model, data, num_draws, key):
    """Draws of the fitted guide, and as many log importance weights, in nats."""
    guide, params = fitted.on(model, data)
    key_draws, key_weights = jax.random.split(key)
    elbo = ELBO()

    def log_weight(key):
        return -elbo.loss(key, params, model, guide, data)

    keys = jax.random.split(key_weights, num_draws)
    draws = fitted.sample(model, data, key_draws, num_draws)
    return draws, map_in_batches(log_weight, keys)


def _khat(log_weights: np.ndarray) -> float:
    from arviz_stats.base import array_stats

    if log_weights.size < 25 or not np.isfinite(log_weights).all():
        return float("nan")
    return float(array_stats.psislw(log_weights)[1])
