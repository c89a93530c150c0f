"""The components of a mixture of linear models, in one order."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from optax.assignment import hungarian_algorithm

from probkit.model.density import Sites
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import locals_of

# Enough data sets to distinguish the components.
ENOUGH = 1000


def in_order(model: Any, sites: Sites, data: Episodes, reference: Sites | None) -> Sites:
    """Components in the order of their weights, largest first; or, with a reference, in the
    order that agrees best with it on which data sets belong to which.

    Args:
        model: a `meta.Linear` with several components.
        sites: one draw.
        data: the data.
        reference: another draw, or None.

    Source: Stephens (2000), "Dealing with label switching in mixture models".
    """
    order = jnp.argsort(-sites["weight"])
    if reference is not None:
        thin = data.take(jnp.arange(0, len(data), max(1, len(data) // ENOUGH)))
        target = jnp.exp(_log_share(model, reference, thin))
        log_share = jnp.maximum(_log_share(model, sites, thin), -700.0)
        theirs, ours = hungarian_algorithm(-target.T @ log_share)
        order = jnp.zeros_like(ours).at[theirs].set(ours)
    return {
        name: value if name == "noise_sd" else value[order] for name, value in sites.items()
    }


def _log_share(model: Any, sites: Sites, data: Episodes) -> Float[Array, "n k"]:
    believed = model.believed(sites, data)
    found = locals_of(model.rows(data), believed)
    return jax.nn.log_softmax(believed.log_weight - found.cost, axis=1)
