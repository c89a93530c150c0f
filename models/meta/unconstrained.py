"""What is believed as a vector on which there are no constraints, and back."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import biject_to

from probkit.models.meta.posterior import Posterior


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
