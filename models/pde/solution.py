r"""The solution of a problem for one draw of the parameters, in closed form.

With the functions $φ$ of each axis, $u(x) = \sum_i z_i \prod_j φ_{j i_j}(x_j)$ and
$z \sim N(0, I)$ a priori. Conditions, the residual and the observations are rows
$F z + m = y$ up to noise, so that the posterior of $z$ is one least-squares problem:
exact if the equation is linear in $u$, about its Gauss-Newton solution if it is not.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.distributions import FactorNormal
from probkit.gp import SpectralMixture
from probkit.linalg import Regression, regress
from probkit.model.residuals import of_neighbours
from probkit.models.pde import system
from probkit.models.pde.box import grid_of
from probkit.models.pde.chart import Chart, features_on
from probkit.models.pde.conditions import Condition
from probkit.models.pde.equation import Equation
from probkit.models.pde.interfaces import Interface
from probkit.models.pde.problem import Problem
from probkit.models.pde.system import Basis, Orders, Rows, Span

# Tolerance of the conditions on faces, relative to the size of the solution.
FACE_SD = 1e-9
# How many test functions there are for each function of an axis.
TEST_SHARE = 1.5
# The reference solution, by which sds are calibrated, has this share of the tolerance. It
# has this many more functions per axis. If all waves are in use, there are two, with so
# many times the waves, of lengthscales of these shares: with the same functions, or the
# same kernel, both could miss the solution in the same way.
STRICTER, MORE_RANK, MORE_NODES, SHARES = 1e-2, 4, 2.0, (1.0, 0.8)
# Sds are a little larger than the difference of the two says: the reference is not exact,
# and errors that are one multiple of the sd everywhere are all inside a band, or none is.
MARGIN = 1.1
# A solution whose sd is this share of that before the conditions is left open by them.
OPEN = 1e-3
# Points per axis at which the two solutions are compared, by dimension.
COMPARED = {1: 1000, 2: 60, 3: 12}
# Where the equation vanishes, its size counts as this share of the typical one.
SMALLEST = 1e-6
MOST_NEWTON, NEWTON_TOLERANCE = 30, 1e-11
STEP_SIZES = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)

# Derivatives of u on a grid, by their orders.
Fields = dict[Orders, Float[Array, "..."]]


class Parameters(eqx.Module):
    r"""$θ$, one draw of everything but $u$.

    Attributes:
        kernels: the kernel of each axis.
        unknowns: the unknown coefficients of the equation, by their names.
        equation_sd: tolerance of the equation, relative to the size of the residual.
        noise_sd: of all observations or of each, in units of $u$; None if there are none.
    """

    kernels: tuple[SpectralMixture, ...]
    unknowns: dict[str, Float[Array, ""]]
    equation_sd: Float[Array, ""]
    noise_sd: Float[Array, "..."] | None

    def with_lengthscales(self, share: Float[Array, ""]) -> "Parameters":
        """The same with lengthscales of this share."""
        shorter = tuple(
            dataclasses.replace(kernel, lengthscale=share * kernel.lengthscale)
            for kernel in self.kernels
        )
        return dataclasses.replace(self, kernels=shorter)


class Collocation(eqx.Module):
    """Where the residual is to vanish, and what it is compared with.

    It follows from the problem and the start of the kernel and not from the draw, because
    what is observed must not depend on the sites. So it is made once per program.

    Attributes:
        problem: the problem.
        start: the parameters at the start.
        equation: the problem's equation, on `grid`.
        grid: points of each axis.
        against: the test functions of each axis on `grid`; None in one dimension, where
            the residual is to vanish at the points themselves.
        face_against: the same on the problem's own grid, on which faces are known.
        face_sds: tolerance of each condition, in units of the derivative that it is about.
        break_sds: tolerance of each condition at a break.
        covariances: of the derivatives of $u$ in the equation, for the kernel at the start,
            in the order of `equation.orders`: at one place, because they are the same
            everywhere, or with breaks and layers at each point of the problem's grid.
        weights: what residuals are multiplied by on `grid`, so that a priori they are of
            the same size everywhere; None without breaks and layers.
        tolerance: what `Parameters.equation_sd` is multiplied by.
        ranks: how many functions each axis has; None for all.
        num_nodes: waves per bump of the spectrum.
    """

    problem: Problem
    start: Parameters
    equation: Equation
    grid: tuple[Float[Array, " _n"], ...]
    against: tuple[Float[Array, "_n _m"], ...] | None
    face_against: tuple[Float[Array, "_n _m"], ...] | None
    face_sds: tuple[Float[Array, ""], ...]
    break_sds: tuple[Float[Array, ""], ...]
    covariances: Float[Array, "k k ..."]
    weights: Float[Array, "..."] | None
    tolerance: float = eqx.field(static=True)
    ranks: tuple[int | None, ...] = eqx.field(static=True)
    num_nodes: int = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        problem: Problem,
        start: Parameters,
        ranks: tuple[int | None, ...],
        num_nodes: int,
    ) -> "Collocation":
        """On the grid of the problem."""
        spans = _spans(start.kernels, problem, ranks, num_nodes)
        against = _against(problem.equation, spans, problem.grid)
        sd = FACE_SD * problem.size
        faces = [sd * face_size(c, problem, start, num_nodes) for c in problem.conditions]
        breaks = [sd * break_size(c, problem, start, num_nodes) for c in problem.interfaces]
        return cls(
            problem,
            start,
            problem.equation,
            problem.grid,
            against,
            against,
            tuple(faces),
            tuple(breaks),
            _covariances(
                problem.equation.orders,
                start.kernels,
                num_nodes,
                problem.charts,
                problem.grid,
            ),
            weights(problem.equation, problem, start, num_nodes, problem.grid),
            1.0,
            ranks,
            num_nodes,
        )

    def stricter(self) -> "Collocation":
        """On the midpoints, with more functions and a smaller tolerance: for reference."""
        problem = self.problem
        ranks = tuple(None if r is None else r + MORE_RANK for r in self.ranks)
        has_all = all(rank is None for rank in ranks)
        num_nodes = round(MORE_NODES * self.num_nodes) if has_all else self.num_nodes
        spans = _spans(self.start.kernels, problem, ranks, num_nodes)
        equation, grid = problem.held_out, problem.midpoints
        return dataclasses.replace(
            self,
            equation=equation,
            grid=grid,
            weights=weights(equation, problem, self.start, self.num_nodes, grid),
            against=_against(problem.equation, spans, grid),
            face_against=_against(problem.equation, spans, problem.grid),
            tolerance=STRICTER,
            ranks=ranks,
            num_nodes=num_nodes,
        )

    def spans(self, kernels: tuple[SpectralMixture, ...]) -> tuple[Span, ...]:
        """The functions of each axis that carry the prior of $u$."""
        return _spans(kernels, self.problem, self.ranks, self.num_nodes)

    def residual_size(self, unknowns: dict[str, Float[Array, ""]]) -> Float[Array, ""]:
        """The prior sd of the residual for these unknowns and the kernel at the start."""
        problem = self.problem
        slopes = problem.equation.jacobian(zero(problem), unknowns)
        on_grid = weights(
            problem.equation, problem, self.start, self.num_nodes, problem.grid
        )
        if on_grid is None:
            return jnp.sqrt(_variance(slopes, self.covariances, jnp.mean))
        return jnp.sqrt(jnp.mean(on_grid**2 * _variance(slopes, self.covariances)))

    def residual_sd(self, θ: Parameters) -> Float[Array, ""]:
        """How far the residual may be from zero, in its own units."""
        return θ.equation_sd * self.tolerance * self.residual_size(θ.unknowns)

    def faces(self, spans: tuple[Span, ...], unknowns) -> tuple[Rows, ...]:
        """The conditions on faces and at breaks, one item for each."""
        problem, grid, against = self.problem, self.problem.grid, self.face_against
        faces = [
            system.condition_rows(one, spans, grid, against, sd, unknowns)
            for one, sd in zip(problem.conditions, self.face_sds, strict=True)
        ]
        breaks = [
            system.interface_rows(one, spans, grid, against, sd, unknowns)
            for one, sd in zip(problem.interfaces, self.break_sds, strict=True)
        ]
        return (*faces, *breaks)

    def inside(self, basis: Basis, fields: Fields, θ: Parameters) -> Rows:
        """The residual, linearised about the derivatives `fields` of $u$ on `grid`."""
        about = system.linearise(self.equation, fields, θ.unknowns)
        if self.weights is not None:
            operator = {o: self.weights * c for o, c in about.operator.items()}
            about = system.Linearised(operator, self.weights * about.rest)
        sd = self.residual_sd(θ)
        return system.equation_rows(about, basis, self.against, sd)


def _spans(kernels, problem: Problem, ranks, num_nodes) -> tuple[Span, ...]:
    return tuple(
        Span.of(kernel, x, rank, num_nodes, chart)
        for kernel, x, rank, chart in zip(
            kernels, problem.grid, ranks, problem.charts, strict=True
        )
    )


def _against(equation: Equation, spans: tuple[Span, ...], grid):
    if len(spans) == 1:
        return None
    functions = []
    for j, (span, x) in enumerate(zip(spans, grid, strict=True)):
        orders = {o[j] for o in equation.orders} | {0}
        count = round(TEST_SHARE * span(x[:1]).shape[1])
        functions.append(system.test_functions(span, x, orders, count))
    return tuple(functions)


def face_size(
    condition: Condition, problem: Problem, θ: Parameters, num_nodes: int
) -> Array:
    """The prior sd of the left-hand side of a condition, relative to that of u.

    A first derivative and u itself do not correlate.
    """
    j, operator = condition.axis, condition.operator(θ.unknowns)
    end = problem.grid[j][:1] if condition.side == "low" else problem.grid[j][-1:]
    return _size_at(operator, j, problem, θ, num_nodes, end)


def break_size(
    interface: Interface, problem: Problem, θ: Parameters, num_nodes: int
) -> Array:
    """The prior sd of what is continuous at a break, relative to that of u.

    On the side on which it is larger.
    """
    j, at = interface.axis, jnp.array([interface.at])
    sizes = [
        _size_at(side.jacobian({}, θ.unknowns), j, problem, θ, num_nodes, at)
        for side in (interface.low, interface.high)
    ]
    return jnp.maximum(*sizes)


def _size_at(operator, j: int, problem: Problem, θ: Parameters, num_nodes: int, at):
    alone = [(orders[j],) for orders in operator]
    kernels, charts = (θ.kernels[j],), (problem.charts[j],)
    covariances = _covariances([(0,), *alone], kernels, num_nodes, charts, (at,))
    k = jnp.arange(len(covariances))
    variances = covariances[k, k].reshape(len(k))
    squares = jnp.stack([jnp.mean(coefficient**2) for coefficient in operator.values()])
    return jnp.sqrt(squares @ variances[1:] / variances[0])


def weights(
    equation: Equation, problem: Problem, θ: Parameters, num_nodes: int, grid
) -> Array | None:
    """One over the prior sd of the residual at each point; None if it is even.

    A stretched derivative is as large as the layer is thin, and a coefficient may jump by
    orders of magnitude. Each residual counts by its own size.

    Args:
        equation: the residual on the grid, about u = 0 and the middle of its unknowns.
        problem: the problem.
        θ: the kernels.
        num_nodes: waves per bump of the spectrum.
        grid: points of each axis.
    """
    if not any(problem.charts):
        return None
    shape = tuple(len(x) for x in grid)
    at_zero = {orders: jnp.zeros(shape) for orders in equation.orders}
    slopes = equation.jacobian(at_zero, problem.middle)
    args = (equation.orders, θ.kernels, num_nodes, problem.charts, grid)
    variance = jnp.broadcast_to(_variance(slopes, _covariances(*args)), shape)
    # The mean may be that of a layer alone, and the median zero.
    typical = jnp.median(variance) + SMALLEST**2 * jnp.mean(variance)
    return 1 / jnp.sqrt(variance + SMALLEST**2 * typical)


def _variance(slopes: Fields, covariances: Array, mean=lambda values: values) -> Array:
    r"""The variance of $\sum_a c_a ∂^a u$, or its mean over points."""
    total = jnp.zeros(())
    for i, a in enumerate(slopes):
        for j, b in enumerate(slopes):
            total = total + mean(slopes[a] * slopes[b]) * covariances[i, j]
    return total


def _covariances(
    orders: Sequence[Orders],
    kernels: tuple[SpectralMixture, ...],
    num_nodes: int,
    charts: Sequence[Chart | None],
    grid: Sequence[Array],
) -> Array:
    """cov(∂^a u, ∂^b u) for derivatives of u, `(k, k)`, or `(k, k, *points)` with charts.

    Of the waves, which have derivatives of any order, and are the prior of the solution.
    """
    if not any(charts):
        # The same everywhere, and so at zero.
        grid = [jnp.zeros(1)] * len(kernels)
    total, d = jnp.ones(()), len(kernels)
    for j, (kernel, chart, x) in enumerate(zip(kernels, charts, grid, strict=True)):
        Φ = jnp.stack([features_on(chart, kernel, x, o[j], num_nodes) for o in orders])
        along = jnp.einsum("anr,bnr->abn", Φ, Φ)
        shape = [-1 if i == j else 1 for i in range(d)]
        total = total * along.reshape(*along.shape[:2], *shape)
    return total if any(charts) else total.reshape(total.shape[:2])


def zero(problem: Problem) -> Fields:
    """The derivatives of $u = 0$."""
    return {orders: jnp.zeros(problem.shape) for orders in problem.equation.orders}


class Solution(eqx.Module):
    r"""The posterior of $u$ for one draw of the kernel.

    Attributes:
        parameters: the draw.
        spans: the functions of each axis.
        root: $R$ with $R^T R$ the inverse covariance of the coefficients, `(r, r)`.
        mean: mean of the coefficients, `(r,)`.
        calibration: what standard deviations are multiplied by.
        evidence: log density, in nats, of the observations given the equation, or of a
            residual of zero if there are none.
        residual_size: the prior sd of the residual.
        newton_change: relative change of u and its derivatives by the last Newton step.
        weights: `weights` on the problem's midpoints.
    """

    parameters: Parameters
    spans: tuple[Span, ...]
    root: Float[Array, "r r"]
    mean: Float[Array, " r"]
    calibration: Float[Array, ""]
    evidence: Float[Array, ""]
    residual_size: Float[Array, ""]
    newton_change: Float[Array, ""]
    weights: Float[Array, "..."] | None = None

    def sample(self, key: PRNGKeyArray) -> Float[Array, " r"]:
        """Coefficients of one draw."""
        white = jax.random.normal(key, self.mean.shape)
        off = jax.scipy.linalg.solve_triangular(self.root, white)
        return self.mean + self.calibration * off

    def varying(self, problem: Problem) -> dict[str, Float[Array, " _n"]]:
        """The coefficients that vary along an axis, on the grid."""
        found = {}
        for one in problem.varying:
            (low, high), chart = one.ends, problem.charts[one.axis]
            places = grid_of([(low, high)], [problem.shape[one.axis]], [chart])[0]
            functions = jnp.asarray(one.functions(places))
            θ = jnp.stack([self.parameters.unknowns[name] for name in one.weights])
            found[one.name] = one.mean + functions @ θ
        return found

    def fields(self, problem: Problem) -> Fields:
        """The derivatives of the mean that the equation has, on the grid."""
        return {o: self.derivative(problem.grid, o) for o in problem.equation.orders}

    def derivative(self, grid, orders: Orders, z=None) -> Float[Array, "..."]:
        """A derivative of the mean, or of a draw, on a tensor grid."""
        z = self.mean if z is None else z
        return system.derivative(z, self.spans, grid, orders)

    def sd(self, rows: Float[Array, "n r"]) -> Float[Array, " n"]:
        """Standard deviations of linear functions of the coefficients."""
        half = jax.scipy.linalg.solve_triangular(self.root, rows.T, trans=1)
        return self.calibration * jnp.linalg.norm(half, axis=0)

    def sd_on(self, grid) -> Float[Array, "..."]:
        """Standard deviations of $u$ on a tensor grid, a slice of the first axis each."""
        first, *others = (s(x) for s, x in zip(self.spans, grid, strict=True))
        rest = system.kron(others) if others else jnp.ones((1, 1))
        shape = tuple(len(x) for x in grid)
        if not others:
            return self.sd(first)
        each = jax.lax.map(lambda row: self.sd(jnp.kron(row[None], rest)), first)
        return each.reshape(shape)


class Misfit(NamedTuple):
    """How well a solution agrees with the observations of its problem.

    All are in units of the noise of each.

    Attributes:
        explained: the share of their sum of squares that the solution explains.
        neighbours: correlation of what is left with what is left at the nearest place.
        chi_square: mean square of what is left.
    """

    explained: Float[Array, ""]
    neighbours: Float[Array, ""]
    chi_square: Float[Array, ""]

    @classmethod
    def of(cls, found: Solution, problem: Problem) -> "Misfit":
        values, points, sd = problem.values, problem.points, found.parameters.noise_sd
        assert values is not None and points is not None and sd is not None
        flat = (0,) * len(problem.axes)
        left = (values - system.at_points(found.spans, points, flat) @ found.mean) / sd
        places = points / jnp.stack([x[-1] - x[0] for x in problem.grid])
        squares = jnp.mean(left**2)
        return cls(
            1 - squares / jnp.mean((values / sd) ** 2),
            of_neighbours(places, left),
            squares,
        )


class Newton(NamedTuple):
    """The state of a Gauss-Newton iteration."""

    z: Array
    fields: Fields
    change: Array
    num_steps: Array


class Solver(eqx.Module):
    """A problem for one draw of the parameters, as rows on the coefficients of $u$.

    Attributes:
        collocation: where the residual is to vanish.
        parameters: the draw.
        spans: the functions of each axis.
        faces: the conditions, one item for each.
        basis: the functions and their derivatives on the collocation's grid.
    """

    collocation: Collocation
    parameters: Parameters
    spans: tuple[Span, ...]
    faces: tuple[Rows, ...]
    basis: Basis

    @classmethod
    def of(cls, collocation: Collocation, θ: Parameters) -> "Solver":
        spans = collocation.spans(θ.kernels)
        faces = collocation.faces(spans, θ.unknowns)
        basis = system.basis(spans, collocation.grid, collocation.equation.orders)
        return cls(collocation, θ, spans, faces, basis)

    @property
    def problem(self) -> Problem:
        return self.collocation.problem

    def rows(self, fields: Fields) -> Rows:
        """Conditions on faces, then the residual linearised about `fields`."""
        inside = self.collocation.inside(self.basis, fields, self.parameters)
        return system.stacked([*self.faces, inside])

    def observed(self) -> Rows:
        """The observations."""
        problem, sd = self.problem, self.parameters.noise_sd
        assert problem.points is not None and problem.values is not None and sd is not None
        factor = system.at_points(self.spans, problem.points, (0,) * len(problem.axes))
        n = len(factor)
        return Rows(factor, jnp.zeros(n), problem.values, jnp.broadcast_to(sd, (n,)))

    def given(self, fields: Fields) -> Regression:
        """The coefficients, given the equation and the conditions."""
        return _regressed(self.rows(fields))

    def excess(self, fields: Fields, given: Regression) -> Float[Array, " n"]:
        """By how much the residual of the mean is over its tolerance, in units of it."""
        rows = self.collocation.inside(self.basis, fields, self.parameters)
        left = (rows.factor @ given.mean + rows.loc - rows.value) / rows.noise_sd
        return left - jnp.clip(left, -1, 1)

    def predicted(self, given: Regression) -> FactorNormal:
        """The distribution of the observations, for coefficients that are known so far."""
        rows = self.observed()
        half = jax.scipy.linalg.solve_triangular(given.root, rows.factor.T, trans=1)
        return FactorNormal(rows.factor @ given.mean, half.T, rows.noise_sd)

    # What a nonlinear equation is linearised about.

    def fields(self) -> Fields:
        """Zero for a linear equation, and the solution itself for one that is not."""
        if self.collocation.equation.is_linear:
            return zero(self.problem)
        # What the linearisation leaves out is of second order in the error of the fields,
        # and so is what a derivative through them would add.
        return jax.lax.stop_gradient(self).newton().fields

    def rough_fields(self, most: int) -> Fields:
        """As `fields`, after at most so many steps, and not exact."""
        if self.collocation.equation.is_linear:
            return zero(self.problem)
        return self.newton(most).fields

    def curve(self) -> tuple[Float[Array, " r"], Fields]:
        """A curve through the observations without the equation, and its derivatives."""
        z = _regressed(self.observed()).mean
        return z, {o: system.field(z, matrices) for o, matrices in self.basis.items()}

    def newton(self, most: int = MOST_NEWTON) -> Newton:
        """Gauss-Newton, from a curve through the observations, or from zero without any.

        Each step is the best of a few lengths.

        Args:
            most: the largest number of steps.
        """
        collocation, θ = self.collocation, self.parameters
        observed = [] if self.problem.values is None else [self.observed()]
        sd = collocation.residual_sd(θ)

        def derivatives(z) -> Fields:
            return {o: system.field(z, matrices) for o, matrices in self.basis.items()}

        def misfit(z):
            # Faces and observations are linear in z. The residual is not, and is computed
            # as it is, not by its tangent.
            residual = collocation.equation(derivatives(z), θ.unknowns)
            off = [system.tested(residual, collocation.against) / sd]
            linear = [*self.faces, *observed]
            off += [(r.factor @ z + r.loc - r.value) / r.noise_sd for r in linear]
            return z @ z + sum(part @ part for part in off)

        def step(state: Newton) -> Newton:
            inside = collocation.inside(self.basis, state.fields, θ)
            rows = system.stacked([*self.faces, inside, *observed])
            aim = _regressed(rows).mean
            tried = state.z + jnp.asarray(STEP_SIZES)[:, None] * (aim - state.z)
            best = tried[jnp.argmin(jax.vmap(misfit)(tried))]
            new = derivatives(best)
            moved = [jnp.max(jnp.abs(new[o] - state.fields[o])) for o in new]
            size = [jnp.max(jnp.abs(new[o])) for o in new]
            change = jnp.max(jnp.stack(moved) / jnp.maximum(jnp.stack(size), 1e-300))
            return Newton(best, new, change, state.num_steps + 1)

        def going(state: Newton):
            return (state.change > NEWTON_TOLERANCE) & (state.num_steps < most)

        if observed:
            z, fields = self.curve()
        else:
            matrices = next(iter(self.basis.values()))
            z = jnp.zeros(math.prod(matrix.shape[1] for matrix in matrices))
            fields = zero(self.problem)
        start = Newton(z, fields, jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(going, step, start)

    # The posterior.

    def solution(self, fields: Fields, change: Any = 0.0) -> Solution:
        """The posterior of $u$, with the equation linearised about `fields`.

        Args:
            fields: derivatives of $u$ on the collocation's grid.
            change: relative change of these by the last Newton step.
        """
        rows = self.rows(fields)
        given = _regressed(rows)
        root, mean = given.root, given.mean
        evidence = _log_density(rows, given)
        if self.problem.values is not None:
            # In coordinates that are standard normal given the equation.
            y = self.predicted(given)
            rows = Rows(y.factor, y.loc, self.problem.values, y.noise_sd)
            more = _regressed(rows)
            evidence = _log_density(rows, more)
            mean = mean + jax.scipy.linalg.solve_triangular(root, more.mean)
            root = more.root @ root
        about, problem = self.collocation, self.problem
        size = about.residual_size(self.parameters.unknowns)
        return Solution(
            self.parameters,
            self.spans,
            root,
            mean,
            jnp.ones(()),
            evidence,
            size,
            jnp.asarray(change),
            weights(
                problem.held_out, problem, about.start, about.num_nodes, problem.midpoints
            ),
        )

    def solve(self) -> Solution:
        """The posterior of $u$, about the Gauss-Newton solution if it is not linear."""
        if self.collocation.equation.is_linear:
            return self.solution(zero(self.problem))
        found = jax.lax.stop_gradient(self).newton()
        return self.solution(found.fields, found.change)

    def calibrated(self, found: Solution) -> Solution:
        """With sds such that 95 % intervals cover 95 % of the way to a stricter solution.

        That one has other points and a hundredth of the tolerance. If it is the more
        accurate of the two, their difference is the error of the first.
        """
        strict = self.collocation.stricter()
        between = {o: found.derivative(strict.grid, o) for o in strict.equation.orders}
        flat = (0,) * len(strict.grid)
        # Only inside: on faces both solutions are given, and so are their differences.
        places = some(strict.grid, COMPARED[len(strict.grid)])
        u, sd = found.derivative(places, flat), found.sd_on(places)

        def needed(parameters):
            reference = Solver.of(strict, parameters)
            z = reference.given(between).mean
            apart = system.derivative(z, reference.spans, places, flat) - u
            return jnp.quantile(jnp.abs(apart) / sd, 0.95) / 1.96

        if all(rank is None for rank in strict.ranks):
            each = lambda s: needed(self.parameters.with_lengthscales(s))  # noqa: E731
            factor = MARGIN * jnp.max(jax.lax.map(each, jnp.asarray(SHARES)))
        else:
            factor = MARGIN * needed(self.parameters)
        # Where the conditions leave u open, both solutions choose the same one, and their
        # difference says nothing.
        prior_sd = math.prod(jnp.sqrt(k(jnp.zeros(()))) for k in self.parameters.kernels)
        is_open = jnp.max(sd) > OPEN * prior_sd
        factor = jnp.where(is_open, jnp.maximum(factor, 1.0), factor)
        return dataclasses.replace(found, calibration=factor)


def _regressed(rows: Rows) -> Regression:
    sd = rows.noise_sd
    return regress(rows.factor / sd[:, None], (rows.value - rows.loc) / sd)


def _log_density(rows: Rows, found: Regression) -> Float[Array, ""]:
    """The log density of the values of rows, in nats, after their regression."""
    spread = jnp.log(jnp.abs(jnp.diagonal(found.root))).sum() + jnp.log(rows.noise_sd).sum()
    return -0.5 * (found.misfit + rows.value.size * math.log(2 * math.pi)) - spread


def some(grid: Any, most: int) -> list[Array]:
    """At most so many points of each axis, at random: even steps would fall on nodes."""
    random = np.random.default_rng(0)
    counts = [min(most, len(x)) for x in grid]
    chosen = [random.choice(len(x), n, False) for x, n in zip(grid, counts, strict=True)]
    return [x[np.sort(i)] for x, i in zip(grid, chosen, strict=True)]
