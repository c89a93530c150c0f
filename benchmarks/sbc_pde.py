"""Simulation-based calibration of an inverse problem of `pde.SpectralGP` under NUTS.

The equation is u' + rate u = f. The rate, the tolerance of the equation and the kernel are
estimated. The source f is the same in all rounds, and observations are simulated from
solutions of the equation. The noise is known, because the prior of an unknown noise is
scaled by the data, and data cannot be simulated from such a prior. See `sbc.py`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import sbc

import probkit as pk
from probkit.models import pde
from probkit.models.pde import system

numpyro.set_host_device_count(2)  # before the first computation
MODEL = pde.SpectralGP("gaussian", equation_sd=None, num_nodes=8, calibrated=False)
POINTS = np.linspace(0.1, 1.9, 10)
LOOKED_AT = 1.0


def like() -> pde.Problem:
    """A problem with the shapes and units of the study."""
    return pde.Problem(
        {"x": (0, 2)},
        lambda u, x, c: u.dx + c.rate * u - np.cos(x),
        pde.Dirichlet(1.0, on="x-"),
        shape=10,
        observations=pde.Observations(POINTS, np.cos(POINTS), noise_sd=0.1),
        unknown={"rate": (0.0, 2.0)},
    )


@eqx.filter_jit
def simulate(problem: pde.Problem, key):
    """Sites from the prior, and the problem with observations of one u given the sites."""
    keys = iter(jax.random.split(key, 16))
    sites = {k: prior.sample(next(keys)) for k, prior in MODEL.priors(problem).items()}
    unseen = eqx.tree_at(
        lambda p: (p.points, p.values, p.noise_sd),
        problem,
        (None,) * 3,
        is_leaf=lambda a: a is None,
    )
    solution = MODEL.integrated(sites, unseen)
    z = solution.sample(next(keys))
    noise = jax.random.normal(next(keys), problem.values.shape)
    u = system.at_points(solution.spans, problem.points, (0,)) @ z
    values = u + problem.noise_sd * noise
    return sites, eqx.tree_at(lambda p: p.values, problem, values)


def quantities(sites, data, key):
    """The ranked quantities of one draw."""
    solution = MODEL.integrated(sites, data)
    z = solution.sample(key)
    at = [jnp.array([LOOKED_AT])]
    return {
        "rate": sites["rate"],
        "equation_sd": sites["equation_sd"],
        "weight_x[0]": sites["weight_x"][0],
        "lengthscale_x[0]": sites["lengthscale_x"][0],
        f"u({LOOKED_AT:g})": solution.derivative(at, (0,), z)[0],
    }


def rounds(simulations: int, seed: int):
    template = like()
    for key in jax.random.split(jax.random.key(seed), simulations):
        key_data, key_fit = jax.random.split(key)
        yield *simulate(template, key_data), key_fit


def calibrate(simulations: int, method: pk.NUTS, ranked: int, seed: int):
    every = rounds(simulations, seed)
    return sbc.ranked_rounds(MODEL, every, quantities, method=method, ranked=ranked)


if __name__ == "__main__":
    sbc.study("sbc_pde", __doc__.splitlines()[0], calibrate)
