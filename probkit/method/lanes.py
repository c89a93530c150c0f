"""How the lanes of a run (chains, restarts, starts) lie on the machine."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec


@dataclass(frozen=True)
class Lanes:
    """How the lanes of a run lie on the machine.

    Attributes:
        count: how many there are.
        devices: over how many devices they are split evenly.
        together: whether the lanes of a device move in step (`vmap`, right for a GPU
            and for small problems) or one after the other (`lax.map`, so that a short
            trajectory does not wait for a long one).
    """

    count: int
    devices: int
    together: bool

    def spread(self, lane, *, shared):
        """The map of `lane(shared, own)` over the leading axis of `own`, compiled."""

        def on_one_device(shared, own):
            each = partial(lane, shared)
            if self.count == self.devices:  # a loop over one lane costs compile time
                own = jax.tree.map(lambda a: a[0], own)
                return jax.tree.map(lambda a: a[None], each(own))
            return jax.vmap(each)(own) if self.together else jax.lax.map(each, own)

        if self.devices == 1:
            return partial(on_one_device, shared)
        split, whole = PartitionSpec("lane"), PartitionSpec()
        across = jax.shard_map(
            on_one_device,
            mesh=self._mesh(),
            in_specs=(whole, split),
            out_specs=split,
            check_vma=False,
        )
        return partial(across, shared)

    def place(self, tree):
        """Arrays with a leading lane axis, put where the loop wants them."""
        if self.devices == 1:
            return jax.tree.map(jnp.asarray, tree)
        return jax.device_put(tree, NamedSharding(self._mesh(), PartitionSpec("lane")))

    def _mesh(self):
        return jax.make_mesh(
            (self.devices,),
            ("lane",),
            axis_types=(AxisType.Auto,),
            devices=jax.local_devices()[: self.devices],
        )
