"""The normal distribution of the seen entries of a tensor, by their own covariance."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact
from numpyro.distributions import Distribution, constraints

from probkit.distributions.kronecker import KroneckerNormal


class SeenNormal(Distribution):
    """A normal tensor of which some entries are observed.

    The cost of the density is that of a covariance of the seen entries.
    `PartialKroneckerNormal` has the same density, at a cost that grows with the number of
    the others.

    Args:
        whole: the distribution of the tensor.
        seen: that of its seen entries, a vector of shape `(m,)`.
        places: their indices, one array of shape `(m,)` per axis of the tensor.

    Values are tensors of the shape of `whole`. Their unseen entries are not used.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("whole", "seen", "places")

    def __init__(
        self,
        whole: KroneckerNormal,
        seen: KroneckerNormal,
        places: Sequence[Array],
        *,
        validate_args: bool | None = None,
    ):
        self.whole, self.seen, self.places = whole, seen, tuple(places)
        super().__init__((), whole.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return self.whole.support

    def log_prob(self, value, intermediates=None):
        return self.seen.log_prob(jnp.asarray(value)[(..., *self.places)])

    def leave_one_out(self, value: Inexact[Array, "..."]) -> Float[Array, "..."]:
        r"""$\log p(y_i \mid y_{-i})$ of each seen entry, in nats; zero elsewhere.

        Args:
            value: a tensor of shape `event_shape`.
        """
        logs = self.seen.leave_one_out(value[self.places])
        return jnp.zeros(self.event_shape, logs.dtype).at[self.places].set(logs)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Any:
        """The whole tensor: entries that are not seen are drawn as well."""
        return self.whole.sample(key, sample_shape)

    @property
    def mean(self):
        return self.whole.mean

    @property
    def variance(self):
        return self.whole.variance
