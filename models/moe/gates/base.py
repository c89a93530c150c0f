"""What a gate says: which expert is in force at an input, and how probable each is."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float
from numpyro.distributions.transforms import Transform

from probkit.distributions import InUnits
from probkit.model.density import Sites
from probkit.models.moe.units import Units


class AbstractGate(eqx.Module):
    """Shares $π_k(x)$ of the experts.

    All but `log_share` is in standard coordinates: inputs less their center over their
    scale, and sites for such inputs. `to_units` says how sites are reported.
    """

    @abstractmethod
    def priors(self, num_experts: int, units: Units) -> dict[str, InUnits]:
        """The prior of each site, in the units of the data.

        Args:
            num_experts: $K$.
            units: those of the data.
        """

    @property
    def degree(self) -> int:
        """Of the terms of the inputs that sites belong to."""
        return 1

    @abstractmethod
    def to_units(self, units: Units) -> dict[str, Transform]:
        """For each site, the map from standard coordinates to the units of the data."""

    @abstractmethod
    def even(self, num_experts: int, units: Units) -> Sites:
        """Sites to begin with, in standard coordinates: equal shares, or nearly."""

    @abstractmethod
    def log_share(self, sites: Sites, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
        r"""$\log π_k(x)$, for sites and inputs of one kind of coordinates."""

    @abstractmethod
    def better(
        self,
        sites: Sites,
        x: Float[Array, "n d"],
        r: Float[Array, "n k"],
        share: Float[Array, "n k"],
        log_density: Float[Array, "n k"],
        use_prior: bool,
    ) -> Sites:
        r"""Sites with a $\sum_{ik} r_{ik} \log π_k(x_i)$ that is not lower.

        Args:
            sites: the sites before.
            x: the inputs.
            r: responsibilities, whose rows sum to one.
            share: the shares at `sites`.
            log_density: of the outputs in each expert; for gates that raise the log
                likelihood itself.
            use_prior: whether the log prior density of the sites is added to the sum.
        """

    @abstractmethod
    def dims(self, term: str = "term") -> dict[str, tuple[str, ...]]:
        """Names of the axes of the sites; `term` is that of terms of the inputs."""
