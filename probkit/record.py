"""Models and methods as JSON texts, and files that are written whole or not at all."""

import functools
import importlib.metadata
import inspect
import os
import platform
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

Plain = str | int | float | bool | None | list | dict
# Keys for what JSON cannot hold: the name of a function or object, and the name of an
# array that is stored elsewhere.
OBJECT, ARRAY = "object", "array"
Arrays = dict[str, np.ndarray]


def plain(
    value: Any, depth: int = 20, arrays: Arrays | None = None, path: str = ""
) -> Plain:
    """`value` in the types of JSON. Of other objects only the name: `{"object": name}`.

    A function that another function made is described with the values that it holds, so
    that two optimisers of one kind with different step sizes differ.

    Args:
        value: anything.
        depth: how many levels of nesting to describe.
        arrays: a dict to put arrays into, by their paths; without it they become lists.
        path: the path of `value`, such as `net.layers.0`.

    Returns:
        Text, numbers, None, lists and dicts.
    """
    if depth == 0:
        return "..."

    def inner(child, name):
        return plain(child, depth - 1, arrays, f"{path}.{name}" if path else str(name))

    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [inner(v, i) for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {str(k): inner(v, k) for k, v in value.items()}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        if arrays is None:
            return np.asarray(value).tolist()
        arrays[path] = np.asarray(value)
        return {ARRAY: path}
    if isinstance(value, eqx.Module):
        fields = {k: inner(v, k) for k, v in vars(value).items()}
        return {"class": family_name(type(value)), "fields": fields}
    name = getattr(value, "__qualname__", type(value).__qualname__)
    values: list[Any] = []
    if isinstance(value, functools.partial):
        values = [value.func, *value.args, value.keywords]
    elif inspect.isfunction(value):
        values = list(inspect.getclosurevars(value).nonlocals.values())
    named = {OBJECT: f"{getattr(value, '__module__', '?')}.{name}"}
    return named | ({"of": plain(values, depth - 1)} if values else {})


def _lacks(value: Any) -> bool:
    """Whether a description has something that cannot be rebuilt from it."""
    if isinstance(value, dict):
        return OBJECT in value or "class" in value or any(map(_lacks, value.values()))
    return isinstance(value, list) and any(map(_lacks, value))


def _with_arrays(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            return jnp.asarray(arrays[value[ARRAY]])
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v, arrays) for v in value]
    return value


def family_name(cls: type) -> str:
    """The name of a class in a file: `moe.MixtureOfExperts`, `pde.Problem`.

    Args:
        cls: a class. For a family that is a package, all its modules share one name.

    Returns:
        The last part of the module's name, a dot, and the name of the class.
    """
    _, inside, path = cls.__module__.rpartition("probkit.models.")
    module = path.partition(".")[0] if inside else path.rpartition(".")[2]
    return f"{module}.{cls.__qualname__}"


def describe(module: eqx.Module, arrays: Arrays | None = None) -> dict[str, Plain]:
    """A module as its class and its fields, defaults included.

    Args:
        module: a model or a method.
        arrays: as for `plain`.

    Returns:
        `{"class": name, "fields": {name: value}}`, in the types of JSON.
    """
    described = plain(module, arrays=arrays)
    assert isinstance(described, dict)
    return described


def rebuild(
    cls: Callable[..., Any], fields: dict[str, Any], arrays: Arrays | None = None
) -> Any:
    """A module from its fields.

    Args:
        cls: its class.
        fields: its fields, as `describe` gives them.
        arrays: the arrays that `describe` put aside.

    Returns:
        An instance of `cls`.

    Raises:
        ValueError: if the class has no such fields, or refuses their values, or a field
            is a module or function of which only the name is known.
    """
    known = inspect.signature(cls).parameters
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ValueError(f"`{cls.__name__}` has no field {', '.join(unknown)}")
    lacking = [name for name, value in fields.items() if _lacks(value)]
    if lacking:
        raise ValueError(
            f"only the name of `{lacking[0]}` is in the file; build the model as it was "
            f"built then, and give it, `load(..., model={cls.__name__}(...))`"
        )
    given = _with_arrays(fields, arrays or {})
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        return cls(**tuples)
    except TypeError as error:
        raise ValueError(str(error)) from None


def refill(skeleton: eqx.Module, described: dict[str, Any], arrays: Arrays) -> Any:
    """A module of the structure of `skeleton` with the arrays of a described one.

    Args:
        skeleton: a module with any values in its arrays.
        described: another module of the same class, as `describe` gives it.
        arrays: the arrays of the other one, by their paths.

    Returns:
        A copy of `skeleton` with these arrays.

    Raises:
        ValueError: if class, plain fields or shapes differ.
    """
    own_arrays: Arrays = {}
    own = describe(skeleton, own_arrays)
    name = type(skeleton).__name__
    if own["class"] != described["class"]:
        raise ValueError(f"`load(model=...)` is a `{name}`, not `{described['class']}`")
    if own != described:
        a, b = own["fields"], described["fields"]
        assert isinstance(a, dict)
        differs = [k for k in {**a, **b} if a.get(k) != b.get(k)]
        raise ValueError(f"`load(model={name}(...))` differs in {', '.join(differs)}")
    for path, array in own_arrays.items():
        if arrays[path].shape != array.shape:
            raise ValueError(
                f"`load(model={name}(...))` has `{path}` of shape {array.shape}, the file "
                f"{arrays[path].shape}"
            )
    leaves, structure = jax.tree_util.tree_flatten_with_path(skeleton)
    filled = [
        jnp.asarray(arrays[jax.tree_util.keystr(path, simple=True, separator=".")])
        if eqx.is_array(leaf)
        else leaf
        for path, leaf in leaves
    ]
    return jax.tree_util.tree_unflatten(structure, filled)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on, by name."""
    names = ("jax", "jaxlib", "numpyro", "equinox", "numpy")
    return {
        "probkit": _version("probkit-bayes"),
        **{name: _version(name) for name in names},
        "python": platform.python_version(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# How the name of a file begins before it is complete.
UNFINISHED = ".probkit-unfinished-"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file in the folder of `path`, then rename it to `path`.

    The file is on the disk before it is renamed, so that a kill or a power cut leaves
    either the old file or the new one.

    Args:
        path: the file. Its folder exists.
        write: writes the content to an open binary file.
    """
    # Not `tempfile`, because only the owner may read its files.
    temporary = path.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
