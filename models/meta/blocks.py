"""Blocks of the parameters of a network, each with a covariance of its own."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import Congruence, HalfTCovariance, InUnits, half_t
from probkit.models.meta.beliefs import DF, AbstractBelief, DiagonalPrior, FullPrior
from probkit.models.meta.checks import MORE_THAN_COEFFICIENTS as MORE
from probkit.models.meta.leaves import Leaves, begins_with, listed
from probkit.models.meta.matrix_beliefs import MatrixPrior, SidePrior
from probkit.models.meta.spreads import (
    AbstractSpread,
    Blocks,
    Dense,
    Independent,
    MatrixNormal,
)
from probkit.validate import short

KINDS = ("diagonal", "full", "block", "kronecker")
# One for all arrays, or pairs of a beginning of names and its own.
Structure = str | tuple[tuple[str, str], ...]


def as_structure(value: Any) -> Structure:
    """What `Network(covariance=...)` got, checked.

    Raises:
        ValueError: for something else.
    """
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, list | tuple):
        value = tuple((str(begin), kind) for begin, kind in value)
    kinds = [kind for _, kind in value] if isinstance(value, tuple) else [value]
    for kind in kinds:
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(
                f"`Network(covariance={short(kind)})`: it takes 'diagonal', 'full', "
                "'block' or 'kronecker', or a dict from beginnings of names of arrays to "
                "these."
            )
    return value


class AbstractBlock(eqx.Module):
    """Some arrays of a network, whose weights are independent of those of other blocks.

    Attributes:
        prior: of the mean and covariance of its weights.
        label: what its sites are called after, or None if there is no other block.
        own: its arrays.
    """

    prior: eqx.AbstractVar[Any]
    label: eqx.AbstractVar[str | None]
    own: eqx.AbstractVar[Leaves]

    @property
    def size(self) -> int:
        return sum(self.own.sizes)

    @abstractmethod
    def sampled(self) -> AbstractSpread:
        """The covariance, from sites of the program."""

    @abstractmethod
    def spread(self, sites: Mapping[str, Array]) -> AbstractSpread:
        """The covariance of a draw of these sites."""

    @abstractmethod
    def drawn(self, covariance: Any) -> dict[str, Array]:
        """The sites of a draw of the belief."""

    @abstractmethod
    def begun(self, share: float) -> AbstractBelief:
        """The belief that sds are a share of their scale, as if from one episode."""

    @abstractmethod
    def least_episodes(self) -> int:
        """The fewest data sets from which the covariance has a mean, whatever its prior."""

    @abstractmethod
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of its sites."""

    @abstractmethod
    def coords(self) -> dict[str, list[str]]:
        """Names along these axes."""


class DiagonalBlock(AbstractBlock):
    """One variance per weight."""

    prior: DiagonalPrior
    label: str | None = eqx.field(static=True)
    own: Leaves

    def _names(self) -> tuple[str, str]:
        return _named("between_sd", self.label), _named("weight", self.label)

    def sampled(self):
        name, axis = self._names()
        base = half_t(jnp.ones_like(_sds(self.prior)), DF).to_event(1)
        own = InUnits(base, [AffineTransform(0.0, _sds(self.prior))])
        return Independent(numpyro.sample(name, own, infer={"event_dims": [axis]}) ** 2)

    def spread(self, sites):
        return Independent(sites[self._names()[0]] ** 2)

    def drawn(self, covariance):
        return {self._names()[0]: jnp.sqrt(covariance)}

    def begun(self, share):
        return self.prior.belief((share * _sds(self.prior)) ** 2, 1.0)

    def least_episodes(self):
        return 1 + MORE

    def dims(self):
        name, axis = self._names()
        return {name: (axis,)}

    def coords(self):
        return {self._names()[1]: self.own.labels()}


class FullBlock(AbstractBlock):
    """A covariance matrix of all weights."""

    prior: FullPrior
    label: str | None = eqx.field(static=True)
    own: Leaves

    def _names(self) -> tuple[str, list[str]]:
        axes = [_named(axis, self.label) for axis in ("weight", "other_weight")]
        return _named("covariance", self.label), axes

    def sampled(self):
        name, axes = self._names()
        return Dense(_covariance(name, _sds(self.prior), axes))

    def spread(self, sites):
        return Dense(sites[self._names()[0]])

    def drawn(self, covariance):
        return {self._names()[0]: covariance}

    def begun(self, share):
        return self.prior.belief(jnp.diag((share * _sds(self.prior)) ** 2), 1.0)

    def least_episodes(self):
        return self.size + MORE

    def dims(self):
        name, axes = self._names()
        return {name: tuple(axes)}

    def coords(self):
        return {axis: self.own.labels() for axis in self._names()[1]}


class MatrixBlock(AbstractBlock):
    """A covariance among rows, and one among columns, of a matrix of weights."""

    prior: MatrixPrior
    label: str = eqx.field(static=True)
    own: Leaves

    def _names(self) -> dict[str, list[str]]:
        return {
            _named(f"{side}_covariance", self.label): [
                _named(side, self.label),
                _named(f"other_{side}", self.label),
            ]
            for side in ("row", "column")
        }

    def sampled(self):
        sides = self.prior.rows, self.prior.columns
        named = zip(self._names().items(), sides, strict=True)
        return MatrixNormal(
            *[_covariance(name, _sds(side), axes) for (name, axes), side in named]
        )

    def spread(self, sites):
        return MatrixNormal(*[sites[name] for name in self._names()])

    def drawn(self, covariance):
        return dict(zip(self._names(), covariance, strict=True))

    def begun(self, share):
        rows, columns = _sds(self.prior.rows), _sds(self.prior.columns)
        spread = MatrixNormal(jnp.diag((share * rows) ** 2), jnp.diag(columns**2))
        return self.prior.belief(spread, 1.0)

    def least_episodes(self):
        # A data set has as many vectors along one side as the other side is long.
        p, q = len(_sds(self.prior.rows)), len(_sds(self.prior.columns))
        return max(-(-(p + MORE) // q), -(-(q + MORE) // p))

    def dims(self):
        return {name: tuple(axes) for name, axes in self._names().items()}

    def coords(self):
        sizes = len(_sds(self.prior.rows)), len(_sds(self.prior.columns))
        return {
            axis: [str(i) for i in range(size)]
            for axes, size in zip(self._names().values(), sizes, strict=True)
            for axis in axes
        }


def blocks_of(
    leaves: Leaves,
    structure: Structure,
    loc: Float[Array, " d"],
    sd: Float[Array, " d"],
    strength: Float[Array, ""],
) -> tuple[AbstractBlock, ...]:
    """The blocks of a network, in the order of its weights.

    Args:
        leaves: the arrays.
        structure: "diagonal" or "full", one block; "block", one covariance matrix per
            array; "kronecker", one of rows and one of columns per matrix, and one
            covariance matrix per vector; or pairs of beginnings of names and these. Arrays
            of one beginning are then one block if it is "full", and arrays without one
            have independent weights.
        loc: the prior mean, `(d,)`.
        sd: the scale of half-t sds, `(d,)`, the same for all weights of an array.
        strength: the mean is known as from so many episodes.
    """
    groups = _groups(leaves, structure)
    shapes = dict(zip(leaves.names, leaves.shapes, strict=True))
    found: list[AbstractBlock] = []
    at = 0
    for label, kind, names in groups:
        arrays = Leaves(names, tuple(shapes[name] for name in names))
        end = at + sum(arrays.sizes)
        own = loc[at:end], strength
        about = label if len(groups) > 1 else None, arrays
        shape = _matrix_shape(arrays.shapes[0])
        if kind == "diagonal":
            found.append(DiagonalBlock(DiagonalPrior(*own, sd=sd[at:end]), *about))
        elif kind == "kronecker" and shape is not None:
            # The size of the weights is that of rows.
            columns = SidePrior(sd=jnp.ones(shape[1], sd.dtype))
            rows = SidePrior(sd=jnp.broadcast_to(sd[at], (shape[0],)))
            # With a label also if it is alone, because data have an axis of rows.
            found.append(MatrixBlock(MatrixPrior(*own, rows, columns), label, arrays))
        else:
            found.append(FullBlock(FullPrior(*own, sd=sd[at:end]), *about))
        at = end
    return tuple(found)


def joined(
    blocks: Sequence[AbstractBlock], parts: Sequence[AbstractSpread]
) -> AbstractSpread:
    """The covariance of all weights, of those of the blocks."""
    if len(parts) == 1:
        return parts[0]
    return Blocks(tuple(parts), tuple(block.size for block in blocks))


Group = tuple[str, str, tuple[str, ...]]


def _groups(leaves: Leaves, structure: Structure) -> list[Group]:
    """Label, kind and arrays of each block."""
    if structure in ("diagonal", "full"):
        return [("", structure, leaves.names)]
    if isinstance(structure, str):
        return [(name, structure, (name,)) for name in leaves.names]
    found: list[Group] = []
    kinds = {name: _chosen(name, structure) for name in leaves.names}
    unused = [b for b, _ in structure if not any(begins_with(n, b) for n in leaves.names)]
    if unused:
        raise ValueError(
            f"`Network(covariance=...)` has {unused[0]!r}; the Bayesian arrays are "
            f"{listed(leaves.names)}."
        )
    for name, (begin, kind) in kinds.items():
        if kind == "full" and found and found[-1][:2] == (begin, kind):
            found[-1] = (begin, kind, (*found[-1][2], name))
        else:
            found.append((begin if kind == "full" else name, kind, (name,)))
    return found


def _chosen(name: str, structure: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    fits = [pair for pair in structure if begins_with(name, pair[0])]
    if len(fits) > 1:
        raise ValueError(
            f"`Network(covariance=...)` has {fits[0][0]!r} and {fits[1][0]!r}, and "
            f"{name!r} begins with both; choose one structure for it."
        )
    return fits[0] if fits else (name, "diagonal")


def check_structure(leaves: Leaves, structure: Structure) -> None:
    """Check that it fits the arrays.

    Raises:
        ValueError: for a beginning that fits none, and an array that has two.
    """
    _groups(leaves, structure)


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns, or None if there is one of either, or of both."""
    size = math.prod(shape)
    if len(shape) < 2 or size in (shape[0], 0) or shape[0] == 1:
        return None
    return shape[0], size // shape[0]


def _sds(prior: DiagonalPrior | FullPrior | SidePrior) -> Array:
    assert prior.sd is not None
    return prior.sd


def _covariance(name: str, sd: Array, axes: list[str]) -> Array:
    base: dist.Distribution = HalfTCovariance(jnp.ones_like(sd), DF)
    own = InUnits(base, [Congruence(jnp.diag(sd))])
    return numpyro.sample(name, own, infer={"event_dims": axes})


def _named(what: str, label: str | None) -> str:
    return what if label is None else f"{what}_{label}"
