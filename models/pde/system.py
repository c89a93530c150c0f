r"""A problem as rows on finitely many standard normal numbers.

The kernel is a product over axes, and each of its factors a sum of waves. So
$u(x) = \sum_i z_i \prod_j φ_{j i_j}(x_j)$ with $z \sim N(0, I)$, and each condition is a
row on $z$: the residual of a linear equation at a point, a boundary value, an
observation. What is nonlinear is linearised.

In one dimension the rows are the points of the grid. In more, the residual is tested
against a few functions of each axis (Petrov-Galerkin), because the rows of a whole grid
would cost more than the solution has unknowns.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.gp.mixture import SpectralMixture
from probkit.linalg import mode_products
from probkit.models.pde.chart import Chart, features_on
from probkit.models.pde.conditions import Condition
from probkit.models.pde.equation import Equation, Orders
from probkit.models.pde.interfaces import Interface

# Coefficients of a linear operator by the derivative that they multiply, numbers or
# arrays over the grid.
Operator = dict[Orders, Float[Array, "..."]]
# For each derivative of u the matrices $φ_j^{(k_j)}(x_j)$, one per axis, on a tensor grid.
Basis = dict[Orders, tuple[Float[Array, "_n _r"], ...]]


class Span(eqx.Module):
    r"""Functions $φ$ of one axis whose squares add up to the kernel.

    Attributes:
        mixture: the kernel.
        mix: which combinations of its waves to keep, `(p, r)`; None for all.
        num_nodes: number of waves per bump of the spectrum.
        chart: the pieces and the stretched coordinate of the axis; None for one that is
            even and without breaks.
    """

    mixture: SpectralMixture
    mix: Float[Array, "p r"] | None
    num_nodes: int = eqx.field(static=True)
    chart: Chart | None = eqx.field(static=True, default=None)

    @classmethod
    def of(
        cls,
        mixture: SpectralMixture,
        x: Array,
        rank: int | None,
        num_nodes: int,
        chart: Chart | None = None,
    ):
        """The waves, or the `rank` combinations of them that matter most on a grid.

        The waves of long lengthscales are nearly dependent. Their singular values are the
        square roots of the kernel's eigenvalues, and small ones come out to full precision.
        """
        if rank is None:
            return cls(mixture, None, num_nodes, chart)
        fixed = jax.lax.stop_gradient(mixture)
        # At enough points to distinguish `rank` functions, however coarse the grid is.
        count = max(len(x), 2 * rank)
        points = jnp.linspace(x[0], x[-1], count)
        if chart is not None:
            share = jnp.linspace(0.0, 1.0, count)
            points = jnp.interp(share, jnp.linspace(0.0, 1.0, len(x)), x)
        Φ = features_on(chart, fixed, points, 0, num_nodes)
        # A combination that is left out would add next to nothing, whatever it was: the
        # derivative does not go through the choice.
        mix = jnp.linalg.svd(Φ, full_matrices=False)[2][:rank].T
        return cls(mixture, mix, num_nodes, chart)

    def __call__(
        self, x: Float[Array, " n"], order: int = 0, side: str = "right"
    ) -> Float[Array, "n r"]:
        Φ = features_on(self.chart, self.mixture, x, order, self.num_nodes, side)
        return Φ if self.mix is None else Φ @ self.mix


def test_functions(span: Span, x: Array, orders: set[int], count: int) -> Array:
    r"""Orthonormal columns that span what the derivatives of `span` can be on a grid.

    Returns:
        $Q$, `(n, count)`; the identity if there are no more points than `count`.
    """
    if count >= len(x):
        return jnp.eye(len(x))
    blocks = [span(x, order) for order in sorted(orders)]
    scaled = [block / jnp.linalg.norm(block) for block in blocks]
    return jnp.linalg.svd(jnp.concatenate(scaled, 1), full_matrices=False)[0][:, :count]


class Linearised(NamedTuple):
    r"""A residual $\sum_k c_k ∂^k u + s$, as an operator and the part without $u$."""

    operator: Operator
    rest: Float[Array, "..."]


def linearise(equation: Equation, fields: dict[Orders, Array], unknowns) -> Linearised:
    """The residual's tangent at the solution whose derivatives are `fields`."""
    operator = equation.jacobian(fields, unknowns)
    rest = equation(fields, unknowns)
    for orders, coefficient in operator.items():
        rest = rest - coefficient * fields[orders]
    return Linearised(operator, rest)


class Rows(NamedTuple):
    r"""Conditions $F z + m = y$ up to noise of standard deviation $σ$."""

    factor: Float[Array, "n r"]
    loc: Float[Array, " n"]
    value: Float[Array, " n"]
    noise_sd: Float[Array, " n"]


def stacked(rows: list[Rows]) -> Rows:
    return Rows(*(jnp.concatenate(parts) for parts in zip(*rows, strict=True)))


def kron(matrices: list[Array]) -> Array:
    return functools.reduce(jnp.kron, matrices)


def basis(spans: tuple[Span, ...], grid, orders: Iterable[Orders]) -> Basis:
    """The functions of each axis and their derivatives, at the points of a tensor grid."""
    orders = tuple(orders)
    of_axis = [
        {k: span(x, k) for k in sorted({o[j] for o in orders})}
        for j, (span, x) in enumerate(zip(spans, grid, strict=True))
    ]
    return {
        o: tuple(values[k] for values, k in zip(of_axis, o, strict=True)) for o in orders
    }


def field(z: Float[Array, " r"], matrices: Sequence[Array]) -> Float[Array, "..."]:
    """One derivative of u, for given coefficients and the matrices of its basis."""
    return mode_products(z.reshape([m.shape[1] for m in matrices]), list(matrices))


def derivative(
    z: Float[Array, " r"], spans: tuple[Span, ...], grid, orders: Orders
) -> Float[Array, "..."]:
    r"""$∂^k u$ on a tensor grid for given coefficients."""
    return field(z, [s(x, k) for s, x, k in zip(spans, grid, orders, strict=True)])


def tested(values: Float[Array, "..."], against) -> Float[Array, " n"]:
    """Values on a grid as a vector: themselves, or their products with test functions."""
    if against is not None:
        values = mode_products(values, [q.T for q in against])
    return values.reshape(-1)


def equation_rows(
    linearised: Linearised, basis: Basis, against, sd: Float[Array, ""]
) -> Rows:
    """Residuals that are to vanish, at the points of a grid or against test functions."""
    total = jnp.zeros((1, 1))
    for orders, coefficient in linearised.operator.items():
        total = total + _tested_rows(coefficient, list(basis[orders]), against)
        shape = tuple(len(matrix) for matrix in basis[orders])
    loc = tested(jnp.broadcast_to(linearised.rest, shape), against)
    return Rows(total, loc, jnp.zeros_like(loc), jnp.full_like(loc, sd))


def _tested_rows(coefficient: Array, parts: list[Array], against) -> Array:
    r"""$\sum_x c(x) \prod_j q_{j a_j}(x_j) φ_{j i_j}(x_j)$ in row $a$ and column $i$."""
    if jnp.ndim(coefficient) == 0:
        if against is not None:
            parts = [q.T @ p for q, p in zip(against, parts, strict=True)]
        return coefficient * kron(parts)
    if against is None:
        return coefficient.reshape(-1, 1) * kron(parts)
    total = coefficient
    for q, p in zip(against, parts, strict=True):
        pairs = (q[:, :, None] * p[:, None, :]).reshape(len(p), -1)
        total = jnp.tensordot(total, pairs, [[0], [0]])  # the done axis goes last
    both = zip(against, parts, strict=True)
    sizes = [n for q, p in both for n in (q.shape[1], p.shape[1])]
    d = len(parts)
    order = [*range(0, 2 * d, 2), *range(1, 2 * d, 2)]
    rows = math.prod(q.shape[1] for q in against)
    return total.reshape(sizes).transpose(order).reshape(rows, -1)


def _at_end(condition: Condition, order: int, spans: tuple[Span, ...], grid) -> Array:
    """What a condition says of a derivative, for each function of its axis, `(1, r)`."""
    span, x = spans[condition.axis], grid[condition.axis]
    low, high = span(x[:1], order), span(x[-1:], order)
    return {"low": low, "high": high, "periodic": high - low}[condition.side]


def _parts(condition: Condition, orders: Orders, spans, grid) -> list[Array]:
    """The functions of each axis on the face of a condition."""
    return [
        _at_end(condition, order, spans, grid)
        if i == condition.axis
        else spans[i](grid[i], order)
        for i, order in enumerate(orders)
    ]


def on_face(
    condition: Condition, z: Float[Array, " r"], spans: tuple[Span, ...], grid, unknowns
) -> Array:
    """What a condition is about, for given coefficients, of the shape of the face."""
    total = jnp.zeros(())
    for orders, coefficient in condition.operator(unknowns).items():
        of_z = field(z, _parts(condition, orders, spans, grid))
        total = total + coefficient * jnp.squeeze(of_z, condition.axis)
    return total


def condition_rows(
    condition: Condition,
    spans: tuple[Span, ...],
    grid,
    against,
    sd: Float[Array, ""],
    unknowns: Mapping[str, Any],
) -> Rows:
    """A condition on a face, at its points or against test functions of the other axes."""
    j = condition.axis
    if against is not None:
        against = [jnp.eye(1) if i == j else q for i, q in enumerate(against)]
    total = jnp.zeros((1, 1))
    for orders, coefficient in condition.operator(unknowns).items():
        if jnp.ndim(coefficient):
            coefficient = jnp.expand_dims(coefficient, j)
        parts = _parts(condition, orders, spans, grid)
        total = total + _tested_rows(coefficient, parts, against)
    value = tested(jnp.expand_dims(condition.given(unknowns), j), against)
    return Rows(total, jnp.zeros_like(value), value, jnp.full_like(value, sd))


def _beside(interface: Interface, spans: tuple[Span, ...], grid, unknowns):
    """The terms of an interface: coefficient and functions of each axis, high less low."""
    j, at = interface.axis, jnp.array([interface.at])
    for side, sign, one in (("left", -1, interface.low), ("right", 1, interface.high)):
        for orders, coefficient in one.jacobian({}, unknowns).items():
            parts = [
                span(at if i == j else x, order, side)
                for i, (span, x, order) in enumerate(zip(spans, grid, orders, strict=True))
            ]
            yield sign * jnp.expand_dims(coefficient, j), parts


def across(
    interface: Interface, z: Float[Array, " r"], spans: tuple[Span, ...], grid, unknowns
) -> Array:
    """The jump of what is continuous at a break, for given coefficients."""
    j = interface.axis
    total = interface.high.source(unknowns) - interface.low.source(unknowns)
    for coefficient, parts in _beside(interface, spans, grid, unknowns):
        total = total + jnp.squeeze(coefficient * field(z, parts), j)
    return total


def interface_rows(
    interface: Interface,
    spans: tuple[Span, ...],
    grid,
    against,
    sd: Float[Array, ""],
    unknowns: Mapping[str, Any],
) -> Rows:
    """A condition at a break, at its points or against test functions of other axes."""
    j = interface.axis
    if against is not None:
        against = [jnp.eye(1) if i == j else q for i, q in enumerate(against)]
    total = jnp.zeros((1, 1))
    for coefficient, parts in _beside(interface, spans, grid, unknowns):
        total = total + _tested_rows(coefficient, parts, against)
    value = interface.low.source(unknowns) - interface.high.source(unknowns)
    face = tuple(len(x) for i, x in enumerate(grid) if i != j)
    value = tested(jnp.expand_dims(jnp.broadcast_to(value, face), j), against)
    return Rows(total, jnp.zeros_like(value), value, jnp.full_like(value, sd))


def at_points(spans: tuple[Span, ...], points: Float[Array, "n d"], orders: Orders):
    r"""Rows $\prod_j φ_{j i_j}(x_j)$ at scattered points, `(n, r)`."""
    total = jnp.ones((len(points), 1))
    for j, (span, order) in enumerate(zip(spans, orders, strict=True)):
        part = span(points[:, j], order)
        total = (total[:, :, None] * part[:, None, :]).reshape(len(points), -1)
    return total
