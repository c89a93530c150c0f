"""The model families, imported as `probkit.models`."""

from importlib import import_module as _import_module
from typing import Any as _Any

__all__ = ["gp", "meta", "moe", "pde", "sbl", "tucker"]


def __getattr__(name: str) -> _Any:
    # Each is loaded where it is used.
    if name in __all__:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
