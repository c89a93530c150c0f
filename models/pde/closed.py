"""Solve in closed form, and choose the kernel by the evidence."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree

from probkit.method import RESULTS, AbstractMethod, Draws, Running, choose, repeated
from probkit.method.checkpoint import Checkpoint
from probkit.method.loop import bar
from probkit.model.check import Check
from probkit.model.density import Sites, constrain, log_densities, unconstrain
from probkit.models.pde.model import SpectralGP
from probkit.models.pde.problem import Problem
from probkit.models.pde.solution import Fields, zero
from probkit.validate import positive, whole

# The tolerance of the equation during the search. The evidence at that of the solution is
# a ridge some 1e9 times longer than wide.
SEARCH_SD = 1e-5
LARGEST_NEWTON = 1e-6
# A nonlinear equation is linearised anew until no standardised coordinate moves by more.
MOST_ROUNDS, ROUND_TOLERANCE = 6, 0.05


class Closed(AbstractMethod):
    r"""$u$ in closed form; the kernel at the maximum of $p(\text{data} \mid θ)\, p(θ)$.

    For a given kernel the solution of a linear equation is one least-squares problem;
    that of a nonlinear one takes a few Gauss-Newton steps. What is left to search for is
    the kernel $θ$, some ten numbers (and what else is unknown), by L-BFGS, at a looser
    tolerance of the equation. A nonlinear equation is linearised for that about its
    solution under the last $θ$, a few times over.

    Attributes:
        learn: whether to search. By default in one dimension, and wherever something
            besides the kernel is unknown; in more dimensions a step costs seconds, and
            the start, from the spectrum of the data, usually serves: `pk.diagnose` tells
            where it does not.
        max_steps: the most steps of the search.
        atol: the search has settled when no standardised coordinate has a slope of more
            than this many nats.
        num_draws: how many times the optimum is repeated, for `predict` to draw solutions
            at it.

    Source: the closed forms are those of Gaussian process regression; Fang et al. (2024),
    arXiv 2311.04465, maximise over $u$ and $θ$ together.
    """

    learn: bool | None = None
    max_steps: int = eqx.field(default=200, converter=whole("Closed(max_steps", 0))
    atol: float = eqx.field(default=0.1, converter=positive("Closed(atol"))
    num_draws: int = eqx.field(default=1, converter=whole("Closed(num_draws", 1))

    def run(self, model, data, key, start, running):
        if not isinstance(model, SpectralGP) or not isinstance(data, Problem):
            raise ValueError(
                f"`pde.Closed` fits `pde.SpectralGP` to `pde.Problem`, not "
                f"`{type(model).__name__}` to `{type(data).__name__}`."
            )
        if self._learns(model, data):
            if self.max_steps == 0:
                return Draws({}, {}, {}, RESULTS.no_steps)
            sites, settled, losses = self._search(model, data, key, start, running)
            trace = {"objective": -losses[None]}
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
        """Sites, whether they have settled, and the loss at each step."""
        from scipy.optimize import minimize

        looser = model
        if model.equation_sd is not None and model.equation_sd < SEARCH_SD:
            looser = dataclasses.replace(model, equation_sd=SEARCH_SD)
        sites = _begin(model, data, start)
        # L-BFGS does the same again when it is told the same again: what is kept is what
        # it was told.
        keep = Checkpoint.open(
            running.checkpoint,
            {},
            method=self,
            model=model,
            data=data,
            key=key,
            start=start,
            lanes=1,
        )
        told = keep.collect()[0]
        known = (
            [] if not told else list(zip(told["loss"][0], told["slope"][0], strict=True))
        )
        asked = 0

        losses: list[float] = []

        def note(intermediate_result):
            losses.append(float(intermediate_result.fun))
            progress.update(1)

        def climb(sites: Sites, fields: Fields):
            program = _Linearised(looser, fields)
            flat, unravel = ravel_pytree(_position(program, data, sites))

            def ask(x: np.ndarray) -> tuple[float, np.ndarray]:
                nonlocal asked
                if asked == len(known):
                    position = unravel(jnp.asarray(x))
                    loss, slope = jax.device_get(_loss_and_slope(program, data, position))
                    slope = np.asarray(ravel_pytree(slope)[0])
                    known.append((float(loss), slope))
                    kept = {"loss": np.array([[loss]]), "slope": slope[None, None]}
                    keep.add((kept, np.ones(1, int)), {}, asked + 1, False)
                asked += 1
                return known[asked - 1]

            found = minimize(
                ask,
                np.asarray(flat),
                jac=True,
                method="L-BFGS-B",
                callback=note,
                options={"maxiter": self.max_steps, "gtol": self.atol, "ftol": 1e-12},
            )
            sites = _constrained(program, data, unravel(jnp.asarray(found.x)))
            return sites, found, float(np.abs(found.x - flat).max())

        with bar(running.progress, self.max_steps, 0, "kernel") as progress:
            for _ in range(1 if data.equation.is_linear else MOST_ROUNDS):
                fields = zero(data)
                if not data.equation.is_linear:
                    fields = _solved(model, data, sites)[0]
                sites, found, moved = climb(sites, fields)
                # Where nothing moves, the linearisation does not either.
                if moved < ROUND_TOLERANCE:
                    break
        # L-BFGS stops at a slope that is no number, and calls that an end.
        finite = np.isfinite(found.fun) and np.isfinite(found.jac).all()
        trace = np.array(losses or [found.fun])
        settled = found.nit < self.max_steps
        settled &= data.equation.is_linear or moved < ROUND_TOLERANCE or not data.unknown
        return sites, settled, trace if finite else trace * np.nan

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


class _Linearised(eqx.Module):
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
def _position(program, data, sites):
    return unconstrain(program, data, sites)


@eqx.filter_jit
def _constrained(program, data, position) -> Sites:
    return constrain(program, data, position)


@eqx.filter_jit
def _loss_and_slope(program, data, position):
    def loss(position):
        sites = constrain(program, data, position)
        prior, likelihood = log_densities(program, data, sites)
        return -(prior + likelihood)

    return jax.value_and_grad(loss)(position)


@eqx.filter_jit
def _solved(model: SpectralGP, data: Problem, sites: Sites) -> tuple[Fields, dict]:
    """What to linearise about; the evidence, and whether Newton's method has converged."""
    fields, change = zero(data), jnp.zeros(())
    if not data.equation.is_linear:
        found = model.solver(sites, data).newton()
        fields, change = found.fields, found.change
    _, evidence = log_densities(_Linearised(model, fields), data, sites)
    return fields, {"evidence": evidence, "newton_change": change}
