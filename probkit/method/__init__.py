"""What an inference defines: settings, three functions; and the one loop that runs them."""

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
    "AbstractIterativeMethod",
    "AbstractMethod",
    "Begin",
    "Draws",
    "End",
    "Lanes",
    "Running",
    "best_lane",
    "choose",
    "either",
    "message",
    "repeated",
]
