r"""Shares that do not depend on the inputs: a plain mixture of regressions.

Source: Quandt & Ramsey (1978), "Estimating mixtures of normal distributions and switching
regressions".
"""

import equinox as eqx
import jax.numpy as jnp
from numpyro.distributions import Dirichlet
from numpyro.distributions.transforms import IdentityTransform

from probkit.models.moe.gates.base import AbstractGate
from probkit.validate import positive


class Constant(AbstractGate):
    r"""The same shares at all inputs, $π_k(x) = w_k$.

    Site: `weight` $w$ `(expert,)`, with sum one.

    Attributes:
        concentration: of the Dirichlet prior. With 1 all weights are as probable; below
            $(d + 1)/2$, where $d$ is the number of parameters of an expert, experts that
            are not needed become empty (Rousseau & Mengersen 2011).
    """

    concentration: float = eqx.field(
        default=1.0, converter=positive("Constant(concentration")
    )

    def priors(self, num_experts, units):
        every = jnp.full(num_experts, self.concentration, units.x_scale.dtype)
        return {"weight": Dirichlet(every)}

    def to_units(self, units):
        return {"weight": IdentityTransform()}

    def even(self, num_experts, units):
        return {"weight": jnp.full(num_experts, 1 / num_experts, units.x_scale.dtype)}

    def log_share(self, sites, x):
        log = jnp.log(sites["weight"])
        return jnp.broadcast_to(log, (len(x), len(log)))

    def better(self, sites, x, r, share, log_density, use_prior):
        """The shares of the responsibilities, with the counts of the prior."""
        count = r.sum(0)
        if use_prior:
            # A weight whose density is infinite at zero becomes zero, nearly.
            least = jnp.finfo(count.dtype).eps * len(x)
            count = jnp.maximum(count + self.concentration - 1, least)
        return {"weight": count / count.sum()}

    def dims(self, term="term"):
        return {"weight": ("expert",)}
