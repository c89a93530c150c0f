"""What a gate says: which expert is in force at an input, and how probable each is."""

from abc import abstractmethod

from jaxtyping import Array, Float

from probkit.model.density import Sites
from probkit.models.moe.part import AbstractPart
from probkit.models.moe.units import Units


class AbstractGate(AbstractPart):
    """Shares $π_k(x)$ of the experts. All but `log_share` is in standard coordinates."""

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
