"""What is written down, as names and plain values, in files that are whole or absent."""

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
import numpy as np

Plain = str | int | float | bool | None | list | dict
OBJECT = "object"


def plain(value: Any, depth: int = 20) -> Plain:
    """`value` as JSON has it; what JSON has not is named, `{"object": name}`.

    A function made by another says of what values: two optimisers of one kind with
    different step sizes are told apart. Deeper than `depth` nothing is told.
    """
    if depth == 0:
        return "..."
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain(v, depth - 1) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v, depth - 1) for k, v in value.items()}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return np.asarray(value).tolist()
    if isinstance(value, eqx.Module):
        return describe(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    told: list[Any] = []
    if isinstance(value, functools.partial):
        told = [value.func, *value.args, value.keywords]
    elif inspect.isfunction(value):
        told = list(inspect.getclosurevars(value).nonlocals.values())
    named = {OBJECT: f"{getattr(value, '__module__', '?')}.{name}"}
    return named | ({"of": plain(told, depth - 1)} if told else {})


def _holds_object(value: Plain) -> bool:
    if isinstance(value, dict):
        return OBJECT in value or any(_holds_object(v) for v in value.values())
    return isinstance(value, list) and any(_holds_object(v) for v in value)


def family_name(cls: type) -> str:
    """`moe.SoftmaxMoE` for `probkit.models.moe.SoftmaxMoE`, in a file of a package too."""
    _, inside, path = cls.__module__.rpartition("probkit.models.")
    module = path.partition(".")[0] if inside else path.rpartition(".")[2]
    return f"{module}.{cls.__qualname__}"


def describe(module: eqx.Module) -> dict[str, Plain]:
    """A module of settings as its class and its fields, defaults included."""
    fields = {k: plain(v) for k, v in vars(module).items()}
    return {"class": family_name(type(module)), "fields": fields}


def rebuild(cls: type, fields: dict[str, Any]) -> Any:
    """A module from its fields.

    Raises:
        ValueError: if the class has no such fields, or refuses their values.
    """
    known = inspect.signature(cls).parameters
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ValueError(f"`{cls.__name__}` has no field {', '.join(unknown)}")
    objects = [name for name, value in fields.items() if _holds_object(value)]
    if objects:
        raise ValueError(f"`{cls.__name__}`: only the name of {objects[0]} is known")
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    try:
        return cls(**tuples)
    except TypeError as error:
        raise ValueError(str(error)) from None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
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


# How the name of a file begins that has not got its own name yet.
UNFINISHED = ".probkit-unfinished-"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write` on a temporary file beside `path`, then give it that name.

    The file is on the disk before it takes the name, so that a kill or a power cut
    leaves either the old file or the new one.
    """
    # Not `tempfile`: its files are for the owner's eyes alone, and stay so.
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
