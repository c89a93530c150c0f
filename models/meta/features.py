"""Features of inputs: principal components, and modules whose arrays are learned."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.validate import as_array, whole


class Components(eqx.Module):
    """Principal components, as features that are not learned.

    Attributes:
        mean: of the examples, flattened, `(p,)`.
        matrix: one component per row, `(d, p)`.
    """

    mean: Float[Array, " p"]
    matrix: Float[Array, "d p"]

    def __call__(self, x: Float[Array, "*s"]) -> Float[Array, " d"]:
        return self.matrix @ (x.reshape(-1) - self.mean)


def principal_components(images: Any, d: int) -> Components:
    """The directions in which examples differ most, as features.

    Args:
        images: examples of any shape, `(n, *s)`.
        d: the number of components.

    Returns:
        A function of one example, `(*s)`, that returns `(d,)` features.

    Raises:
        ValueError: for fewer examples or numbers than components, and values that are
            missing.
    """
    found = np.asarray(as_array(images, "principal_components(images)"))
    d = whole("principal_components(d", 1)(d)
    flat = found.reshape(len(found), -1) if found.ndim > 1 else found[:, None]
    if d > min(flat.shape):
        raise ValueError(
            f"`principal_components(d={d})`: {len(flat)} examples of {flat.shape[1]} "
            f"numbers have at most {min(flat.shape)} components."
        )
    mean = flat.mean(0)
    _, vectors = np.linalg.eigh(np.cov((flat - mean).T).reshape(len(mean), -1))
    matrix = vectors[:, ::-1][:, :d].T.astype(flat.dtype)
    return Components(jnp.asarray(mean), jnp.asarray(matrix))


def of_each(features: Callable[[Array], Array], x: Array, lead: int) -> Array:
    """Features of many inputs.

    Args:
        features: a function of one input.
        x: inputs, with so many axes in front.
        lead: the number of these axes.
    """
    found = jax.vmap(features)(x.reshape(-1, *x.shape[lead:]))
    return found.reshape(*x.shape[:lead], -1)


def size_of(features: Callable[[Any], Any], x: Any, lead: int, model: str) -> int:
    """The number of features.

    Args:
        features: a function of inputs that have so many axes in front.
        x: such inputs, or their shape and dtype.
        lead: the number of these axes, 0 for a function of one input.
        model: the name of the model in messages.

    Raises:
        ValueError: if they are no vector, or the function does not take such inputs.
    """
    what = f"`{model}(features=...)`"
    one = "an input" if lead == 0 else "inputs"
    try:
        shape = getattr(jax.eval_shape(features, x), "shape", None)
    except (TypeError, ValueError, IndexError) as error:
        reason = str(error).strip().partition("\n")[0][:100].rstrip(".:")
        raise ValueError(
            f"{what} fails for {one} of shape {x.shape} ({reason}); it takes "
            + ("one at a time." if lead == 0 else "those of all rows.")
        ) from None
    if shape is None or len(shape) != lead + 1 or shape[:lead] != x.shape[:lead]:
        raise ValueError(
            f"{what} gives {shape} for {one} of shape {x.shape}; it returns a vector of "
            f"features{'' if lead == 0 else ' for each row'}."
        )
    return shape[-1]


def learned_of(model: Any) -> Any:
    """Which arrays of a model are learned: those of a module of features.

    Args:
        model: a model with `features`, and `learn` to leave these as they are.

    Returns:
        As `AbstractHierarchy.learned`.
    """
    features = model.features
    known = isinstance(features, Components) or not isinstance(features, eqx.Module)
    if known or not model.learn:
        return None
    chosen = jax.tree.map(eqx.is_inexact_array, features)
    if not any(jax.tree.leaves(chosen)):
        return None
    nothing = jax.tree.map(lambda _: False, model)
    return eqx.tree_at(lambda model: model.features, nothing, chosen)
