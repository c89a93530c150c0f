"""A posterior as a value: arrays from which any number of draws can be made."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from probkit.model import AbstractModel, Data
from probkit.model.density import Sites


class AbstractApproximation(eqx.Module):
    """An approximate posterior of a model given its data.

    It holds what the run has found, and neither the model nor the data, which the fit has
    already. Fields without arrays are static (`eqx.field(static=True)`). A file keeps the
    arrays by name, and describes the other fields and the modules in it. A named tuple
    would come back as a plain one, so parts are modules too.
    """

    @abstractmethod
    def sample(
        self, model: AbstractModel, data: Data, key: PRNGKeyArray, num: int
    ) -> Sites:
        """Independent draws of the latent sites. It can be traced.

        Args:
            model: the model of the fit.
            data: the data of the fit.
            key: a JAX random key.
            num: the number of draws.

        Returns:
            `{site: array[draw, ...]}`, in constrained space.
        """


class Point(AbstractApproximation):
    """All probability at one place, such as a maximum.

    Attributes:
        sites: that place, `{site: array}`, in constrained space.
    """

    sites: Sites

    def sample(self, model, data, key, num):
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (num, *a.shape)), self.sites)


Start = Sites | AbstractApproximation | None
"""Where the lanes of a run start, with a leading lane axis: at draws of an earlier fit, at
its approximation if the method takes it (`starts_at`), or at places of the method's own."""
