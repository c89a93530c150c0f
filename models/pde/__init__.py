r"""Differential equations with a spectral mixture for a prior.

$$P(u, ∂u, ∂²u, …)(x) = 0, \qquad B u = g, \qquad u \sim GP(0, \text{spectral mixture}).$$

A problem has a residual, which is zero for the solution, conditions on the faces of a
box, and observations.

Source: Fang et al. (2024), "Solving high frequency and multi-scale PDEs with Gaussian
processes", arXiv 2311.04465.
"""

from probkit.models.pde.aliases import AliasWarning
from probkit.models.pde.closed import Closed
from probkit.models.pde.conditions import (
    Derivative,
    Dirichlet,
    Initial,
    Neumann,
    Observations,
    Periodic,
    Robin,
)
from probkit.models.pde.gphm import problems as examples
from probkit.models.pde.gphm.adam import Adam
from probkit.models.pde.gphm.grid import GridGP
from probkit.models.pde.model import SpectralGP
from probkit.models.pde.problem import Problem
from probkit.models.pde.thin import LayerWarning
from probkit.models.pde.varying import Varying

__all__ = [
    "Adam",
    "AliasWarning",
    "Closed",
    "Derivative",
    "Dirichlet",
    "GridGP",
    "Initial",
    "LayerWarning",
    "Neumann",
    "Observations",
    "Periodic",
    "Problem",
    "Robin",
    "SpectralGP",
    "Varying",
    "examples",
]
