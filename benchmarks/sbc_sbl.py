"""Simulation-based calibration of Kronecker sparse Bayesian learning under NUTS.

There are two modes, and the noise is estimated. Coefficients are drawn given the other
sites and the data, both for the truth and for the posterior. See `sbc.py`.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import sbc

import probkit as pk
from probkit.models import sbl

numpyro.set_host_device_count(2)  # before the first computation
MODEL = sbl.KroneckerSBL()


def dictionaries():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 5)), rng.normal(size=(5, 4))


def quantities(sites, data, key):
    """The ranked quantities of one draw."""
    post = MODEL.posterior(sites, data)
    coefficient = post.sample(key)
    return {
        "global_scale": sites["global_scale"],
        "noise_sd": sites["noise_sd"],
        "local_scale_mode0[0]": sites["local_scale_mode0"][0],
        "local_scale_mode1[3]": sites["local_scale_mode1"][3],
        "log evidence": post.log_evidence(),
        "coefficient[1, 2]": coefficient[1, 2],
        "largest coefficient": jnp.abs(coefficient).max(),
    }


def calibrate(simulations: int, method: pk.NUTS, ranked: int, seed: int):
    A = dictionaries()
    return sbc.calibrate(
        MODEL,
        sbl.Measurements(np.ones((4, 5)), A, power=1.0),
        lambda y: sbl.Measurements(y, A, power=1.0),
        quantities,
        simulations=simulations,
        method=method,
        ranked=ranked,
        seed=seed,
    )


if __name__ == "__main__":
    sbc.study("sbc_sbl", __doc__.splitlines()[0], calibrate)
