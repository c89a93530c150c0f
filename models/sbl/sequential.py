"""The sequential method of Tipping and Faul, for one mode: one atom per step."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from probkit.linalg import abs2
from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    choose,
)
from probkit.method.climb import check_fall, largest_fall
from probkit.models.sbl.gibbs import check_draws, drawn, refuse_draws
from probkit.models.sbl.kronecker import FIRST_NOISE, KroneckerSBL
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import Posterior, posterior
from probkit.models.sbl.prune import Worth, as_worth, check_surplus, prices, surplus
from probkit.models.sbl.updates import Scales, moved_noise, noise_variance
from probkit.validate import positive, whole

# A known noise variance is approached by this factor at a time.
FALL = 0.1
# At most so much of the noise variance is rounding of the covariance of the measurements.
MOST_ROUNDING = 0.1


class SequentialState(NamedTuple):
    variance: Float[Array, " n"]
    noise: Float[Array, ""]
    precision: Inexact[Array, "m m"]  # of the measurements
    leverage: Float[Array, " n"]  # S in the paper: diag of A^H precision A
    score: Inexact[Array, " n"]  # Q: A^H precision y
    objective: Float[Array, ""]
    gain: Float[Array, ""]  # of the last step that was taken
    since: Int[Array, ""]  # steps since the last refresh
    num_steps: Int[Array, ""]
    slack: Float[Array, ""]  # the rounding of the objective
    falling: Bool[Array, ""]  # whether the noise has yet to fall to the known one
    done: Bool[Array, ""]
    result: Any


class Sequential(AbstractIterativeMethod):
    r"""Maximise the evidence of a one-mode `KroneckerSBL`, one atom per step.

    The model starts empty. As a function of the variance of atom $i$ alone, the evidence
    has its maximum at $γ_i = \max((|q_i|^2 - s_i)/s_i^2, 0)$, where $q_i$ and $s_i$ are
    score and leverage without that atom. A step adds, re-estimates or deletes the atom
    that gains most. It costs $O(M^2 + M N)$ for $M$ measurements and $N$ atoms. The number
    of steps grows with the support, not with $N$.

    Args:
        max_steps: the largest number of steps.
        atol: the run ends when no change of one atom gains more than this, or more than
            rounding explains, in nats.
        prune: the evidence that an atom must add to enter and to stay: "ebic", "bic" or a
            number of nats, as in `TypeII`. None is 0.
        refresh: after so many steps, precision, score and leverage are recomputed, because
            rounding accumulates. The noise is estimated again unless the data have it.
        num_draws: number of draws of the variances, the first the optimum, as in `TypeII`.

    Raises:
        ValueError: for a setting out of its range. A model with coupled or frozen modes,
            or data with several dictionaries, are refused when the model is fitted.

    Rounding limits how little noise a fit can have, because the covariance of the
    measurements has an error of about $ε$ times its largest eigenvalue. A learned $σ^2$
    stays above ten times that, so that in float32 it is too large from about 45 dB on. A
    known $σ^2$ below it ends the run as `imprecise`.

    Source: Tipping & Faul (2003), "Fast marginal likelihood maximisation for sparse
    Bayesian models". Departs: the noise moves to the minimum of a bound, so that the
    evidence rises.
    """

    max_steps: int = eqx.field(default=5000, converter=whole("Sequential(max_steps", 0))
    atol: float = eqx.field(default=1e-3, converter=positive("Sequential(atol"))
    prune: Worth = eqx.field(default="ebic", converter=as_worth)
    refresh: int = eqx.field(default=20, converter=whole("Sequential(refresh", 1))
    num_draws: int = eqx.field(default=1, converter=whole("Sequential(num_draws", 1))

    # The three functions.

    def init(self, model, data, key, start):
        (atoms,) = data.num_atoms
        real = data.y.real.dtype
        if start is None:
            variance = jnp.zeros(atoms, real)
            # A known noise is approached from above: with little noise and few atoms, all
            # that the missing atoms explain would have to come from those that are there.
            noise = jnp.maximum(
                model.noise(model.flat_start(data), data), FIRST_NOISE * data.power
            )
        else:
            (variance,) = model.scales(start, data).variance()
            noise = model.noise(start, data)
        objective, slack = self._worth(data, variance, noise)
        far = jnp.full((), jnp.inf, real)
        count = jnp.zeros((), jnp.int32)
        precision, leverage, score = _from_scratch(data, variance, noise)
        return SequentialState(
            variance,
            noise,
            precision,
            leverage,
            score,
            objective,
            gain=far,
            since=count,
            num_steps=count,
            slack=slack,
            falling=self._falls(data, noise),
            done=jnp.zeros((), bool),
            result=RESULTS.no_steps,
        )

    def step(self, model, data, state):
        half = 1.0 if data.is_complex else 0.5  # of the cost, in nats
        price = self._price(data) / half
        best, gains = best_variances(state.variance, state.leverage, state.score, price)
        i = jnp.argmax(gains)
        gain = half * gains[i]
        nothing = gain <= jnp.maximum(self.atol, state.slack)
        fresh = nothing | (state.since >= self.refresh)
        state = jax.lax.cond(
            fresh,
            lambda s: self._refreshed(data, s, nothing),
            lambda s: _moved(data, s, i, best[i], gain),
            state,
        )
        finite = jnp.isfinite(state.objective)
        result = choose(finite, state.result, RESULTS.nonfinite)
        return state._replace(num_steps=state.num_steps + 1, result=result)

    def _refreshed(self, data, state, nothing):
        """Estimate the noise again, and recompute everything else from scratch."""
        post = posterior(data, (state.variance,), state.noise)
        least = _least_noise(post)
        if data.noise_sd is None:
            moved = noise_variance(moved_noise("mm", post), data)
            noise = jnp.maximum(moved, least)
        else:
            lower = jnp.where(nothing, FALL * state.noise, state.noise)
            noise = jnp.maximum(lower, data.noise_sd**2)
        objective, slack = self._worth(data, state.variance, noise)
        result = choose(noise < least, RESULTS.imprecise, RESULTS.successful)
        gain = objective - state.objective
        settled = jnp.abs(gain) <= jnp.maximum(self.atol, slack)
        precision, leverage, score = _from_scratch(data, state.variance, noise)
        return state._replace(
            noise=noise,
            precision=precision,
            leverage=leverage,
            score=score,
            objective=objective,
            gain=gain,
            since=jnp.zeros((), jnp.int32),
            slack=slack,
            falling=self._falls(data, noise),
            done=nothing & settled & ~state.falling,
            result=result,
        )

    def _falls(self, data, noise) -> Bool[Array, ""]:
        known = noise if data.noise_sd is None else data.noise_sd**2
        return noise > known

    def _worth(self, data, variance, noise) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The evidence, less the price of the atoms, and its rounding."""
        post = posterior(data, (variance,), noise)
        spent = self._price(data) * (variance > 0).sum()
        return post.log_evidence() - spent, post.rounding()

    def _price(self, data) -> float:
        """The evidence that an atom must add, in nats."""
        return prices(self.prune, data, data.num_atoms)[0]

    def terminate(self, state):
        failed = (state.result != RESULTS.successful) & (state.num_steps > 0)
        return state.done | failed

    def record(self, state):
        # With another noise it is another objective.
        return {"objective": jnp.where(state.falling, jnp.nan, state.objective)}

    # The run as a whole.

    def lanes(self):
        return Lanes(1, 1, together=True)

    @property
    def label(self):
        return "Sequential"

    @property
    def step_limit(self):
        return self.max_steps

    def refuse(self, model, data):
        _refuse(model, data)
        refuse_draws(self, model, data)

    def finish(self, model, data, end):
        state = end.lane(0)
        result, settled = self.outcome(state, state.result)
        one = jnp.ones_like(state.noise)
        scales = Scales(one, (state.variance,), (None,), (False,)).normalised()
        sites = model.sites(scales, state.noise, data)
        around = (scales, state.noise, end.key)
        draws, facts_of_draws = drawn(self, model, data, sites, *around)
        count = int((state.variance > 0).sum())
        evidence = float(state.objective) + self._price(data) * count
        facts = {
            "evidence": evidence,
            "surplus": surplus(data, scales, evidence, self.prune or 0.0),
            "slack": float(state.slack),
            "largest_fall": largest_fall(end.trace["objective"], rounded=False),
            "num_atoms": count,
            "settled": settled,
        }
        return Draws(draws, {}, end.trace, result, facts | facts_of_draws)

    def checks(self, tree, facts):
        return (
            check_fall(
                facts,
                limit=max(1e-7 * abs(facts["evidence"]), facts.get("slack", 0.0)),
                remedy="rounding has accumulated: lower `refresh`, or use float64",
                note="nats",
            ),
            *check_surplus(facts),
            *check_draws(facts),
        )


def _least_noise(post: Posterior) -> Float[Array, ""]:
    """The least noise variance of which no more than a share is rounding."""
    eps = jnp.finfo(post.spectrum.dtype).eps
    return eps / MOST_ROUNDING * (post.spectrum.max() - post.noise)


def best_variances(
    variance: Float[Array, " n"],
    leverage: Float[Array, " n"],
    score: Inexact[Array, " n"],
    price: float = 0.0,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    r"""The best variance of each atom while the others are held, and the gain.

    With $γ + δ$ in place of $γ$ the atom changes the cost
    $\log|Σ_y| + y^H Σ_y^{-1} y$ by $\log(1 + δS) - |Q|^2 δ/(1 + δS)$, and by `price` if it
    enters or leaves. The minimum is at $γ + δ = (|Q|^2 - S\,(1 - γS))/S^2$. In the paper's
    $s = S/(1 - γS)$ and $q = Q/(1 - γS)$ it is the same. But $1 - γS$, the share of the
    prior variance that the data leave, is next to zero for a strong atom, and rounding
    makes it negative. Here nothing is divided by it, except if the atom leaves.

    Returns:
        The variances, and the decreases of the cost, which are not negative.
    """
    S, Q2 = leverage, abs2(score)
    # A strong atom costs too much to leave, however much of a rounding unit is left.
    out = jnp.maximum(1 - variance * S, jnp.finfo(S.dtype).eps)
    known = jnp.where(S > 0, S, 1.0)
    best = jnp.where(S > 0, jnp.maximum(Q2 - S * out, 0.0) / known**2, 0.0)
    at_best = out + best * S
    present = price * (variance > 0)
    staying = jnp.log(at_best) - Q2 * (best - variance) / at_best + price - present
    leaving = jnp.log(out) + Q2 * variance / out - present
    stays = (best > 0) & (staying < leaving)
    best, change = jnp.where(stays, best, 0.0), jnp.where(stays, staying, leaving)
    return best, jnp.maximum(-change, 0.0)


def _moved(data, state, i, variance, gain):
    """Give atom `i` another variance, by a rank-one change of the precision."""
    (dictionary,) = data.reduced.dictionaries
    change = variance - state.variance[i]
    atom = state.precision @ dictionary[:, i]
    reach = dictionary.conj().T @ atom
    share = change / (1 + change * state.leverage[i])
    return state._replace(
        variance=state.variance.at[i].set(variance),
        precision=state.precision - share * jnp.outer(atom, atom.conj()),
        leverage=state.leverage - share * abs2(reach),
        score=state.score - share * reach * state.score[i],
        objective=state.objective + gain,
        gain=gain,
        since=state.since + 1,
        result=RESULTS.successful,
    )


def _from_scratch(data, variance, noise):
    """Precision of the measurements, leverages and scores, from scratch."""
    (dictionary,), y = data.reduced.dictionaries, data.reduced.y
    covariance = (dictionary * variance) @ dictionary.conj().T
    covariance = covariance + noise * jnp.eye(len(y), dtype=covariance.dtype)
    factor = jax.scipy.linalg.cho_factor(covariance, lower=True)
    precision = jax.scipy.linalg.cho_solve(factor, jnp.eye(len(y), dtype=covariance.dtype))
    reach = precision @ dictionary
    leverage = jnp.real((dictionary.conj() * reach).sum(0))
    return precision, leverage, reach.conj().T @ y


def _refuse(model: Any, data: Any) -> None:
    fits = isinstance(model, KroneckerSBL) and isinstance(data, Measurements)
    if not fits or len(data.modes) != 1 or model.coupling or model.frozen:
        raise ValueError(
            "`sbl.Sequential` fits a `sbl.KroneckerSBL` without coupled or frozen modes to "
            "`sbl.Measurements` with one dictionary; for the rest use `sbl.TypeII`."
        )
