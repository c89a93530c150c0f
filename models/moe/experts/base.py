"""What experts say: the distribution of an output where an expert is in force."""

from abc import abstractmethod

from jaxtyping import Array, Bool, Float
from numpyro.distributions import Distribution

from probkit.model.density import Sites
from probkit.models.moe.part import AbstractPart
from probkit.models.moe.units import Units


class AbstractExperts(AbstractPart):
    """The distributions $p_k(y | x)$ of all experts.

    All but `conditional` is in standard coordinates.
    """

    def standard(self, y: Float[Array, " n"], units: Units) -> Float[Array, " n"]:
        """Outputs in standard coordinates: less their center, over their scale."""
        return (y - units.y_center) / units.y_scale

    def refuse(self, y: Float[Array, " n"]) -> None:
        """Raise a ValueError for outputs that experts of this kind cannot have."""

    @abstractmethod
    def same(self, num_experts: int, units: Units) -> Sites:
        """Sites, in standard coordinates, at which all experts are the same."""

    @abstractmethod
    def conditional(self, sites: Sites, x: Float[Array, "n d"]) -> Distribution:
        """$p_k(y | x)$ with the batch shape `(n, k)`, for one kind of coordinates."""

    @abstractmethod
    def better(
        self,
        sites: Sites,
        x: Float[Array, "n d"],
        y: Float[Array, " n"],
        r: Float[Array, "n k"],
        use_prior: bool,
    ) -> Sites:
        r"""Sites with a $\sum_{ik} r_{ik} \log p_k(y_i | x_i)$ that is not lower.

        Args:
            sites: the sites before.
            x: the inputs.
            y: the outputs.
            r: responsibilities, whose rows sum to one.
            use_prior: whether the log prior density of the sites is added to the sum.
        """

    def on_floor(self, sites: Sites, units: Units) -> Bool[Array, ""] | bool:
        """Whether an expert is at a limit below which its density would be infinite.

        Args:
            sites: one draw, in the units of the data.
            units: those of the data.
        """
        return False
