"""Functions of operators that run as one compiled program wherever they are called."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_TRACED = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def compiled[Function: Callable[..., Any]](function: Function) -> Function:
    """The same function, as one program also if it is called outside `jax.jit`.

    Called step by step, each step waits to be started and writes its result to memory; a
    Kronecker product then takes three times as long. Inside another program the steps are
    inlined, so that transformations and the compiler see them as if this were not here.

    An operator that holds a Python function (`lx.FunctionLinearOperator`) cannot be an
    argument of a compiled program. The function then runs step by step.
    """
    program = jax.jit(function, inline=True)

    @functools.wraps(function)
    def call(*args, **kwargs):
        leaves = jax.tree.leaves((args, kwargs))
        if all(isinstance(x, _TRACED) for x in leaves):
            return program(*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]
