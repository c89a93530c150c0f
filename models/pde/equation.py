"""The equation of a PDE problem: a polynomial in u and its derivatives, over a grid."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Orders = tuple[int, ...]


class Monomial(NamedTuple):
    """One kind of term of an equation, without its coefficient.

    Attributes:
        factors: the derivatives of u that are multiplied, sorted, each as its orders by
            axis: `((2, 0),)` is u_xx in two dimensions, `((0,), (0,), (0,))` is u³ in
            one. Without any, it is the source.
        unknowns: names of the unknown coefficients that multiply it, sorted.
    """

    factors: tuple[Orders, ...]
    unknowns: tuple[str, ...]


class Equation(eqx.Module):
    r"""A sum of terms that is zero at the points of a tensor grid.

    $$\sum_k c_k(x) \prod_{b} θ_{kb} \prod_{α} ∂^α u(x) = 0$$

    Attributes:
        monomials: what the coefficients multiply, sorted, none twice.
        coefficients: $c_k$, each of shape `()` or of the grid's.
    """

    monomials: tuple[Monomial, ...] = eqx.field(static=True)
    coefficients: tuple[Float[Array, "..."], ...]

    @property
    def is_linear(self) -> bool:
        """Whether it is linear in u, given the unknown coefficients."""
        return all(len(monomial.factors) <= 1 for monomial in self.monomials)

    @property
    def orders(self) -> tuple[Orders, ...]:
        """The derivatives of u that occur, sorted."""
        return tuple(sorted({a for m in self.monomials for a in m.factors}))

    @property
    def highest(self) -> tuple[int, ...]:
        """The highest order of a derivative along each axis; none if u does not occur."""
        return tuple(map(max, zip(*self.orders, strict=True)))

    @property
    def unknowns(self) -> tuple[str, ...]:
        """The unknown coefficients that occur, sorted."""
        return tuple(sorted({name for m in self.monomials for name in m.unknowns}))

    def __call__(
        self,
        derivatives: Mapping[Orders, Float[Array, "..."]],
        unknowns: Mapping[str, Any] | None = None,
    ) -> Float[Array, "..."]:
        """The residual: the left-hand side, for a u given by its derivatives.

        Args:
            derivatives: an array of the grid's shape for each of `orders`.
            unknowns: a number for each of `unknowns`.
        """
        total = jnp.zeros(())
        for monomial, coefficient in zip(self.monomials, self.coefficients, strict=True):
            weight = _weight(coefficient, monomial, unknowns)
            total = total + _times(weight, monomial.factors, derivatives)
        return total

    def jacobian(
        self,
        derivatives: Mapping[Orders, Float[Array, "..."]],
        unknowns: Mapping[str, Any] | None = None,
    ) -> dict[Orders, Float[Array, "..."]]:
        """The partial derivative of the residual by each derivative of u, pointwise.

        Args:
            derivatives: as for a call; those that only linear terms have may be missing.
            unknowns: as for a call.

        Returns:
            For each of `orders`, an array of the grid's shape, or of shape `()`.
        """
        slopes: dict[Orders, Array] = {orders: jnp.zeros(()) for orders in self.orders}
        for monomial, coefficient in zip(self.monomials, self.coefficients, strict=True):
            weight = _weight(coefficient, monomial, unknowns)
            for orders in set(monomial.factors):
                # d(v^n w) / dv = n v^(n-1) w
                rest = list(monomial.factors)
                rest.remove(orders)
                times = monomial.factors.count(orders)
                slope = _times(times * weight, rest, derivatives)
                slopes[orders] = slopes[orders] + slope
        return slopes

    def source(self, unknowns: Mapping[str, Any] | None = None) -> Float[Array, "..."]:
        """The part of the residual without u: -f, if the equation is Pu = f.

        Returns:
            An array of the grid's shape, or of shape `()`.
        """
        total = jnp.zeros(())
        for monomial, coefficient in zip(self.monomials, self.coefficients, strict=True):
            if not monomial.factors:
                total = total + _weight(coefficient, monomial, unknowns)
        return total


def least_residual(
    equations: Sequence[tuple[Equation, Mapping[Orders, Float[np.ndarray, "..."]]]],
    ranges: Sequence[tuple[str, float, float]],
) -> dict[str, float]:
    """The unknowns for which the residuals of a given u have the least sum of squares.

    Each equation counts relative to its size in the middle of the ranges.

    Args:
        equations: each with the derivatives of u where it holds, an array of the shape of
            these points for each of its `orders`.
        ranges: name, low and high of each unknown.

    Source: Varah (1982), "A spline least squares method for numerical parameter
    estimation in differential equations".
    """
    from scipy.optimize import least_squares

    names = [name for name, _, _ in ranges]
    low, high = np.array([ends for _, *ends in ranges]).T
    residuals = [_in_unknowns(*one, names) for one in equations]

    def each(share):
        θ = low + (high - low) * share
        return [residual(θ) for residual in residuals]

    middle = np.full(len(names), 0.5)
    scales = [np.linalg.norm(part) or 1.0 for part in each(middle)]

    def whole(share):
        pairs = zip(each(share), scales, strict=True)
        return np.concatenate([part / scale for part, scale in pairs])

    found = least_squares(whole, middle, bounds=(0, 1))
    return dict(zip(names, (low + (high - low) * found.x).tolist(), strict=True))


def _in_unknowns(equation: Equation, derivatives, names: Sequence[str]):
    """The residual of a given u as a function of the unknowns alone."""
    shape, terms = np.shape(next(iter(derivatives.values()))), []
    for monomial, coefficient in zip(
        equation.monomials, equation.coefficients, strict=True
    ):
        term = np.broadcast_to(_times(coefficient, monomial.factors, derivatives), shape)
        powers = np.array([monomial.unknowns.count(name) for name in names])
        terms.append((term.reshape(-1), powers))
    return lambda θ: sum(term * np.prod(θ**powers) for term, powers in terms)


def _weight(coefficient: Array, monomial: Monomial, unknowns) -> Array:
    for name in monomial.unknowns:
        coefficient = coefficient * unknowns[name]
    return coefficient


def _times(weight: Array, factors: Sequence[Orders], derivatives) -> Array:
    for orders in factors:
        weight = weight * derivatives[orders]
    return weight
