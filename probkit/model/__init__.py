"""What a family defines: a model, its data, its checks; and questions to a program."""

from probkit.model.check import Check
from probkit.model.data import AbstractData
from probkit.model.density import Sites
from probkit.model.protocol import AbstractEMModel, AbstractModel, Data, Inputs, Moments
from probkit.model.source import AbstractHostSource, AbstractSource, Rows

__all__ = [
    "AbstractData",
    "AbstractEMModel",
    "AbstractHostSource",
    "AbstractModel",
    "AbstractSource",
    "Check",
    "Data",
    "Inputs",
    "Moments",
    "Rows",
    "Sites",
]
