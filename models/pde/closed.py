"""Solve in closed form, and choose the kernel by the evidence."""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from probkit.infer.map import MAP
from probkit.method import RESULTS, AbstractMethod, Draws, Running, choose, repeated
from probkit.method.checkpoint import Checkpoint
from probkit.method.integrated import integrate_one
from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.density import Sites, unconstrain
from probkit.models.pde.aliases import INSIDE
from probkit.models.pde.around import around, checks_of_draws, of_unknowns
from probkit.models.pde.checks import LEAST_EXPLAINED, limits_of, measured
from probkit.models.pde.linearised import Linearised, collocation
from probkit.models.pde.model import NODES, SpectralGP
from probkit.models.pde.problem import Problem
from probkit.models.pde.profile import start_sites, starts
from probkit.models.pde.solution import Fields, Solution, zero
from probkit.models.pde.thin import LayerWarning, layers
from probkit.validate import optional, positive, whole

# Tolerance of the equation during the search. At the tolerance of the solution itself the
# evidence is a ridge about 1e9 times longer than it is wide.
SEARCH_SD = 1e-5
LARGEST_NEWTON = 1e-6
# A nonlinear equation is linearised again until no standardised coordinate moves by more.
MOST_ROUNDS, ROUND_TOLERANCE = 6, 0.05
# How many waves per bump of the spectrum are tried if the residual is too large with the
# default, and the lengthscale of the trend at the start, relative to its default. With many
# tones there would be more functions than a search has time for.
MORE_NODES, MOST_FUNCTIONS = ((96, 0.3), (192, 0.1)), 1000
# The same for an axis that is stretched in layers, with the lengthscale relative to that of
# its longest piece: as short as so many waves still reach over.
ON_LAYERS = ((192, 0.06), (384, 0.03))
# A solution that misses the limits of the residual or of faces by this factor is none.
GROSS = 100.0
# Draws about the maximum, by default, if there are observations.
DRAWS = 100


class Closed(AbstractMethod):
    r"""$u$ in closed form; the kernel at the maximum of $p(\text{data} \mid θ)\, p(θ)$.

    For a given kernel the solution of a linear equation is one least-squares problem. The
    solution of a nonlinear equation takes a few Gauss-Newton steps. L-BFGS then estimates
    $θ$: the kernel, about ten numbers, and whatever else is unknown. The search uses a
    looser tolerance of the equation. During the search a nonlinear equation is linearised
    about its solution under the last $θ$, and again after each search, at most six times.

    With observations there can be several maxima. The evidence is first computed at many
    values of the unknowns (`profile.candidates`), and the search starts at the best that
    differ. The draws are then about the best maximum: normal in unconstrained coordinates
    given the noise, and with the noise of the degrees of freedom that are left.

    In one dimension, if the residual is too large, it tries again with more waves. If the
    solution has layers that are thinner than the grid, it moves points there: the fit is
    one of `Problem(layers=...)`. A stretched axis gets kernels as they are given, without a
    search.

    Attributes:
        learn: whether to search. By default it searches in one dimension, and wherever
            something besides the kernel is unknown. In more dimensions one step takes
            seconds and the start, from the spectrum of the data, is usually good enough;
            `pk.diagnose` shows where it is not. It never searches if u = 0 is a solution
            and nothing was observed, because then nothing says how large u is.
        max_steps: the largest number of steps of one search.
        atol: the search has settled when no standardised coordinate has a slope of more
            than this many nats.
        num_starts: the largest number of starts, if there are observations.
        num_draws: the number of draws. By default 100 with observations, the first of them
            the centre. Without observations the optimum is repeated, by default once, and
            `predict` makes that many draws of the solution at it.

    Raises:
        ValueError: for a setting out of range; in `pk.fit`, for another model than
            `pde.SpectralGP` or other data than `pde.Problem`.

    Warns:
        LayerWarning: if it moved points, with the layers.

    Source: the closed forms are those of Gaussian process regression; Fang et al. (2024),
    arXiv 2311.04465, maximise over $u$ and $θ$ together.
    """

    learn: bool | None = None
    max_steps: int = eqx.field(default=200, converter=whole("Closed(max_steps", 0))
    atol: float = eqx.field(default=0.1, converter=positive("Closed(atol"))
    num_starts: int = eqx.field(default=3, converter=whole("Closed(num_starts", 1))
    num_draws: int | None = eqx.field(
        default=None, converter=optional(whole("Closed(num_draws", 1))
    )

    def refuse(self, model, data):
        if not isinstance(model, SpectralGP) or not isinstance(data, Problem):
            raise ValueError(
                f"`pde.Closed` fits `pde.SpectralGP` to `pde.Problem`, not "
                f"`{type(model).__name__}` to `{type(data).__name__}`."
            )

    def run(self, model, data, key, start, running):
        draws, missed = None, math.inf
        for one in self._tries(model, data, start):
            folder = running.checkpoint
            own = folder / one.name if folder is not None and one.name else folder
            own_run = dataclasses.replace(running, checkpoint=own)
            method = self if one.learns else dataclasses.replace(self, learn=False)
            found, again = method._attempt(one.model, one.data, key, one.start, own_run)
            if draws is None or again < missed:
                chosen = None if one.model is model else one.model
                moved = None if one.data is data else one.data
                draws = dataclasses.replace(found, model=chosen, data=moved)
                missed = again
            if missed <= 1:
                break
        assert draws is not None
        if draws.data is not None:
            _warn_of_layers(draws.data)
        return draws

    def _tries(self, model: SpectralGP, data: Problem, start) -> Iterator["Try"]:
        """What to try, one after another, until the equation is solved."""
        is_free = model.num_nodes is None and len(data.axes) == 1
        # Frequencies and lengthscales that a user gives are those of the axis as it is.
        may_stretch = is_free and not (model.frequencies or model.lengthscales)
        only_u = data.values is None and not data.unknown
        if may_stretch and only_u and data.layers and self.learn is not True:
            yield from _on_layers(model, data, start)
            return
        yield Try(model, data, start)
        if not is_free:
            return
        found = layers(data) if may_stretch else ()
        moved = data.with_layers({data.axes[0]: found}) if found else data
        # A kernel of few waves cannot follow thin layers. On an even grid no kernel can, if
        # they are thinner than its steps.
        is_thin = bool(found) and min(width for _, width in found) < data.steps[0]
        if is_thin:
            yield from _on_layers(model, moved, None)
        own = dict(model.frequencies).get(data.axes[0], data.tones[0].frequency)
        components = 1 + len(own)
        for num_nodes, shorter in MORE_NODES:
            if 2 * num_nodes * components * data.num_pieces > MOST_FUNCTIONS:
                break
            richer = dataclasses.replace(model, num_nodes=num_nodes)
            begin = start
            if start is None and data.values is None:
                begin = _shorter(richer, data, shorter)
            yield Try(richer, data, begin, f"nodes-{num_nodes}")
        if found and not is_thin:
            yield from _on_layers(model, moved, None)

    def _attempt(self, model, data, key, start, running) -> tuple[Draws, float]:
        """The draws of one number of waves, and by how much they miss: see `_missed`."""
        inverse, learns = data.values is not None, self._learns(model, data)
        num_draws = self.num_draws or (DRAWS if inverse else 1)
        if learns and self.max_steps == 0:
            return Draws({}, {}, {}, RESULTS.no_steps), 0.0
        if learns:
            end = self._search(model, data, key, start, running)
            sites, settled = end.sites, end.settled
            trace = {"objective": end.objective[None]}
        else:
            sites, settled, trace = _given_or_middle(model, data, start), True, {}
        sites = model.canonical(sites, data)
        solution = integrate_one(model, data, sites)
        fields = _fields(solution, data)
        facts: dict[str, Any] = {
            "evidence": float(solution.evidence),
            "newton_change": float(solution.newton_change),
        }
        found = {name: float(value) for name, value in measured(solution, data).items()}
        if inverse:
            facts["explained"] = found["explained"]
        facts["settled"] = settled
        finite = all(np.isfinite(v).all() for v in (*facts.values(), *trace.values()))
        draws = repeated(sites, num_draws)
        if inverse and learns and finite:
            near, curvature = around(model, data, fields, sites, num_draws, key)
            draws = {k: np.asarray(v)[None] for k, v in near.items()}
            facts |= {"least_curvature": curvature} | of_unknowns(data, draws)
        explains = not inverse or facts["explained"] >= LEAST_EXPLAINED
        # Without observations any kernel will do with which the equation is solved.
        missed = _missed(found, float(solution.parameters.equation_sd))
        done = settled or (not inverse and missed <= 1)
        done &= facts["newton_change"] < LARGEST_NEWTON
        result = choose(explains, RESULTS.successful, RESULTS.unexplained)
        result = choose(missed < GROSS, result, RESULTS.unsolved)
        result = choose(done, result, RESULTS.max_steps_reached)
        result = choose(finite, result, RESULTS.nonfinite)
        is_one = next(iter(draws.values())).shape[:2] == (1, 1)
        kept = jax.tree.map(lambda a: a[None], solution) if is_one else None
        return Draws(draws, {}, trace, result, facts, integrated=kept), missed

    def _learns(self, model: SpectralGP, data: Problem) -> bool:
        if data.is_homogeneous:
            # The evidence of u = 0 grows without end as the kernel goes to zero.
            return False
        if self.learn is not None:
            return self.learn
        more_unknown = bool(data.unknown) or model.equation_sd is None
        return len(data.axes) == 1 or more_unknown or data.values is not None

    def _search(self, model, data, key, start, running: Running):
        """The best end of the searches."""
        looser = model
        if model.equation_sd is not None and model.equation_sd < SEARCH_SD:
            looser = dataclasses.replace(model, equation_sd=SEARCH_SD)
        begun = self._starts(model, data, start)
        folder = running.checkpoint
        # Each search keeps a run of its own; this records which fit they belong to.
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
        count = len(next(iter(begun.values())))
        ends = []
        for lane in range(1 if data.equation.is_linear else count):
            own = None if folder is None else folder / f"start-{lane}"
            at = begun if data.equation.is_linear else _lane(begun, lane)
            own_run = dataclasses.replace(running, checkpoint=own)
            ends.append(self._climb(model, looser, data, key, at, own_run))
        return max(ends, key=lambda end: end.height)

    def _climb(self, model, looser, data, key, begin: Sites, running: Running) -> "End":
        """Search from one start, or from several at once if the equation is linear."""
        search = Search(
            num_starts=len(next(iter(begin.values()))),
            max_steps=self.max_steps,
            atol=self.atol,
        )
        points = collocation(looser, data)
        linear, folder, objectives = data.equation.is_linear, running.checkpoint, []
        for number in range(1 if linear else MOST_ROUNDS):
            sites = {name: jnp.asarray(array[0]) for name, array in begin.items()}
            fields = _fields(integrate_one(model, data, sites), data)
            program = Linearised(looser, fields, points)
            own = None if folder is None else folder / f"round-{number}"
            found = search.run(
                program, data, key, begin, dataclasses.replace(running, checkpoint=own)
            )
            before = sites
            sites = {name: jnp.asarray(found.sites[name][0, 0]) for name in sites}
            begin = {name: value[None] for name, value in sites.items()}
            # Starts that took fewer steps are filled up with NaN.
            steps = found.trace["objective"][int(np.argmax(found.trace["best"]))]
            objectives.append(steps[~np.isnan(steps)])
            # If the sites do not move, the linearisation does not either.
            moved = 0.0 if linear else float(_apart(program, data, before, sites))
            if not moved >= ROUND_TOLERANCE:
                break
        # At this tolerance of the equation the last tenth of a nat may be lost in rounding.
        settled = bool(found.result == RESULTS.successful)
        settled |= found.facts["settled"] and found.facts["remaining"] < self.atol
        settled &= linear or moved < ROUND_TOLERANCE or not data.unknown
        return End(sites, settled, np.concatenate(objectives), found.facts["objective"])

    def _starts(self, model, data, start) -> Sites:
        """Where the searches start, with a leading axis."""
        if start is None and data.values is not None:
            return starts(model, data, self.num_starts)
        one = _given_or_middle(model, data, start)
        return {name: value[None] for name, value in one.items()}

    def checks(self, tree, facts):
        more = checks_of_draws(facts) if "least_curvature" in facts else ()
        return (
            *more,
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


class Search(MAP):
    """The search for the maximum. The cost of a step is that of its linear algebra."""

    def runs_once(self, model, data):
        return True


class End(NamedTuple):
    """The end of a search.

    Attributes:
        sites: the maximum.
        settled: whether the search has settled.
        objective: at each step, in nats.
        height: the objective at the end, in nats.
    """

    sites: Sites
    settled: bool
    objective: np.ndarray
    height: float


class Try(NamedTuple):
    """One attempt at a problem.

    Attributes:
        model: the model.
        data: the problem, on its own points or on others.
        start: where the search begins, or None.
        name: of its own folder in a checkpoint; empty for none.
        learns: whether it may search for a kernel.
    """

    model: SpectralGP
    data: Problem
    start: Sites | None
    name: str = ""
    learns: bool = True


def _on_layers(model: SpectralGP, data: Problem, start) -> Iterator[Try]:
    """A stretched axis with kernels as they are given.

    A solution that is constant over most of the stretched axis and changes within a
    twentieth is not one of a stationary process, so that the evidence says little. Its
    optimum has waves that repeat within the axis. Waves of one frequency do not have one
    there, so that all are in the trend.
    """
    axis, length = data.axes[0], data.longest[0]
    most = max(NODES, MOST_FUNCTIONS // (2 * data.num_pieces))
    for wanted, share in ON_LAYERS:
        num_nodes = min(wanted, most)
        # How far waves reach grows with the root of their number.
        share = share * math.sqrt(wanted / num_nodes)
        chosen = dataclasses.replace(
            model,
            num_nodes=num_nodes,
            frequencies=((axis, ()),),
            lengthscales=((axis, share * length),),
        )
        yield Try(chosen, data, start, f"layers-{num_nodes}", learns=False)
        if num_nodes < wanted:
            break


def _warn_of_layers(data: Problem) -> None:
    ((axis, found),) = data.layers.items()
    at, width = min(found, key=lambda layer: layer[1])
    given = ", ".join(f"({a:.4g}, {w:.2g})" for a, w in found)
    warnings.warn(
        f"The solution changes within {width:.2g} of {axis} = {at:.4g}. `Closed` moved "
        f"points of the grid there: `fit.data` is the problem with them, and they are the "
        f'coordinates of what `recover` gives. `Problem(layers={{"{axis}": [{given}]}})` '
        "makes it without this search and this warning.",
        LayerWarning,
        skip_file_prefixes=INSIDE,
    )


def _missed(found: dict[str, float], equation_sd: float) -> float:
    """The residual and the misfit on faces, the larger in units of its limit."""
    limits = limits_of(equation_sd)
    missed = max(found[name] / limit for name, limit in limits.items())
    return missed if np.isfinite(missed) else np.inf


def _shorter(model: SpectralGP, data: Problem, share: float) -> Sites:
    """The start, with a shorter lengthscale of the trend; with a leading axis.

    One that the user gave stays as it is.
    """
    sites, axis = start_sites(model, data), data.axes[0]
    if axis not in dict(model.lengthscales):
        name = f"lengthscale_{axis}"
        sites[name] = sites[name].at[0].multiply(share)
    return jax.tree.map(lambda a: a[None], sites)


def _lane(sites: Sites, lane: int) -> Sites:
    return {name: array[lane : lane + 1] for name, array in sites.items()}


def _given_or_middle(model: SpectralGP, data: Problem, start: Sites | None) -> Sites:
    if start is None:
        return start_sites(model, data)
    return {name: jnp.asarray(array[0]) for name, array in start.items()}


@jit_for_one_run
def _apart(program, data, before: Sites, after: Sites):
    """The furthest that an unconstrained coordinate is from where it was."""
    places = [ravel_pytree(unconstrain(program, data, s))[0] for s in (before, after)]
    return jnp.max(jnp.abs(places[1] - places[0]))


@jit_for_one_run
def _fields(solution: Solution, data: Problem) -> Fields:
    """The derivatives about which the equation is linearised: any, if it is linear."""
    return zero(data) if data.equation.is_linear else solution.fields(data)
