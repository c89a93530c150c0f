"""Whether new data sets are like those of a fit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.method.batches import map_in_batches
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.evidence import EpisodeNormal, locals_of, tails
from probkit.models.meta.linear import Linear
from probkit.models.meta.queries import queries
from probkit.settings import with_all_digits
from probkit.validate import as_key, optional, short, whole


@with_all_digits
def novelty(fitted: Any, episodes: Any, *, key: PRNGKeyArray, num_draws: int | None = None):
    r"""How probable values as unlikely as these are in a data set such as those of the fit.

    For each data set, with the same inputs, it is

    $$P(\log p(y^* \mid φ) \le \log p(y \mid φ)), \qquad
    y^* \sim p(y^* \mid φ), \quad φ \sim p(φ \mid D),$$

    where $φ$ is the hierarchy and coefficients are integrated out. With one component and
    $φ$ given, $-2 \log p(y)$ is a constant and a chi-square of as many degrees of freedom
    as there are rows, and the probability is exact. With several, one data set is simulated
    per draw.

    A data set of the same kind as those of the fit has a `p_value` that is uniform, if the
    hierarchy is known well. A `p_value` of 0.001 says that one of a thousand such data sets
    is as unlikely. A data set that is too smooth has a large one.

    Args:
        fitted: a fit of `meta.Linear`.
        episodes: data sets, `meta.Episodes`, that were not in the fit. Those that were make
            values near one more frequent.
        key: a JAX random key.
        num_draws: the number of draws of the fit to use, evenly spaced. By default all.

    Returns:
        An xarray `Dataset` over `group`: `p_value`, and `log_evidence`, the log density of
        the values given the data of the fit, in nats.

    Raises:
        ValueError: for a fit of another model, or other data.

    Source: Gelman, Meng & Stern (1996), "Posterior predictive assessment of model fitness
    via realized discrepancies", for probabilities averaged over the posterior.
    """
    import xarray as xr

    model = getattr(fitted, "model", None)
    if not isinstance(model, Linear):
        raise ValueError(
            f"`meta.novelty(fit, ...)` got a fit of `{type(model).__name__}`; it takes one "
            "of `meta.Linear`."
        )
    if not isinstance(episodes, Episodes):
        raise ValueError(
            f"`meta.novelty(fit, episodes)` got {short(episodes)}; it takes "
            "`meta.Episodes`."
        )
    key = as_key(key, "novelty(key=...)")
    data = queries(episodes, fitted.data).support
    sites = _draws(fitted.posterior, optional(whole("novelty(num_draws", 1))(num_draws))
    p_value, log_evidence = jax.device_get(_compared(model, data, sites, key))
    arrays = {"p_value": p_value, "log_evidence": log_evidence}
    return xr.Dataset(
        {name: ("group", values) for name, values in arrays.items()},
        coords={"group": episodes.labels()},
    )


def _draws(posterior: Any, num: int | None) -> dict[str, Array]:
    """The draws of all chains, one after another, or some of them."""
    flat = {k: v.values.reshape(-1, *v.shape[2:]) for k, v in posterior.data_vars.items()}
    count = len(next(iter(flat.values())))
    picked = np.arange(count)
    if num is not None and num < count:
        picked = np.linspace(0, count - 1, num).round().astype(int)
    return {k: jnp.asarray(v[picked]) for k, v in flat.items()}


@eqx.filter_jit
def _compared(model: Linear, data: Episodes, sites: dict[str, Array], key: PRNGKeyArray):
    of_one = _by_formula if model.num_components == 1 else _by_simulation
    count = len(next(iter(sites.values())))
    keys = jax.random.split(key, count)
    p_values, log_evidence = map_in_batches(
        lambda given: of_one(model, data, *given), (sites, keys)
    )
    whole = jax.nn.logsumexp(log_evidence, 0) - jnp.log(count)
    if model.num_components > 1:
        # The data set itself counts as one of the simulated ones.
        return (1 + p_values.sum(0)) / (1 + count), whole
    return p_values.mean(0), whole


def _by_formula(
    model: Linear, data: Episodes, sites: dict[str, Array], key: PRNGKeyArray
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    believed, rows = model.believed(sites, data), model.rows(data)
    cost, sizes = locals_of(rows, believed).cost[:, 0], data.sizes()
    log_evidence = -cost - sizes * jnp.log(model.value_scale(data))
    return tails(rows, believed), log_evidence


def _by_simulation(
    model: Linear, data: Episodes, sites: dict[str, Array], key: PRNGKeyArray
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    density = EpisodeNormal(
        model.believed(sites, data),
        model.design(data.x, data, data.seen),
        data.seen,
        model.value_center(data),
        model.value_scale(data),
    )
    own, other = density.log_prob(data.y), density.log_prob(density.sample(key))
    return (other <= own).astype(data.dtype), own
