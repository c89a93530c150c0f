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

    def call(*args, **kwargs):
        try:
            return program(_rules.generation, *args, **kwargs)
        except TypeError:
            # Asked afterwards, because the question costs as much as a small product.
            if all(isinstance(x, _TRACED) for x in jax.tree.leaves((args, kwargs))):
                raise
        return function(*args, **kwargs)

    return _Compiled(function, call)  # type: ignore[return-value]


class _Compiled:
    """The compiled function, also as a method.

    Equinox would make a module of each method that is asked for (`op.mv`), which takes
    longer than a small product. This one is a pytree too, as Equinox wants of a method.
    """

    def __init__(self, function, call):
        functools.update_wrapper(self, function)
        self._call = call
        if hasattr(function, "register"):
            self.register = _anew(function.register)

    def __call__(self, *args, **kwargs):
        return self._call(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else jax.tree_util.Partial(self._call, instance)


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
