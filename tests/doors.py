"""Wrong settings, the words that refuse them, and what every refusal looks like."""

import re

import numpy as np
import pytest

# Values that are no count, and values that are no size.
NO_COUNT = (0, -1, 2.5, 2.0, "2", None, True, np.float64(2), [2])
NO_SIZE = (0, -1.0, float("nan"), float("inf"), "big", None, 1j, np.ones(2), [1.0])
# What the messages say that these settings take.
WHOLE = r"takes a whole number, {} or more"
POSITIVE = r"takes a positive number"


def refused(call, pattern) -> None:
    """`call` raises ValueError, no other: one line with names in backticks."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is ValueError, message
    assert "\n" not in message and len(message) < 300, message
    assert "`" in message, message
    assert re.search(pattern, message), message
