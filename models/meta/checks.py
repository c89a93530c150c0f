"""Checks of what can go wrong in a hierarchy of linear models."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import tails

# A covariance of p coefficients has a mean, whatever its prior, from p + 2 data sets on.
MORE_THAN_COEFFICIENTS = 2
# The least probability of the least probable data set, times their number.
LEAST_PROBABLE = 0.01


def checks(model: Any, sites: Sites, data: Episodes) -> tuple[Check, ...]:
    """The verdicts.

    Args:
        model: a `meta.Linear`.
        sites: one draw.
        data: the data.
    """
    sizes = np.asarray(data.seen.sum(1))
    p, k = model.num_features(data), model.num_components
    full = model.covariance == "full"
    least = MORE_THAN_COEFFICIENTS + (p if full else 1)
    found = [
        Check(
            "data sets with values",
            int((sizes > 0).sum()),
            "at least",
            least * k,
            "what differs among data sets follows from the prior: give more data sets"
            + (', or take `covariance="diagonal"`' if full and p > 1 else "")
            + (", or fewer components" if k > 1 else ""),
        )
    ]
    if model.noise_sd is None:
        found.append(
            Check(
                "values beyond the coefficients",
                int(np.maximum(sizes - p, 0).sum()),
                "at least",
                p,
                "noise and differences among data sets cannot be told apart: give more "
                "values per data set, or `noise_sd` if it is known",
                "of all data sets",
            )
        )
    if k > 1:
        smallest = float(np.min(sites["weight"])) * len(sizes)
        found.append(
            Check(
                "data sets of the smallest component",
                smallest,
                "at least",
                least,
                "the data support fewer components: lower `num_components`",
            )
        )
        return tuple(found)
    p_value = np.asarray(_tails(model, sites, data))
    worst = int(np.argmin(p_value))
    found.append(
        Check(
            "probability of the least probable data set",
            min(1.0, float(p_value[worst] * (sizes > 0).sum())),
            "at least",
            LEAST_PROBABLE,
            "it is unlike the others: look at its values, or take more components "
            "(`num_components`)",
            f"{data.labels()[worst]}; times the number of data sets",
        )
    )
    return tuple(found)


@jit_for_one_run
def _tails(model: Any, sites: Sites, data: Episodes) -> Float[Array, " n"]:
    return tails(model.rows(data), model.believed(sites, data))
