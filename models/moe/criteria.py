r"""How many experts: what a fit costs in parameters.

With the maximum of the log likelihood $L$, $p$ parameters and $n$ observations,

$$\mathrm{AIC} = 2p - 2L, \qquad \mathrm{BIC} = p \log n - 2L, \qquad
  \mathrm{ICL} = \mathrm{BIC} - 2 \sum_{ik} r_{ik} \log r_{ik}.$$

The last one asks for experts that observations can be told apart by.

Source: Biernacki, Celeux & Govaert (2000), "Assessing a mixture model for clustering with
the integrated completed likelihood", for ICL.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probkit.model.density import Sites, unconstrain
from probkit.models.moe.mixture import MixtureOfExperts
from probkit.models.moe.pairs import Pairs

COLUMNS = ("log_likelihood", "parameters", "aic", "bic", "icl", "effective_experts")


class Scores(NamedTuple):
    """What the criteria are made of.

    Attributes:
        log_likelihood: in nats.
        entropy: of the responsibilities, summed over observations, in nats.
        effective: the exponential of the entropy of the mean responsibilities.
    """

    log_likelihood: Float[Array, ""]
    entropy: Float[Array, ""]
    effective: Float[Array, ""]


def criteria(fits: Iterable[Any]) -> Any:
    """AIC, BIC and ICL of fits of one data set with different numbers of experts.

    Args:
        fits: fits of `MixtureOfExperts` by `pk.EM(maximise="likelihood")`. Another fit is
            scored at its draw of the highest likelihood, and then criteria are too large.

    Returns:
        A pandas table with one row per fit, by its number of experts: log likelihood (in
        nats), number of parameters, the three criteria (the lower the better), and the
        effective number of experts, which is below their number if some are small.

    Raises:
        ValueError: for other fits, or fits of different data.
    """
    import pandas as pd

    fits = list(fits)
    for fitted in fits:
        model, data = getattr(fitted, "model", None), getattr(fitted, "data", None)
        if not (isinstance(model, MixtureOfExperts) and isinstance(data, Pairs)):
            raise ValueError(
                "`moe.criteria(fits)` takes fits of `moe.MixtureOfExperts`, a list with "
                "one for each number of experts."
            )
        first = fits[0].data
        if not (np.array_equal(data.x, first.x) and np.array_equal(data.y, first.y)):
            raise ValueError(
                "`moe.criteria(fits)` got fits of different data; criteria compare models "
                "of the same data."
            )
    rows = {fitted.model.num_experts: _row(fitted) for fitted in fits}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    return table.rename_axis("experts").sort_index()


def _row(fitted: Any) -> tuple[float | int, ...]:
    model, data = fitted.model, fitted.data
    names = list(model.priors(data))
    draws = {
        name: jnp.asarray(fitted.posterior[name].values).reshape(
            -1, *fitted.posterior[name].shape[2:]
        )
        for name in names
    }
    scores = jax.device_get(_scores(model, draws, data))
    best = int(np.argmax(scores.log_likelihood))
    L, entropy, effective = (float(a[best]) for a in scores)
    one = {name: a[0] for name, a in draws.items()}
    position = jax.eval_shape(lambda: unconstrain(model, data, one))
    p, n = sum(int(np.prod(a.shape)) for a in position.values()), len(data)
    bic = p * np.log(n) - 2 * L
    return L, p, 2 * p - 2 * L, bic, bic + 2 * entropy, effective


@eqx.filter_jit
def _scores(model: MixtureOfExperts, draws: Sites, data: Pairs) -> Scores:
    def one(sites: Sites) -> Scores:
        (r, _), log_likelihood = model.e_step(sites, data)
        entropy = -jax.scipy.special.xlogy(r, r).sum()
        mean = r.mean(0)
        effective = jnp.exp(-jax.scipy.special.xlogy(mean, mean).sum())
        return Scores(log_likelihood, entropy, effective)

    return jax.lax.map(one, draws)
