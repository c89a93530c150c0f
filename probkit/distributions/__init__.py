"""Densities that NumPyro lacks."""

from probkit.distributions._units import FromStandard, InUnits, log_normal
from probkit.distributions.by_features import FeatureNormal
from probkit.distributions.dense import DenseNormal
from probkit.distributions.factor import FactorNormal
from probkit.distributions.kronecker import KroneckerNormal
from probkit.distributions.partial import PartialKroneckerNormal
from probkit.distributions.seen import SeenNormal

__all__ = [
    "DenseNormal",
    "FactorNormal",
    "FeatureNormal",
    "FromStandard",
    "InUnits",
    "KroneckerNormal",
    "PartialKroneckerNormal",
    "SeenNormal",
    "log_normal",
]
