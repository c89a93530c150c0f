"""What gates and experts have in common: sites, with priors and units."""

from abc import abstractmethod

import equinox as eqx
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import Transform

from probkit.models.moe.units import Units


class AbstractPart(eqx.Module):
    """A gate, or experts: sites of their own, and what they say given the inputs.

    Steps are in standard coordinates: inputs less their center over their scale, and sites
    for such inputs. `to_units` says how sites are reported.
    """

    @abstractmethod
    def priors(self, num_experts: int, units: Units) -> dict[str, Distribution]:
        """The prior of each site, in the units of the data.

        Args:
            num_experts: $K$.
            units: those of the data.
        """

    @abstractmethod
    def to_units(self, units: Units) -> dict[str, Transform]:
        """For each site, the map from standard coordinates to the units of the data."""

    @abstractmethod
    def dims(self, term: str = "term") -> dict[str, tuple[str, ...]]:
        """Names of the axes of the sites; `term` is that of terms of the inputs."""

    @property
    def degree(self) -> int:
        """Of the terms of the inputs that sites belong to."""
        return 1
