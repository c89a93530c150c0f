"""Simulation-based calibration of regression by Gaussian processes under NUTS.

The scales of the priors, and the wave at which a frequency starts, are those of one data
set for all rounds. See `sbc.py`.
"""

import numpy as np
import numpyro
import sbc

import probkit as pk
from probkit.models import gp

numpyro.set_host_device_count(2)  # before the first computation
MODEL = gp.Regression(gp.Matern(1.5) * gp.Periodic(2.5) + gp.Drift())
X = np.sort(np.random.default_rng(0).uniform(0, 10, 16))
LIKE = gp.Observed(X, np.sin(2 * np.pi * X / 2.5) + 0.1 * X)


def quantities(sites, data, key):
    """The ranked quantities of one draw."""
    # The function between the points, and the evidence, of both the truth and the draws.
    between = MODEL.predict(sites, MODEL.inputs([5.0, 12.0], data), key)
    return {
        "level": sites["level"],
        "noise_sd": sites["noise_sd"],
        "sd_matern_periodic": sites["sd_matern_periodic"],
        "lengthscale_matern": sites["lengthscale_matern"],
        "period_periodic": sites["period_periodic"],
        "log evidence": MODEL.evidence(sites, data).log_prob(data.y),
        "new y": between["y"][0],
        "new y, beyond": between["y"][1],
    }


def calibrate(simulations: int, method: pk.NUTS, ranked: int, seed: int):
    return sbc.calibrate(
        MODEL,
        LIKE,
        lambda y: gp.Observed(X, y, units=LIKE.units),
        quantities,
        simulations=simulations,
        method=method,
        ranked=ranked,
        seed=seed,
    )


if __name__ == "__main__":
    sbc.study("sbc_gp", __doc__.splitlines()[0], calibrate)
