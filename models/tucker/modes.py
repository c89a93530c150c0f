"""What the functions of a mode are a priori: smooth on a line or in space, or unordered."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution

from probkit.distributions import log_normal
from probkit.gp import state_space
from probkit.gp.state_space import AbstractProcess
from probkit.models.tucker.axes import Axis
from probkit.models.tucker.priors import AbstractPrior, Chain, Dense, Unordered
from probkit.validate import positive, short

# The prior of a lengthscale has 98 % between one spacing of the points and this many
# lengths of the data.
LONGEST, TWO_SIDED = 2.0, 2.326

Parameters = dict[str, Array]


class AbstractMode(eqx.Module):
    """The prior of the functions of one mode. Each has variance one."""

    kind: ClassVar[str]

    @abstractmethod
    def parameters(self, axis: Axis) -> dict[str, Distribution]:
        """The prior of each parameter of the kernel, in units of the coordinate."""

    @abstractmethod
    def prior(self, groups: Sequence[tuple[Parameters, int]], axis: Axis) -> AbstractPrior:
        """The joint prior of several independent functions at the points of the data.

        Args:
            groups: pairs of parameters, and the number of functions that have them.
            axis: the coordinates of the mode.
        """


def _smoothness(kind: str):
    def convert(value: Any) -> float:
        if not isinstance(value, str) and value in (0.5, 1.5, 2.5):
            return float(value)
        raise ValueError(f"`{kind}(smoothness={short(value)})`: it takes 0.5, 1.5 or 2.5.")

    return convert


def lengthscale_prior(axis: Axis) -> Distribution:
    """98 % between one spacing of the points and twice their length."""
    low, high = jnp.log(axis.spacing), jnp.log(LONGEST * axis.length)
    return log_normal(jnp.exp((low + high) / 2), (high - low) / (2 * TWO_SIDED))


class Smooth(AbstractMode):
    """A Matern process along a line: time, temperature, wavelength.

    Attributes:
        smoothness: 0.5, 1.5 or 2.5, for functions with 0, 1 or 2 derivatives.
    """

    smoothness: float = eqx.field(default=1.5, converter=_smoothness("Smooth"))

    kind: ClassVar[str] = "line"

    def parameters(self, axis):
        return {"lengthscale": lengthscale_prior(axis)}

    def process(self, θ: Parameters) -> AbstractProcess:
        return state_space.Matern(self.smoothness, θ["lengthscale"])

    def prior(self, groups, axis):
        parts = tuple(self.process(θ) for θ, count in groups for _ in range(count))
        return Chain(state_space.Independent(parts), axis.points)


class Seasonal(Smooth):
    """A pattern that repeats with a known period, and changes slowly.

    The product of a periodic kernel and a Matern, whose lengthscale is the time in which
    the pattern changes.

    Attributes:
        period: in units of the coordinate; in days for dates.
        smoothness: of the change of the pattern.
    """

    period: float = eqx.field(default=1.0, converter=positive("Seasonal(period"))

    def parameters(self, axis):
        one = jnp.ones((), axis.points.dtype)
        return {
            "lengthscale": lengthscale_prior(axis),
            "roughness": log_normal(one, 0.7),
        }

    def process(self, θ):
        return state_space.Product(
            state_space.Periodic(self.period, θ["roughness"]),
            state_space.Matern(self.smoothness, θ["lengthscale"]),
        )


class Space(AbstractMode):
    """A Matern process of several coordinates, such as latitude and longitude.

    It factors a matrix of all points, so that it is for a few hundred of them.

    Attributes:
        smoothness: 0.5, 1.5 or 2.5.
    """

    smoothness: float = eqx.field(default=1.5, converter=_smoothness("Space"))

    kind: ClassVar[str] = "space"

    def parameters(self, axis):
        return {"lengthscale": lengthscale_prior(axis)}

    def correlation(
        self, θ: Parameters, x: Float[Array, "n d"], x2: Float[Array, "m d"]
    ) -> Float[Array, "n m"]:
        apart = (x[:, None] - x2) / θ["lengthscale"]
        square = 2 * self.smoothness * jnp.sum(apart**2, -1)
        # The root has no derivative at zero, where that of the kernel is zero.
        z = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
        polynomials = {0.5: jnp.ones_like(z), 1.5: 1 + z, 2.5: 1 + z + z**2 / 3}
        return polynomials[self.smoothness] * jnp.exp(-z)

    def prior(self, groups, axis):
        def root(θ):
            K = self.correlation(θ, axis.points, axis.points)
            jitter = math.sqrt(jnp.finfo(K.dtype).eps)
            return jnp.linalg.cholesky(K + jitter * jnp.eye(len(K), dtype=K.dtype))

        def each(of):
            """What `of` returns for the parameters of each function."""
            found = [(of(θ), count) for θ, count in groups]
            every = [jnp.broadcast_to(K, (count, *K.shape)) for K, count in found]
            return jnp.concatenate(every)

        def across(points):
            return (
                each(lambda θ: self.correlation(θ, points, points)),
                each(lambda θ: self.correlation(θ, axis.points, points)),
            )

        return Dense(each(root), across)


class Exchangeable(AbstractMode):
    """Values without an order: one per station, person or product."""

    kind: ClassVar[str] = "labels"

    def parameters(self, axis):
        return {}

    def prior(self, groups, axis):
        return Unordered(len(axis.points), sum(count for _, count in groups))


DEFAULTS: dict[str, AbstractMode] = {
    "line": Smooth(),
    "space": Space(),
    "labels": Exchangeable(),
}


def mode_of(given: AbstractMode | None, axis: Axis) -> AbstractMode:
    """The mode for an axis: what the user gave, or the default of its kind.

    Raises:
        ValueError: for a mode of another kind.
    """
    mode = DEFAULTS[axis.kind] if given is None else given
    if not isinstance(mode, AbstractMode) or mode.kind != axis.kind:
        kinds = {"line": "`Smooth` or `Seasonal`", "space": "`Space`"}
        fits = kinds.get(axis.kind, "`Exchangeable`")
        raise ValueError(
            f"`modes={{{axis.name!r}: {short(mode)}}}`: `{axis.name}` is of the kind "
            f'"{axis.kind}"; it takes {fits}.'
        )
    return mode
