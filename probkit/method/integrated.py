"""What follows from each draw and the data, computed once for all that use it."""

from typing import Any

import jax

from probkit.method.batches import map_in_batches
from probkit.method.programs import jit_for_one_run
from probkit.model import AbstractModel, Data, Sites


def has_own(model: AbstractModel) -> bool:
    """Whether `model.integrated` is more than the draw itself."""
    return type(model).integrated is not AbstractModel.integrated


@jit_for_one_run
def integrate(model: AbstractModel, data: Data, sites: Sites) -> Any:
    """`model.integrated` of many draws.

    Args:
        model: the model.
        data: its data.
        sites: draws, with a leading axis.

    Returns:
        What `model.integrated` returns, with a leading axis.
    """
    return map_in_batches(lambda one: model.integrated(one, data), sites)


def integrate_one(model: AbstractModel, data: Data, sites: Sites) -> Any:
    """The same of one draw, by the same compiled program."""
    one = jax.tree.map(lambda a: a[None], sites)
    return jax.tree.map(lambda a: a[0], integrate(model, data, one))
