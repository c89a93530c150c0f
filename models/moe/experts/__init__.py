"""Experts: the distribution of an output, given its input."""

from probkit.models.moe.experts.base import AbstractExperts
from probkit.models.moe.experts.normal import Normal

__all__ = ["AbstractExperts", "Normal"]
