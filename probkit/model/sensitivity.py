r"""How far each prior holds the parameters from where the data would have them.

Where a posterior density is highest, the slope of the log likelihood balances that of the
log prior. If the prior of one site were raised to the power $1 + ε$, the optimum would
move by $ε H^{-1} g$, with the slope $g$ of that log prior and the curvature $H$ there. In
posterior sds this number does not depend on units. It is small where data say more than
the prior, and large where the two disagree.

Source: Kallioinen, Paananen, Bürkner & Vehtari (2024), "Detecting and diagnosing prior and
likelihood sensitivity with power-scaling", for the power; here its derivative at an optimum
takes the place of weighted draws.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from probkit.model.density import Program, Sites, constrain, log_densities, unconstrain


class Pull(NamedTuple):
    """What a prior does to the parameter that it moves farthest.

    Attributes:
        prior: the site of the prior.
        site: the site that moves farthest.
        sds: by how many posterior sds, per unit of the power.
        nats: what the log likelihood would gain without that prior, by a parabola.
    """

    prior: str
    site: str
    sds: float
    nats: float


def pulls(program: Program, data: Any, sites: Sites) -> tuple[Pull, ...]:
    """The pull of the prior of each site, the strongest first.

    Args:
        program: a model whose sites are independent in the prior.
        data: its data.
        sites: where the density is highest, or nearly.
    """
    position = unconstrain(program, data, sites)
    # In the order of the names, as in the flat vector.
    sizes = {name: int(np.size(position[name])) for name in sorted(position)}
    owner = np.repeat(list(sizes), list(sizes.values()))
    slope, curvature = jax.device_get(_expansion(program, data, position))
    values, vectors = np.linalg.eigh(curvature)
    # Directions that are flat, or bend the other way, are as wide as a unit of the prior.
    covariance = (vectors / np.where(values > 1e-6, values, 1.0)) @ vectors.T
    sd = np.sqrt(np.diag(covariance))
    found = []
    for name in sizes:
        own = np.where(owner == name, slope, 0.0)
        move = covariance @ own
        far = int(np.argmax(np.abs(move) / sd))
        sds, nats = abs(move[far]) / sd[far], own @ move / 2
        found.append(Pull(name, str(owner[far]), float(sds), float(nats)))
    return tuple(sorted(found, key=lambda pull: -pull.nats))


@eqx.filter_jit
def _expansion(program, data, position):
    """Slope of the log prior, and minus the curvature of the log posterior density."""
    flat, unravel = ravel_pytree(position)

    def densities(flat):
        return log_densities(program, data, constrain(program, data, unravel(flat)))

    slope = jax.grad(lambda flat: densities(flat)[0])(flat)
    return slope, -jax.hessian(lambda flat: sum(densities(flat)))(flat)
