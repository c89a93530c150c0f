"""Checks of what can go wrong in a functional Tucker model."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.model.residuals import LEAST_EXPLAINED
from probkit.models.tucker.entries import Entries

# A component whose share of the spread of the surface is below this is not in use.
IN_USE = 0.01
# With fewer entries there is no such share.
FEWEST = 10


def checks(model: Any, sites: Sites, data: Entries) -> tuple[Check, ...]:
    """The verdicts.

    Args:
        model: the model.
        sites: one draw.
        data: the data.

    Returns:
        One check per way in which the model can be wrong.
    """
    explained, parts = _shares(model, sites, data)
    found: list[Check] = []
    if model.observation.in_units:
        found.append(
            Check(
                "share of the entries explained",
                float(explained),
                "at least",
                LEAST_EXPLAINED,
                "the surface is next to nothing and all is noise: look at the data, or "
                "raise `num_starts`",
                "of their squares about the mean",
            )
        )
    # After an update the entries may be few, and say nothing about components.
    for mode, shares in parts.items() if len(data) >= FEWEST else ():
        in_use = int((np.asarray(shares) >= IN_USE).sum())
        found.append(
            Check(
                f"components in use{mode}",
                in_use,
                "at least",
                len(shares),
                f"the data support {in_use}: lower the rank, or raise `num_starts` if you "
                "expect more",
                f"whose part of the surface has an sd of {IN_USE:.0%} of its own or more",
            )
        )
    return tuple(found)


@jit_for_one_run
def _shares(model: Any, sites: Sites, data: Entries):
    """Of the squares of the entries: what is explained. Of the surface: each component."""
    factors = model.factors(sites, data)
    f = model.surface(sites, data, factors, data.places)
    explained = 1 - jnp.mean((data.y - f) ** 2) / jnp.mean((data.y - data.y_mean) ** 2)
    return explained, model.shares(sites, data, factors)


def spreads(parts: Float[Array, "n r"], f: Float[Array, " n"]) -> Float[Array, " r"]:
    """The sd of each part over the entries, relative to that of the whole."""
    return jnp.std(parts, axis=0) / jnp.maximum(jnp.std(f), jnp.finfo(f.dtype).tiny)
