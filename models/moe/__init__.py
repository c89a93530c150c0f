r"""Mixtures of experts, $p(y \mid x) = \sum_k π_k(x) \, p_k(y \mid x)$.

A gate says how probable each expert is at an input, and an expert is a regression of its
own. Each is a small value inside one `MixtureOfExperts`.
"""

from probkit.models.moe.criteria import criteria
from probkit.models.moe.experts import AbstractExperts, Bernoulli, Normal, Poisson, StudentT
from probkit.models.moe.gates import AbstractGate, Activation, Constant, Softmax, TopK
from probkit.models.moe.mixture import MixtureOfExperts, SoftmaxMoE
from probkit.models.moe.pairs import Pairs
from probkit.models.moe.simulate import simulate
from probkit.models.moe.units import Units

__all__ = [
    "AbstractExperts",
    "AbstractGate",
    "Activation",
    "Bernoulli",
    "Constant",
    "MixtureOfExperts",
    "Normal",
    "Pairs",
    "Poisson",
    "Softmax",
    "SoftmaxMoE",
    "StudentT",
    "TopK",
    "Units",
    "criteria",
    "simulate",
]
