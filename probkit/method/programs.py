"""Compiled programs follow the code: a changed program is compiled again, none pile up.

JAX keeps what it has compiled by the function, the class of a model and the model's
settings. If a model calls a helper and the helper is redefined, as happens in notebooks,
none of these has changed, and the old program would run. So before a program of a user's
own model runs, it is traced and compared with the last one of the same name.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

OURS = "probkit."
# Linux aborts a process that holds more memory maps than its limit, and each compiled
# program holds some. Caches are cleared at this share of the limit.
FULL = 0.5
_MAPS, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
_ADDRESS = re.compile(r"0x[0-9a-f]+")

# The last program by name and shapes.
_last: dict[Any, str] = {}


def fingerprint(function: Callable[..., Any], *args: Any) -> str:
    """A digest of the program that a function traces to, its constants included.

    Equal in every process that runs the same code on the same versions.

    Args:
        function: of arrays, and of modules and settings that hold arrays.
        *args: its arguments, or their shapes (`jax.ShapeDtypeStruct`).
    """
    arrays, rest = eqx.partition(args, _has_shape)
    closed = jax.make_jaxpr(lambda arrays: function(*eqx.combine(arrays, rest)))(arrays)
    digest = hashlib.sha256(_ADDRESS.sub("", str(closed.jaxpr)).encode())
    for constant in _constants(closed):
        digest.update(f"{constant.dtype} {constant.shape}".encode())
        digest.update(np.ascontiguousarray(constant).tobytes())
    return digest.hexdigest()


def _has_shape(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _constants(closed: Any) -> Iterator[np.ndarray]:
    """Arrays that a program holds, those of programs inside it too, in its order."""
    for constant in closed.consts:
        if jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
            constant = jax.random.key_data(constant)
        yield np.asarray(constant)
    yield from _inner_constants(closed.jaxpr)


def _inner_constants(jaxpr: Any) -> Iterator[np.ndarray]:
    for equation in jaxpr.eqns:
        for operand in equation.invars:
            # Numbers are in the text too, but not to their last digit.
            if hasattr(operand, "val"):
                yield np.asarray(operand.val)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            if hasattr(inner, "consts"):
                yield from _constants(inner)
            elif hasattr(inner, "eqns"):
                yield from _inner_constants(inner)


def renew(name: str, owner: Any, function: Callable[..., Any], *args: Any) -> None:
    """Forget all compiled programs if this one is not what it was.

    Programs of probkit's own classes are not traced, because their code does not change
    while a process lives.

    Args:
        name: what is about to run, such as `predict`.
        owner: the model, method or function whose code it is.
        function: the program.
        *args: its arguments, as for `fingerprint`.
    """
    make_room()
    kind = type(owner) if isinstance(owner, eqx.Module) else owner
    if str(kind.__module__).startswith(OURS):
        return
    described = [
        (leaf.shape, str(leaf.dtype)) if _has_shape(leaf) else leaf
        for leaf in jax.tree.leaves(args)
    ]
    place = (name, kind, str(jax.tree.structure(args)), str(described))
    found = fingerprint(function, *args)
    if _last.get(place, found) != found:
        forget()
    _last[place] = found


def forget() -> None:
    """Forget all compiled programs; each is compiled again when it is next used."""
    jax.clear_caches()
    _last.clear()


def make_room() -> None:
    """Forget all compiled programs if the process is close to its limit of memory maps.

    Each new size of data compiles programs of its own. A loop over some fifteen sizes
    would otherwise end in an abort of the interpreter.
    """
    if not _MAPS.exists():  # not Linux: no such limit
        return
    limit = int(_LIMIT.read_text()) if _LIMIT.exists() else 65_530
    with open(_MAPS, "rb") as maps:
        count = sum(1 for _ in maps)
    if count > FULL * limit:
        forget()
