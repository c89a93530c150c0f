"""What a family defines.

A model is a final Equinox module of settings. Its methods are written for *one draw*:
`sites` is a dict from site names to values, in constrained space. The backend maps them
over chains and draws.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from probkit.model.check import Check
from probkit.model.density import Sites, log_likelihood
from probkit.model.labels import counted, dims_of_program
from probkit.model.prediction import data_at, draw_at

Data = Any
Inputs = Any
Moments = Any


class AbstractModel(eqx.Module):
    """A NumPyro program, and what else a family knows about it.

    `model(data)` runs the program of the joint density. What can be integrated out is
    integrated out already. The program is plain NumPyro, so that
    `numpyro.infer.NUTS(model)` works. All other methods have bodies, which follow from
    the program. A family overrides those for which it knows better.
    """

    interchangeable: ClassVar[str | None] = None
    """The axis whose entries are interchangeable, such as the experts of a mixture."""

    @abstractmethod
    def __call__(self, data: Data) -> None:
        """The program: sample the latent sites, condition on the observed ones.

        Args:
            data: the data of the family.

        Raises:
            ValueError: for data of another family, or data that the model cannot use.
        """

    def dims(self, data: Data) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every reported variable and of the arrays of the data.

        By default the names of the program's plates and of `infer={"event_dims": [...]}`.

        Args:
            data: the data of the fit.

        Returns:
            `{name: one name per axis}`.
        """
        return dims_of_program(self, data)

    def coords(self, data: Data) -> dict[str, Any]:
        """Labels along the named axes. By default they count from zero.

        Args:
            data: the data of the fit.

        Returns:
            `{axis: one number or text per entry}`.
        """
        return dict(counted(self, data, self.dims(data)))

    def coords_at(self, inputs: Inputs) -> dict[str, Any]:
        """Labels of predictions along the axes of observations. None by default.

        Args:
            inputs: what `inputs` returned.

        Returns:
            `{axis: one number, date or text per entry}`.
        """
        return {}

    def dims_at(self, inputs: Inputs, data: Data) -> dict[str, tuple[str, ...]]:
        """Names of the axes of predictions, which may depend on the inputs.

        By default those of `dims`.

        Args:
            inputs: what `inputs` returned.
            data: the data of the fit.

        Returns:
            `{name: one name per axis}`.
        """
        return self.dims(data)

    def integrated(self, sites: Sites, data: Data) -> Any:
        """What is known of all that the program integrated out, given one draw.

        `predict`, `recover` and `checks` get it in place of the draw, so that it is
        computed once and kept with the fit. By default it is the draw itself.

        Args:
            sites: one draw of the latent sites.
            data: the data of the fit.

        Returns:
            Arrays, in any structure.
        """
        return sites

    def inputs(self, given: Any, data: Data) -> Inputs:
        """The inputs of `predict`, checked against the data of the fit.

        By default data of the same class with these inputs and without observations.

        Args:
            given: what the user gave to `pk.predict`.
            data: the data of the fit.

        Returns:
            What `predict` takes.

        Raises:
            ValueError: for inputs that do not fit the model or the data.
        """
        return data_at(self, given, data)

    def predict(self, given: Any, inputs: Inputs, key: PRNGKeyArray) -> Sites:
        """New observations, and what else is known about them, for one draw.

        By default the program is run at `inputs` without its observations.

        Args:
            given: what `integrated` returned: the draw, by default.
            inputs: what `inputs` returned.
            key: a JAX random key.

        Returns:
            `{name: array}`, with the axes that `dims` names.
        """
        return draw_at(self, given, inputs, key)

    def moments(self, approximation: Any, inputs: Inputs, data: Data) -> Sites | None:
        """Exact mean and sd of the observed function, over an approximate posterior.

        Args:
            approximation: that of a fit, an `AbstractApproximation`.
            inputs: what `inputs` returned.
            data: the data of the fit.

        Returns:
            `{"mean": array, "sd": array}` without observation noise, with the axes that
            `dims` names; or None if no exact ones are known for this kind of
            approximation. None by default.
        """
        return None

    def recover(self, given: Any, data: Data, key: PRNGKeyArray) -> Sites:
        """One draw of what the program integrated out, given one draw of the rest.

        Args:
            given: what `integrated` returned: the draw, by default.
            data: the data of the fit.
            key: a JAX random key.

        Returns:
            `{name: array}`, with the axes that `dims` names. Empty by default.
        """
        return {}

    def pointwise(self, sites: Sites, data: Data) -> Sites:
        """Log density of each observation, for one draw, as `az.loo` needs it.

        If observations depend on each other, this is the log density of each of them
        given all the others.

        Args:
            sites: one draw of the latent sites.
            data: the data of the fit.

        Returns:
            `{observed site: one number per observation}`, in nats.
        """
        return log_likelihood(self, data, sites)

    def canonical(self, sites: Sites, data: Data, reference: Sites | None = None) -> Sites:
        """The same draw with its interchangeable labels in one order.

        Args:
            sites: one draw of the latent sites.
            data: the data of the fit.
            reference: another draw. The result has the order that agrees best with it.
                If None, the result has the model's own order.

        Returns:
            The draw, relabelled. A model without interchangeable labels returns `sites`.
        """
        return sites

    def checks(self, given: Any, data: Data) -> tuple[Check, ...]:
        """Checks of what can go wrong in this family only.

        Args:
            given: what `integrated` returned for a typical draw: the one with the
                highest density, if it is known.
            data: the data of the fit.

        Returns:
            The checks. None by default.
        """
        return ()


class AbstractEMModel(AbstractModel):
    """A model that `pk.EM` can fit."""

    @abstractmethod
    def start(self, data: Data, key: PRNGKeyArray) -> Sites:
        """Random sites to start from.

        Args:
            data: the data.
            key: a JAX random key. Different keys give different starts.

        Returns:
            One draw of all latent sites.
        """

    def moved(self, sites: Sites, data: Data, key: PRNGKeyArray) -> Sites | None:
        """Other sites, near enough that climbing from them may lead to a better optimum.

        Args:
            sites: where a climb ended.
            data: the data.
            key: a JAX random key. Different keys give different moves.

        Returns:
            One draw of all latent sites; or None, the default, if no moves are known.
        """
        return None

    @abstractmethod
    def e_step(self, sites: Sites, data: Data) -> tuple[Moments, Float[Array, ""]]:
        """Expected sufficient statistics given `sites`, and the log likelihood there.

        Args:
            sites: one draw of the latent sites.
            data: the data.

        Returns:
            What `m_step` takes, and the log likelihood *at* `sites`, in nats.
        """

    @abstractmethod
    def m_step(self, moments: Moments, sites: Sites, data: Data, use_prior: bool) -> Sites:
        """Sites with a higher expected log joint density.

        Args:
            moments: what `e_step` returned.
            sites: where it was called.
            data: the data.
            use_prior: whether the prior is included. Without it, the expected log
                likelihood rises.

        Returns:
            The new sites.
        """

    def degenerate(self, sites: Sites, data: Data) -> Bool[Array, ""] | bool:
        """Whether `sites` is a spurious maximum, which ranks behind all others.

        Args:
            sites: where a restart ended.
            data: the data.
        """
        return False
