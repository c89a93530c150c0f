"""What tests of bad input share: values that are refused, and what a refusal is."""

import re

import numpy as np
import pytest

NO_COUNT = (0, -1, 2.5, 2.0, "2", None, True, np.float64(2), [2])
NO_SIZE = (0, -1.0, float("nan"), float("inf"), "big", None, 1j, np.ones(2), [1.0])
POSITIVE = r"takes a positive number"
WHOLE = r"takes a whole number, {} or more"


def refused(call, pattern) -> None:
    """`call` raises ValueError, no other: one line with names in backticks."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is ValueError, message
    assert "\n" not in message and len(message) < 300, message
    assert "`" in message, message
    assert re.search(pattern, message), message
