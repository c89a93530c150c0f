"""Gates: what makes an expert probable at an input."""

from probkit.models.moe.gates.activation import Activation
from probkit.models.moe.gates.base import AbstractGate
from probkit.models.moe.gates.constant import Constant
from probkit.models.moe.gates.softmax import Softmax
from probkit.models.moe.gates.top_k import TopK

__all__ = ["AbstractGate", "Activation", "Constant", "Softmax", "TopK"]
