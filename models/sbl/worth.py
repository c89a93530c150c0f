"""What an atom must be worth to be in the model."""

import math
from typing import Any

from probkit.models.sbl.measurements import Measurements
from probkit.validate import positive, short

Worth = Any  # "bic", a number of nats, or None


def as_worth(given: Any) -> Worth:
    """The setting `prune`, checked."""
    if given is None or (isinstance(given, str) and given == "bic"):
        return given
    try:
        return positive("prune", zero=True)(given)
    except ValueError:
        raise ValueError(
            f'`prune={short(given)}`: it takes "bic", nats (0 or a positive number), or '
            "None."
        ) from None


def nats(worth: Worth, data: Measurements) -> float:
    """In nats: for "bic" half the log of the number of measurements, for None nothing."""
    if worth == "bic":
        return 0.5 * math.log(len(data))
    return worth or 0.0
