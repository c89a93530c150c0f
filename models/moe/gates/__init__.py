"""Gates: what makes an expert probable at an input."""

from probkit.models.moe.gates.base import AbstractGate
from probkit.models.moe.gates.softmax import Softmax

__all__ = ["AbstractGate", "Softmax"]
