"""Simulation-based calibration of the softmax mixture of two linear experts under NUTS.

The ranked quantities do not depend on the labels of the experts. See `sbc.py`.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import sbc

import probkit as pk
from probkit.models import moe

numpyro.set_host_device_count(2)  # before the first computation
MODEL = moe.MixtureOfExperts(num_experts=2)
AT = np.array([[-1.5], [0.0], [1.5]])  # where E[y|x] is ranked
OBSERVATIONS = 60


def quantities(sites, data, key):
    """The ranked quantities of one draw. They are the same for any order of the experts."""
    smaller, larger = jnp.sort(sites["noise_sd"])
    mean = MODEL.conditional(sites, jnp.asarray(AT)).mean
    told = {f"E[y|x={at:g}]": mean[i] for i, at in enumerate(AT[:, 0])}
    log_likelihood = MODEL.conditional(sites, data.x).log_prob(data.y).sum()
    return told | {
        "log likelihood": log_likelihood,
        "smaller noise_sd": smaller,
        "larger noise_sd": larger,
    }


def calibrate(simulations: int, method: pk.NUTS, ranked: int, seed: int, n=OBSERVATIONS):
    one = jnp.ones(1)
    units = moe.Units(0 * one, one, 0 * one[0], one[0])
    x = np.linspace(-2.0, 2.0, n)
    return sbc.calibrate(
        MODEL,
        moe.Pairs(x, np.sin(x), units=units),
        lambda y: moe.Pairs(x, y, units=units),
        quantities,
        simulations=simulations,
        method=method,
        ranked=ranked,
        seed=seed,
    )


if __name__ == "__main__":
    sbc.study("sbc_moe", __doc__.splitlines()[0], calibrate)
