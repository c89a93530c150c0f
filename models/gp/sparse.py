r"""Sparse weights: variances of the terms of a kernel at the maximum of the evidence.

The covariance is linear in its variances, $Σ = \sum_i v_i K_i + σ^2 I$ with fixed $K_i$.
With $a = Σ^{-1}(y - m)$, $\log|Σ|$ is concave in $v$, and $a^T K_i a\, v_i^2 / v_{i,new}$
bounds the quadratic form, so that a step to

$$v_i ← v_i \sqrt{a^T K_i a \,/\, \mathrm{tr}\, Σ^{-1} K_i}, \qquad
  σ^2 ← σ^2 \sqrt{a^T a \,/\, \mathrm{tr}\, Σ^{-1}}$$

never lowers the evidence. It is the step of sparse Bayesian learning, with a matrix $K_i$
in the place of an atom. Both numbers of all terms are derivatives of the covariance, so
that no $K_i$ is ever formed.
"""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from probkit.linalg import Toeplitz, logdet, solve, with_jitter
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
)
from probkit.method.keys import two_keys
from probkit.method.variances import fewer, ratio
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.gp.model import Regression
from probkit.models.gp.observed import Observed
from probkit.validate import positive, short, whole

# Where the noise starts, and its floor, as shares of the variance of y. Below the floor the
# covariance is singular to rounding.
FIRST_NOISE, NOISE_FLOOR = 0.1, 1e-6
# Weights are taken out, and the others moved, so many times; at most so many steps each.
ROUNDS, AFTER = 2, 300
# The largest share of the observations that the weights may be in number.
MOST_WEIGHTS = 0.25


class Here(NamedTuple):
    """Where a lane is.

    Attributes:
        sds: $\\sqrt{v_i}$, by site, in units of the output.
        noise: $σ^2$, in squared units of the output.
    """

    sds: Sites
    noise: Float[Array, ""]


class Moments(NamedTuple):
    """What a step needs. Ratios are those under its root.

    Attributes:
        evidence: $\\log p(y)$, in nats, at the best level.
        level: that level, $m$.
        ratios: of the variances, by site.
        noise_ratio: of the noise.
    """

    evidence: Float[Array, ""]
    level: Float[Array, ""]
    ratios: Sites
    noise_ratio: Float[Array, ""]


class State(NamedTuple):
    here: Here
    climb: Climb


class SparseWeights(AbstractIterativeMethod):
    r"""Maximise the evidence of a kernel of which only variances are unknown.

    Such are `SpectralGrid`, `Linear` and `Drift`, and sums of them. Priors are left out. At
    the maximum most of the weights of a grid are zero. A step moves all variances and the
    noise to the minimum of a bound, so that the evidence never falls, and takes the best
    level. Its cost for $n$ observations and $q$ weights is $O(n^2 + n q)$ if they are even
    and all kernels stationary, by Levinson's recursion, and $O(n^3 + n^2 q)$ otherwise.

    Args:
        num_starts: number of starts, one after another. The first is from equal weights,
            the others from random ones. The one with the largest evidence becomes the fit.
        spread: log sd of the variances of the random starts.
        max_steps: the largest number of steps per start.
        atol: tolerance on the evidence, in nats. A start ends when its last gain and the
            estimate of all later gains are below it.
        prune: the evidence, in nats, that a weight must add to stay, tested at the end.
            "bic" (default) is half the log of the number of observations. 0 takes out
            those that add nothing, None takes out none. The variance of a weight that is
            taken out is added to the noise unless that is known, because many small
            weights at all frequencies are what noise looks like. Then the bound moves the
            others, up to 300 steps, and all is done once more.
        num_draws: number of copies of the optimum in the fit. `predict` draws new values
            once per copy.

    Raises:
        ValueError: for a setting out of its range. In `pk.fit`, for other models than
            `gp.Regression`, for a `gp.Grid`, for data by `num_waves`, and for kernels with
            other unknowns than variances.

    Source: Yin et al. (2020), arXiv 1904.09559, and Suwandi et al. (2023), arXiv
    2309.08201, for the model; the bound is that of `sbl.TypeII`. Departs: the papers solve
    a cone program per step, fix the noise beforehand, and take out no weights; the second
    spreads the data over agents.
    """

    unread: ClassVar[tuple[str, ...]] = (
        *AbstractIterativeMethod.unread,
        *("num_starts", "spread", "prune"),
    )

    num_starts: int = eqx.field(default=1, converter=whole("SparseWeights(num_starts", 1))
    spread: float = eqx.field(default=1.0, converter=positive("SparseWeights(spread"))
    max_steps: int = eqx.field(default=2000, converter=whole("SparseWeights(max_steps", 0))
    atol: float = eqx.field(default=0.01, converter=positive("SparseWeights(atol"))
    prune: Any = eqx.field(default="bic")
    num_draws: int = eqx.field(default=1, converter=whole("SparseWeights(num_draws", 1))

    def __check_init__(self):
        if self.prune is None or (isinstance(self.prune, str) and self.prune == "bic"):
            return
        try:
            positive("SparseWeights(prune", zero=True)(self.prune)
        except ValueError:
            raise ValueError(
                f'`SparseWeights(prune={short(self.prune)})`: it takes "bic", nats (0 or a '
                "positive number), or None."
            ) from None

    # The three functions, for one start.

    def init(self, model, data, key, start):
        if start is None:
            start = flat_start(model, data)
        sds = {name: start[name] for name in variances_of(model, data)}
        return State(Here(sds, model.noise_sd(start, data) ** 2), at_foot(data.y.dtype))

    def step(self, model, data, state):
        here, found = state.here, moments(model, data, state.here)
        climb = climbed(state.climb, found.evidence)
        return State(moved(data, here, found), climb)

    def terminate(self, state):
        return is_done(state.climb, self.atol)

    def record(self, state):
        return {"objective": state.climb.objective}

    # The run as a whole.

    def lanes(self):
        return Lanes(self.num_starts, 1, together=False)

    @property
    def label(self):
        return "Sparse weights"

    @property
    def step_limit(self):
        return self.max_steps

    def begin(self, model, data, key, start):
        key_start, key_run = two_keys(key)
        if start is None:
            start = _starts(self.num_starts, self.spread, model, data, key_start)
        return Begin(self, model, start, key_run, key_end=key_start)

    def finish(self, model, data, end):
        final = np.array(_evidences(model, data, end.states.here))
        best = best_lane(final)
        chosen = end.lane(best)
        here, evidence = chosen.here, final[best]
        if self.prune is not None:
            worth = 0.5 * math.log(len(data)) if self.prune == "bic" else self.prune
            here = _pruned(model, data, here, jnp.asarray(worth, data.y.dtype), self.atol)
        found = _moments(model, data, here)
        sites = {**here.sds, "level": found.level}
        if data.noise_sd is None:
            sites["noise_sd"] = jnp.sqrt(here.noise)
        result, settled = self.outcome(chosen, chosen.climb.result)
        trace = end.trace_of_ends("objective", final, best)
        sizes = np.concatenate([np.ravel(v) for v in here.sds.values()])
        facts = facts_of_ends(final, best) | {
            "evidence": float(found.evidence),
            "before_pruning": float(evidence),
            "remaining": float(chosen.climb.remaining),
            "largest_fall": largest_fall(end.trace["objective"]),
            "num_weights": int((sizes > 0).sum()),
            "num_possible": int(sizes.size),
            "num_observations": len(data),
            "noise_over_floor": float(here.noise / (NOISE_FLOOR * _power(data))),
            "noise_known": int(data.noise_sd is not None),
            "settled": settled,
        }
        return Draws(repeated(sites, self.num_draws), {}, trace, result, facts)

    def refuse(self, model: Any, data: Any) -> None:
        if not isinstance(model, Regression) or not isinstance(data, Observed):
            raise ValueError(
                f"`gp.SparseWeights` fits `gp.Regression` to `gp.Observed`, not "
                f"`{type(model).__name__}` to `{type(data).__name__}`."
            )
        if data.ring is not None:
            raise ValueError(
                f"`gp.SparseWeights` got {len(data):,} observations by `num_waves`; it "
                "takes the covariance as it is, of 10,000 observations or fewer."
            )
        structure = model.structure()
        for term in structure.terms:
            if sum(structure.leaves[name].own_sd for name in term) > 1:
                raise ValueError(
                    f"`gp.SparseWeights` got the product {' * '.join(term)}, which has "
                    "products of weights; multiply a grid by kernels without weights, or "
                    "use `pk.MAP`."
                )
        variances_of(model, data)

    def checks(self, tree, facts):
        checks = [
            check_remaining(facts, facts["before_pruning"], self.atol),
            check_fall(facts, "evidence"),
            *check_restarts(facts),
            Check(
                "number of weights over that of observations",
                facts["num_weights"] / facts["num_observations"],
                "at most",
                MOST_WEIGHTS,
                "the weights are not sparse: the signal is not made of a few bumps, or "
                'noise is explained as signal; give `noise_sd`, or use `prune="bic"`',
                f"{facts['num_weights']} of {facts['num_possible']} are not zero",
            ),
        ]
        if not facts["noise_known"]:
            checks.append(
                Check(
                    "noise over its floor",
                    facts["noise_over_floor"],
                    "at least",
                    2.0,
                    "the kernel explains everything, so that the data do not separate "
                    "noise from many small weights; give `noise_sd`, or fewer frequencies",
                    "ratio of variances",
                )
            )
        return tuple(checks)


def variances_of(model: Regression, data: Observed) -> tuple[str, ...]:
    """The names of the sites that are roots of variances.

    Raises:
        ValueError: if there are others, besides level and noise.
    """
    names = [name for name in model.priors(data) if name not in ("level", "noise_sd")]
    others = [name for name in names if not name.startswith("sd_")]
    if others:
        raise ValueError(
            f"`gp.SparseWeights` estimates variances only, and `{others[0]}` is not one; "
            "use `gp.SpectralGrid`, `gp.Linear` and `gp.Drift`, or `pk.MAP`."
        )
    return tuple(names)


def flat_start(model: Regression, data: Observed) -> Sites:
    """Equal variances, which add up to those of the signal; and some noise."""
    power = _power(data)
    noise = FIRST_NOISE * power if data.noise_sd is None else data.noise_sd**2
    signal = jnp.maximum(power - noise, 0.01 * power)
    names = variances_of(model, data)
    priors = model.priors(data)
    count = sum(math.prod(priors[name].event_shape) for name in names)
    each = jnp.sqrt(signal / count)
    sds = {name: each * jnp.ones(priors[name].event_shape, each.dtype) for name in names}
    start = {"level": data.y.mean(), **sds}
    return start if data.noise_sd is not None else start | {"noise_sd": jnp.sqrt(noise)}


def moments(model: Regression, data: Observed, here: Here) -> Moments:
    """The evidence, and what a step needs."""
    structure = model.structure()
    if data.even and structure.is_stationary:
        return _by_recursion(structure, data, here)
    return _dense(structure, data, here)


def moved(data: Observed, here: Here, found: Moments) -> Here:
    """The step of the bound."""
    sds = {name: sd * found.ratios[name] ** 0.25 for name, sd in here.sds.items()}
    if data.noise_sd is not None:
        return Here(sds, here.noise)
    noise = here.noise * jnp.sqrt(found.noise_ratio)
    return Here(sds, jnp.maximum(noise, NOISE_FLOOR * _power(data)))


def _by_recursion(structure, data: Observed, here: Here) -> Moments:
    def column(sds):
        return structure.at(sds, data, data.x - data.x[0]).sum(0)

    # A derivative in the first column of Σ is a sum over its diagonals: of Σ⁻¹ for the
    # determinant, of a aᵀ for the quadratic form.
    first, pull = jax.vjp(column, here.sds)
    first = with_jitter(Toeplitz(first.at[0].add(here.noise))).column
    log_det, inverse = jax.value_and_grad(lambda c: logdet(Toeplitz(c)))(first)
    whole = Toeplitz(first)
    level, left, a = _best_level(lambda b: solve(whole, b), data.y)
    score = jax.grad(lambda c: -left @ solve(Toeplitz(c), left))(first)
    return _moments_of(data, pull, log_det, level, left @ a, score, inverse, lambda c: c[0])


def _dense(structure, data: Observed, here: Here) -> Moments:
    def covariance(sds):
        return structure.covariance(sds, data).sum(0)

    K, pull = jax.vjp(covariance, here.sds)
    identity = jnp.eye(len(data), dtype=K.dtype)
    root = jnp.linalg.cholesky(with_jitter(K + here.noise * identity))
    inverse = cho_solve((root, True), identity)
    level, left, a = _best_level(lambda b: inverse @ b, data.y)
    log_det = 2 * jnp.log(jnp.diagonal(root)).sum()
    score = jnp.outer(a, a)
    return _moments_of(data, pull, log_det, level, left @ a, score, inverse, jnp.trace)


def _best_level(precision, y):
    """The level with the highest evidence, what is left of y, and a."""
    ones = precision(jnp.ones_like(y))
    of_y = precision(y)
    level = of_y.sum() / ones.sum()
    return level, y - level, of_y - level * ones


def _moments_of(data, pull, log_det, level, square, score, inverse, trace):
    evidence = -0.5 * (log_det + square + len(data) * math.log(2 * math.pi))
    # Both derivatives are taken in the sds, and the factor 2 sd cancels in their ratio.
    (top,), (bottom,) = pull(score), pull(inverse)
    ratios = {name: ratio(top[name], bottom[name]) for name in top}
    return Moments(evidence, level, ratios, trace(score) / trace(inverse))


def _power(data: Observed) -> Float[Array, ""]:
    return jnp.mean((data.y - data.y.mean()) ** 2)


@eqx.filter_jit
def _starts(count, spread, model, data, key) -> Sites:
    flat = flat_start(model, data)
    names = variances_of(model, data)
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def scattered(name, a):
        every = jnp.broadcast_to(a, (count, *a.shape))
        if name not in keys or count == 1:
            return every
        shape = (count - 1, *a.shape)
        factors = jnp.exp(0.5 * spread * jax.random.normal(keys[name], shape, a.dtype))
        return every.at[1:].multiply(factors)

    return {name: scattered(name, a) for name, a in flat.items()}


_moments = eqx.filter_jit(moments)


@eqx.filter_jit
def _evidences(model, data, here: Here):
    return jax.lax.map(lambda one: moments(model, data, one).evidence, here)


@eqx.filter_jit
def _pruned(model, data, here: Here, worth, atol) -> Here:
    """Take weights out, and move the others to the maximum; and once more."""
    names = tuple(here.sds)
    shapes = [here.sds[name].shape for name in names]
    cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def at(variance, noise, total):
        parts = jnp.split(jnp.sqrt(variance), cuts)
        pairs = zip(names, parts, shapes, strict=True)
        sds = {name: part.reshape(shape) for name, part, shape in pairs}
        # What was taken out of the weights is noise, unless the noise is known.
        gone = 0.0 if data.noise_sd is not None else total - variance.sum()
        return Here(sds, noise + jnp.maximum(gone, 0.0))

    def one_round(here, _):
        variance = jnp.concatenate([here.sds[name].reshape(-1) ** 2 for name in names])
        total = variance.sum()
        kept, best = fewer(
            lambda v: moments(model, data, at(v, here.noise, total)).evidence,
            variance,
            jnp.zeros(variance.size, int),
            1,
            worth,
        )
        start = (at(kept, here.noise, total), best - 2 * atol, best, 0)

        def rising(carry):
            _, before, now, step = carry
            return (now > before + atol) & (step < AFTER)

        def rise(carry):
            here, _, now, step = carry
            there = moved(data, here, moments(model, data, here))
            return there, now, moments(model, data, there).evidence, step + 1

        return jax.lax.while_loop(rising, rise, start)[0], None

    return jax.lax.scan(one_round, here, None, length=ROUNDS)[0]
