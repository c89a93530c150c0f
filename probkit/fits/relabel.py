"""One order of interchangeable labels for many draws."""

from functools import partial

import jax

from probkit.method.batches import map_in_batches
from probkit.method.programs import jit_for_one_run, renew
from probkit.model import AbstractModel, Data
from probkit.model.density import Sites

# Draws that are relabelled in less time than it takes to optimise the program.
FEW = 1000


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


def _are_few(model, data, sites, pivot) -> bool:
    return len(next(iter(sites.values()))) <= FEW


@partial(jit_for_one_run, is_short=_are_few)
def _canonical_all(model, data, sites, pivot):
    reference = model.canonical(pivot, data)
    # In batches, because a relabelling may need memory for every observation.
    return map_in_batches(lambda one: model.canonical(one, data, reference), sites)
