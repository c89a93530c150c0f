r"""Draws of the exact posterior of linear episodes, by Gibbs sampling.

All is drawn from closed forms, in turn: the kind of each episode, with its coefficients
integrated out; its coefficients $θ_i$; weights of the components; mean and covariance of
each, which given $θ_i$ are normal-inverse-Wishart; the scales of half-t sds; the noise.

Source: Gelman et al. (2013), "Bayesian data analysis", sections 15.4 and 22.3; Huang & Wand
(2013), "Simple marginally noninformative prior distributions for covariance matrices", for
the scales.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from probkit.method import RESULTS, AbstractIterativeMethod, Draws, Lanes, choose
from probkit.method.mixing import check_agreement, check_effective
from probkit.model.density import Sites, log_densities
from probkit.models.meta.beliefs import (
    DF,
    Averages,
    Diagonal,
    DiagonalPrior,
    Full,
    FullPrior,
    gamma_shape,
)
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import Believed, Rows, drawn_coefficients
from probkit.models.meta.linear import Linear
from probkit.models.meta.noise import AFTER
from probkit.models.meta.posterior import CONCENTRATION
from probkit.models.meta.rescaled import rescaled
from probkit.validate import whole


class Place(NamedTuple):
    """Where a chain is, standardised.

    Attributes:
        believed: the hierarchy.
        theta: coefficients of each episode, `(n, p)`.
        kind: its component, `(n,)`.
    """

    believed: Believed
    theta: Float[Array, "n p"]
    kind: Int[Array, " n"]

    @classmethod
    def given(cls, rows: Rows, believed: Believed, key: PRNGKeyArray) -> "Place":
        """With coefficients and components drawn given the hierarchy."""
        return cls(believed, *drawn_coefficients(rows, believed, key))

    def swept(
        self, model: Linear, data: Episodes, rows: Rows, keys: tuple[Array, Array]
    ) -> "Place":
        """After one sweep; the keys are of the hierarchy and of the coefficients."""
        believed = drawn_hierarchy(model, data, rows, *self, keys[0])
        return Place.given(rows, believed, keys[1])


class GibbsState(NamedTuple):
    """The state of a chain.

    Attributes:
        place: where it is.
        sites: the hierarchy there, in units of the data.
        lp: log density of the program there, in nats.
        key: a JAX random key.
        num_steps: the number of sweeps.
    """

    place: Place
    sites: Sites
    lp: Float[Array, ""]
    key: PRNGKeyArray
    num_steps: Int[Array, ""]


class Gibbs(AbstractIterativeMethod):
    """Draws of the exact posterior of `meta.Linear`, also for many data sets.

    A sweep takes time in proportion to the number of data sets.

    Attributes:
        num_chains: the number of chains.
        num_warmup: the number of sweeps per chain before the draws. They are not kept.
        num_samples: the number of draws per chain.
    """

    unread: ClassVar[tuple[str, ...]] = ("num_chains",)

    num_chains: int = eqx.field(default=4, converter=whole("Gibbs(num_chains", 1))
    num_warmup: int = eqx.field(default=500, converter=whole("Gibbs(num_warmup", 0))
    num_samples: int = eqx.field(default=1000, converter=whole("Gibbs(num_samples", 1))

    def refuse(self, model: Any, data: Any) -> None:
        if not isinstance(model, Linear):
            raise ValueError(
                f"`meta.Gibbs` draws for `meta.Linear`, not for `{type(model).__name__}`; "
                "use `meta.Episodic()` or `pk.NUTS()`."
            )
        model.refuse(data)

    # The three functions, for one chain.

    def init(self, model, data, key, start):
        key_place, key_theta, key = jax.random.split(key, 3)
        if start is None:
            believed = model.expected(model.first(data, key_place, None), data)
        else:
            believed = model.believed(start, data)
        place = Place.given(model.rows(data), believed, key_theta)
        sites = model.sites_of(believed, data)
        nothing = jnp.zeros((), jnp.int32)
        return GibbsState(place, sites, jnp.zeros((), data.dtype), key, nothing)

    def step(self, model, data, state):
        key, *keys = jax.random.split(state.key, 3)
        place = state.place.swept(model, data, model.rows(data), tuple(keys))
        sites = model.sites_of(place.believed, data)
        prior, likelihood = log_densities(model, data, sites)
        lp = prior + likelihood
        return GibbsState(place, sites, lp, key, state.num_steps + 1)

    def terminate(self, state):
        finished = state.num_steps >= self.num_warmup + self.num_samples
        return finished | ~jnp.isfinite(state.lp)

    def record(self, state):
        return {f"site.{name}": value for name, value in state.sites.items()} | {
            "lp": state.lp
        }

    # The run as a whole.

    @property
    def label(self):
        return f"Gibbs, {self.num_chains} chains"

    @property
    def step_limit(self):
        return self.num_warmup + self.num_samples

    @property
    def discarded(self):
        return self.num_warmup

    def lanes(self):
        return Lanes.of_chains(self.num_chains)

    def finish(self, model, data, end):
        if end.counts.min() < self.num_samples:
            return Draws({}, {}, {}, RESULTS.nonfinite)
        sites = {
            name.removeprefix("site."): values
            for name, values in end.trace.items()
            if name.startswith("site.")
        }
        lp = np.asarray(end.trace["lp"])
        result = choose(jnp.isfinite(lp).all(), RESULTS.successful, RESULTS.nonfinite)
        return Draws(sites, {"lp": lp}, {}, result)

    def checks(self, tree, facts):
        more = "run longer (`num_warmup`, `num_samples`)"
        elsewhere = "start them from a fit by `meta.Episodic()` (`start=`)"
        return (*check_agreement(tree, more, elsewhere), *check_effective(tree, more))


# Visits of values in which an optimised program saves what it costs to make.
SHORT = 4_000_000
# Sweeps per draw, because successive ones resemble each other, if there are few data sets.
# Many determine the hierarchy, which then moves freely, and sweeps take long.
THIN = 5
FEW = 200


def is_short(model: Linear, data: Episodes, num: int) -> bool:
    """Whether so many sweeps, or steps, take little time."""
    return num * data.y.size * model.num_components < SHORT


def chain(
    model: Linear,
    data: Episodes,
    start: Believed,
    key: PRNGKeyArray,
    counts: tuple[int, int],
) -> Sites:
    """Draws of one chain, without their densities: `{site: array[draw, ...]}`.

    Args:
        model: the model.
        data: the data.
        start: the hierarchy where it begins.
        key: a JAX random key.
        counts: the number of draws that are dropped, and of those that are kept.
    """
    rows = model.rows(data)
    key_theta, key = jax.random.split(key)

    def sweep(place, key):
        return place.swept(model, data, rows, tuple(jax.random.split(key))), None

    def draw(place, key):
        keys = jax.random.split(key, THIN if len(data) <= FEW else 1)
        place, _ = jax.lax.scan(sweep, place, keys)
        return place, place.believed

    # One loop for both, which compiles once.
    num_warmup, num_draws = counts
    keys = jax.random.split(key, num_warmup + num_draws)
    _, drawn = jax.lax.scan(draw, Place.given(rows, start, key_theta), keys)
    drawn = jax.tree.map(lambda values: values[num_warmup:], drawn)
    return jax.vmap(lambda believed: model.sites_of(believed, data))(drawn)


def drawn_hierarchy(
    model: Linear,
    data: Episodes,
    rows: Rows,
    believed: Believed,
    theta: Float[Array, "n p"],
    kind: Int[Array, " n"],
    key: PRNGKeyArray,
) -> Believed:
    """The hierarchy given the coefficients and component of each episode."""
    (prior,), k = model.block_priors(data), model.num_components
    n = float(len(kind))
    key_weight, key_block, key_noise = jax.random.split(key, 3)
    member = jax.nn.one_hot(kind, k, dtype=data.dtype)
    log_weight = believed.log_weight
    if k > 1:
        weight = jax.random.dirichlet(key_weight, CONCENTRATION + member.sum(0))
        log_weight = jnp.log(weight).astype(data.dtype)

    def block(key, own, mean, root):
        key_scale, key_both, key_again = jax.random.split(key, 3)
        δ = theta - mean
        second = jnp.einsum("n,np,nq->pq", own, δ, δ) / n
        averages = Averages(own.mean(), own @ δ / n, second)
        if model.covariance == "full":
            q: Full | Diagonal = _full(prior, mean, root, averages, n, key_scale)
            drawn, covariance = q.sample(key_both)
        else:
            each = _diagonal(prior, mean, root, averages, n, key_scale)
            drawn, variance = each.sample(key_both)
            covariance = jnp.diag(variance)
        moved, drawn, covariance = rescaled(
            prior, rows, own, theta, drawn, covariance, believed.precision, key_again
        )
        return moved, drawn, jnp.linalg.cholesky(covariance)

    keys = jax.random.split(key_block, k)
    each, mean, root = jax.vmap(block)(keys, member.T, believed.mean, believed.root)
    theta = each[kind, jnp.arange(len(kind))]
    precision, log_precision = believed.precision, believed.log_precision
    if model.noise_sd is None:
        key_hyper, key_own = jax.random.split(key_noise)
        residual = rows.y - jnp.einsum("nmp,np->nm", rows.design, theta)
        hyper = model.noise_scale(data) ** -2 + DF * precision
        rate = DF * _gamma(key_hyper, AFTER, hyper) + jnp.sum(residual**2) / 2
        precision = _gamma(key_own, (DF + rows.seen.sum()) / 2, rate)
        log_precision = jnp.log(precision)
    return Believed(log_weight, mean, root, precision, log_precision)


def _full(prior: FullPrior, mean, root, averages, n: float, key) -> Full:
    """Mean and covariance given the coefficients, and given drawn scales of the sds."""
    if prior.sd is not None:
        eye = jnp.eye(len(mean), dtype=mean.dtype)
        inverse = jax.lax.linalg.triangular_solve(root, eye, left_side=True, lower=True)
        rate = prior.sd**-2 + DF * jnp.sum(inverse**2, 0)
        drawn = _gamma(key, gamma_shape(len(mean)), rate)
        scale = jnp.diag(2 * DF * drawn)
        prior = FullPrior(prior.loc, prior.strength, scale, prior.degrees())
    at = Full(prior.belief(root @ root.T, 0.0).niw, None)
    at = eqx.tree_at(lambda q: q.niw.loc, at, mean)
    return at.moved(prior, averages, n, 1.0)


def _diagonal(prior: DiagonalPrior, mean, root, averages, n: float, key) -> Diagonal:
    variance = jnp.diagonal(root) ** 2
    if prior.sd is not None:
        rate = prior.sd**-2 + DF / variance
        scale = 2 * DF * _gamma(key, gamma_shape(1), rate)
        prior = DiagonalPrior(prior.loc, prior.strength, scale, prior.degrees())
    averages = averages._replace(second=jnp.diagonal(averages.second))
    at = Diagonal(mean, prior.strength, variance, prior.degrees(), None)
    return at.moved(prior, averages, n, 1.0)


def _gamma(key, shape, rate) -> Array:
    return jax.random.gamma(key, shape, rate.shape, rate.dtype) / rate
