"""Inference methods for any model: expectation maximisation, L-BFGS, NUTS and SVI."""

from probkit.infer.em import EM
from probkit.infer.map import MAP
from probkit.infer.nuts import NUTS
from probkit.infer.svi import SVI

__all__ = ["EM", "MAP", "NUTS", "SVI"]
