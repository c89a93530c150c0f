r"""Expectations of the surface and of what multiplies one factor in it.

At one entry the surface is

$$f = l + \sum_k g_k + I(u_1, …, u_K),$$

with a level $l$, one main effect $g_k$ and a few components $u_k$ per mode, and the
interaction $I$, which is linear in each $u_k$. In $x_k = (u_k, g_k)$, $f = a^T x_k + o$
with the *design* $a = (∂I/∂u_k, 1)$ and the *offset* $o = l + \sum_{j \ne k} g_j$. Under
$q$ the modes are independent of each other, but a component and the main effect of the same
mode are not, so that design and offset are correlated.

All functions here are for one entry.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Moments(NamedTuple):
    """Of $x_k$ at the coordinate of the entry, the main effect last.

    Attributes:
        mean: `(c,)`.
        second: $E[x x^T]$, `(c, c)`.
    """

    mean: Float[Array, " c"]
    second: Float[Array, "c c"]

    def components(self) -> "Moments":
        return Moments(self.mean[:-1], self.second[:-1, :-1])

    def effect(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Mean and second moment of the main effect."""
        return self.mean[-1], self.second[-1, -1]

    def across(self) -> Float[Array, " r"]:
        """$E[u g]$, of each component and the main effect."""
        return self.second[:-1, -1]


class AbstractInteraction(eqx.Module):
    """$I$, and expectations of its derivative by the components of one mode."""

    @abstractmethod
    def by(self, k: int, vectors: dict[int, Float[Array, " r"]]) -> Float[Array, " r"]:
        """$E[∂I/∂u_k]$ where the components of the other modes have these means.

        Args:
            k: the number of the mode.
            vectors: one vector per other mode.
        """

    @abstractmethod
    def by_twice(
        self, k: int, matrices: dict[int, Float[Array, "r r"]]
    ) -> Float[Array, "r r"]:
        """$E[∂I/∂u_k\\, (∂I/∂u_k)^T]$ for these second moments of the other modes."""


class Diagonal(AbstractInteraction):
    """$I = \\sum_r s_r \\prod_k u_{kr}$: CP, a superdiagonal core.

    Attributes:
        scale: $s$.
    """

    scale: Float[Array, " r"]

    def by(self, k, vectors):
        out = self.scale
        for v in vectors.values():
            out = out * v
        return out

    def by_twice(self, k, matrices):
        out = jnp.outer(self.scale, self.scale)
        for S in matrices.values():
            out = out * S
        return out


class Full(AbstractInteraction):
    """$I = \\sum W_{r_1 … r_K} \\prod_k u_{k r_k}$: Tucker. The axes of $W$ are the modes.

    Attributes:
        mean: $E[W]$, `(R_1, …, R_K)`.
        second: $E[W W']$, `(R_1, …, R_K, R_1, …, R_K)`.
    """

    mean: Array
    second: Array

    def by(self, k, vectors):
        axes = list(range(self.mean.ndim))
        args: list[Any] = [self.mean, axes]
        for j, v in vectors.items():
            args += [v, [j]]
        return jnp.einsum(*args, [k], optimize="greedy")

    def by_twice(self, k, matrices):
        K = self.mean.ndim
        args: list[Any] = [self.second, list(range(2 * K))]
        for j, S in matrices.items():
            args += [S, [j, K + j]]
        return jnp.einsum(*args, [k, K + k], optimize="greedy")


class Design(NamedTuple):
    """Expectations of what multiplies $x_k$, and of what is beside it.

    Attributes:
        mean: $E[a]$, `(c,)`.
        second: $E[a a^T]$, `(c, c)`.
        with_offset: $E[a o]$, `(c,)`.
        offset: $E[o]$.
        offset_second: $E[o^2]$.
    """

    mean: Float[Array, " c"]
    second: Float[Array, "c c"]
    with_offset: Float[Array, " c"]
    offset: Float[Array, ""]
    offset_second: Float[Array, ""]


def design(
    interaction: AbstractInteraction,
    k: int,
    modes: Sequence[Moments],
    level: tuple[Float[Array, ""], Float[Array, ""]],
) -> Design:
    """The design of one mode at one entry.

    Args:
        interaction: $I$.
        k: the number of the mode.
        modes: the moments of all modes. Those of mode `k` are not used.
        level: $E[l]$ and $E[l^2]$.
    """
    others = [j for j in range(len(modes)) if j != k]
    effects = {j: modes[j].effect() for j in others}
    means = {j: modes[j].mean[:-1] for j in others}
    a = interaction.by(k, means)
    A = interaction.by_twice(k, {j: modes[j].components().second for j in others})
    offset = level[0] + sum(effects[j][0] for j in others)
    variance = level[1] - level[0] ** 2
    variance = variance + sum(second - mean**2 for mean, second in effects.values())
    # The main effect of mode j is correlated with the components of mode j only.
    with_offset = level[0] * a
    for j in others:
        with_offset = with_offset + interaction.by(k, means | {j: modes[j].across()})
    one = jnp.ones((1,), a.dtype)
    return Design(
        jnp.concatenate([a, one]),
        jnp.block([[A, a[:, None]], [a[None], one[None]]]),
        jnp.append(with_offset, offset),
        offset,
        variance + offset**2,
    )


def surface(of: Design, x: Moments) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """$E[f]$ and $E[f^2]$, from the design of any mode and the moments of that mode."""
    mean = of.mean @ x.mean + of.offset
    second = jnp.sum(of.second * x.second) + 2 * of.with_offset @ x.mean + of.offset_second
    return mean, second
