"""Rules for lineax's multiples, sums and products of operators, which keep their structure.

`-op`, `2 * op`, `op / 2`, `op_1 @ op_2`, `op + s I` and tagged operators are classes of
lineax. A sum has a rule if one side is a multiple of the identity, or a diagonal, that the
other takes in.
"""

import jax.numpy as jnp
import lineax as lx

from probkit.linalg.product import Product
from probkit.linalg.questions import (
    diagonal,
    eigh,
    logdet,
    plus_diagonal,
    plus_identity,
    quadratic_form,
    solve,
    solve_columns,
    sqrt,
    times,
    trace,
)
from probkit.linalg.structured import is_complex

# Multiples


def _factor(op):
    """$c$ of a multiple $c A$."""
    if isinstance(op, lx.NegLinearOperator):
        return -1
    return op.scalar if isinstance(op, lx.MulLinearOperator) else 1 / op.scalar


def _multiple(rule):
    """Register a rule for all three multiples."""

    def register(function):
        for kind in (lx.MulLinearOperator, lx.DivLinearOperator, lx.NegLinearOperator):
            rule.register(kind)(function)
        return function

    return register


@_multiple(solve)
@_multiple(solve_columns)
def _(op, vector):
    # (c A)⁻¹ = A⁻¹ / c
    return solve(op.operator, vector) / _factor(op)


@_multiple(logdet)
def _(op):
    # log|c A| = log|A| + n log|c|
    return logdet(op.operator) + op.in_size() * jnp.log(jnp.abs(_factor(op)))


@_multiple(diagonal)
def _(op):
    return _factor(op) * diagonal(op.operator)


@_multiple(trace)
def _(op):
    return _factor(op) * trace(op.operator)


@_multiple(quadratic_form)
def _(op, vector):
    # vᴴ (c A) v = c vᴴ A v
    return _factor(op) * quadratic_form(op.operator, vector)


@_multiple(eigh)
def _(op):
    # c A = V diag(c λ) Vᴴ, Hermitian for real c
    values, vectors = eigh(op.operator)
    return _real(_factor(op), "eigh") * values, vectors


@_multiple(sqrt)
def _(op):
    # √(c A) = √c √A for c > 0. A matrix takes c in, so that it may also be below 0.
    factor = _real(_factor(op), "sqrt")
    if isinstance(op.operator, lx.MatrixLinearOperator | lx.DiagonalLinearOperator):
        return sqrt(times(op.operator, factor))
    return sqrt(op.operator) * jnp.sqrt(factor)


@_multiple(times)
def _(op, factor):
    return times(op.operator, factor * _factor(op))


@_multiple(plus_identity)
def _(op, amount):
    return plus_identity(times(op.operator, _factor(op)), amount)


@_multiple(plus_diagonal)
def _(op, amounts):
    return plus_diagonal(times(op.operator, _factor(op)), amounts)


def _real(factor, question):
    if is_complex(jnp.result_type(factor)):
        raise ValueError(
            f"`{question}` needs a Hermitian operator, and a complex multiple of one is "
            "not; give a real number."
        )
    return factor


# Products


@solve.register(lx.ComposedLinearOperator)
@solve_columns.register(lx.ComposedLinearOperator)
def _(op, vector):
    return solve(_product(op), vector)


@logdet.register(lx.ComposedLinearOperator)
def _(op):
    return logdet(_product(op))


@diagonal.register(lx.ComposedLinearOperator)
def _(op):
    return diagonal(_product(op))


def _product(op):
    return Product([op.operator1, op.operator2])


# Sums


def _as_one(op, question):
    """A sum with a multiple of the identity, or with a diagonal, as one operator."""
    pairs = ((op.operator1, op.operator2), (op.operator2, op.operator1))
    for A, other in pairs:
        amount = _of_identity(other)
        if amount is not None:
            return plus_identity(A, _real(amount, question))
    for A, other in pairs:
        amounts = _of_diagonal(other)
        if amounts is not None:
            # lineax wants one dtype. With an imaginary part the sum is not Hermitian.
            real = jnp.where(jnp.imag(amounts) == 0, jnp.real(amounts), jnp.nan)
            return plus_diagonal(A, real)
    names = [type(A).__name__ for A in (op.operator1, op.operator2)]
    raise NotImplementedError(
        f"`{question}` has no rule for the sum of `{names[0]}` and `{names[1]}`; one of "
        "them has to be `s * lx.IdentityLinearOperator(op.in_structure())` or a "
        "`lx.DiagonalLinearOperator`."
    )


def _of_identity(op):
    """$c$ if the operator is $c I$ by its class, else None."""
    return _by_class(op, lx.IdentityLinearOperator, lambda _: 1)


def _of_diagonal(op):
    """The diagonal if the operator is one by its class, else None."""
    return _by_class(op, lx.DiagonalLinearOperator, lambda op: op.diagonal)


def _by_class(op, kind, answer):
    """The answer of an operator of this class under multiples and tags, else None."""
    if isinstance(op, kind):
        return answer(op)
    if isinstance(op, lx.MulLinearOperator | lx.DivLinearOperator | lx.NegLinearOperator):
        inner = _by_class(op.operator, kind, answer)
        return None if inner is None else _factor(op) * inner
    if isinstance(op, lx.TaggedLinearOperator):
        return _by_class(op.operator, kind, answer)
    return None


@solve.register(lx.AddLinearOperator)
@solve_columns.register(lx.AddLinearOperator)
def _(op, vector):
    return solve(_as_one(op, "solve"), vector)


@logdet.register(lx.AddLinearOperator)
def _(op):
    return logdet(_as_one(op, "logdet"))


@sqrt.register(lx.AddLinearOperator)
def _(op):
    return sqrt(_as_one(op, "sqrt"))


@eigh.register(lx.AddLinearOperator)
def _(op):
    return eigh(_as_one(op, "eigh"))


@plus_identity.register(lx.AddLinearOperator)
def _(op, amount):
    return plus_identity(_as_one(op, "a sum"), amount)


@plus_diagonal.register(lx.AddLinearOperator)
def _(op, amounts):
    return plus_diagonal(_as_one(op, "a sum"), amounts)


@times.register(lx.AddLinearOperator)
def _(op, factor):
    return times(_as_one(op, "a multiple"), factor)


@quadratic_form.register(lx.AddLinearOperator)
def _(op, vector):
    return quadratic_form(op.operator1, vector) + quadratic_form(op.operator2, vector)


@diagonal.register(lx.AddLinearOperator)
def _(op):
    return diagonal(op.operator1) + diagonal(op.operator2)


@trace.register(lx.AddLinearOperator)
def _(op):
    return trace(op.operator1) + trace(op.operator2)


# Tags promise something about an operator, and its class knows more.


@solve.register(lx.TaggedLinearOperator)
@solve_columns.register(lx.TaggedLinearOperator)
def _(op, vector):
    return solve(op.operator, vector)


@logdet.register(lx.TaggedLinearOperator)
def _(op):
    return logdet(op.operator)


@diagonal.register(lx.TaggedLinearOperator)
def _(op):
    return diagonal(op.operator)


@trace.register(lx.TaggedLinearOperator)
def _(op):
    return trace(op.operator)


@sqrt.register(lx.TaggedLinearOperator)
def _(op):
    return sqrt(op.operator)


@eigh.register(lx.TaggedLinearOperator)
def _(op):
    return eigh(op.operator)


@times.register(lx.TaggedLinearOperator)
def _(op, factor):
    return times(op.operator, factor)


@plus_identity.register(lx.TaggedLinearOperator)
def _(op, amount):
    return plus_identity(op.operator, amount)


@plus_diagonal.register(lx.TaggedLinearOperator)
def _(op, amounts):
    return plus_diagonal(op.operator, amounts)
