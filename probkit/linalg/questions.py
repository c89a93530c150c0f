"""The questions. Each is one function, to which a structure adds one rule.

A rule's comment is the identity that it uses. If a structure has no rule the base case
raises an error that names `dense`. Nothing is made dense unless it is asked for.
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike

from probkit.linalg.arguments import check_vector
from probkit.linalg.compiled import compiled
from probkit.linalg.structured import AbstractStructured, is_complex, matmat


def _no_rule(question: str, op: Any) -> NoReturn:
    raise NotImplementedError(
        f"`{question}` has no rule for `{type(op).__name__}`; if the dense cost is fine, "
        "ask for it: give `lx.MatrixLinearOperator(dense(op))`."
    )


@functools.singledispatch
def solve_columns(op: lx.AbstractLinearOperator, matrix: Array) -> Array:
    """$A X = B$ for the columns of $B$; a structure may know more than one by one.

    What depends on the operator only, such as its decomposition, is computed once.
    """
    return jax.vmap(lambda b: solve(op, b), in_axes=1, out_axes=1)(matrix)


def _or_columns[Rule: Callable[..., Any]](rule: Rule) -> Rule:
    """The rule for a vector, or for the columns of a matrix."""

    @functools.wraps(rule)
    def by_shape(op, vector):
        if jnp.ndim(vector) == 2:
            return solve_columns(op, jnp.asarray(vector))
        return rule(op, vector)

    return by_shape  # type: ignore[return-value]


@compiled
@_or_columns
@functools.singledispatch
def solve(op: lx.AbstractLinearOperator, vector: ArrayLike) -> Array:
    r"""$x$ with $A x = b$, for a square non-singular $A$.

    Args:
        op: $A$, `(n, n)`.
        vector: $b$, shape `(n,)`, or $k$ of them as the columns of a matrix `(n, k)`.

    Returns:
        $x$, shape of $b$, in units of $b$ over those of $A$. It is NaN where the text of a
        class says so, for example if a covariance is not positive definite.

    Raises:
        ValueError: if $A$ is not square or $b$ has another length.
        NotImplementedError: if the structure of $A$ has no rule.
    """
    _no_rule("solve", op)


@compiled
@functools.singledispatch
def logdet(op: lx.AbstractLinearOperator) -> Array:
    r"""$\log |\det A|$, for a square $A$.

    Args:
        op: $A$, `(n, n)`.

    Returns:
        One real number, also if $A$ is complex. It is NaN where the text of a class says
        so, for example if a covariance is not positive definite.

    Raises:
        ValueError: if $A$ is not square.
        NotImplementedError: if the structure of $A$ has no rule.
    """
    _no_rule("logdet", op)


@compiled
@functools.singledispatch
def diagonal(op: lx.AbstractLinearOperator) -> Array:
    """The diagonal of a square operator.

    Args:
        op: $A$, `(n, n)`.

    Returns:
        Shape `(n,)`, in units of $A$.

    Raises:
        ValueError: if $A$ is not square.
        NotImplementedError: if the structure of $A$ has no rule.
    """
    _no_rule("diagonal", op)


@compiled
@functools.singledispatch
def trace(op: lx.AbstractLinearOperator) -> Array:
    """The sum of the diagonal of a square operator.

    Args:
        op: $A$, `(n, n)`.

    Returns:
        One number, in units of $A$.

    Raises:
        ValueError: if $A$ is not square.
        NotImplementedError: if the structure of $A$ has no rule here or for `diagonal`.
    """
    return diagonal(op).sum()


@compiled
@functools.singledispatch
def sqrt(op: lx.AbstractLinearOperator) -> lx.AbstractLinearOperator:
    r"""An operator $R$ with $R R^H = A$, for Hermitian positive (semi-)definite $A$.

    $R$ is neither symmetric nor unique. It is the one that is cheapest for the structure.

    Args:
        op: $A$, `(n, n)`. A dense matrix must be positive definite, because its $R$ is
            the Cholesky factor, which is NaN otherwise; see `with_jitter`.

    Returns:
        $R$, an operator with $n$ rows and $n$ or more columns, in units of the root of
        those of $A$.

    Raises:
        ValueError: if $A$ is not square.
        NotImplementedError: if the structure of $A$ has no rule.
    """
    _no_rule("sqrt", op)


@compiled
@functools.singledispatch
def eigh(op: lx.AbstractLinearOperator) -> tuple[Array, lx.AbstractLinearOperator]:
    r"""Eigenvalues and eigenvectors, $A = V\, \mathrm{diag}(λ)\, V^H$, of a Hermitian $A$.

    Args:
        op: $A$, `(n, n)`, Hermitian.

    Returns:
        $λ$, in units of $A$, in the order of the columns of $V$ and not sorted; and the
        unitary $V$, an operator `(n, n)`. $λ$ has shape `(n,)`, or for Kronecker structures
        that of a tensor with one axis per factor.

    Raises:
        ValueError: if $A$ is not square.
        NotImplementedError: if the structure of $A$ has no rule.

    Derivatives of eigenvectors exist only if eigenvalues differ. Eigenvalues that agree to
    rounding count as equal, and their vectors get no derivative within that group. The
    other questions have derivatives of their own, which are right at equal eigenvalues.
    """
    _no_rule("eigh", op)


@compiled
@functools.singledispatch
def quadratic_form(op: lx.AbstractLinearOperator, vector: ArrayLike) -> Array:
    r"""$v^H A v$.

    Args:
        op: $A$, `(n, n)`.
        vector: $v$, shape `(n,)`.

    Returns:
        One number, in units of $A$ times those of $v$ squared. It is real if the operator
        is marked positive semi-definite or everything is real, and complex otherwise.

    Raises:
        ValueError: if $v$ has another length.
    """
    return any_quadratic_form(op, vector)


def any_quadratic_form(op, vector):
    """The form by a product, whatever the structure."""
    check_vector(vector, op.in_size(), "quadratic_form")
    form = jnp.vdot(vector, op.mv(jnp.asarray(vector)))
    hermitian = lx.is_positive_semidefinite(op) or not is_complex(form.dtype)
    return form.real if hermitian else form


@compiled
@functools.singledispatch
def inverse_quadratic_form(op: lx.AbstractLinearOperator, vector: ArrayLike) -> Array:
    r"""$v^H A^{-1} v$, real, for Hermitian positive definite $A$.

    Its derivative costs one product with the parts of $A$, and no second solution, if the
    operator is marked positive semi-definite.

    Args:
        op: $A$, `(n, n)`. It may be any matrix with a rule for `solve`; the real part is
            then the answer.
        vector: $v$, shape `(n,)`.

    Returns:
        One real number, in units of $v$ squared over those of $A$.

    Raises:
        ValueError: if $A$ is not square or $v$ has another length.
        NotImplementedError: if the structure of $A$ has no rule for `solve`.
    """
    return any_inverse_quadratic_form(op, vector)


def any_inverse_quadratic_form(op, vector):
    """The form by a solution, whatever the structure."""
    vector = jnp.asarray(vector)
    check_vector(vector, op.out_size(), "inverse_quadratic_form")
    if lx.is_positive_semidefinite(op):
        return _hermitian_form(op, vector)
    # With y = A⁻ᴴ v the derivative has the term -Re yᴴ dA x, and y is not x = A⁻¹ v.
    return jnp.vdot(vector, solve(op, vector)).real


@jax.custom_jvp
def _hermitian_form(op, vector):
    return jnp.vdot(vector, solve(op, vector)).real


@_hermitian_form.defjvp
def _(primals, tangents):
    # With x = A⁻¹ v = A⁻ᴴ v:  d(vᴴ A⁻¹ v) = 2 Re xᴴ dv - Re xᴴ dA x.
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
        shape: shape of the set of draws, `()` for one.

    Returns:
        Shape `(*shape, n)`, in units of the root of those of $A$: N(0, A) if $A$ is real,
        circular CN(0, A) if it is complex.

    Raises:
        ValueError: if $A$ is not square.
        NotImplementedError: if the structure of $A$ has no rule for `sqrt`.
    """
    R = sqrt(op)
    structure = R.in_structure()
    white = jax.random.normal(key, (*shape, *structure.shape), structure.dtype)
    draws = jax.vmap(R.mv)(white.reshape(-1, *structure.shape))
    return draws.reshape(*shape, R.out_size())


@functools.singledispatch
def times(op: lx.AbstractLinearOperator, factor: ArrayLike) -> lx.AbstractLinearOperator:
    """$c A$ with $c$ in its parts, as one operator of the class of $A$ or one like it."""
    _no_rule("a multiple within a sum", op)


@functools.singledispatch
def plus_identity(
    op: lx.AbstractLinearOperator, amount: ArrayLike
) -> lx.AbstractLinearOperator:
    """$A + s I$ for real $s$, as one operator of the class of $A$ or one like it."""
    _no_rule("a sum with the identity", op)


@functools.singledispatch
def plus_diagonal(
    op: lx.AbstractLinearOperator, amounts: Array
) -> lx.AbstractLinearOperator:
    """$A + D$ for a real diagonal $D$, of shape `(n,)`, as one operator."""
    _no_rule("a sum with a diagonal", op)


def hermitian_solve(op: lx.AbstractLinearOperator, vector: ArrayLike, solution) -> Array:
    """`solution(b)` for Hermitian `op`, with the derivatives of the equation it solves.

    `b` is a vector, or a matrix whose columns are.
    From A x = b follows A dx = db - dA x, another equation with the same A, and so on to
    any order. `solution` itself is never differentiated, so that it may use eigenvectors
    at equal eigenvalues, or iterate.
    """
    vector = jnp.asarray(vector, jnp.result_type(vector, op.in_structure().dtype))
    mv = op.mv if vector.ndim == 1 else functools.partial(matmat, op)
    return jax.lax.custom_linear_solve(
        mv,
        vector,
        solve=lambda _, b: solution(b),
        # Aᵀ = conj(A), hence A⁻ᵀ b = conj(A⁻¹ conj(b)).
        transpose_solve=lambda _, b: solution(b.conj()).conj(),
    )


lx.diagonal.register(AbstractStructured, lambda op: diagonal(op))
