"""Densities that NumPyro lacks."""

from probkit.distributions._units import FromStandard, InUnits
from probkit.distributions.factor import FactorNormal
from probkit.distributions.kronecker import KroneckerNormal

__all__ = [
    "FactorNormal",
    "FromStandard",
    "InUnits",
    "KroneckerNormal",
]
