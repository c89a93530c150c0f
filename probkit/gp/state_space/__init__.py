"""Gaussian processes of one coordinate as Markov chains: processes and smoothing."""

from probkit.gp.state_space.process import (
    AbstractProcess,
    Constant,
    Independent,
    Matern,
    Periodic,
    Product,
    Sum,
)
from probkit.gp.state_space.queries import at, between, bridge
from probkit.gp.state_space.smoothing import (
    Sites,
    Smoothed,
    color,
    log_evidence,
    predicted,
    sample,
    sample_white,
    smooth,
    smooth_with_evidence,
    white_mean,
)

__all__ = [
    "AbstractProcess",
    "Constant",
    "Independent",
    "Matern",
    "Periodic",
    "Product",
    "Sites",
    "Smoothed",
    "Sum",
    "at",
    "between",
    "bridge",
    "color",
    "log_evidence",
    "predicted",
    "sample",
    "sample_white",
    "smooth",
    "smooth_with_evidence",
    "white_mean",
]
