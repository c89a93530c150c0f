"""Compiled programs follow the code, and their number is bounded.

JAX finds a compiled program by the function, the class of a model and the settings of the
model. If a model calls a helper and the helper is redefined, as in notebooks, none of
these has changed, and the old program would run. Therefore the program of a user's own
model is traced before it runs, and compared with the last one of the same name.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import get_opaque_trace_state

from probkit.method.batches import on_cpu

OURS = "probkit."
# Linux aborts a process that holds more memory maps than a limit, and each compiled
# program holds some. All programs are dropped at this share of the limit.
FULL = 0.5
_MAPS, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
_ADDRESS = re.compile(r"0x[0-9a-f]+")

# The last program by name and shapes.
_last: dict[Any, str] = {}


def fingerprint(function: Callable[..., Any], *args: Any) -> str:
    """A digest of the program that JAX traces of a function, with its constants.

    It is equal in every process that runs the same code with the same versions.

    Args:
        function: of arrays, and of modules and settings that hold arrays.
        *args: its arguments, or their shapes (`jax.ShapeDtypeStruct`).

    Returns:
        64 hexadecimal digits.
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
    """The arrays that a program and the programs inside it hold, in the program's order."""
    for constant in closed.consts:
        if jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
            constant = jax.random.key_data(constant)
        yield np.asarray(constant)
    yield from _inner_constants(closed.jaxpr)


def _inner_constants(jaxpr: Any) -> Iterator[np.ndarray]:
    for equation in jaxpr.eqns:
        for operand in equation.invars:
            # The text of the program has numbers too, but not all their digits.
            if hasattr(operand, "val"):
                yield np.asarray(operand.val)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            if hasattr(inner, "consts"):
                yield from _constants(inner)
            elif hasattr(inner, "eqns"):
                yield from _inner_constants(inner)


# With these XLA compiles a program in a quarter of the time. Loops over numbers then take
# up to three times as long. Linear algebra, which is compiled already, takes no longer.
LIGHT = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
_TOP = get_opaque_trace_state()


def jit_for_one_run[Function: Callable[..., Any]](
    function: Function, is_short: Callable[..., bool] = lambda *args: True
) -> Function:
    """`eqx.filter_jit` for a program that runs once or a few times.

    On a CPU it is compiled without optimisation, because the compiler would take longer
    than the run. Within another program it becomes part of that.

    Args:
        function: the function.
        is_short: whether a run takes little time, from the arguments. If not, the program
            is optimised after all.
    """
    full = eqx.filter_jit(function)

    @functools.cache
    def light():
        return eqx.filter_jit(function, compiler_options=_known(LIGHT))  # type: ignore[call-overload]  # passes it on to `jax.jit`

    @functools.wraps(function)
    def call(*args):
        if get_opaque_trace_state() != _TOP:  # JAX refuses the options inside a program
            return function(*args)
        return (light() if on_cpu() and is_short(*args) else full)(*args)

    return call  # type: ignore[return-value]


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that this version of XLA has."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value})()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def one_of(tree: Any) -> Any:
    """The shapes of one entry of arrays with a leading axis, to trace a program with."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), tree)


def renew(name: str, owner: Any, function: Callable[..., Any], *args: Any) -> None:
    """Drop all compiled programs if this one has changed since it last ran.

    Programs of probkit's own classes are not traced, because their code does not change
    during a process.

    Args:
        name: what runs next, such as `predict`.
        owner: the model, method or function that the program belongs to.
        function: the program.
        *args: its arguments, as for `fingerprint`.
    """
    make_room()
    kind = _kind(owner)
    if is_ours(owner):
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


def is_ours(owner: Any) -> bool:
    """Whether it is one of probkit's own, whose code does not change during a process."""
    return str(_kind(owner).__module__).startswith(OURS)


def _kind(owner: Any) -> Any:
    return type(owner) if isinstance(owner, eqx.Module) else owner


def forget() -> None:
    """Drop all compiled programs. Each is compiled again when it is next used."""
    jax.clear_caches()
    _last.clear()


def make_room() -> None:
    """Drop all compiled programs if the process has many memory maps.

    Each new size of data needs other compiled programs. After about fifteen sizes Linux
    would otherwise abort the process.
    """
    if not _MAPS.exists():  # other systems have no such limit
        return
    limit = int(_LIMIT.read_text()) if _LIMIT.exists() else 65_530
    with open(_MAPS, "rb") as maps:
        count = sum(1 for _ in maps)
    if count > FULL * limit:
        forget()
