"""Simulation-based calibration of linear episodes with one and two components.

Draws are by `meta.Gibbs`, and then by the default call of `meta.Episodic`, whose draws are
one chain of Gibbs sampling from where its steps ended. The default prior of the mean is
as wide as a thousand data sets, so that the study has a proper normal-inverse-Wishart one;
and with it a default prior of independent coefficients, with the mean of all data sets
held within their spread. The units are those of one data set for all rounds. See `sbc.py`.
"""

import jax.numpy as jnp
import numpy as np
import sbc

from probkit.distributions import NormalInverseWishart
from probkit.models import meta

PRIOR = NormalInverseWishart(
    jnp.array([0.0, 0.0]), jnp.asarray(1.0), 2.0 * jnp.eye(2), jnp.asarray(6.0)
)
MODELS = {
    "one component": meta.Linear(prior=PRIOR),
    "two components": meta.Linear(num_components=2, prior=PRIOR),
}
rng = np.random.default_rng(0)
X = rng.normal(size=(12, 4))
SEEN = rng.uniform(size=X.shape) < 0.8
LIKE = meta.Episodes(X, rng.normal(size=X.shape), SEEN)


def quantities(model: meta.Linear):
    """The ranked quantities of one draw, which do not depend on the order of components."""

    def of_one(sites, data, key):
        mean, covariance = sites["population_mean"], sites["covariance"]
        weight = sites.get("weight", jnp.ones(1))
        mean, covariance = mean.reshape(-1, 2), covariance.reshape(-1, 2, 2)
        middle = weight @ mean
        within = jnp.einsum("k,kpq->pq", weight, covariance)
        between = jnp.einsum("k,kp,kq->pq", weight, mean - middle, mean - middle)
        found = {
            "noise_sd": sites["noise_sd"],
            "mean intercept": middle[0],
            "mean slope": middle[1],
            "log variance of slopes": jnp.log((within + between)[1, 1]),
            "log determinant": weight @ jnp.linalg.slogdet(covariance)[1],
            "largest weight": weight.max(),
        }
        if len(weight) == 1:
            found.pop("largest weight")
        theta = model.recover(sites, data, key)["coefficient"]
        found["slope of a data set"] = theta[0, 1]
        return found | {"log likelihood": model.pointwise(sites, data)["y"].sum()}

    return of_one


def calibrate(simulations: int, method, ranked: int, seed: int, models=tuple(MODELS)):
    every: tuple[sbc.Ranks, sbc.Ranks] = ({}, {})
    for name in models:
        found = sbc.calibrate(
            MODELS[name],
            LIKE,
            lambda y: meta.Episodes(X, y, SEEN, units=LIKE.units),
            quantities(MODELS[name]),
            simulations=simulations,
            method=method,
            ranked=ranked,
            seed=seed,
        )
        for whole, part in zip(every, found, strict=True):
            whole |= {f"{name}: {key}": values for key, values in part.items()}
    return every


def gibbs(quick: bool) -> meta.Gibbs:
    num = 500 if quick else 2000
    return meta.Gibbs(num_chains=4, num_warmup=num // 2, num_samples=num)


def episodic(quick: bool) -> meta.Episodic:
    return meta.Episodic(num_starts=4, num_draws=63)


if __name__ == "__main__":
    methods = {"": gibbs, "_episodic": episodic}
    sbc.study("sbc_meta", __doc__.splitlines()[0], calibrate, methods)
