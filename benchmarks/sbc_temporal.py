"""Simulation-based calibration of temporal regression of counts, sampled, under NUTS.

With `function="sampled"` the posterior is exact. The scales of the priors are those of one
series for all rounds. See `sbc.py`.
"""

import numpy as np
import numpyro
import sbc

import probkit as pk
from probkit.models import gp

numpyro.set_host_device_count(2)  # before the first computation
MODEL = gp.Temporal(gp.Matern(1.5), gp.Poisson(), "sampled")
rng = np.random.default_rng(0)
T, EXPOSURE = np.sort(rng.uniform(0, 10, 16)), rng.uniform(0.5, 2.0, 16)
LIKE = gp.Series(T, rng.poisson(5 * EXPOSURE * np.exp(np.sin(T))), exposure=EXPOSURE)


def quantities(sites, data, key):
    """The ranked quantities of one draw."""
    between = MODEL.predict(sites, MODEL.inputs([5.0, 12.0], data), key)
    return {
        "level": sites["level"],
        "sd_matern": sites["sd_matern"],
        "lengthscale_matern": sites["lengthscale_matern"],
        "log likelihood": MODEL.pointwise(sites, data)["y"].sum(),
        "function between": between["mean"][0],
        "function beyond": between["mean"][1],
    }


def calibrate(simulations: int, method: pk.NUTS, ranked: int, seed: int):
    return sbc.calibrate(
        MODEL,
        LIKE,
        lambda y: gp.Series(T, y, exposure=EXPOSURE, units=LIKE.units),
        quantities,
        simulations=simulations,
        method=method,
        ranked=ranked,
        seed=seed,
    )


if __name__ == "__main__":
    sbc.study("sbc_temporal", __doc__.splitlines()[0], calibrate)
