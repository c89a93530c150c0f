"""What every simple kernel is."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.gp import state_space
from probkit.gp.grids import by_lag
from probkit.models.gp.kernels.algebra import AbstractKernel
from probkit.models.gp.kernels.priors import Priors
from probkit.models.gp.observed import Units
from probkit.validate import short

Parameters = dict[str, Array]


class Column(NamedTuple):
    """The inputs that a kernel uses: their indices, and their scales."""

    columns: tuple[int, ...]
    units: Units

    @property
    def length(self) -> Float[Array, " k"]:
        return self.units.length[jnp.array(self.columns)]

    @property
    def spacing(self) -> Float[Array, " k"]:
        return self.units.spacing[jnp.array(self.columns)]

    @property
    def waves(self) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
        """Frequencies and amplitudes of the waves along the one column."""
        (j,) = self.columns
        return self.units.frequencies[j], self.units.amplitudes[j]


def columns_of(leaf: "AbstractLeaf", data: Any) -> Column:
    """The inputs that a simple kernel is a function of."""
    kind = type(leaf).__name__
    if leaf.on is not None:
        if leaf.on not in data.inputs:
            raise ValueError(
                f"`{kind}(on={leaf.on!r})`: the data have the inputs "
                f"{', '.join(data.inputs)}."
            )
        return Column((data.inputs.index(leaf.on),), data.units)
    if leaf.one_input and len(data.inputs) > 1:
        raise ValueError(
            f"`{kind}()` is a function of one input, and the data have "
            f"{', '.join(data.inputs)}; choose one, `{kind}(on={data.inputs[0]!r})`."
        )
    return Column(tuple(range(len(data.inputs))), data.units)


def as_name(value: Any) -> str:
    if not (isinstance(value, str) and value.isidentifier()):
        raise ValueError(
            f"`kernel(name={short(value)})`: sites are called after kernels, so it takes a "
            "name as of a variable, such as `season`."
        )
    return value


def as_input(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(
            f"`kernel(on={short(value)})`: it takes the name of one input, such as `x0`."
        )
    return value


class AbstractLeaf(AbstractKernel):
    """A simple kernel, of variance one.

    Attributes:
        on: the name of the one input that it is a function of. By default all of them.
        name: the end of the names of its sites. By default its kind, with a number if
            there are several.
    """

    on: eqx.AbstractVar[str | None]
    name: eqx.AbstractVar[str | None]

    kind: ClassVar[str]
    one_input: ClassVar[bool] = False
    own_sd: ClassVar[bool] = False  # whether it has the sd of its term
    instead: ClassVar[str] = ""  # what to use where a Markov state is needed

    @abstractmethod
    def priors(self, column: Column) -> Priors:
        """The prior of each parameter, by name, in units of the data."""

    @abstractmethod
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of each parameter: `input`, or one of its own."""

    def coords(self, column: Column) -> dict[str, Any]:
        """Labels along the axes of its own, by the name that `axes` has for them."""
        return {}

    @abstractmethod
    def between(
        self, θ: Parameters, column: Column, x: Float[Array, "n k"], x2: Float[Array, "m k"]
    ) -> Float[Array, "n m"]:
        """The correlation of all pairs of places."""

    def on_grid(
        self, θ: Parameters, column: Column, x: Float[Array, "n 1"]
    ) -> Float[Array, "n n"]:
        """The correlation of the places of an even grid."""
        return self.between(θ, column, x, x)

    @property
    def is_chain(self) -> bool:
        """Whether a function of one input with this kernel has a Markov state."""
        return False

    def process(
        self, θ: Parameters, column: Column, variance: Any, num_waves: int
    ) -> state_space.AbstractProcess:
        """The kernel times `variance`, as a Markov chain along its one input.

        Args:
            θ: its parameters.
            column: the input.
            variance: of the function, in squared units of the output.
            num_waves: how many waves stand for a function that repeats.

        Raises:
            NotImplementedError: if it has no Markov state, see `is_chain`.
        """
        raise NotImplementedError(type(self).__name__)


class AbstractStationary(AbstractLeaf):
    """A function of the lag $d = x - x'$."""

    @abstractmethod
    def at(
        self, θ: Parameters, column: Column, lag: Float[Array, "*b k"]
    ) -> Float[Array, "*b"]:
        """The correlation at a lag, in units of the inputs."""

    def between(self, θ, column, x, x2):
        return self.at(θ, column, x[:, None] - x2)

    def on_grid(self, θ, column, x):
        return by_lag(self.at(θ, column, x - x[0]))


class AbstractFixed(AbstractLeaf):
    """A simple kernel without sites of its own."""

    def priors(self, column):
        return {}

    def axes(self):
        return {}
