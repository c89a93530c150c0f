"""One order of interchangeable labels for many draws."""

import equinox as eqx
import jax

from probkit.method.batches import map_in_batches
from probkit.method.programs import renew
from probkit.model import AbstractModel, Data
from probkit.model.density import Sites


def relabelled(draws: Sites, model: AbstractModel, data: Data, reference: Sites) -> Sites:
    """Draws whose interchangeable labels are in one order.

    Args:
        draws: `{site: array[chain, draw, ...]}`.
        model: the model.
        data: its data.
        reference: one draw. Its own order, by `model.canonical`, is that of all.

    Returns:
        The draws, relabelled.
    """
    if type(model).canonical is AbstractModel.canonical:
        return draws
    shape = next(iter(draws.values())).shape[:2]
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in draws.items()}
    renew("canonical", model, model.canonical, reference, data)
    flat = jax.device_get(_canonical_all(model, data, flat, reference))
    return {k: v.reshape(*shape, *v.shape[1:]) for k, v in flat.items()}


@eqx.filter_jit
def _canonical_all(model, data, sites, pivot):
    reference = model.canonical(pivot, data)
    # In batches, because a relabelling may need memory for every observation.
    return map_in_batches(lambda one: model.canonical(one, data, reference), sites)
