r"""What holds at the breaks of an axis: all that is differentiated is continuous.

If a derivative in the residual were that of a function which jumps, it would not be finite
at the break, and nothing else in the equation could balance it. So in `(k * u.dx).dx` the
solution $u$ and the flux $k u'$ are continuous, and where $k$ jumps the slope does too. In
`k * u.dxx` they are $u$ and $u'$.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from probkit.models.pde.chart import Chart
from probkit.models.pde.equation import Equation, Monomial
from probkit.models.pde.residual import RESIDUAL, Polynomial

# Coefficients at the two sides of a break agree if they differ by less, relative to the
# larger one. The two places are next to each other.
SAME = 1e-6
# Two expressions are multiples of each other if their correlation is closer to one.
PARALLEL = 1e-9


class Interface(eqx.Module):
    """One expression in u that is the same on both sides of a break.

    Attributes:
        axis: the axis that breaks.
        at: where, in units of the axis.
        low: the expression just below the break, over the other axes.
        high: the same just above it.
    """

    axis: int = eqx.field(static=True)
    at: float = eqx.field(static=True)
    low: Equation
    high: Equation


class _Sides(NamedTuple):
    """An expression on both sides of a break: coefficients by what they multiply."""

    low: dict[Monomial, np.ndarray]
    high: dict[Monomial, np.ndarray]


def read_interfaces(
    on_grid: Polynomial, charts: Sequence[Chart | None], highest: Sequence[int]
) -> tuple[Interface, ...]:
    """The conditions at breaks, from what a residual differentiates.

    Args:
        on_grid: the residual on the grid, with what was differentiated.
        charts: of each axis.
        highest: the highest order of a derivative along each axis.

    Raises:
        ValueError: for an expression that jumps and is not linear in u, and for more
            conditions than the equation can keep.
    """
    axes, found = on_grid.space.axes, []
    for j, chart in enumerate(charts):
        if chart is None or not chart.breaks:
            continue
        ends = np.cumsum(chart.counts(on_grid.space.shape[j]))
        for at, end in zip(chart.breaks, ends, strict=False):
            every = [
                _sides(one, j, int(end))
                for axis, one in on_grid.space.differentiated or ()
                if axis == j and any(m.factors for m in one.terms)
            ]
            kept = _kept(every, j, f"{axes[j]} = {at:.6g}")
            if len(kept) > highest[j]:
                raise ValueError(
                    f"`{RESIDUAL}` differentiates {len(kept)} expressions that would each "
                    f"be continuous at {axes[j]} = {at:.6g}, and an equation of order "
                    f"{highest[j]} keeps {highest[j]}; take the derivative of their sum, "
                    "such as `((k + 1) * u.dx).dx` for `(k * u.dx).dx + u.dxx`."
                )
            found += [
                Interface(j, at, _equation(one.low), _equation(one.high)) for one in kept
            ]
    return tuple(found)


def _sides(one: Polynomial, axis: int, end: int) -> _Sides:
    face = tuple(n for i, n in enumerate(one.space.shape) if i != axis)

    def at(place: int) -> dict[Monomial, np.ndarray]:
        return {
            m: np.broadcast_to(np.take(c, place, axis) if c.ndim else c, face)
            for m, c in one.terms.items()
        }

    return _Sides(at(end - 1), at(end))


def _kept(every: list[_Sides], axis: int, where: str) -> list[_Sides]:
    """Those that do not follow from the others."""
    bare = {_bare(one, axis) for one in every} - {None}
    kept: list[_Sides] = []
    for one in every:
        if _bare(one, axis) is None and _follows(one, axis, bare):
            continue
        if any(len(m.factors) > 1 for m in one.low):
            raise ValueError(
                f"`{RESIDUAL}` takes the derivative of an expression that is not linear in "
                f"`u`, and may jump at {where}; apply the product rule, `u * u.dx` for "
                "`(u**2 / 2).dx`, or make its coefficient smooth."
            )
        if not any(_is_multiple(one, other) for other in kept):
            kept.append(one)
    return kept


def _is_continuous(one: _Sides) -> bool:
    size = max(np.abs(c).max() for side in one for c in side.values())
    return all(bool(np.abs(one.high[m] - one.low[m]).max() <= SAME * size) for m in one.low)


def _bare(one: _Sides, axis: int) -> int | None:
    """The order of a derivative that is alone, with a coefficient that does not jump."""
    ((factors, names), *others) = one.low
    if others or len(factors) != 1 or names or not _is_continuous(one):
        return None
    return factors[0][axis]


def _follows(one: _Sides, axis: int, bare: set[int | None]) -> bool:
    """Whether it is made of continuous coefficients and continuous derivatives."""
    orders = {factor[axis] for m in one.low for factor in m.factors}
    return orders <= bare and _is_continuous(one)


def _is_multiple(one: _Sides, other: _Sides) -> bool:
    if set(one.low) != set(other.low):
        return False
    a, b = (
        np.concatenate([side[m].ravel() for side in sides for m in sorted(sides.low)])
        for sides in (one, other)
    )
    least = (1 - PARALLEL) * np.linalg.norm(a) * np.linalg.norm(b)
    return bool(abs(a @ b) >= least)


def _equation(terms: Mapping[Monomial, np.ndarray]) -> Equation:
    kinds = tuple(sorted(terms))
    return Equation(kinds, tuple(jnp.array(terms[m]) for m in kinds))


# In a file.


def listed(interfaces: Sequence[Interface]) -> list[list[Any]]:
    """What a file keeps of them besides their arrays."""
    return [
        [one.axis, one.at, [[list(m.factors), list(m.unknowns)] for m in one.low.monomials]]
        for one in interfaces
    ]


def arrays(interfaces: Sequence[Interface]) -> dict[str, Any]:
    """Their arrays by name."""
    return {
        f"interface_{k}_{j}_{side}": coefficient
        for k, one in enumerate(interfaces)
        for side in ("low", "high")
        for j, coefficient in enumerate(getattr(one, side).coefficients)
    }


def of_list(found: Sequence[Any], named: Mapping[str, Any]) -> tuple[Interface, ...]:
    """Those of a file."""
    made = []
    for k, (axis, at, monomials) in enumerate(found):
        kinds = tuple(
            Monomial(tuple(tuple(orders) for orders in factors), tuple(unknowns))
            for factors, unknowns in monomials
        )
        sides = [
            Equation(
                kinds, tuple(named[f"interface_{k}_{j}_{side}"] for j in range(len(kinds)))
            )
            for side in ("low", "high")
        ]
        made.append(Interface(axis, at, *sides))
    return tuple(made)
