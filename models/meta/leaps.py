r"""Leaps: where steps in one direction follow each other, one goes on along it at once.

A step maps what is believed, $x$, to $g(x)$. Near the optimum residuals $f = g(x) - x$
shrink by one factor $λ$, and the steps to come add up to $λ/(1 - λ)$ times the last one.
Two steps in a row give this number, and the next begins at

$$g_t + s (g_t - g_{t-1}), \qquad
s = -\frac{(f_t - f_{t-1})^T f_t}{|f_t - f_{t-1}|^2}.$$

It is Anderson's acceleration with a memory of one. If residuals grow, as where two
components of a mixture begin to differ, $s = 1$. If the bound at that place is lower than
before, the place is dropped, and the next step begins at $g_t$; so the bound never falls.

Source: Anderson (1965), "Iterative procedures for nonlinear integral equations"; Henderson
& Varadhan (2019), "Damped Anderson acceleration with restarts and monotonicity control for
accelerating EM and EM-like algorithms", for the guard. Departs: a memory of one, and no
damping.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import biject_to

from probkit.models.meta.posterior import Posterior

# Gains of steps that begin at leaps are uneven: a small one says less than those of plain
# steps. A run has settled after so many small ones in a row.
QUIET = 4
# Which optimum of a mixture is found is decided by early steps, which gain more than this,
# in nats. They are plain ones.
EARLY = 10.0


class Leap(NamedTuple):
    """Where the next step begins, and what the last one says of the steps to come.

    Attributes:
        at: where the next step begins.
        ahead: whether that is beyond the end of the last step.
        began: where the last step began, in coordinates, `(c,)`.
        ended: where it ended.
        quiet: the number of small gains in a row.
    """

    at: Posterior
    ahead: Bool[Array, ""]
    began: Float[Array, " c"]
    ended: Float[Array, " c"]
    quiet: Int[Array, ""]


def no_leap(post: Posterior) -> Leap:
    """Before the first step."""
    x = coordinates(post)
    return Leap(post, jnp.zeros((), bool), x, x, jnp.zeros((), jnp.int32))


def leapt(
    leap: Leap, end: Posterior, gain: Float[Array, ""], small: Bool[Array, ""]
) -> Leap:
    """After one step more.

    Args:
        leap: where it began, and what the one before says.
        end: where it ended.
        gain: by how much the bound where it began is above the one before, in nats.
        small: whether this, and what is left to gain, are small.
    """
    x, g = coordinates(leap.at), coordinates(end)
    now, before = g - x, leap.ended - leap.began
    change = now - before
    s = -(change @ now) / (change @ change)
    ahead = gain < EARLY
    s = jnp.where(ahead, jnp.where(s > 0, s, 1.0), 0.0)
    quiet = jnp.where(small, leap.quiet + 1, 0)
    return Leap(posterior_at(g + s * (g - leap.ended), end), ahead, x, g, quiet)


def dropped(leap: Leap, end: Posterior) -> Leap:
    """After a leap to where the bound is lower: the next step begins at the end of the last
    one.
    """
    return leap._replace(at=end, ahead=jnp.zeros((), bool))


def coordinates(post: Posterior) -> Float[Array, " c"]:
    """What is believed as a vector on which there are no constraints."""
    pairs = zip(jax.tree.leaves(post), post.supports(), strict=True)
    return jnp.concatenate([_free(a, support).ravel() for a, support in pairs])


def posterior_at(x: Float[Array, " c"], like: Posterior) -> Posterior:
    """What is believed at these coordinates.

    Args:
        x: the coordinates.
        like: for the shapes of its arrays.
    """
    leaves, tree = jax.tree.flatten(like)
    ends = np.cumsum([a.size for a in leaves])[:-1].tolist()
    parts = zip(jnp.split(x, ends), leaves, like.supports(), strict=True)
    found = [_back(own.reshape(a.shape), support) for own, a, support in parts]
    return jax.tree.unflatten(tree, found)


def _free(a: Array, support: Constraint) -> Array:
    if support is not constraints.positive_definite:
        return biject_to(support).inv(a)
    # A Cholesky factor with the logarithm of its diagonal. That of NumPyro is float64.
    return _with_diagonal(jnp.linalg.cholesky(a), jnp.log)


def _back(x: Array, support: Constraint) -> Array:
    if support is not constraints.positive_definite:
        return biject_to(support)(x)
    root = _with_diagonal(x, jnp.exp)
    return root @ root.swapaxes(-1, -2)


def _with_diagonal(matrix: Array, function: Callable[[Array], Array]) -> Array:
    old = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return matrix + eye * (function(old) - old)[..., None]
