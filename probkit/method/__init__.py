"""What an inference does: settings, three functions, and the one loop that runs them."""

from probkit.method.protocol import (
    RESULTS,
    AbstractIterativeMethod,
    AbstractMethod,
    Draws,
    Running,
    choose,
    message,
)

__all__ = [
    "RESULTS",
    "AbstractIterativeMethod",
    "AbstractMethod",
    "Draws",
    "Running",
    "choose",
    "message",
]
