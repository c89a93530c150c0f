r"""Kernels: correlations of one or more inputs, their sums and their products.

A simple kernel has variance one. In a sum of products each *term*, a product of simple
kernels, is multiplied by a variance of its own, so that no two scales are redundant:

$$k(x, x') = \sum_t s_t^2 \prod_{j ∈ t} k_j(x, x').$$

A kernel says which sites it has and what their priors are, in the units of the data.
"""

from probkit.models.gp.kernels.algebra import AbstractKernel, Product, Sum
from probkit.models.gp.kernels.distance import Matern, Periodic, SquaredExponential
from probkit.models.gp.kernels.leaf import AbstractStationary, Column, columns_of
from probkit.models.gp.kernels.lines import Drift, Linear
from probkit.models.gp.kernels.priors import NOISE, Priors, level_prior, scale_prior
from probkit.models.gp.kernels.spectral import SpectralGrid, SpectralMixture
from probkit.models.gp.kernels.structure import Structure, as_kernel, title, unsigned

__all__ = [
    "NOISE",
    "AbstractKernel",
    "AbstractStationary",
    "Column",
    "Drift",
    "Linear",
    "Matern",
    "Periodic",
    "Priors",
    "Product",
    "SpectralGrid",
    "SpectralMixture",
    "SquaredExponential",
    "Structure",
    "Sum",
    "as_kernel",
    "columns_of",
    "level_prior",
    "scale_prior",
    "title",
    "unsigned",
]
