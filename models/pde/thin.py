r"""Where a solution in one dimension changes within a thin part of its axis.

A kernel of waves on an even grid says nothing of a layer between two points. So the layers
are found from a rough solution on a mesh that adapts: `scipy.integrate.solve_bvp`, of low
order and to a thousandth. It chooses where points go and nothing else. The equation is then
solved, and checked, as any other.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from probkit.models.pde.chart import THINNEST, Chart, stretched
from probkit.models.pde.conditions import Condition
from probkit.models.pde.problem import Problem
from probkit.models.pde.residual import Polynomial, evaluate

# Of the rough solution: its tolerance, its first points and its largest number of them.
TOLERANCE, FIRST_POINTS, MOST_POINTS = 1e-3, 200, 20_000
# Evaluations of the equation. At a jump it would add two points at a time without end.
MOST_CALLS = 1000
# A solution has a layer where it changes this many times as fast as on average. Sines
# change at most 1.6 times as fast, whatever their frequency.
CONCENTRATED = 8.0
MOST_LAYERS = 6
# Points at which the change is looked at, even in the stretched coordinate.
LOOKED_AT = 4000


class LayerWarning(UserWarning):
    """A fit is on other points than those of the problem, because of a thin layer."""


class _TooLongError(Exception):
    """The rough solver does not come to an end."""


def layers(problem: Problem) -> tuple[tuple[float, float], ...]:
    """Place and width of each layer of the solution; none if no rough solution is found.

    Args:
        problem: in one dimension, without observations and unknown coefficients.
    """
    solution = rough_solution(problem)
    if solution is None:
        return ()
    found: tuple[tuple[float, float], ...] = ()
    low, high = _ends(problem)
    for _ in range(MOST_LAYERS):
        more = _next(solution, Chart(low, high, (), found))
        if more is None:
            break
        # One that is seen again, with points in it, is thinner than it looked.
        found = (*(one for one in found if abs(one[0] - more[0]) > one[1]), more)
    return found


def _next(solution, chart: Chart) -> tuple[float, float] | None:
    """The layer that is thinnest in the stretched coordinate, if there is one."""
    x = chart.points((LOOKED_AT,))
    u, s = solution(x), stretched(chart, x)[0]
    change = np.abs(np.diff(u)) / np.diff(s)
    mean = np.abs(np.diff(u)).sum() / (s[-1] - s[0])
    top = int(np.argmax(change))
    if not change[top] > CONCENTRATED * mean:
        return None
    # The part around it where u changes at least half as fast.
    is_slow = change < change[top] / 2
    before, after = np.flatnonzero(is_slow[:top]), np.flatnonzero(is_slow[top:])
    first = before[-1] + 1 if len(before) else 0
    last = top + after[0] if len(after) else len(change)
    ends = x[first], x[last]
    width = max(ends[1] - ends[0], THINNEST * (chart.high - chart.low))
    at = (x[top] + x[top + 1]) / 2
    # A layer at an end is steepest there.
    at = chart.low if first == 0 else chart.high if last == len(change) else at
    return float(at), float(min(width, chart.high - chart.low))


def rough_solution(problem: Problem) -> Callable[[np.ndarray], np.ndarray] | None:
    """u on the axis, to about a thousandth, or None.

    There is none for a problem from a file, whose residual is not kept; for an equation
    whose highest derivative is not alone in its terms; with conditions that are more or
    less than its order; and where the rough solver does not converge.
    """
    from scipy.integrate import solve_bvp

    order = problem.equation.highest[0]
    conditions = problem.conditions
    given = [orders[0] for c in conditions for orders in c.equation.orders]
    if (
        problem.written.residual is None
        or problem.values is not None
        or problem.unknown
        or any(problem.charts)
        or len(conditions) != order
        or max(given) >= order
        or not _is_explicit(problem, order)
    ):
        return None
    terms = _Terms(problem)
    calls = itertools.count()

    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if next(calls) > MOST_CALLS:
            raise _TooLongError
        # y is u and its derivatives below the order of the equation.
        lead, rest = np.zeros_like(x), np.zeros_like(x)
        for monomial, coefficient in terms(x).items():
            others = [o[0] for o in monomial.factors if o[0] < order]
            value = coefficient * math.prod((y[k] for k in others), start=np.ones_like(x))
            is_lead = len(others) < len(monomial.factors)
            lead, rest = (lead + value, rest) if is_lead else (lead, rest + value)
        return np.concatenate([y[1:], [-rest / lead]])

    faces = [_of_face(condition, order) for condition in conditions]

    def missed(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        at = {"low": low, "high": high, "periodic": high - low}
        return np.array([operator @ at[side] - given for side, operator, given in faces])

    low, high = _ends(problem)
    x = np.linspace(low, high, max(FIRST_POINTS, problem.shape[0]))
    start = np.zeros((order, len(x)))
    try:
        # A search that goes astray overflows before it gives up.
        with np.errstate(all="ignore"):
            found = solve_bvp(slope, missed, x, start, tol=TOLERANCE, max_nodes=MOST_POINTS)
    except (ValueError, _TooLongError):
        # A coefficient is not finite, or changes too fast.
        return None
    if not found.success or not np.isfinite(found.y).all():
        return None
    return lambda x: found.sol(x)[0]


def _ends(problem: Problem) -> tuple[float, float]:
    (x,) = problem.grid
    return float(x[0]), float(x[-1])


def _is_explicit(problem: Problem, order: int) -> bool:
    """Whether the highest derivative is alone in each of its terms."""
    with_it = [m.factors for m in problem.equation.monomials if (order,) in m.factors]
    return all(len(factors) == 1 for factors in with_it)


class _Terms:
    """The residual's terms at any points; the last are kept, which are asked for again."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.places = np.zeros(0)
        self.last: dict[Any, Any] = {}

    def __call__(self, x: np.ndarray) -> dict[Any, Any]:
        if not np.array_equal(x, self.places):
            one: Polynomial = evaluate(
                self.problem.written.residual, self.problem.axes, [x], (len(x),), ()
            )
            self.places, self.last = x, one.terms
        return self.last


def _of_face(condition: Condition, order: int) -> tuple[str, np.ndarray, float]:
    """The side, the coefficients of u and its derivatives, and what they add up to."""
    operator = np.zeros(order)
    for (k,), coefficient in condition.operator({}).items():
        operator[k] = float(coefficient)
    return condition.side, operator, float(condition.given({}))
