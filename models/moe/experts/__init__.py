"""Experts: the distribution of an output, given its input."""

from probkit.models.moe.experts.base import AbstractExperts
from probkit.models.moe.experts.counted import Bernoulli, Poisson
from probkit.models.moe.experts.normal import Normal
from probkit.models.moe.experts.student_t import StudentT

__all__ = ["AbstractExperts", "Bernoulli", "Normal", "Poisson", "StudentT"]
