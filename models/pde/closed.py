"""Solve in closed form, and choose the kernel by the evidence."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree

from probkit.infer.map import MAP
from probkit.method import RESULTS, AbstractMethod, Draws, Running, choose, repeated
from probkit.method.checkpoint import Checkpoint
from probkit.model.check import Check
from probkit.model.density import Sites, log_densities, unconstrain
from probkit.models.pde.model import SpectralGP
from probkit.models.pde.problem import Problem
from probkit.models.pde.solution import Fields, zero
from probkit.validate import positive, whole

# Tolerance of the equation during the search. At the tolerance of the solution itself the
# evidence is a ridge about 1e9 times longer than it is wide.
SEARCH_SD = 1e-5
LARGEST_NEWTON = 1e-6
# A nonlinear equation is linearised again until no standardised coordinate moves by more.
MOST_ROUNDS, ROUND_TOLERANCE = 6, 0.05


class Closed(AbstractMethod):
    r"""$u$ in closed form; the kernel at the maximum of $p(\text{data} \mid θ)\, p(θ)$.

    For a given kernel the solution of a linear equation is one least-squares problem. The
    solution of a nonlinear equation takes a few Gauss-Newton steps. L-BFGS then estimates
    $θ$: the kernel, about ten numbers, and whatever else is unknown. The search uses a
    looser tolerance of the equation. During the search a nonlinear equation is linearised
    about its solution under the last $θ$, and again after each search, at most six times.

    Attributes:
        learn: whether to search. By default it searches in one dimension, and wherever
            something besides the kernel is unknown. In more dimensions one step takes
            seconds and the start, from the spectrum of the data, is usually good enough;
            `pk.diagnose` shows where it is not.
        max_steps: the largest number of steps of one search.
        atol: the search has settled when no standardised coordinate has a slope of more
            than this many nats.
        num_draws: how many times the optimum is repeated, so that `predict` makes that
            many draws of the solution at it.

    Raises:
        ValueError: for a setting out of range; in `pk.fit`, for another model than
            `pde.SpectralGP` or other data than `pde.Problem`.

    Source: the closed forms are those of Gaussian process regression; Fang et al. (2024),
    arXiv 2311.04465, maximise over $u$ and $θ$ together.
    """

    learn: bool | None = None
    max_steps: int = eqx.field(default=200, converter=whole("Closed(max_steps", 0))
    atol: float = eqx.field(default=0.1, converter=positive("Closed(atol"))
    num_draws: int = eqx.field(default=1, converter=whole("Closed(num_draws", 1))

    def refuse(self, model, data):
        if not isinstance(model, SpectralGP) or not isinstance(data, Problem):
            raise ValueError(
                f"`pde.Closed` fits `pde.SpectralGP` to `pde.Problem`, not "
                f"`{type(model).__name__}` to `{type(data).__name__}`."
            )

    def run(self, model, data, key, start, running):
        if self._learns(model, data):
            if self.max_steps == 0:
                return Draws({}, {}, {}, RESULTS.no_steps)
            sites, settled, objective = self._search(model, data, key, start, running)
            trace = {"objective": objective[None]}
        else:
            sites = _begin(model, data, start)
            settled, trace = True, {}
        facts = {k: float(v) for k, v in _solved(model, data, sites)[1].items()}
        facts |= {"settled": settled}
        finite = all(np.isfinite(v).all() for v in (*facts.values(), *trace.values()))
        done = settled and facts["newton_change"] < LARGEST_NEWTON
        result = choose(done, RESULTS.successful, RESULTS.max_steps_reached)
        result = choose(finite, result, RESULTS.nonfinite)
        return Draws(repeated(sites, self.num_draws), {}, trace, result, facts)

    def _learns(self, model: SpectralGP, data: Problem) -> bool:
        if self.learn is not None:
            return self.learn
        more_unknown = bool(data.unknown) or model.equation_sd is None
        return len(data.axes) == 1 or more_unknown or data.values is not None

    def _search(self, model, data, key, start, running: Running):
        """Sites, whether they have settled, and the objective at each step."""
        looser = model
        if model.equation_sd is not None and model.equation_sd < SEARCH_SD:
            looser = dataclasses.replace(model, equation_sd=SEARCH_SD)
        sites = _begin(model, data, start)
        folder = running.checkpoint
        # Each round keeps a run of its own; this records which fit they belong to.
        Checkpoint.open(
            folder,
            {},
            method=self,
            model=model,
            data=data,
            key=key,
            start=start,
            lanes=1,
        )
        search = MAP(num_starts=1, max_steps=self.max_steps, atol=self.atol)
        objectives = []
        for number in range(1 if data.equation.is_linear else MOST_ROUNDS):
            fields = zero(data)
            if not data.equation.is_linear:
                fields = _solved(model, data, sites)[0]
            program = Linearised(looser, fields)
            own = None if folder is None else folder / f"round-{number}"
            begin = {name: value[None] for name, value in sites.items()}
            found = search.run(
                program, data, key, begin, dataclasses.replace(running, checkpoint=own)
            )
            before = sites
            sites = {name: jnp.asarray(found.sites[name][0, 0]) for name in sites}
            objectives.append(found.trace["objective"][0])
            moved = float(_apart(program, data, before, sites))
            # If the sites do not move, the linearisation does not either.
            if not moved >= ROUND_TOLERANCE:
                break
        # At this tolerance of the equation the last tenth of a nat may be lost in rounding.
        settled = bool(found.result == RESULTS.successful)
        settled |= found.facts["settled"] and found.facts["remaining"] < self.atol
        settled &= data.equation.is_linear or moved < ROUND_TOLERANCE or not data.unknown
        return sites, settled, np.concatenate(objectives)

    def checks(self, tree, facts):
        return (
            Check(
                "last Newton step",
                facts["newton_change"],
                "at most",
                LARGEST_NEWTON,
                "the nonlinear equation is not solved: use a finer grid, or start from the "
                "solution of a milder one (`start=`)",
                "relative change of u and its derivatives",
            ),
        )


class Linearised(eqx.Module):
    """The model's program about given fields."""

    model: SpectralGP
    fields: Fields

    def __call__(self, problem: Problem) -> None:
        priors = self.model.priors(problem)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        self.model.observe(sites, problem, self.fields)


def _begin(model: SpectralGP, data: Problem, start: Sites | None) -> Sites:
    if start is None:
        return _start_sites(model, data)
    return {name: jnp.asarray(array[0]) for name, array in start.items()}


@eqx.filter_jit
def _start_sites(model, data):
    return model.start_sites(data)


@eqx.filter_jit
def _apart(program, data, before: Sites, after: Sites):
    """The furthest that an unconstrained coordinate is from where it was."""
    places = [ravel_pytree(unconstrain(program, data, s))[0] for s in (before, after)]
    return jnp.max(jnp.abs(places[1] - places[0]))


@eqx.filter_jit
def _solved(model: SpectralGP, data: Problem, sites: Sites) -> tuple[Fields, dict]:
    """The derivatives to linearise about; the evidence, and the last Newton step."""
    fields, change = zero(data), jnp.zeros(())
    if not data.equation.is_linear:
        found = model.solver(sites, data).newton()
        fields, change = found.fields, found.change
    _, evidence = log_densities(Linearised(model, fields), data, sites)
    return fields, {"evidence": evidence, "newton_change": change}
