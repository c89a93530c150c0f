r"""Two classes: sparse logistic regression, and the relevance vector machine of it.

$$P(y_i = 1) = \frac{1}{1 + e^{-f_i}}, \qquad f = b + A x, \qquad x_j \sim N(0, γ_j).$$

With $t = y - \tfrac12$ and any $ξ_i$, the likelihood is bounded from below by a normal one,

$$\log p(y_i \mid f_i) \ge t_i f_i - \tfrac12 w_i (f_i^2 - ξ_i^2) - \log 2\cosh(ξ_i/2),
  \qquad w_i = \tanh(ξ_i/2) / (2 ξ_i),$$

so that for given $ξ$ this is regression of $t_i/\sqrt{w_i}$ on rows scaled by $\sqrt{w_i}$,
with noise of variance one: all that is known of it holds here.

Source: Tipping (2001); the bound: Jaakkola & Jordan (2000), "Bayesian parameter estimation
via variational methods".
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits
from probkit.method import AbstractIterativeMethod, Draws, Lanes
from probkit.method.climb import (
    Climb,
    at_foot,
    check_fall,
    check_remaining,
    climbed,
    is_done,
    largest_fall,
)
from probkit.model import AbstractData, AbstractModel
from probkit.models.sbl.coordinates import Center, beside
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import Posterior, posterior
from probkit.models.sbl.prune import Worth, as_worth, check_surplus, prices, pruned
from probkit.models.sbl.updates import Evidence, Scales, bound_sweep
from probkit.validate import as_array, positive, whole

# At the start the logits have this prior variance, besides the intercept.
FIRST_VARIANCE = 4.0
# Atoms are tried again after the bound has moved, at most so many times.
MOST_ROUNDS = 5
# From the mean of the bound, which is close to the mode.
NEWTON_STEPS = 10


class Classes(AbstractData):
    """Labels of two classes, and the columns that may explain them.

    Args:
        y: zeros and ones, or truth values, shape `(n,)`, some of each.
        x: shape `(n, p)`, one column per regressor, in any units, none of them constant.

    Raises:
        ValueError: for other labels, one class alone, shapes that do not match, or what
            `Measurements.table` refuses.
    """

    shared: ClassVar[tuple[str, ...]] = ("center", "scale")

    y: Float[Array, " n"]
    x: Float[Array, "n p"]
    center: Float[Array, " p"]
    scale: Float[Array, " p"]
    # The same as regression, in standardised columns: what `LogisticTypeII` fits.
    measured: Measurements

    def __init__(self, y: Any, x: Any):
        y, x = as_array(y, "Classes(y=...)"), as_array(x, "Classes(x=...)")
        if set(np.unique(y).tolist()) != {0.0, 1.0}:
            raise ValueError(
                "`Classes(y=...)` takes zeros and ones, some of each; code the labels of "
                "two classes so, such as `y == 'yes'`."
            )
        self.measured = Measurements(y - 0.5, [x], 1.0, intercept=True, normalise=True)
        self.x = self.measured.dictionaries[0]
        self.y = y.astype(self.x.dtype)
        self.center, self.scale = self.x.mean(0), self.x.std(0)

    def columns(self) -> Float[Array, "n p"]:
        """The columns, standardised."""
        return (self.x - self.center) / self.scale

    def arrays(self):
        return {"y": self.y, "x": self.x}

    def fields(self):
        return {}


class LogisticSBL(AbstractModel):
    r"""$P(y = 1) = 1/(1 + e^{-f})$, $f = b + \sum_j z_j τ λ_j (x_j - \bar x_j)/s_j$.

    The coefficient of column $j$, with mean $\bar x_j$ and sd $s_j$, is $τ λ_j z_j / s_j$
    with $z_j \sim N(0, 1)$, so that the fit does not depend on the units of columns.

    Sites:
        `global_scale`: $τ$, in logits per sd of a column.
        `local_scale`: $λ$, one entry per atom, dimensionless.
        `standard`: $z$, of the same shape, dimensionless.
        `level`: $b$, the logit where all columns have their means.

    `recover` adds `coefficient`, in logits per unit of the column, and `intercept`, the
    logit where all columns are zero. `predict` has `probability`, P(y = 1), and a draw `y`.
    $τ$ and $λ$ are half-Cauchy. `sbl.LogisticTypeII` leaves their priors out.

    Args:
        global_scale: scale of the prior of $τ$, in logits per sd of a column.
        level_scale: sd of the normal prior of $b$, in logits.

    Raises:
        ValueError: for a scale that is not positive.
    """

    global_scale: float = eqx.field(
        default=1.0, converter=positive("LogisticSBL(global_scale")
    )
    level_scale: float = eqx.field(
        default=10.0, converter=positive("LogisticSBL(level_scale")
    )

    def __call__(self, data: Classes) -> None:
        if not isinstance(data, Classes):
            raise ValueError(
                f"`LogisticSBL` takes `sbl.Classes`, not `{type(data).__name__}`."
            )
        one, size = jnp.ones((), data.x.dtype), data.x.shape[1]
        sites = {
            "global_scale": numpyro.sample(
                "global_scale", dist.HalfCauchy(self.global_scale * one)
            ),
            "local_scale": numpyro.sample(
                "local_scale", dist.HalfCauchy(one).expand([size]).to_event(1)
            ),
            "standard": numpyro.sample(
                "standard", dist.Normal(0 * one, 1.0).expand([size]).to_event(1)
            ),
            "level": numpyro.sample(
                "level",
                InUnits(dist.Normal(0 * one, 1.0), [AffineTransform(0, self.level_scale)]),
            ),
        }
        with numpyro.plate("observation", len(data)):
            logits = self.logits(sites, data)
            numpyro.sample("y", dist.Bernoulli(logits=logits), obs=data.y)

    def logits(self, sites, data: Classes) -> Float[Array, " n"]:
        """$f$ at the rows of the data."""
        weight = sites["global_scale"] * sites["local_scale"] * sites["standard"]
        return sites["level"] + data.columns() @ weight

    def predict(self, sites, inputs, key):
        """At new rows: `probability`, P(y = 1), and `y`, a draw of zero or one."""
        probability = jax.nn.sigmoid(self.logits(sites, inputs))
        drawn = jax.random.bernoulli(key, probability).astype(probability.dtype)
        return {"y": drawn, "probability": probability}

    def recover(self, sites, data, key):
        """`coefficient` and `intercept`, in logits, for the columns as they were given."""
        weight = sites["global_scale"] * sites["local_scale"] * sites["standard"]
        coefficient = weight / data.scale
        intercept = sites["level"] - data.center @ coefficient
        return {"coefficient": coefficient, "intercept": intercept}

    def dims(self, data):
        numbers = ("global_scale", "level", "intercept")
        of_atoms = ("local_scale", "standard", "coefficient")
        return {
            **dict.fromkeys(numbers, ()),
            **dict.fromkeys(of_atoms, ("atom",)),
            **dict.fromkeys(("y", "probability"), ("observation",)),
            "x": ("observation", "atom"),
        }

    def coords(self, data):
        return {"observation": np.arange(len(data)), "atom": np.arange(data.x.shape[1])}


class Weighted(NamedTuple):
    r"""A regression of responses on the columns, with a weight for each row.

    Attributes:
        data: the same with rows scaled by $\sqrt{w}$, so that the noise has variance one.
        center: where intercept and coefficients are independent.
    """

    data: Measurements
    center: Center

    @classmethod
    def of(cls, model: LogisticSBL, data: Classes, w: Array, response: Array) -> "Weighted":
        r"""The regression with weights $w$, shape `(n,)`, and responses of that shape.

        The prior of $b$ is one measurement more, $0 = b/s_b + e$. Then the prior is flat,
        and its direction, $u = (\sqrt{w}, 1/s_b)$, is integrated out as that of the ones.
        """
        root, columns = jnp.sqrt(w), data.columns()
        y = jnp.append(root * response, 0.0)
        rows = jnp.concatenate([root[:, None] * columns, jnp.zeros_like(columns[:1])])
        u = jnp.append(root, 1 / model.level_scale)
        count = jnp.vdot(u, u)
        reduced = beside(u / jnp.sqrt(count), y, rows)
        here = eqx.tree_at(lambda d: d.reduced, data.measured, reduced)
        return cls(here, Center(u @ y / count, u @ rows / count, count))

    def posterior(self, variance: Float[Array, " p"]) -> Posterior:
        """Intercept and coefficients of standardised columns, given their variances."""
        post = posterior(self.data, (variance,), jnp.ones((), variance.dtype))
        return dataclasses.replace(post, center=self.center)


def bounded(
    model: LogisticSBL, data: Classes, squares: Float[Array, " n"]
) -> tuple[Weighted, Float[Array, ""]]:
    r"""The normal bound at $ξ^2$ as a regression, and what its evidence lacks, in nats."""
    ξ = jnp.sqrt(squares)
    small = ξ < 1e-4  # where tanh(ξ/2) / (2ξ) is 1/4 - ξ²/48 to all digits
    safe = jnp.where(small, 1.0, ξ)
    w = jnp.where(small, 0.25 - squares / 48, jnp.tanh(safe / 2) / (2 * safe))
    t = data.y - 0.5
    regression = Weighted.of(model, data, w, t / w)
    cosh = ξ / 2 + jnp.log1p(jnp.exp(-ξ))  # log 2 cosh(ξ/2), without overflow
    each = 0.5 * (math.log(2 * math.pi) + t**2 / w + w * squares) - cosh
    level = 0.5 * jnp.log(model.level_scale**2 * regression.center.count)
    return regression, each.sum() - level


def laplace(
    model: LogisticSBL,
    data: Classes,
    variance: Float[Array, " p"],
    logits: Float[Array, " n"],
) -> Posterior:
    """The normal approximation at the mode, by Newton's method: at given variances.

    Its sds are those of the curvature of the likelihood. Those of the bound are smaller,
    because the bound bends more.

    Args:
        model: the model.
        data: its data.
        variance: prior variances of the coefficients of standardised columns.
        logits: where to start, at the rows of the data.
    """
    least = jnp.finfo(variance.dtype).eps

    def at(f):
        p = jax.nn.sigmoid(f)
        w = jnp.maximum(p * (1 - p), least)
        return Weighted.of(model, data, w, f + (data.y - p) / w).posterior(variance)

    def newton(_, f):
        return at(f).at([data.columns()])[0]

    return at(jax.lax.fori_loop(0, NEWTON_STEPS, newton, logits))


class LogisticState(NamedTuple):
    variance: Float[Array, " p"]
    squares: Float[Array, " n"]  # ξ²
    climb: Climb


class LogisticTypeII(AbstractIterativeMethod):
    r"""Maximise a bound of the evidence $p(y \mid γ)$ of `LogisticSBL`, without its priors.

    A step moves $ξ^2$ to $E f^2$ and then $γ$ to the minimum of the bound of `TypeII`, so
    that the bound of the evidence never falls. At the end atoms that are not worth their
    price are taken out, as by `TypeII`. The draws are those of the normal approximation at
    the mode of intercept and coefficients, with the variances treated as known.

    Args:
        max_steps: the largest number of steps.
        atol: tolerance on the bound, in nats, of the last gain and of all gains to come. If
            the columns separate the classes, the evidence has no maximum, and rises ever
            more slowly.
        prune: the evidence that an atom must add to stay, as in `TypeII`.
        num_draws: number of draws.

    Raises:
        ValueError: for a setting out of its range. Other models are refused when they are
            fitted.

    Source: Tipping (2001). Departs: the variances maximise a bound, so that it rises; his
    fixed point is on a normal approximation, whose evidence may fall.
    """

    max_steps: int = eqx.field(default=2000, converter=whole("LogisticTypeII(max_steps", 0))
    atol: float = eqx.field(default=1e-2, converter=positive("LogisticTypeII(atol"))
    prune: Worth = eqx.field(default="ebic", converter=as_worth)
    num_draws: int = eqx.field(default=1000, converter=whole("LogisticTypeII(num_draws", 1))

    def init(self, model, data, key, start):
        n, p = data.x.shape
        first = jnp.full(p, FIRST_VARIANCE / p, data.x.dtype)
        squares = jnp.full(n, FIRST_VARIANCE, data.x.dtype)
        if start is not None:
            first = (start["global_scale"] * start["local_scale"]) ** 2
            squares = model.logits(start, data) ** 2
        return LogisticState(first, squares, at_foot(data.x.dtype))

    def step(self, model, data, state):
        return _risen(model, data, state)

    def terminate(self, state):
        return is_done(state.climb, self.atol)

    def record(self, state):
        return {"objective": state.climb.objective}

    def lanes(self):
        return Lanes(1, 1, together=True)

    @property
    def label(self):
        return "Logistic type II"

    @property
    def step_limit(self):
        return self.max_steps

    def refuse(self, model, data):
        if not isinstance(model, LogisticSBL) or not isinstance(data, Classes):
            raise ValueError(
                f"`sbl.LogisticTypeII` fits `sbl.LogisticSBL` to `sbl.Classes`, not "
                f"`{type(model).__name__}` to `{type(data).__name__}`."
            )

    def finish(self, model, data, end):
        searched = end.lane(0)
        state, sites = _finished(self, model, data, searched, end.key)
        moved_on = state.climb.num_steps > 0
        climb = state.climb if moved_on else searched.climb
        result, settled = self.outcome(searched._replace(climb=climb), climb.result)
        bound, kept = float(climb.objective), int((state.variance > 0).sum())
        worth = None if self.prune is None else "ebic"
        (price,) = prices(worth, data.measured, [state.variance.size])
        facts = {
            "evidence": bound,
            "surplus": bound - evidence_alone(model, data) - price * kept,
            "remaining": float(climb.remaining),
            "largest_fall": largest_fall(end.trace["objective"], rounded=False),
            "slack": float(max(climb.slack, searched.climb.slack)),
            "settled": settled,
        }
        sites = {name: np.asarray(draws)[None] for name, draws in sites.items()}
        return Draws(sites, {}, end.trace, result, facts)

    def checks(self, tree, facts):
        limit = max(1e-9 * abs(facts["evidence"]), facts["slack"])
        return (
            check_remaining(facts, facts["evidence"], self.atol),
            check_fall(facts, "bound of the evidence", limit, note="nats"),
            *check_surplus(facts),
        )


def evidence_alone(model: LogisticSBL, data: Classes) -> float:
    r"""$\log ∫ N(b; 0, s_b^2) \prod_i p(y_i \mid b)\, db$, of an intercept alone, in nats.

    By a sum over a grid, whose ends are eight sds of the prior away.
    """
    b, step = np.linspace(-8, 8, 8001, retstep=True)
    b, step = b * model.level_scale, step * model.level_scale
    y = np.asarray(data.y)
    terms = y.sum() * b - len(y) * np.logaddexp(0, b) - 0.5 * (b / model.level_scale) ** 2
    scale = math.log(step / model.level_scale) - 0.5 * math.log(2 * math.pi)
    return float(np.logaddexp.reduce(terms) + scale)


def _risen(model: LogisticSBL, data: Classes, state: LogisticState) -> LogisticState:
    """One step: the best ξ, then variances with more evidence. `climb` is that before."""
    regression, constant = bounded(model, data, state.squares)
    post = regression.posterior(state.variance)
    climb = climbed(state.climb, post.log_evidence() + constant, slack=post.rounding())
    mean, variance = post.at([data.columns()])
    squares = mean**2 + variance
    at_best = bounded(model, data, squares)[0].posterior(state.variance)
    new = bound_sweep(_scales(state.variance), Evidence.of(at_best))
    return LogisticState(new.variance()[0], squares, climb)


def _scales(variance: Float[Array, " p"]) -> Scales:
    return Scales(jnp.ones((), variance.dtype), (variance,), (None,), (False,))


@eqx.filter_jit
def _finished(method, model, data, state, key):
    """The state without the atoms that are not worth their price, and draws of it."""

    def settled(state):
        state = state._replace(climb=at_foot(data.x.dtype))
        return jax.lax.while_loop(
            lambda s: (
                ~is_done(s.climb, 0.1 * method.atol)
                & (s.climb.num_steps < method.max_steps)
            ),
            lambda s: _risen(model, data, s),
            state,
        )

    def round_of(carry):
        state, _, number = carry
        one = jnp.ones((), data.x.dtype)
        here = bounded(model, data, state.squares)[0].data
        scales = _scales(state.variance)
        left = pruned(here, scales, one, method.prune, 0.1 * method.atol).scales
        new = settled(state._replace(variance=left.variance()[0]))
        changed = ((new.variance > 0) != (state.variance > 0)).any()
        return new, changed, number + 1

    if method.prune is not None:
        state, *_ = jax.lax.while_loop(
            lambda carry: carry[1] & (carry[2] < MOST_ROUNDS),
            round_of,
            (state, jnp.ones((), bool), jnp.zeros((), jnp.int32)),
        )
    post = bounded(model, data, state.squares)[0].posterior(state.variance)
    post = laplace(model, data, state.variance, post.at([data.columns()])[0])

    def draw(key):
        key_x, key_level, key_out = jax.random.split(key, 3)
        x, sd = post.sample(key_x), jnp.sqrt(state.variance)
        white = jax.random.normal(key_out, x.shape, x.dtype)
        inside = sd > 0
        z = jnp.where(inside, x / jnp.where(inside, sd, 1.0), white)
        return {"standard": z, "level": post.intercept(x, key_level)}

    drawn = jax.vmap(draw)(jax.random.split(key, method.num_draws))
    scales = _scales(state.variance).normalised()
    held = {
        "global_scale": jnp.sqrt(scales.total),
        "local_scale": jnp.sqrt(scales.local[0]),
    }
    count = method.num_draws
    held = {k: jnp.broadcast_to(v, (count, *v.shape)) for k, v in held.items()}
    return state, held | drawn
