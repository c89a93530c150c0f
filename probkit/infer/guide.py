"""The guides of SVI: their names, and a fitted one as a value."""

import copy
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpyro
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.infer import autoguide

from probkit.method import AbstractApproximation
from probkit.model import Data, Sites
from probkit.model.density import Program

GUIDES: dict[str, Callable] = {
    "normal": autoguide.AutoNormal,
    "multivariate_normal": autoguide.AutoMultivariateNormal,
    "low_rank": autoguide.AutoLowRankMultivariateNormal,
    "iaf": autoguide.AutoIAFNormal,
    "bnaf": autoguide.AutoBNAFNormal,
}


FLOWS = ("iaf", "bnaf")
RICH = ("multivariate_normal", *FLOWS)


def new_guide(kind: str | Callable, program: Program, start: Sites | None = None) -> Any:
    """NumPyro's guide of a program, before its first data.

    Args:
        kind: a name in `GUIDES`, a class of guides, or a guide.
        program: the program.
        start: the sites where its centre begins, or None for a place of NumPyro's choice.
    """
    if isinstance(kind, autoguide.AutoGuide):
        # A guide keeps the shapes of its first data, so this copy forgets them.
        guide = copy.copy(kind)
        guide.model, guide.prototype_trace = program, None
        return guide
    make = GUIDES[kind] if isinstance(kind, str) else kind
    if start is None:
        return make(program)
    return make(program, init_loc_fn=numpyro.infer.init_to_value(values=start))


class Guide(AbstractApproximation):
    """A fitted guide.

    Attributes:
        kind: a name in `GUIDES`, a class of guides, or a guide.
        params: its parameters as one vector, unconstrained, in the order of their names.
    """

    kind: str | Callable = eqx.field(static=True)
    params: Float[Array, " p"]

    @classmethod
    def of(cls, kind: str | Callable, params: Any) -> "Guide":
        """From the parameters in NumPyro's structure."""
        return cls(kind, ravel_pytree(params)[0])

    def params_like(self, params: Any) -> Any:
        """The parameters in the structure of others of the same guide."""
        return ravel_pytree(params)[1](self.params)

    def on(self, model: Program, data: Data) -> tuple[Any, Any]:
        """NumPyro's guide of a model, and the parameters that it takes."""
        guide = new_guide(self.kind, model)
        # The guide gets the program's shapes in `init`. The values have no use.
        svi = numpyro.infer.SVI(model, guide, optax.identity(), numpyro.infer.Trace_ELBO())
        state = svi.init(jax.random.key(0), data)
        params = self.params_like(svi.optim.get_params(state.optim_state))
        return guide, svi.constrain_fn(params)

    def sample(self, model, data, key, num):
        guide, params = self.on(model, data)
        return guide.sample_posterior(key, params, data, sample_shape=(num,))
