"""What a family says about itself.

A model is a final Equinox module of settings. Everything it answers is for *one draw*:
`sites` is a dict from site names to values, in constrained space; the backend maps over
chains and draws.
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
    """A NumPyro program, and what else a family has to say of it.

    `model(data)` runs the program of the joint density, with what can be integrated out
    already integrated out. It is plain NumPyro: `numpyro.infer.NUTS(model)` works. All
    other methods have bodies, which ask the program; a family writes those in which it
    knows better.
    """

    interchangeable: ClassVar[str | None] = None
    """The axis whose entries are interchangeable: the labels of a mixture."""

    @abstractmethod
    def __call__(self, data: Data) -> None:
        """The program: sample the latent sites, condition on the observed ones."""

    def dims(self, data: Data) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every reported variable and of the data's arrays.

        By default those of the program's plates and of `infer={"event_dims": [...]}`.
        """
        return dims_of_program(self, data)

    def coords(self, data: Data) -> dict[str, Any]:
        """Labels along the named axes; by default they are counted from zero."""
        return dict(counted(self, data, self.dims(data)))

    def inputs(self, given: Any, data: Data) -> Inputs:
        """What `predict` was given by a user, checked against the data of the fit.

        By default data of the same class with these inputs and nothing observed.
        """
        return data_at(self, given, data)

    def predict(self, sites: Sites, inputs: Inputs, key: PRNGKeyArray) -> Sites:
        """New observations, and what is known of them, for one draw.

        By default the program is run at `inputs` without its observations.
        """
        return draw_at(self, sites, inputs, key)

    def recover(self, sites: Sites, data: Data, key: PRNGKeyArray) -> Sites:
        """One draw of what the program integrated out, given one draw of the rest."""
        return {}

    def pointwise(self, sites: Sites, data: Data) -> Sites:
        """Log density of each observation, for one draw: what `az.loo` starts from.

        A model whose observations depend on each other gives each its density given all
        the others.
        """
        return log_likelihood(self, data, sites)

    def canonical(self, sites: Sites, data: Data, reference: Sites | None = None) -> Sites:
        """The same draw under one order of its labels.

        Without `reference`, in the model's own order; with it, in the order that agrees
        best with that draw. A model without interchangeable labels returns `sites`.
        """
        return sites

    def checks(self, sites: Sites, data: Data) -> tuple[Check, ...]:
        """What can go wrong in this family alone, looked for at a typical draw."""
        return ()


class AbstractEMModel(AbstractModel):
    """A model whose likelihood EM can climb."""

    @abstractmethod
    def start(self, data: Data, key: PRNGKeyArray) -> Sites:
        """A random place to start from."""

    @abstractmethod
    def e_step(self, sites: Sites, data: Data) -> tuple[Moments, Float[Array, ""]]:
        """Expected sufficient statistics, and the log likelihood *at* `sites`."""

    @abstractmethod
    def m_step(self, moments: Moments, sites: Sites, data: Data, use_prior: bool) -> Sites:
        """Sites of higher expected log joint (or likelihood, without the prior)."""

    def degenerate(self, sites: Sites, data: Data) -> Bool[Array, ""] | bool:
        """Whether `sites` is a spurious maximum, to be ranked behind all others."""
        return False
