r"""Terms: the functions of the inputs in which gates and experts are linear.

All monomials of the inputs up to a degree: with two inputs and degree two
$z = (1, x_0, x_1, x_0^2, x_0 x_1, x_1^2)$.
"""

from itertools import combinations_with_replacement
from math import comb

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform


def exponents(num_inputs: int, degree: int) -> np.ndarray:
    """The exponents of each input in each term, `(t, d)`: the intercept, then by degree."""
    rows = [
        np.bincount(np.asarray(inputs, int), minlength=num_inputs)
        for total in range(degree + 1)
        for inputs in combinations_with_replacement(range(num_inputs), total)
    ]
    return np.array(rows)


def design(x: Float[Array, "n d"], degree: int = 1) -> Float[Array, "n t"]:
    """The design matrix, with one row $z$ per row of `x`."""
    one = jnp.ones_like(x[:, :1])
    if degree == 1:
        return jnp.concatenate([one, x], axis=1)
    columns = [
        one,
        *(
            jnp.prod(x[:, list(inputs)], axis=1, keepdims=True)
            for total in range(1, degree + 1)
            for inputs in combinations_with_replacement(range(x.shape[1]), total)
        ),
    ]
    return jnp.concatenate(columns, axis=1)


def names(inputs: tuple[str, ...], degree: int = 1) -> tuple[str, ...]:
    """A name for each term: `intercept`, `x`, `x^2`, `x z`."""
    return tuple(_name(inputs, row) for row in exponents(len(inputs), degree))


def _name(inputs: tuple[str, ...], powers: np.ndarray) -> str:
    factors = [
        name if power == 1 else f"{name}^{power}"
        for name, power in zip(inputs, powers, strict=True)
        if power
    ]
    return " ".join(factors) or "intercept"


class Recentred(Transform):
    r"""Coefficients on terms of standardised inputs, as those on terms of the raw ones.

    With $\tilde x = (x - m)/s$, each monomial of $\tilde x$ is a sum of monomials of $x$,
    by the binomial theorem. It acts on matrices with one row per term and any number of
    columns.

    Args:
        center: $m$, `(d,)`, in units of the inputs.
        scale: $s > 0$, `(d,)`, in units of the inputs.
        degree: of the terms.
        loc: added to the intercept, in units of the output.
        factor: by which all coefficients are multiplied, in units of the output.
    """

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.independent(constraints.real, 2)

    def __init__(self, center, scale, degree: int, loc=0.0, factor=1.0):
        self.center, self.scale, self.degree = center, scale, degree
        self.loc, self.factor = loc, factor

    def _matrix(self, center, scale) -> Float[Array, "t t"]:
        """Row $e$: the monomial $\\tilde x^e$ in monomials of $x$."""
        powers = exponents(len(self.center), self.degree)
        above, below = powers[:, None, :], powers[None, :, :]
        count = np.vectorize(comb)(above, below)  # zero where below > above
        left = np.maximum(above - below, 0)
        each = count * (-center) ** left / scale**above
        return jnp.prod(jnp.where(count > 0, each, 0.0), axis=-1)

    def _intercept(self, like):
        return self.loc * jnp.eye(like.shape[-2], dtype=like.dtype)[:, :1]

    def __call__(self, x: Float[Array, "*b t k"]) -> Float[Array, "*b t k"]:
        matrix = self._matrix(self.center, self.scale)
        return self.factor * (matrix.T @ x) + self._intercept(x)

    def _inverse(self, y: Float[Array, "*b t k"]) -> Float[Array, "*b t k"]:
        # x = m + s x~, the same map with another center and scale.
        matrix = self._matrix(-self.center / self.scale, 1 / self.scale)
        return matrix.T @ (y - self._intercept(y)) / self.factor

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        terms, columns = x.shape[-2:]
        total = exponents(len(self.center), self.degree).sum(0)
        one = terms * jnp.log(self.factor) - total @ jnp.log(self.scale)
        return jnp.broadcast_to(columns * one, x.shape[:-2])

    def tree_flatten(self):
        children = (self.center, self.scale, self.loc, self.factor)
        names = ("center", "scale", "loc", "factor")
        return children, (names, {"degree": self.degree})

    def eq(self, other, static=False):
        return (
            isinstance(other, Recentred)
            and self.degree == other.degree
            and all(
                jnp.array_equal(getattr(self, name), getattr(other, name))
                for name in ("center", "scale", "loc", "factor")
            )
        )
