"""The questions. Each is one function; a structure adds one rule.

A rule's comment is the identity it uses. Where a structure has no rule the base case says
so and names `dense`; nothing is made dense by itself.
"""

import functools
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike

from probkit.linalg.structured import AbstractStructured, is_complex


def _no_rule(question: str, op: Any) -> NoReturn:
    raise NotImplementedError(
        f"`{question}` has no rule for `{type(op).__name__}`; if the dense cost is fine, "
        f"ask for it: `{question}(lx.MatrixLinearOperator(dense(op)), ...)`."
    )


@functools.singledispatch
def solve(op: lx.AbstractLinearOperator, vector: ArrayLike) -> Array:
    r"""$x$ with $A x = b$, for a square non-singular $A$.

    Args:
        op: $A$, `(n, n)`.
        vector: $b$, shape `(n,)`; `jax.vmap` over more of them.

    Returns:
        $x$, shape `(n,)`.

    Raises:
        ValueError: if $A$ is not square or $b$ has another length.
        NotImplementedError: if the structure of $A$ has no rule.
    """
    _no_rule("solve", op)


@functools.singledispatch
def logdet(op: lx.AbstractLinearOperator) -> Array:
    r"""$\log |\det A|$, for a square $A$; real, also when $A$ is complex.

    Raises:
        ValueError: if $A$ is not square.
        NotImplementedError: if the structure of $A$ has no rule.
    """
    _no_rule("logdet", op)


@functools.singledispatch
def diagonal(op: lx.AbstractLinearOperator) -> Array:
    """The diagonal of a square operator, shape `(n,)`."""
    _no_rule("diagonal", op)


@functools.singledispatch
def trace(op: lx.AbstractLinearOperator) -> Array:
    """The sum of the diagonal of a square operator."""
    return diagonal(op).sum()


@functools.singledispatch
def sqrt(op: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
    r"""An operator $R$ with $R R^H = A$, for Hermitian positive (semi-)definite $A$.

    Neither symmetric nor unique: whichever is cheapest for the structure.
    """
    _no_rule("sqrt", op)


@functools.singledispatch
def eigh(op: lx.AbstractLinearOperator) -> tuple[Array, lx.AbstractLinearOperator]:
    r"""Eigenvalues and eigenvectors, $A = V\, \mathrm{diag}(λ)\, V^H$, of a Hermitian $A$.

    Returns:
        $λ$, in the order of the columns of $V$ and not sorted: for Kronecker structures a
        tensor with an axis a factor; and the unitary $V$, an operator.

    Derivatives of eigenvectors exist only where eigenvalues differ. Pairs that agree to
    rounding count as equal, and vectors do not turn within them; the other questions take
    their derivatives another way and are right at equal eigenvalues too.
    """
    _no_rule("eigh", op)


def quadratic_form(op: lx.AbstractLinearOperator, vector: ArrayLike) -> Array:
    r"""$v^H A v$; complex unless $A$ is real or Hermitian."""
    form = jnp.vdot(vector, op.mv(jnp.asarray(vector)))
    hermitian = lx.is_positive_semidefinite(op) or not is_complex(form.dtype)
    return form.real if hermitian else form


def inverse_quadratic_form(op: lx.AbstractLinearOperator, vector: ArrayLike) -> Array:
    r"""$v^H A^{-1} v$, real, for Hermitian positive definite $A$.

    Its derivative costs one product with the parts of $A$, and no second solution.
    """
    return _inverse_quadratic_form(op, jnp.asarray(vector))


@jax.custom_jvp
def _inverse_quadratic_form(op, vector):
    return jnp.vdot(vector, solve(op, vector)).real


@_inverse_quadratic_form.defjvp
def _(primals, tangents):
    # With x = A⁻¹ v:  d(vᴴ A⁻¹ v) = 2 Re xᴴ dv - Re xᴴ dA x.
    op, vector = primals
    x = solve(op, vector)
    d_op, d_vector = tangents
    _, moved = jax.jvp(lambda A: A.mv(x), (op,), (d_op,))
    tangent = 2 * jnp.vdot(x, d_vector).real - jnp.vdot(x, moved).real
    return jnp.vdot(vector, x).real, tangent


def sample(op: lx.AbstractLinearOperator, key: Array, shape: tuple[int, ...] = ()) -> Array:
    r"""Draws with mean zero and covariance $A$: $R z$ with $R R^H = A$ and $z$ white.

    Args:
        op: $A$, Hermitian positive (semi-)definite, `(n, n)`.
        key: a JAX random key.
        shape: how many draws.

    Returns:
        Shape `(*shape, n)`: N(0, A) where $A$ is real, circular CN(0, A) where complex.
    """
    R = sqrt(op)
    structure = R.in_structure()
    white = jax.random.normal(key, (*shape, *structure.shape), structure.dtype)
    draws = jax.vmap(R.mv)(white.reshape(-1, *structure.shape))
    return draws.reshape(*shape, R.out_size())


def hermitian_solve(op: lx.AbstractLinearOperator, vector: ArrayLike, solution) -> Array:
    """`solution(b)` for Hermitian `op`, with the derivatives of the equation it solves.

    From A x = b follows A dx = db - dA x: another equation with the same A, and so on to
    any order. What happens inside `solution` is never differentiated, so that it may use
    eigenvectors at equal eigenvalues, or iterate.
    """
    vector = jnp.asarray(vector, jnp.result_type(vector, op.in_structure().dtype))
    return jax.lax.custom_linear_solve(
        op.mv,
        vector,
        solve=lambda _, b: solution(b),
        # Aᵀ = conj(A), hence A⁻ᵀ b = conj(A⁻¹ conj(b)).
        transpose_solve=lambda _, b: solution(b.conj()).conj(),
    )


lx.diagonal.register(AbstractStructured, lambda op: diagonal(op))
