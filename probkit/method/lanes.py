"""How the lanes of a run (chains, restarts, starts) are spread over the devices."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

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
        row_devices: the number of devices that share the rows of the data of each lane. All
            lanes then run on all of them, one after the other (`devices` is 1).
    """

    count: int
    devices: int
    together: bool
    # Checkpoints compare the text of it with that of an earlier run.
    row_devices: int = field(default=1, repr=False)

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

        split, whole = PartitionSpec("lane"), PartitionSpec()
        if self.row_devices > 1:
            # States are the same on all devices before and after, so that the next chunk
            # runs the same program.
            everywhere = NamedSharding(self._mesh("row"), whole)
            return lambda own: jax.lax.with_sharding_constraint(
                on_one_device(shared, own), everywhere
            )
        if self.devices == 1:
            return partial(on_one_device, shared)
        across = jax.shard_map(
            on_one_device,
            mesh=self._mesh("lane"),
            in_specs=(whole, split),
            out_specs=split,
            check_vma=False,
        )
        return partial(across, shared)

    def place(self, tree):
        """Arrays with a leading lane axis, on the devices that the loop uses."""
        if self.row_devices > 1:
            return jax.device_put(tree, NamedSharding(self._mesh("row"), PartitionSpec()))
        if self.devices == 1:
            return jax.tree.map(jnp.asarray, tree)
        split = NamedSharding(self._mesh("lane"), PartitionSpec("lane"))
        return jax.device_put(tree, split)

    def split_rows(self, data: Any) -> Any:
        """The data, in a compiled program, with their rows split over the devices.

        XLA then splits what is computed of them. It fills up a number of rows that the
        devices do not divide, and the rows that it adds count for nothing.

        Args:
            data: data of equal shapes on all devices.
        """
        if self.row_devices == 1:
            return data
        split = NamedSharding(self._mesh("row"), PartitionSpec("row"))
        return data.replaced(jax.lax.with_sharding_constraint(data.rows(), split))

    def _mesh(self, axis: str):
        count = self.row_devices if axis == "row" else self.devices
        return jax.make_mesh(
            (count,),
            (axis,),
            axis_types=(AxisType.Auto,),
            devices=jax.local_devices()[:count],
        )
