"""What follows from each draw and the data, computed once for all that use it."""

from typing import Any

import equinox as eqx
import jax

from probkit.method.batches import map_in_batches, on_cpu
from probkit.model import AbstractModel, Data, Sites


def has_own(model: AbstractModel) -> bool:
    """Whether `model.integrated` is more than the draw itself."""
    return type(model).integrated is not AbstractModel.integrated


def integrate(model: AbstractModel, data: Data, sites: Sites) -> Any:
    """`model.integrated` of many draws.

    Args:
        model: the model.
        data: its data.
        sites: draws, with a leading axis.

    Returns:
        What `model.integrated` returns, with a leading axis.
    """
    is_one = len(next(iter(sites.values()))) == 1
    mapped = _of_one if is_one and on_cpu() else _of_many
    return mapped(model, data, sites)


def _mapped(model, data, sites):
    return map_in_batches(lambda one: model.integrated(one, data), sites)


# On a CPU a program that runs once takes less time if the compiler optimises nothing: what
# costs is the linear algebra, which is compiled already.
_of_many = eqx.filter_jit(_mapped)
_of_one = eqx.filter_jit(  # type: ignore[call-overload]  # passes it on to `jax.jit`
    _mapped, compiler_options={"xla_backend_optimization_level": 0}
)


def integrate_one(model: AbstractModel, data: Data, sites: Sites) -> Any:
    """The same of one draw, by the same compiled program."""
    one = jax.tree.map(lambda a: a[None], sites)
    return jax.tree.map(lambda a: a[0], integrate(model, data, one))
