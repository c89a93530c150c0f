"""Gaussian processes: spectral-mixture kernels, their derivatives, their grids."""

from probkit.gp.gpjax import as_gpjax
from probkit.gp.grids import gram, kronecker, toeplitz
from probkit.gp.mixture import SpectralMixture, covariance
from probkit.gp.periodogram import Waves, waves

__all__ = [
    "SpectralMixture",
    "Waves",
    "as_gpjax",
    "covariance",
    "gram",
    "kronecker",
    "toeplitz",
    "waves",
]
