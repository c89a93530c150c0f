"""How the lanes of a run (chains, restarts, starts) are spread over the devices."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from probkit.method.batches import side_by_side


@dataclass(frozen=True)
class Lanes:
    """How the lanes of a run are spread over the devices.

    Attributes:
        count: the number of lanes.
        devices: the number of devices, which divides `count`.
        together: whether the lanes of a device move together (`side_by_side`, for a GPU
            and for small problems) or one after the other (`lax.map`, so that a short
            trajectory does not wait for a long one).
    """

    count: int
    devices: int
    together: bool

    @classmethod
    def of_chains(cls, count: int) -> "Lanes":
        """Chains, split over the devices of a CPU, and moving together on an accelerator.

        Args:
            count: the number of chains.
        """
        if jax.default_backend() != "cpu":
            return cls(count, 1, together=True)
        here = jax.local_device_count()
        devices = max(n for n in range(1, here + 1) if count % n == 0)
        return cls(count, devices, together=False)

    def spread(self, lane, *, shared):
        """A map over the lanes.

        Args:
            lane: a function `lane(shared, own)` for one lane.
            shared: what all lanes get.

        Returns:
            A function of `own`, whose arrays have a leading lane axis.
        """

        def on_one_device(shared, own):
            each = partial(lane, shared)
            if self.count == self.devices:  # a loop over one lane takes time to compile
                own = jax.tree.map(lambda a: a[0], own)
                return jax.tree.map(lambda a: a[None], each(own))
            return side_by_side(each, own) if self.together else jax.lax.map(each, own)

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
        """Arrays with a leading lane axis, on the devices that the loop uses."""
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
