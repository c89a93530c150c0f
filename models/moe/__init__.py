r"""Mixtures of experts, $p(y \mid x) = \sum_k π_k(x) \, p_k(y \mid x)$.

A gate says how probable each expert is at an input, and an expert is a regression of its
own. Each is a small value inside one `MixtureOfExperts`.
"""

from probkit.models.moe.experts import AbstractExperts, Normal
from probkit.models.moe.gates import AbstractGate, Softmax
from probkit.models.moe.mixture import MixtureOfExperts
from probkit.models.moe.pairs import Pairs
from probkit.models.moe.simulate import simulate
from probkit.models.moe.units import Units

__all__ = [
    "AbstractExperts",
    "AbstractGate",
    "MixtureOfExperts",
    "Normal",
    "Pairs",
    "Softmax",
    "SoftmaxMoE",
    "Units",
    "simulate",
]


def SoftmaxMoE(num_experts: int, **settings) -> MixtureOfExperts:
    """The standard mixture of experts: lines with normal noise under a softmax gate."""
    return MixtureOfExperts(num_experts, **settings)
