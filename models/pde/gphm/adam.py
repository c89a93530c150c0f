"""Adam on the paper's joint density, and the numbers at its end."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from probkit.method import (
    RESULTS,
    AbstractIterativeMethod,
    Draws,
    Lanes,
    choose,
    repeated,
)
from probkit.model.check import Check
from probkit.models.pde.equation import Equation
from probkit.models.pde.gphm.grid import GridGP, Position, refuse_other_problems
from probkit.models.pde.problem import Problem
from probkit.validate import positive, whole


class AdamState(NamedTuple):
    position: Position
    moments: Any
    objective: Float[Array, ""]  # before the last step, as is the misfit
    misfit: Float[Array, ""]
    num_steps: Int[Array, ""]


class Adam(AbstractIterativeMethod):
    r"""Adam on the joint density of `GridGP`, in the coordinates of the paper.

    There is one learning rate for $\log w$, $μ$, `log ls`, $\log τ$ and $U$, and no
    schedule. The density has no maximum, because precisions grow as long as the fit gets
    closer. Near the end the steps go back and forth. The fit is the position after the
    last step, not the best one on the way.

    Attributes:
        num_steps: number of steps. The paper takes from 1e5 to 3e6.
        learning_rate: size of a step, in the paper's parameters.
        tolerance: stop when the mean square on the boundary (squared units of $u$) plus
            that of the residual (its squared units) falls below it, as the paper does; 0
            to take all steps.
        num_draws: how many times the result is repeated.

    Raises:
        ValueError: for a setting out of range; in `pk.fit`, for another model than
            `pde.GridGP` or another problem than the paper's.

    Source: arXiv 2311.04465 and the authors' code, whose settings are the defaults.
    """

    unread: ClassVar[tuple[str, ...]] = ("num_steps", "num_draws")

    num_steps: int = eqx.field(converter=whole("Adam(num_steps", 0))
    learning_rate: float = eqx.field(default=1e-2, converter=positive("Adam(learning_rate"))
    tolerance: float = eqx.field(
        default=0.0, converter=positive("Adam(tolerance", zero=True)
    )
    num_draws: int = eqx.field(default=1, converter=whole("Adam(num_draws", 1))

    # The three functions.

    def init(self, model, data, key, start):
        sites = model.start_sites(data) if start is None else start
        position = model.position(sites, data)
        infinite = jnp.full((), jnp.inf)
        moments = self._optimiser().init(position)
        return AdamState(position, moments, infinite, infinite, jnp.zeros((), jnp.int32))

    def step(self, model, data, state):
        with_gradient = jax.value_and_grad(model.objective_and_misfit, has_aux=True)
        (objective, misfit), gradient = with_gradient(state.position, data)
        change, moments = self._optimiser().update(gradient, state.moments)
        position = optax.apply_updates(state.position, change)
        return AdamState(position, moments, objective, misfit, state.num_steps + 1)

    def terminate(self, state):
        failed = ~jnp.isfinite(state.objective) & (state.num_steps > 0)
        return failed | (state.misfit < self.tolerance)

    def record(self, state):
        return {"objective": -state.objective, "misfit": state.misfit}

    def _optimiser(self):
        return optax.adam(self.learning_rate)

    # The run as a whole.

    def lanes(self):
        return Lanes(1, 1, together=True)

    @property
    def label(self):
        return "Adam"

    @property
    def step_limit(self):
        return self.num_steps

    def refuse(self, model, data):
        if not isinstance(model, GridGP) or not isinstance(data, Problem):
            raise ValueError(
                f"`pde.Adam` fits `pde.GridGP` to a `pde.Problem`, not "
                f"`{type(model).__name__}` to `{type(data).__name__}`."
            )
        refuse_other_problems(data)

    def finish(self, model, data, end):
        ended = jax.device_get(_finish(model, data, end.lane(0).position))
        sites = ended.pop("sites")
        facts = {name: float(value) for name, value in ended.items()}
        trace = end.trace_of_ends("objective", np.array([facts["objective"]]), 0)
        finite = jnp.isfinite(facts["objective"])
        result = choose(finite, RESULTS.successful, RESULTS.nonfinite)
        return Draws(repeated(sites, self.num_draws), {}, trace, result, facts)

    def checks(self, tree, facts):
        return (
            Check(
                "misfit on the boundary",
                facts["boundary"],
                "at most",
                1e-2,
                "take more steps: raise `num_steps`",
                "rms, relative to the solution",
            ),
            Check(
                "residual of the equation",
                facts["residual"],
                "at most",
                1e-2,
                "take more steps, or more components that reach the frequencies of the "
                "source: raise `num_steps`, `max_frequency`",
                "rms, relative to the rms of its largest term",
            ),
            Check(
                "kernel above the grid's Nyquist frequency",
                facts["aliased"],
                "at most",
                0.01,
                "the grid cannot distinguish these frequencies from lower ones, and the "
                "residual does not show it: raise `shape` of the problem",
                "share of the variance",
            ),
        )


@eqx.filter_jit
def _finish(model: GridGP, problem: Problem, position: Position) -> dict[str, Any]:
    """The sites, and numbers for the checks, after the last step."""
    sites = model.sites(position, problem)
    factors = model.factors(sites, problem)
    u = model.derivatives(sites, problem, factors)
    boundary, known, equation = model.terms(sites, problem, factors)
    parts = zip(problem.equation.monomials, problem.equation.coefficients, strict=True)
    terms = [Equation((monomial,), (c,))(u) for monomial, c in parts]
    largest = jnp.stack([_rms(term) for term in terms]).max()
    size = jnp.maximum(_rms(known), _rms(sites["solution"]))
    pairs = zip(model.mixtures(sites, problem), problem.grid, strict=True)
    aliased = [k.power_above(0.5 / (x[1] - x[0])) for k, x in pairs]
    return {
        "sites": sites,
        "objective": -model.objective(position, problem),
        "boundary": _rms(boundary.loc - known) / size,
        "residual": _rms(equation.loc) / largest,
        "aliased": jnp.stack(aliased).max(),
    }


def _rms(x):
    return jnp.sqrt(jnp.mean(x**2))
