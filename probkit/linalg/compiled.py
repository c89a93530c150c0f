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

    If a rule is registered again, the next call uses the new one.
    """

    def of_rules(generation, *args, **kwargs):
        return function(*args, **kwargs)

    of_rules.__name__ = function.__name__  # which a profile shows
    program = jax.jit(of_rules, static_argnums=0, inline=True)

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            return program(_rules.generation, *args, **kwargs)
        except TypeError:
            # Asked afterwards, because the question costs as much as a small product.
            if all(isinstance(x, _TRACED) for x in jax.tree.leaves((args, kwargs))):
                raise
        return function(*args, **kwargs)

    if hasattr(function, "register"):
        call.register = _anew(function.register)  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


class _Rules:
    """How often a rule was registered, which is part of what a program depends on."""

    generation = 0


_rules = _Rules()


def _anew(register):
    @functools.wraps(register)
    def call(*args, **kwargs):
        # For all functions, because one may have inlined the rule of another.
        _rules.generation += 1
        return register(*args, **kwargs)

    return call
