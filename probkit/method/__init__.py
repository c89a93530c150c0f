"""What an inference defines: settings, three functions; and the one loop that runs them."""

from probkit.method.approximation import AbstractApproximation, Point, Start
from probkit.method.iterative import (
    AbstractIterativeMethod,
    Begin,
    End,
    best_lane,
    repeated,
)
from probkit.method.lanes import Lanes
from probkit.method.protocol import (
    RESULTS,
    AbstractMethod,
    Draws,
    Running,
    choose,
    either,
    message,
)

__all__ = [
    "RESULTS",
    "AbstractApproximation",
    "AbstractIterativeMethod",
    "AbstractMethod",
    "Begin",
    "Draws",
    "End",
    "Lanes",
    "Point",
    "Running",
    "Start",
    "best_lane",
    "choose",
    "either",
    "message",
    "repeated",
]
