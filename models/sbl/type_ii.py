"""Type-II maximum likelihood: hyperparameters at the maximum of the evidence."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from probkit.check import Check
from probkit.climb import Climb, at_foot, climbed, is_done, rounding
from probkit.density import Sites
from probkit.loop import Lanes, iterate
from probkit.method import RESULTS, AbstractIterativeMethod, Draws, message
from probkit.models.sbl.kronecker import KroneckerSBL
from probkit.models.sbl.measurements import Measurements
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.updates import (
    GENERAL,
    MONOTONE,
    RULES,
    Evidence,
    Rule,
    moved,
    moved_noise,
)
from probkit.models.sbl.worth import Worth, as_worth, nats
from probkit.validate import positive, short, whole

# Atoms below these shares of their mode's largest variance are tried for removal at once.
SHARES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)


# By the end of a search the added noise has fallen to this share of the data's power.
FADED = 1e-5


class TypeIIState(NamedTuple):
    sites: Sites
    fallback: Sites  # where the bound would have gone, should the last step have failed
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
            "mackay": the fixed point of MacKay, about twice as fast; a step that lowers
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
            noise. 0 takes out only what the evidence does not miss, None nothing.
        num_draws: how many times the optimum is repeated, for `recover` and `predict` to
            draw coefficients at it.

    Source: He & Joseph, arXiv 2307.14719 ("em", "svd"); the others are ours.
    """

    update: Rule = "mm"
    num_restarts: int = eqx.field(default=4, converter=whole("TypeII(num_restarts", 1))
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
        sites = model.normal_form(start, data)
        zero = jnp.zeros((), jnp.int32)
        return TypeIIState(sites, sites, zero, at_foot(data.y.real.dtype))

    def step(self, model, data, state):
        searching = state.searched < self.search
        faded = FADED ** (state.searched / max(self.search, 1))
        extra = jnp.where(searching, faded * data.power, 0.0)
        scales, noise = model.scales(state.sites, data), model.noise(state.sites, data)
        post = posterior(data, scales.variance(), noise + extra)
        evidence = Evidence.of(post)

        def after(rule: Rule) -> Sites:
            new = moved(rule, scales, post, evidence, self.inner_sweeps)
            # What was added is not part of what is learned.
            learned = model.floored(moved_noise(rule, post) - extra, data)
            return model.sites(new, learned, data)

        found = TypeIIState(after("mackay"), state.sites, state.searched + 1, state.climb)
        if self.search == 0:
            return self._climbed(state, post, after)
        return jax.tree.map(
            lambda yes, no: jnp.where(searching, yes, no),
            found,
            self._climbed(state, post, after),
        )

    def _climbed(self, state, post, after):
        objective = post.log_evidence()
        climb = climbed(state.climb, objective, may_fall=self.update not in MONOTONE)
        sites = after(self.update)
        if self.update != "mackay":
            return TypeIIState(sites, sites, state.searched, climb)
        fell = objective < state.climb.objective - rounding(objective)
        back = state.climb._replace(num_steps=climb.num_steps)
        return jax.tree.map(
            lambda yes, no: jnp.where(fell, yes, no),
            TypeIIState(state.fallback, state.fallback, state.searched, back),
            TypeIIState(sites, after("mm"), state.searched, climb),
        )

    def terminate(self, state):
        return is_done(state.climb, self.atol)

    def record(self, state):
        return {"objective": state.climb.objective}

    # The run as a whole.

    def run(self, model, data, key, start, running):
        self._refuse(model, data)
        key_start, key_run = jax.random.split(key)
        if start is None:
            start = self._starts(model, data, key_start)
        states, trace, counts = iterate(
            self,
            model,
            data,
            key_run,
            start,
            lanes=Lanes(self.num_restarts, 1, together=True),
            max_steps=self.max_steps,
            running=running,
            label=f"Type II ({self.update})",
        )
        if counts.size == 0:
            return Draws({}, {}, {}, RESULTS.no_steps)
        final = np.array(_evidence(model, data, states.sites))
        best = int(np.argmax(np.where(np.isnan(final), -np.inf, final)))
        chosen = jax.tree.map(lambda a: jnp.asarray(a[best]), states)
        sites, evidence = chosen.sites, final[best]
        if self.prune is not None:
            worth = jnp.asarray(nats(self.prune, data))
            sites, evidence = _pruned(model, data, sites, worth)
        settled = bool(self.terminate(chosen))
        result = chosen.climb.result if settled else RESULTS.max_steps_reached
        # While it searches there is no evidence to speak of.
        trace["objective"][:, : self.search] = np.nan
        falls = np.diff(trace["objective"][best][self.search : counts[best]])
        facts = {
            "evidence": float(evidence),
            "remaining": float(chosen.climb.remaining),
            "largest_fall": float(np.max(-falls, initial=0.0)),
            "reached_best": int((final >= final[best] - 0.01).sum()),
            "num_restarts": self.num_restarts,
            "settled": settled,
        }
        trace |= {
            "final_objective": final[:, None],
            "steps": counts[:, None],
            "best": np.arange(self.num_restarts)[:, None] == best,
        }
        draws = jax.tree.map(
            lambda a: np.broadcast_to(np.asarray(a), (1, self.num_draws, *a.shape)), sites
        )
        return Draws(draws, {}, trace, result, facts)

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
        spreads = np.full(self.num_restarts, self.spread)
        spreads[0] = 0.0
        return _spread_starts(model, data, jax.random.split(key, len(spreads)), spreads)

    def checks(self, tree, facts):
        checks = [
            Check(
                "still to be gained",
                facts["remaining"],
                "at most",
                max(self.atol, 1e-12 * abs(facts["evidence"])),
                "raise `max_steps`",
                "nats, estimated",
            )
        ]
        if self.update in MONOTONE:
            checks.append(
                Check(
                    "largest fall of the evidence",
                    facts["largest_fall"],
                    "at most",
                    1e-9 * abs(facts["evidence"]),
                    message(RESULTS.decreased),
                    "nats",
                )
            )
        if facts["num_restarts"] > 1:
            checks.append(
                Check(
                    "restarts that found the best",
                    facts["reached_best"],
                    "at least",
                    2,
                    "raise `num_restarts`: a better optimum may be out there",
                    f"of {int(facts['num_restarts'])}",
                )
            )
        return tuple(checks)


@eqx.filter_jit
def _spread_starts(model, data, keys, spreads):
    spreads = spreads.astype(data.y.real.dtype)
    return jax.vmap(lambda k, s: model.spread_start(data, k, s))(keys, spreads)


@eqx.filter_jit
def _evidence(model, data, sites):
    return jax.vmap(lambda s: model.posterior(s, data).log_evidence())(sites)


@eqx.filter_jit
def _pruned(model: KroneckerSBL, data: Measurements, sites: Sites, worth):
    """The sites without the atoms that are not worth their nats, and the evidence.

    Mode by mode: first all atoms below a share of the largest at once, so that most of
    the work is done in a few steps; then one by one from the smallest, twice over, since
    what one atom is worth depends on which others are in.
    """

    def evidence(sites):
        return model.posterior(sites, data).log_evidence()

    def attempt(sites, best, name, out):
        fewer = {**sites, name: jnp.where(out, 0.0, sites[name])}
        new = evidence(fewer)
        # What is zero already, or as good as, is worth nothing: rounding may disagree.
        price = worth * (out & (sites[name] > 0)).sum() + rounding(best)
        keep = new >= best - price
        kept = jax.tree.map(lambda a, b: jnp.where(keep, a, b), fewer, sites)
        return kept, jnp.where(keep, new, best)

    def sweep(carry, _):
        sites, best = carry
        for name in [name for name in sites if name.startswith("local_scale_")]:

            def below(carry, share, name=name):
                small = carry[0][name] ** 2 < share * carry[0][name].max() ** 2
                return attempt(*carry, name, small), None

            def single(carry, j, name=name):
                one = jnp.arange(carry[0][name].size) == j
                there = carry[0][name][j] > 0
                go = lambda c: attempt(*c, name, one)  # noqa: E731
                return jax.lax.cond(there, go, lambda c: c, carry), None

            shares = jnp.asarray(SHARES, best.dtype)
            (sites, best), _ = jax.lax.scan(below, (sites, best), shares)
            order = jnp.argsort(sites[name])
            (sites, best), _ = jax.lax.scan(single, (sites, best), order)
        return (sites, best), None

    carry = (sites, evidence(sites))
    return jax.lax.scan(sweep, carry, None, length=2)[0]
