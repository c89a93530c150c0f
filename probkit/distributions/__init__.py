"""Densities that NumPyro lacks."""

from probkit.distributions._units import (
    Congruence,
    InUnits,
    RootAffine,
    log_normal,
)
from probkit.distributions.by_features import FeatureNormal
from probkit.distributions.dense import DenseNormal
from probkit.distributions.factor import FactorNormal
from probkit.distributions.half_t import HalfTCovariance, half_t
from probkit.distributions.isotropic_t import IsotropicT
from probkit.distributions.kronecker import KroneckerNormal
from probkit.distributions.normal_inverse_wishart import NormalInverseWishart
from probkit.distributions.partial import PartialKroneckerNormal
from probkit.distributions.root_f import RootF
from probkit.distributions.seen import SeenNormal

__all__ = [
    "Congruence",
    "DenseNormal",
    "FactorNormal",
    "FeatureNormal",
    "HalfTCovariance",
    "InUnits",
    "IsotropicT",
    "KroneckerNormal",
    "NormalInverseWishart",
    "PartialKroneckerNormal",
    "RootAffine",
    "RootF",
    "SeenNormal",
    "half_t",
    "log_normal",
]
