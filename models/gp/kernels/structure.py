"""A kernel as a sum of products of simple ones, with the names of its sites."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.model.density import Sites
from probkit.models.gp.kernels.algebra import AbstractKernel, Product, Sum
from probkit.models.gp.kernels.distance import Periodic
from probkit.models.gp.kernels.leaf import (
    AbstractLeaf,
    AbstractStationary,
    Column,
    Parameters,
    columns_of,
)
from probkit.models.gp.kernels.lines import Drift, Linear
from probkit.models.gp.kernels.priors import SD, Priors, scale_prior
from probkit.models.gp.kernels.spectral import SpectralGrid
from probkit.models.gp.observed import Observed
from probkit.validate import short


def as_kernel(kind: str) -> Callable[[Any], AbstractKernel]:
    """A field converter that refuses what is no kernel, for a class of that name."""

    def convert(value: Any) -> AbstractKernel:
        if not isinstance(value, AbstractKernel):
            raise ValueError(
                f"`{kind}(kernel={short(value)})`: it takes a kernel, such as "
                "`gp.Matern()` or `gp.Periodic() + gp.Matern(0.5)`."
            )
        Structure.of(value)  # refuses names that are there twice
        return value

    return convert


class Structure(NamedTuple):
    """A kernel as a sum of products.

    Attributes:
        leaves: the simple kernels, by their names.
        terms: the names of the leaves of each term.
    """

    leaves: dict[str, AbstractLeaf]
    terms: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, kernel: AbstractKernel) -> "Structure":
        found: list[AbstractLeaf] = []
        terms = _expanded(kernel, found)
        names = _names(found)
        named = dict(zip(names, found, strict=True))
        return cls(named, tuple(tuple(names[i] for i in term) for term in terms))

    def spacings(self, data: Any) -> dict[str, Array]:
        """The spacing of the points in the direction of each lengthscale, by site."""
        columns = {name: columns_of(leaf, data) for name, leaf in self.leaves.items()}
        return {
            f"lengthscale_{name}": column.spacing
            for name, column in columns.items()
            if not isinstance(self.leaves[name], Periodic | Linear | Drift | SpectralGrid)
        }

    def has_own_sd(self, term: tuple[str, ...]) -> bool:
        """Whether a leaf of the term has the sds, so that the term needs none."""
        return any(self.leaves[name].own_sd for name in term)

    def priors(self, data: Any) -> Priors:
        """The prior of each site of the kernel, in the units of the data."""
        priors: Priors = {
            f"sd_{title(term)}": scale_prior(SD * data.units.y_sd)
            for term in self.terms
            if not self.has_own_sd(term)
        }
        for name, leaf in self.leaves.items():
            for parameter, prior in leaf.priors(columns_of(leaf, data)).items():
                priors[f"{parameter}_{name}"] = prior
        return priors

    def dims(self, data: Any) -> dict[str, tuple[str, ...]]:
        """Names of the axes of each site of the kernel that has any."""
        dims: dict[str, tuple[str, ...]] = {}
        for name, leaf in self.leaves.items():
            for parameter, axes in leaf.axes().items():
                of_one = len(columns_of(leaf, data).columns) == 1
                if axes == ("input",):
                    dims[f"{parameter}_{name}"] = () if of_one else axes
                else:
                    dims[f"{parameter}_{name}"] = tuple(f"{a}_{name}" for a in axes)
        return dims

    def coords(self, data: Any) -> dict[str, Any]:
        """Labels along the axes of the kernel's own sites."""
        return {
            f"{axis}_{name}": labels
            for name, leaf in self.leaves.items()
            for axis, labels in leaf.coords(columns_of(leaf, data)).items()
        }

    def parameters(self, name: str, sites: Sites, data: Any) -> tuple[Parameters, Column]:
        """The parameters of a leaf, and its inputs."""
        column = columns_of(self.leaves[name], data)
        priors = self.leaves[name].priors(column)
        return {p: sites[f"{p}_{name}"] for p in priors}, column

    def variance(self, term: tuple[str, ...], sites: Sites) -> Any:
        """By which the kernel of a term is multiplied: 1 if a leaf has the sds."""
        return 1.0 if self.has_own_sd(term) else sites[f"sd_{title(term)}"] ** 2

    def covariance(
        self,
        sites: Sites,
        data: Observed,
        x: Float[Array, "n d"] | None = None,
        x2: Float[Array, "m d"] | None = None,
    ) -> Float[Array, "t n m"]:
        """The covariance of each term, of places `x` and `x2`, by default the data's."""

        def matrix(leaf, θ, column):
            chosen = jnp.array(column.columns)
            if x is None and x2 is None and data.even:
                return leaf.on_grid(θ, column, data.x[:, chosen])
            one = data.x if x is None else x
            two = data.x if x2 is None else x2
            return leaf.between(θ, column, one[:, chosen], two[:, chosen])

        return self._of_terms(sites, data, matrix)

    def at(
        self, sites: Sites, data: Any, lag: Float[Array, "*b d"]
    ) -> Float[Array, "t *b"]:
        """The covariance of each term at a lag, if all kernels are stationary."""

        def value(leaf, θ, column):
            return leaf.at(θ, column, lag[..., jnp.array(column.columns)])

        return self._of_terms(sites, data, value)

    @property
    def is_stationary(self) -> bool:
        """Whether all kernels are functions of the lag."""
        return all(isinstance(leaf, AbstractStationary) for leaf in self.leaves.values())

    def _of_terms(self, sites, data, of_leaf):
        """The sum over terms is left to the caller: `of_leaf(leaf, parameters, column)`."""
        values = {}
        for name, leaf in self.leaves.items():
            values[name] = of_leaf(leaf, *self.parameters(name, sites, data))
        every = []
        for term in self.terms:
            value = math.prod(values[name] for name in term)
            every.append(value * self.variance(term, sites))
        return jnp.stack(every)


def unsigned(sites: Sites) -> Sites:
    """The same draw with frequencies without their signs, which kernels do not have."""
    return {k: jnp.abs(v) if k.startswith("frequency_") else v for k, v in sites.items()}


def title(term: tuple[str, ...]) -> str:
    return "_".join(term)


def _expanded(kernel: AbstractKernel, found: list) -> list[tuple[int, ...]]:
    if isinstance(kernel, Sum):
        return [term for part in kernel.parts for term in _expanded(part, found)]
    if isinstance(kernel, Product):
        terms: list[tuple[int, ...]] = [()]
        for part in kernel.parts:
            new = _expanded(part, found)
            terms = [(*a, *b) for a in terms for b in new]
        return terms
    found.append(kernel)
    return [(len(found) - 1,)]


def _names(leaves: list[AbstractLeaf]) -> list[str]:
    kinds = [leaf.kind if leaf.name is None else leaf.name for leaf in leaves]
    names = []
    for i, (kind, leaf) in enumerate(zip(kinds, leaves, strict=True)):
        unnamed = leaf.name is None and kinds.count(kind) > 1
        names.append(f"{kind}{kinds[: i + 1].count(kind)}" if unnamed else kind)
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(
            f"`kernel` has two kernels called `{twice[0]}`; give each a `name` of its own."
        )
    return names
