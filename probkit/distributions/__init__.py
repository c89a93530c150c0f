"""Densities that NumPyro lacks."""

from probkit.distributions._units import FromStandard, InUnits
from probkit.distributions.kronecker import KroneckerNormal

__all__ = ["FromStandard", "InUnits", "KroneckerNormal"]
