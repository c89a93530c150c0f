r"""Regression by Gaussian processes.

$$y_i = m + f(x_i) + ε_i, \qquad f \sim GP(0, k), \qquad ε_i \sim N(0, σ^2).$$

The kernel $k$ is a sum of products of simple ones. The function $f$ is integrated out
exactly.

Source: Rasmussen & Williams (2006), "Gaussian Processes for Machine Learning".
"""

from probkit.models.gp.grid import Grid
from probkit.models.gp.kernels import (
    AbstractKernel,
    Drift,
    Linear,
    Matern,
    Periodic,
    Product,
    SpectralGrid,
    SpectralMixture,
    SquaredExponential,
    Sum,
)
from probkit.models.gp.likelihoods import Bernoulli, Normal, Poisson, StudentT
from probkit.models.gp.model import Regression
from probkit.models.gp.observed import Observed, Units
from probkit.models.gp.series import Series
from probkit.models.gp.sparse import SparseWeights
from probkit.models.gp.temporal import Temporal

__all__ = [
    "AbstractKernel",
    "Bernoulli",
    "Drift",
    "Grid",
    "Linear",
    "Matern",
    "Normal",
    "Observed",
    "Periodic",
    "Poisson",
    "Product",
    "Regression",
    "Series",
    "SparseWeights",
    "SpectralGrid",
    "SpectralMixture",
    "SquaredExponential",
    "StudentT",
    "Sum",
    "Temporal",
    "Units",
]
