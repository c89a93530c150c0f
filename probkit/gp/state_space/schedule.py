"""In which order the places of a chain are gone through."""

import math

import jax

from probkit.gp.state_space.small import LARGE
from probkit.validate import short

METHODS = ("auto", "sequential", "blocked", "associative")

# From this number of places on, a CPU goes through blocks side by side. It gains nothing by
# them for states of one number, or of `LARGE` or more.
LONG = 2000
# From this number of places on, other devices go through a tree of blocks, which has few
# steps and more work: one at a time takes a GPU 0.02 ms, and a tree 1 ms at least. Each of
# its leaves is a block of at most `LEAF` places.
TREE, LEAF = 64, 16


def chosen(n: int, d: int) -> str:
    """The method that is fastest, by device and length; what "auto" means.

    Args:
        n: the number of places.
        d: the numbers of a state.
    """
    if jax.default_backend() == "cpu":
        return "blocked" if n >= LONG and 1 < d < LARGE else "sequential"
    return "sequential" if n < TREE else "associative"


def num_blocks(method: str, n: int, d: int) -> int:
    """The number of blocks into which `n` places are cut.

    A tree goes through more blocks than there are places in each (see `passes`), and one
    after the other through no more than that.

    Raises:
        ValueError: for another method.
    """
    if method not in METHODS:
        listed = ", ".join(f'"{name}"' for name in METHODS)
        raise ValueError(f"`method={short(method)}`: it takes one of {listed}.")
    method = chosen(n, d) if method == "auto" else method
    if method == "sequential":
        return 1
    if method == "blocked":
        return max(round(math.sqrt(n)), 1)
    rows = max(min(LEAF, math.isqrt(n // 2)), 1)
    return -(-n // rows)
