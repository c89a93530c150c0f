"""The Bayesian arrays of a network, by name, and as one vector."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Chosen = Callable[[str], bool] | Iterable[str] | None


class Leaves(eqx.Module):
    """Names and shapes of some arrays of a network, in the order of its tree.

    Attributes:
        names: such as `layers.0.weight`.
        shapes: their shapes.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @classmethod
    def of(cls, net: Any, chosen: Chosen) -> "Leaves":
        """Those that are chosen.

        Args:
            net: the network.
            chosen: beginnings of their names, such as `["layers.2"]`, or a function of a
                name; None for all.

        Raises:
            ValueError: if there is none, or a beginning fits no name.
        """
        every = dict(named(net))
        if not every:
            raise ValueError(
                f"`Network(net=...)` got a `{type(net).__name__}` without arrays of "
                "floating-point numbers; give an Equinox module that has weights."
            )
        if isinstance(chosen, str):
            chosen = [chosen]
        if chosen is None:
            names = list(every)
        elif callable(chosen):
            names = [name for name in every if chosen(name)]
        else:
            begins = list(chosen)
            unknown = [b for b in begins if not any(begins_with(n, b) for n in every)]
            if unknown:
                raise ValueError(
                    f"`Network(bayesian=...)` has {unknown[0]!r}; the arrays of the "
                    f"network are {listed(every)}."
                )
            names = [name for name in every if any(begins_with(name, b) for b in begins)]
        if not names:
            raise ValueError(
                "`Network(bayesian=...)` chooses no array; the arrays of the network are "
                f"{listed(every)}."
            )
        return cls(tuple(names), tuple(every[name].shape for name in names))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(math.prod, self.shapes))

    def split(self, vector: Float[Array, "*b d"]) -> dict[str, Array]:
        """The arrays of a vector, by name."""
        found, at = {}, 0
        for name, shape, size in zip(self.names, self.shapes, self.sizes, strict=True):
            found[name] = vector[..., at : at + size].reshape(*vector.shape[:-1], *shape)
            at += size
        return found

    def joined(self, arrays: dict[str, Array], lead: int = 0) -> Float[Array, "*b d"]:
        """The vector of the arrays, which have so many axes in front."""
        flat = [arrays[n].reshape(*arrays[n].shape[:lead], -1) for n in self.names]
        return jnp.concatenate(flat, -1)

    def labels(self) -> list[str]:
        """A name for each number of the vector, such as `layers.0.weight[1, 2]`."""
        found = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            for place in np.ndindex(*shape):
                inside = ", ".join(map(str, place))
                found.append(f"{name}[{inside}]" if shape else name)
        return found

    def vector(self, net: Any) -> Float[Array, " d"]:
        """The arrays of a network, as one vector."""
        return self.joined(dict(named(net)))

    def put(self, net: Any, vector: Float[Array, " d"]) -> Any:
        """The network with other arrays."""
        new = self.split(vector)
        paths, treedef = jax.tree_util.tree_flatten_with_path(net)
        return jax.tree_util.tree_unflatten(
            treedef, [new.get(name_of(path), leaf) for path, leaf in paths]
        )


def named(net: Any) -> list[tuple[str, Array]]:
    """The arrays of floating-point numbers in a network, with their names."""
    paths, _ = jax.tree_util.tree_flatten_with_path(net)
    return [(name_of(p), leaf) for p, leaf in paths if eqx.is_inexact_array(leaf)]


def name_of(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def begins_with(name: str, begin: str) -> bool:
    return name == begin or name.startswith(f"{begin}.")


def listed(names: Iterable[str]) -> str:
    text = ", ".join(names)
    return text if len(text) < 120 else f"{text[:117]}..."
