"""Checks of what can go wrong in a hierarchy: of linear models, and what others share."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import tails

# A covariance of p coefficients has a mean, whatever its prior, from p + 2 data sets on.
MORE_THAN_COEFFICIENTS = 2
# Episodes that are looked at for a mean, and no more memory than that of some steps.
MOST = 200
# The least gain over a prediction that is the same for all episodes.
LEAST_GAIN = 1e-3
# The least probability of the least probable data set, times their number.
LEAST_PROBABLE = 0.01


def checks(
    model: Any, sites: Sites, data: Episodes, count: int | None = None
) -> tuple[Check, ...]:
    """The verdicts.

    Args:
        model: a `meta.Linear`.
        sites: one draw.
        data: the data.
        count: the number of data sets of which these are some; by default there are no
            others. Those that are not here count as these do on average.
    """
    sizes = np.asarray(data.seen.sum(1))
    p, k = model.num_features(data), model.num_components
    full = model.covariance == "full"
    least = MORE_THAN_COEFFICIENTS + (p if full else 1)
    count = len(sizes) if count is None else count
    times = count / len(sizes)
    found = [
        Check(
            "data sets with values",
            round(int((sizes > 0).sum()) * times),
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
                round(int(np.maximum(sizes - p, 0).sum()) * times),
                "at least",
                p,
                "noise and differences among data sets cannot be told apart: give more "
                "values per data set, or `noise_sd` if it is known",
                "of all data sets",
            )
        )
    if k > 1:
        smallest = float(np.min(sites["weight"])) * count
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


def some_of(count: int) -> Int[Array, " k"]:
    """The numbers of some episodes, evenly spaced: all, or `MOST` of them."""
    return jnp.asarray(np.linspace(0, count - 1, min(count, MOST)).round().astype(int))


def check_gain(
    name: str, gain: np.ndarray, of: np.ndarray, remedy: str, note: str
) -> Check:
    """Check that a model predicts better than what is the same for all episodes.

    One that has learned nothing is a little better in half of all cases. Therefore the
    limit is two standard errors, those of a ratio of sums over episodes.

    Args:
        name: what is checked, the sum of `gain` over that of `of`.
        gain: of each episode.
        of: what it is a share of, or ones.
        remedy: what to do if it is not better.
        note: more about the value.
    """
    n, share, error = len(gain), float(gain.sum() / of.sum()), 0.0
    # A prediction that overflows fails, because NaN does.
    if n > 1 and np.isfinite(share):
        error = float(np.std(gain - share * of, ddof=1) / of.mean()) / n**0.5
    limit = max(2 * error, LEAST_GAIN)
    note = f"{note}; limit: two standard errors"
    return Check(name, share, "at least", limit, remedy, note)


def check_episodes(facts: Mapping[str, Any]) -> tuple[Check, ...]:
    """Check that there are enough episodes to learn covariances from.

    Args:
        facts: with `episodes`, how many there are, and `least_episodes`.
    """
    if facts.get("least_episodes") is None:
        return ()
    return (
        Check(
            "episodes",
            facts["episodes"],
            "at least",
            facts["least_episodes"],
            "what differs among them follows from the prior: give more of them, or take "
            "fewer parameters",
            "data sets, or tasks",
        ),
    )


@jit_for_one_run
def _tails(model: Any, sites: Sites, data: Episodes) -> Float[Array, " n"]:
    return tails(model.rows(data), model.believed(sites, data))
