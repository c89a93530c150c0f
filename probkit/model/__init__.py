"""What a family says: a model, its data, its checks, and questions asked of a program."""

from probkit.model.check import Check
from probkit.model.data import AbstractData
from probkit.model.density import Sites
from probkit.model.protocol import AbstractEMModel, AbstractModel, Data, Inputs, Moments

__all__ = [
    "AbstractData",
    "AbstractEMModel",
    "AbstractModel",
    "Check",
    "Data",
    "Inputs",
    "Moments",
    "Sites",
]
